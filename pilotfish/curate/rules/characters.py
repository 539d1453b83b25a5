r"""What kind of character each byte of a text belongs to, by table.

Rules ask whether a character is white space, part of a word, a letter, a mere symbol, the end of a line
or of a sentence. Each byte of a UTF-8 buffer gets these answers as bits: ASCII by a table of 256,
the rest by their code points, so that English costs half a nanosecond a byte and every script is right.
All bytes of a character carry the same bits.

Words are what ``re`` matches as ``\w``, and combining marks (Unicode M) with it, so that a Hindi word is
not cut at its vowel signs.
"""

from __future__ import annotations

import string
import unicodedata

import numpy as np
from numpy.typing import NDArray

SPACE, WORD, ALPHA, COUNTED, BREAK, TERMINAL = 1, 2, 4, 8, 16, 32
KIND = SPACE | WORD
"""Neighbours with different bits under this mask belong to different words."""

BREAKS = "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"  # as str.splitlines
# What alone makes no word that counts towards a text's length: ASCII punctuation, controls, sentence
# ends, and these. The choice is that of datatrove (its PUNCTUATION), so that decisions can be compared.
SYMBOLS = "«´»–—’“”„…∶━►、〈〉《》「」【】％（），１：；～"

# The Unicode property Sentence_Terminal, as pairs of first and last code point (Unicode 16).
_SENTENCE_TERMINAL = (
    "21 2E 3F 589 61D-61F 6D4 700-702 7F9 837 839 83D-83E 964-965 104A-104B 1362 1367-1368 166E 1735-1736"
    " 17D4-17D6 17D9-17DA 1803 1809 1944-1945 1AA8-1AAB 1B5A-1B5B 1B5E-1B5F 1B7D-1B7E 1C3B-1C3C 1C7E-1C7F"
    " 203C-203D 2047-2049 2E2E 2E3C 2E53-2E54 3002 A4FF A60E-A60F A6F3 A6F7 A876-A877 A8CE-A8CF A92F "
    "A9C8-A9C9 AA5D-AA5F AAF0-AAF1 ABEB FE52 FE56-FE57 FF01 FF0E FF1F FF61 10A56-10A57 10F55-10F59 "
    "10F86-10F89 11047-11048 110BE-110C1 11141-11143 111C5-111C6 111CD 111DE-111DF 11238-11239 "
    "1123B-1123C 112A9 1144B-1144C 115C2-115C3 115C9-115D7 11641-11642 1173C-1173E 11944 11946 "
    "11A42-11A43 11A9B-11A9C 11C41-11C42 11EF7-11EF8 11F43-11F44 16A6E-16A6F 16AF5 16B37-16B38 16B44 "
    "16E98 1BC9F 1DA88"
)


def _terminals() -> frozenset[str]:
    found: set[str] = set()
    for part in _SENTENCE_TERMINAL.split():
        first, _, last = part.partition("-")
        found.update(map(chr, range(int(first, 16), int(last or first, 16) + 1)))
    return frozenset(found)


TERMINALS = _terminals()
_MERE_SYMBOLS = frozenset(string.punctuation) | frozenset(SYMBOLS) | TERMINALS


def character_bits(character: str) -> int:
    r"""The bits of one character.

    >>> character_bits("a") == WORD | ALPHA | COUNTED, character_bits("."), character_bits("\n")
    (True, 32, 17)
    """
    category = unicodedata.category(character)
    bits = 0
    if character.isspace():
        bits |= SPACE
    elif character.isalnum() or character == "_" or category[0] == "M":
        bits |= WORD
    if character.isalpha():
        bits |= ALPHA
    if not character.isspace() and category != "Cc" and character not in _MERE_SYMBOLS:
        bits |= COUNTED
    if character in BREAKS:
        bits |= BREAK
    if character in TERMINALS:
        bits |= TERMINAL
    return bits


_ASCII = bytes(character_bits(chr(i)) if i < 128 else 0 for i in range(256))
_KNOWN = 128
_table = np.zeros(0x110000, np.uint8)  # filled as characters are met; 0 is not yet met


def _bits_of(points: NDArray[np.int64]) -> NDArray[np.uint8]:
    found = _table[points]
    if not found.all():
        for point in np.unique(points[found == 0]):
            _table[point] = character_bits(chr(point)) | _KNOWN
        found = _table[points]
    return found & np.uint8(_KNOWN - 1)


def classify(data: bytes, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The bits of every byte.

    Args:
        data: UTF-8; what is not UTF-8 gets no bits, like a symbol of no kind.
        codes: The same bytes as an array, followed by at least 3 zeros.

    Returns:
        As many bytes as ``data`` has.
    """
    bits = np.frombuffer(data.translate(_ASCII), np.uint8)
    if data.isascii():
        return bits
    bits = bits.copy()
    leads = np.flatnonzero(codes[: len(data)] >= 0xC2)
    first = codes[leads].astype(np.int64)
    length = 2 + (first >= 0xE0) + (first >= 0xF0)
    for n in (2, 3, 4):
        at = leads[length == n]
        at = at[at + n <= len(data)]
        points = codes[at].astype(np.int64) & (0xFF >> (n + 1))
        for k in range(1, n):
            points = points << 6 | (codes[at + k] & 0x3F)
        found = _bits_of(np.minimum(points, 0x10FFFF))
        for k in range(n):
            bits[at + k] = found
    return bits


def word_pattern() -> str:
    """The words of :class:`~pilotfish.curate.rules.documents.Documents` as a pattern for ``re``.

    For oracles and for other tools that are to cut words alike; matching by it is slow.
    """
    marks: list[list[int]] = []
    for point in range(0x110000):
        if unicodedata.category(chr(point))[0] == "M":
            if marks and marks[-1][1] == point - 1:
                marks[-1][1] = point
            else:
                marks.append([point, point])
    ranges = "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in marks)
    return f"[\\w{ranges}]+|[^\\w\\s{ranges}]+"
