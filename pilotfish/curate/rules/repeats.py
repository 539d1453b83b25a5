"""Repeated lines, paragraphs and word n-grams, counted within each document.

The repetition rules of Gopher (Rae et al. 2021, section A1.1) need, for nine lengths of n-gram, how often
each occurs. An (n + 1)-gram can only occur twice where its first and its last n words do, so each length
looks only at what the one before found repeated: soon a small part of the text.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import from_arrow, to_arrow
from pilotfish.curate.rules.documents import Documents, Positions, Spans, total
from pilotfish.curate.rules.hashing import hash_beginnings, hash_spans, mix


def number(keys: NDArray[np.uint64]) -> NDArray[np.int64]:
    """Equal keys get equal numbers, counted from 0 in the order of their first occurrence.

    >>> number(np.array([7, 7, 3, 7], np.uint64)).tolist()
    [0, 0, 1, 0]
    """
    if not len(keys):
        return np.zeros(0, np.int64)
    return from_arrow(to_arrow(keys).dictionary_encode().indices)


def again(numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether each number has been seen before; numbers as from :func:`number`.

    >>> again(np.array([0, 1, 0, 2])).tolist()
    [False, False, True, False]
    """
    seen = np.ones(len(numbers), np.bool_)
    if len(numbers):
        seen[0] = False
        np.less_equal(numbers[1:], np.maximum.accumulate(numbers)[:-1], out=seen[1:])
    return seen


def salt(documents: Positions) -> NDArray[np.uint64]:
    """What makes hashes in different documents different: what two have is repeated in neither."""
    return mix(documents.astype(np.uint64) + np.uint64(1))


def repeated_spans(documents: Documents, spans: Spans) -> tuple[Positions, Positions]:
    """How many of each document's spans repeat an earlier one, and their characters."""
    repeats = np.zeros(len(spans.starts), np.bool_)
    salted = salt(spans.documents)
    # Few spans share their length and their first bytes with another of the document.
    numbers = number(hash_beginnings(documents.codes, spans.starts, spans.ends) ^ salted)
    alike = np.flatnonzero((np.bincount(numbers) > 1)[numbers])
    hashes = hash_spans(documents.codes, spans.starts[alike], spans.ends[alike])
    repeats[alike] = again(number(hashes ^ salted[alike]))
    return total(repeats, spans.offsets), total(documents.chars(spans) * repeats, spans.offsets)


@dataclass(frozen=True)
class Grams:
    """The n-grams that occur more than once in their document.

    Attributes:
        n: Words in each.
        at: Where each occurrence begins: numbers of words, ascending.
        number: Equal n-grams of one document have equal numbers, others have others; counted from 0 in
            the order of their first occurrence.
    """

    n: int
    at: Positions
    number: NDArray[np.int64]


def _repeated(n: int, at: Positions, keys: NDArray[np.uint64]) -> Grams:
    numbers = number(keys)
    more = np.bincount(numbers)[numbers] > 1
    return Grams(n, at[more], number(numbers[more].astype(np.uint64)))


def repeated_grams(documents: Documents, longest: int) -> Iterator[Grams]:
    """The repeated n-grams of words, for each n from 1 to ``longest``."""
    words = documents.words
    keys = documents.word_hashes ^ salt(words.documents)
    grams = _repeated(1, np.arange(len(keys)), keys)
    yield grams
    for n in range(2, longest + 1):
        # Two repeated grams at neighbouring words: the second lies in the same document, and so does
        # the longer gram.
        pair = np.flatnonzero(grams.at[1:] == grams.at[:-1] + 1)
        if n == 2:
            pair = pair[~np.isin(grams.at[pair + 1], words.offsets)]
        numbers = grams.number.astype(np.uint64)
        grams = _repeated(n, grams.at[pair], numbers[pair] << np.uint64(32) | numbers[pair + 1])
        yield grams


def top_gram_chars(documents: Documents, grams: Grams) -> Positions:
    """Characters covered by each document's most frequent n-gram: its length times its count.

    The words of an n-gram are joined by one space; of several equally frequent, the first counts, as of
    n-grams that occur once.
    """
    words, n = documents.words, grams.n
    before = documents.word_chars_before
    # Count and position packed into one number, the largest of which is the most frequent, then the
    # earliest; there is room for 2**31 of either.
    best = np.zeros(len(documents), np.int64)
    first = np.flatnonzero(~again(grams.number))
    document = np.searchsorted(words.offsets, grams.at[first], side="right") - 1
    counts = np.bincount(grams.number)
    rank = counts << 32 | (2**32 - 1 - grams.at[first])
    np.maximum.at(best, document, rank)
    start = np.where(best > 0, 2**32 - 1 - (best & (2**32 - 1)), words.offsets[:-1])
    count = np.maximum(best >> 32, 1)
    enough = np.diff(words.offsets) >= n
    start = np.where(enough, start, 0)
    end = np.where(enough, start + n, 0)
    chars: Positions = np.where(enough, count * (before[end] - before[start] + n - 1), 0)
    return chars


def most_repeated_chars(documents: Documents, grams: Grams) -> Positions:
    """At most how many characters :func:`repeated_gram_chars` finds: all those in a later occurrence."""
    before = documents.word_chars_before
    at = grams.at[again(grams.number)]
    begin = at.copy()
    begin[1:] = np.maximum(at[1:], at[:-1] + grams.n)
    covered = before[at + grams.n] - before[begin]
    return total(covered, np.searchsorted(at, documents.words.offsets))


def repeated_gram_chars(documents: Documents, grams: Grams, document: int) -> int:
    """Characters of one document in n-grams that occurred before, no character counted twice.

    Read from left to right: an n-gram that was seen counts and is stepped over, one that was not is
    remembered. The words alone count, not what is between them.
    """
    words = documents.words
    first, last = np.searchsorted(grams.at, words.offsets[document : document + 2])
    seen: set[int] = set()
    found = []
    free = 0
    for at, gram in zip(
        grams.at[first:last].tolist(), grams.number[first:last].tolist(), strict=True
    ):
        if at < free:
            continue
        if gram in seen:
            found.append(at)
            free = at + grams.n
        else:
            seen.add(gram)
    before = documents.word_chars_before
    where = np.array(found, np.int64)
    return int((before[where + grams.n] - before[where]).sum())
