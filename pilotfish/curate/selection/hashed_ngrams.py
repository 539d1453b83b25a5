"""Words and pairs of words, hashed into buckets, as the authors of DSIR count them.

A text is lower-cased and cut into runs of word characters and runs of other marks that are no white
space, as NLTK's ``WordPunctTokenizer`` does. Word characters are those of Unicode (UTS 18, Annex C): NLTK
before 3.10 took Python's own, without combining marks, which cuts Hindi words at their vowel signs. An
n-gram is its words with a space between, and its bucket is the SHA-256 of that, as a number, modulo the
number of buckets. So weights equal those of the package
``data-selection``. The hash is computed once for each different n-gram of a batch, which is what makes
it affordable.
"""

from __future__ import annotations

import hashlib
import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import cache

import numpy as np
from numpy.typing import NDArray

_SPACE = (
    r"\t-\r \x85\xa0\u1680\u2000-\u200a\u2028\u2029\u202f\u205f\u3000"  # White_Space; re has \x1c
)
_ASCII_WORDS = re.compile(r"\w+|[^\w\t-\r ]+")
PIECE_CHARS = 1 << 21  # texts that are looked at together; more words than this hold are rarely new


@cache
def word_pattern() -> re.Pattern[str]:
    """What cuts texts in any script into words; takes 0.3 s to make.

    >>> word_pattern().findall("हिन्दी x² don't")
    ['हिन्दी', 'x', '²', 'don', "'", 't']
    """
    ranges: list[list[int]] = []
    for code in range(sys.maxunicode + 1):
        if _is_word(code):
            if ranges and ranges[-1][1] == code - 1:
                ranges[-1][1] = code
            else:
                ranges.append([code, code])
    word = "".join(f"{chr(first)}-{chr(last)}" for first, last in ranges)
    return re.compile(rf"[{word}]+|[^{word}{_SPACE}]+")


def _is_word(code: int) -> bool:
    kind = unicodedata.category(chr(code))
    if kind[0] in "LM" or kind in ("Nd", "Nl", "Pc"):
        return True
    circled = 0x24B6 <= code <= 0x24E9 or 0x1F130 <= code <= 0x1F189
    joiner = code in (0x200C, 0x200D)
    return joiner or (circled and "LATIN" in unicodedata.name(chr(code), ""))


class _Numbers(dict[str, int]):
    """Numbers words in the order in which they are met."""

    def __missing__(self, word: str) -> int:
        number = self[word] = len(self)
        return number


def bucket(ngram: str, buckets: int) -> int:
    """The bucket of an n-gram.

    >>> bucket("small fish", 10_000)
    8127
    """
    return int.from_bytes(hashlib.sha256(ngram.encode()).digest(), "big") % buckets


def hashed_ngrams(
    texts: Sequence[str], n: int, buckets: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    """The buckets of all 1-grams to ``n``-grams of each text.

    Args:
        texts: ``m`` texts.
        n: 1 or more.
        buckets: At most 2**32.

    Returns:
        The buckets, those of text ``i`` at ``offsets[i]`` to ``offsets[i + 1]``; the ``m + 1`` offsets;
        and the number of words of each text.
    """
    parts, sizes, words = [], [np.zeros(1, np.int64)], []
    first = 0
    while first < len(texts):
        last, chars = first, 0
        while last < len(texts) and (last == first or chars + len(texts[last]) <= PIECE_CHARS):
            chars += len(texts[last])
            last += 1
        found, size, counted = _piece(texts[first:last], n, buckets)
        parts.append(found)
        sizes.append(size)
        words.append(counted)
        first = last
    return (
        np.concatenate([np.zeros(0, np.uint32), *parts]),
        np.cumsum(np.concatenate(sizes)),
        np.concatenate([np.zeros(0, np.int64), *words]),
    )


def _piece(
    texts: Sequence[str], n: int, buckets: int
) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
    tokens: list[str] = []
    lengths = np.zeros(len(texts), np.int64)
    for i, text in enumerate(texts):
        pattern = _ASCII_WORDS if text.isascii() else word_pattern()
        found = pattern.findall(text.lower())
        lengths[i] = len(found)
        tokens += found
    numbers = _Numbers()
    ids = np.fromiter(map(numbers.__getitem__, tokens), np.int64, len(tokens))
    grams = list(numbers)  # the n-gram that each id of the present length stands for
    vocabulary = grams
    owner = np.repeat(np.arange(len(texts)), lengths)
    single = ids
    found_buckets, owners = [_hashed(grams, buckets)[ids]], [owner]
    for size in range(2, n + 1):
        # What begins at i and has `size` words: what begins there and has one less, and a word more.
        ends = single[size - 1 :]
        inside = owner[: len(ends)] == owner[size - 1 :]
        starts = ids[: len(ends)]
        pairs, which = np.unique(starts * len(vocabulary) + ends, return_inverse=True)
        heads, tails = np.divmod(pairs, max(1, len(vocabulary)))
        grams = [
            f"{grams[head]} {vocabulary[tail]}"
            for head, tail in zip(heads.tolist(), tails.tolist(), strict=True)
        ]
        ids = which
        found_buckets.append(_hashed(grams, buckets)[ids[inside]])
        owners.append(owner[: len(ends)][inside])
    owner = np.concatenate(owners)
    order = np.argsort(owner, kind="stable")
    return (
        np.concatenate(found_buckets)[order],
        np.bincount(owner, minlength=len(texts)),
        lengths,
    )


def _hashed(grams: Sequence[str], buckets: int) -> NDArray[np.uint32]:
    sha256, number = hashlib.sha256, int.from_bytes
    found = [number(sha256(gram.encode()).digest(), "big") % buckets for gram in grams]
    return np.array(found, np.uint32)
