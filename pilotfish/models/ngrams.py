"""Texts to hashed n-grams, without a Python loop over characters or words.

scikit-learn's vectorisers build every character n-gram as a Python string: about 1,500 short texts a
second on the machine of ``benchmarks/students.py``, where a student must serve 20,000. Here a batch
of texts is one array of code points, and all its n-grams are hashed by array arithmetic:

- character n-grams: a rolling polynomial hash, one multiplication and one addition per n-gram;
- words and word pairs: differences of a running polynomial sum (Karp and Rabin 1987), so a word costs
  the same whatever its length.

Hashes are folded to ``2**bits`` buckets ("the hashing trick", Weinberger et al. 2009; unsigned). A
:class:`~pilotfish.models.tfidf.Vocabulary` then gives the buckets that training texts use a column
and an inverse document frequency; nothing else is stored, so a served student needs no tokenizer and
no strings.

Difference from the usual TF-IDF: an n-gram that occurs twice in a text counts as two features of the
same column when the norm is computed, so that nothing needs to be sorted.
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int32]

MAX_CHARS = 20_000
"""Characters of one text that are read; a 1 MB text costs what a long page costs."""

_P32 = np.uint32(0x01000193)
_MIX_A, _MIX_B = np.uint32(0x7FEB352D), np.uint32(0x846CA68B)
_P64 = 0x9E3779B97F4A7C15
_P64_INVERSE = pow(_P64, -1, 2**64)
_MIX64 = np.uint64(0xD6E8FEB86659FD93)


@dataclass(frozen=True, slots=True)
class Block:
    """Occurrences of one kind of n-gram in a batch: a CSR pattern whose values are all one.

    Attributes:
        buckets: Bucket of each occurrence, ``[occurrences]``, grouped by text.
        indptr: ``[texts + 1]``; the occurrences of text ``i`` are ``indptr[i]:indptr[i + 1]``.
    """

    buckets: Ints
    indptr: Ints


@functools.cache
def _word_table() -> NDArray[np.uint8]:
    """Per code point of the basic plane: 0 separator, 1 part of a word, 2 a word by itself."""
    table = np.zeros(0x10001, np.uint8)
    for code in range(0x10000):
        if unicodedata.category(chr(code))[0] in "LNM" or code == 0x5F:
            table[code] = 1
    # Chinese and Japanese are written without spaces: each character is a word, so that word pairs
    # are character pairs.
    for low, high in ((0x3040, 0x30FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF)):
        table[low : high + 1] = 2
    table[0x10000] = 2  # beyond the basic plane: emoji and rare ideographs
    return table


@functools.lru_cache(maxsize=8)
def _powers(base: int, count: int) -> NDArray[np.uint64]:
    """``base**0 .. base**(count - 1)`` modulo 2**64."""
    out = np.full(count, base, np.uint64)
    out[0] = 1
    return np.multiply.accumulate(out)


def _clean(text: str) -> str:
    text = text[:MAX_CHARS]
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)[:MAX_CHARS]
    return " ".join(text.lower().split())


@dataclass(frozen=True, slots=True)
class Packed:
    """A batch of texts as one array of code points, each text between two spaces of its own.

    Attributes:
        codes: ``[characters]``.
        ends: Where each text's closing space ends, ``[texts]``.
    """

    codes: NDArray[np.uint32]
    ends: NDArray[np.int64]


def pack(texts: Sequence[str]) -> Packed:
    """Pack texts after NFKC normalisation, lower-casing and collapsing of white space.

    Only the first :data:`MAX_CHARS` characters of each are read.
    """
    cleaned = [_clean(text) for text in texts]
    lengths = np.fromiter(map(len, cleaned), np.int64, len(cleaned))
    joined = f" {'  '.join(cleaned)} " if cleaned else ""
    codes = np.frombuffer(joined.encode("utf-32-le", "surrogatepass"), np.uint32)
    return Packed(codes, np.cumsum(lengths + 2))


def hash_ngrams(packed: Packed, *, words: int, chars: tuple[int, int], bits: int) -> list[Block]:
    """Hash the n-grams of a batch.

    Args:
        packed: ``n`` texts.
        words: Longest word n-gram (0: none, 1: words, 2: words and pairs).
        chars: Shortest (at least 2) and longest character n-gram ((0, 0): none). They reach from a
            space to the next space, both included, and not beyond.
        bits: Buckets are ``2**bits``, at most 2**31.

    Returns:
        One block per n-gram length: words first, then characters.
    """
    blocks = []
    if words:
        blocks += _word_blocks(packed.codes, packed.ends, words, bits)
    if chars[1]:
        blocks += _char_blocks(packed.codes, packed.ends, chars, bits)
    return blocks


def _char_blocks(
    codes: NDArray[np.uint32], ends: NDArray[np.int64], chars: tuple[int, int], bits: int
) -> list[Block]:
    blocks = []
    space = codes == 32
    rolling = codes * _MIX_B
    mixed = rolling
    inner = np.zeros(len(codes), bool)  # a space strictly inside the n-gram
    shift = np.uint32(32 - bits)
    for n in range(2, chars[1] + 1):
        rolling = rolling[:-1] * _P32 + mixed[n - 1 :]
        inner = inner[:-1] | space[n - 2 : -1] if n > 2 else inner[:-1]
        if n < chars[0]:
            continue
        hashed = rolling ^ (rolling >> np.uint32(15))
        hashed *= _MIX_A
        hashed += np.uint32(n)
        hashed *= _MIX_B
        hashed >>= shift
        # Only the pair of spaces between two texts crosses them, and it is no n-gram of either.
        keep = ~inner
        if n == 2:
            keep &= ~(space[:-1] & space[1:])
        blocks.append(Block(hashed[keep].view(np.int32), _pointers(keep, ends)))
    return blocks


def _pointers(keep: NDArray[np.bool_], ends: NDArray[np.integer[Any]]) -> NDArray[np.int32]:
    """How many are kept before the start of each text, and in all: ``[texts + 1]``."""
    if len(ends) == 1:  # a decision: these are a tenth of its time otherwise
        return np.array([0, np.count_nonzero(keep)], np.int32)
    count = np.zeros(max(len(keep), int(ends[-1])) + 1 if len(ends) else 1, np.int32)
    np.cumsum(keep, out=count[1 : len(keep) + 1])
    count[len(keep) + 1 :] = count[len(keep)]
    out = np.zeros(len(ends) + 1, np.int32)
    out[1:] = count[ends]
    return out


def _word_blocks(
    codes: NDArray[np.uint32], ends: NDArray[np.int64], words: int, bits: int
) -> list[Block]:
    kind = _word_table()[np.minimum(codes, 0x10000)]
    previous = np.empty_like(kind)
    previous[:1] = 0
    previous[1:] = kind[:-1]
    starts = np.flatnonzero((kind > 0) & ((kind == 2) | (previous != 1)))
    following = np.empty_like(kind)
    following[-1:] = 0
    following[:-1] = kind[1:]
    stops = np.flatnonzero((kind > 0) & ((kind == 2) | (following != 1))) + 1
    size = 1 << max(8, len(codes).bit_length())
    running = np.zeros(len(codes) + 1, np.uint64)
    np.cumsum(codes * _powers(_P64, size)[: len(codes)], out=running[1:])
    hashed = (running[stops] - running[starts]) * _powers(_P64_INVERSE, size)[starts]
    hashed ^= hashed >> np.uint64(32)
    hashed *= _MIX64
    hashed ^= hashed >> np.uint64(29)
    indptr = np.zeros(len(ends) + 1, np.int32)
    indptr[1:] = np.searchsorted(starts, ends)
    shift = np.uint64(64 - bits)
    blocks = [Block(((hashed * _MIX64) >> shift).astype(np.int32), indptr)]
    for n in range(2, words + 1):
        row = np.repeat(np.arange(len(ends)), np.diff(indptr))
        last = len(hashed) - n + 1
        pair = np.zeros(max(last, 0), np.uint64)
        for j in range(n):
            pair = pair * np.uint64(_P64) + hashed[j : j + len(pair)]
        pair ^= pair >> np.uint64(31)
        keep = row[: len(pair)] == row[n - 1 :][: len(pair)]
        bucket = ((pair[keep] * _MIX64) >> shift).astype(np.int32)
        blocks.append(Block(bucket, _pointers(keep, indptr[1:])))
    return blocks
