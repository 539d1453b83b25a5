r"""Shingles of texts, hashed: each run of so many words, for all texts of a batch at once.

A word is what ``re`` matches as ``\w+`` (with combining marks), in lower case or not; what stands between
words does not count. Scripts that put no blanks between words (Han, kana, Thai, Lao, Khmer, Burmese) give
a word for each character, where datatrove asks a tokenizer of the language.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pilotfish.curate.rules.characters import WORD
from pilotfish.curate.rules.documents import Documents
from pilotfish.curate.rules.hashing import hash_spans, mix

_ODD = np.uint64(0x9E3779B97F4A7C15)
_HALF = np.uint64(32)
# In UTF-8 the first byte, and where it is not enough the second (first and last), of characters of three
# bytes that are words of their own: U+3040 to U+9FFF, Thai and Lao, Burmese, Khmer.
_ALONE = ((0xE0, 0xB8, 0xBB), (0xE1, 0x80, 0x82), (0xE1, 0x9E, 0x9F))


class Shingles(NamedTuple):
    """The shingles of ``n`` texts.

    Attributes:
        hashes: 32 bits each, text after text.
        starts: Where those of each text with at least one word begin.
        documents: Which texts these are.
    """

    hashes: NDArray[np.uint32]
    starts: NDArray[np.int64]
    documents: NDArray[np.int64]


def shingles(documents: Documents, n: int) -> Shingles:
    """Runs of ``n`` words; a text of fewer words, but at least one, is one shingle.

    The hash of 32 bits is enough: of two texts of 10,000 different shingles each, 0.02 are taken for the
    same by chance.
    """
    starts, ends, offsets = _words(documents)
    words = hash_spans(documents.codes, starts, ends)
    counts = np.diff(offsets)
    runs = np.maximum(counts - n + 1, np.minimum(counts, 1))
    after = np.cumsum(runs)
    # The first word of each shingle.
    first = np.arange(after[-1]) + np.repeat(offsets[:-1] - (after - runs), runs)
    hashes = words[first]
    short = np.repeat(counts, runs) if (counts < n).any() else None
    for k in range(1, n):
        if short is None:
            hashes = hashes * _ODD + words[first + k]
        else:
            more = words[np.minimum(first + k, len(words) - 1)]
            hashes = np.where(short > k, hashes * _ODD + more, hashes)
    filled = np.flatnonzero(runs)
    return Shingles((mix(hashes) >> _HALF).astype(np.uint32), (after - runs)[filled], filled)


def _words(
    documents: Documents,
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Where words begin and end, and the first word of each text with one entry more."""
    word = (documents.bits & WORD) != 0
    cut = np.empty(len(word) + 1, np.bool_)
    np.not_equal(word[1:], word[:-1], out=cut[1:-1])
    if not documents.data.isascii():
        alone = _alone(documents.codes[: len(word)])
        cut[alone] = True
        cut[alone + 3] = True
    cut[documents.offsets] = True
    cuts = np.flatnonzero(cut)
    dark = word[cuts[:-1]]
    starts, ends = cuts[:-1][dark], cuts[1:][dark]
    return starts, ends, np.searchsorted(starts, documents.offsets)


def _alone(codes: NDArray[np.uint8]) -> NDArray[np.int64]:
    """Where the characters begin that are words of their own."""
    lead = np.flatnonzero((codes >= 0xE0) & (codes < 0xEA))
    lead = lead[lead + 3 <= len(codes)]
    first, second = codes[lead], codes[lead + 1]
    alone = first >= 0xE3
    for code, low, high in _ALONE:
        alone |= (first == code) & (second >= low) & (second <= high)
    return lead[alone]
