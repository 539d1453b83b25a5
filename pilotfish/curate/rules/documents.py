"""Some documents as one buffer of bytes, and where their words, lines and paragraphs are.

Rules count words, lines and what is in them. Everything is found for all documents at once, by array
operations on the concatenated bytes, and only when a rule asks. Positions are those of bytes in the
buffer; a word, line or paragraph never reaches from one document into the next.

Batches are cut into pieces of a quarter of a megabyte, so that the arrays stay in the processor's cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.rules.characters import BREAK, COUNTED, KIND, SPACE, classify
from pilotfish.curate.rules.hashing import PADDING, hash_spans

Positions = NDArray[np.int64]
PIECE = 1 << 18  # bytes
_NEWLINE = 10


class Spans(NamedTuple):
    """Stretches of the buffer in order.

    Attributes:
        starts: Where each begins.
        ends: Where each ends; ``start == end`` is an empty one.
        offsets: Those of document ``d`` are ``offsets[d]`` to ``offsets[d + 1]``.
    """

    starts: Positions
    ends: Positions
    offsets: Positions

    @property
    def documents(self) -> Positions:
        """The document of each."""
        return np.repeat(np.arange(len(self.offsets) - 1), np.diff(self.offsets))

    def only(self, wanted: NDArray[np.bool_]) -> Spans:
        """Those that are wanted."""
        kept = np.concatenate(([0], np.cumsum(wanted)))
        return Spans(self.starts[wanted], self.ends[wanted], kept[self.offsets])


class Documents:
    """``n`` texts, one after another in a buffer.

    Args:
        data: Their UTF-8 bytes.
        offsets: Text ``d`` is ``data[offsets[d] : offsets[d + 1]]``; ``n + 1`` positions from 0 on.
    """

    def __init__(self, data: bytes, offsets: Positions) -> None:
        self.data = data
        self.offsets = offsets
        self.codes: NDArray[np.uint8] = np.frombuffer(data + bytes(PADDING), np.uint8)

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @cached_property
    def bits(self) -> NDArray[np.uint8]:
        """What kind of character each byte belongs to (:mod:`~pilotfish.curate.rules.characters`)."""
        return classify(self.data, self.codes)

    @cached_property
    def _chars_before(self) -> NDArray[Any] | None:
        if self.data.isascii():
            return None
        first = (self.codes[: len(self.data)] & 0xC0) != 0x80
        before: NDArray[Any] = np.zeros(len(first) + 1, _counter(len(first)))
        np.cumsum(first, out=before[1:])
        return before

    def chars(self, spans: Spans) -> Positions:
        """The number of characters of each."""
        before = self._chars_before
        if before is None:
            return spans.ends - spans.starts
        counted: Positions = (before[spans.ends] - before[spans.starts]).astype(np.int64)
        return counted

    @cached_property
    def whole(self) -> Spans:
        """Each document from end to end."""
        return Spans(self.offsets[:-1], self.offsets[1:], np.arange(len(self) + 1))

    @cached_property
    def length(self) -> Positions:
        """The number of characters of each document."""
        return self.chars(self.whole)

    @cached_property
    def words(self) -> Spans:
        """Runs of word characters, and runs of what is neither word character nor white space."""
        kind = self.bits & KIND
        new = np.empty(len(kind) + 1, np.bool_)
        np.not_equal(kind[1:], kind[:-1], out=new[1:-1])
        new[self.offsets] = True
        cuts = np.flatnonzero(new)
        starts, ends = cuts[:-1], cuts[1:]
        dark = kind[starts] != SPACE
        return self._spans(starts[dark], ends[dark])

    @cached_property
    def word_bits(self) -> NDArray[np.uint8]:
        """For each word, the bits that any of its characters has."""
        if not len(self.words.starts):
            return np.zeros(0, np.uint8)
        # Up to the next word: what lies between is white space, whose bits no rule asks of a word.
        return np.bitwise_or.reduceat(self.bits, self.words.starts)

    @cached_property
    def word_hashes(self) -> NDArray[np.uint64]:
        """A hash of each word."""
        return hash_spans(self.codes, self.words.starts, self.words.ends)

    @cached_property
    def word_chars(self) -> Positions:
        """The number of characters of each word."""
        return self.chars(self.words)

    @cached_property
    def word_chars_before(self) -> Positions:
        """How many characters all words before each word have; one more entry than words."""
        return np.concatenate(([0], np.cumsum(self.word_chars)))

    @cached_property
    def counted_words(self) -> NDArray[np.bool_]:
        """Whether each word is more than punctuation."""
        counted: NDArray[np.bool_] = (self.word_bits & COUNTED) != 0
        return counted

    @cached_property
    def tokens(self) -> Spans:
        """What stands between white space, as ``str.split`` cuts it."""
        words = self.words
        opens = np.ones(len(words.starts) + 1, np.bool_)
        np.not_equal(words.starts[1:], words.ends[:-1], out=opens[1:-1])
        opens[words.offsets] = True
        return self._spans(words.starts[opens[:-1]], words.ends[opens[1:]])

    @cached_property
    def newlines(self) -> Positions:
        r"""Where ``\n`` is."""
        return np.flatnonzero(self.codes[: len(self.data)] == _NEWLINE)

    @cached_property
    def segments(self) -> Spans:
        r"""What ``split("\n")`` gives: one more than there are newlines."""
        return self._cut(self.newlines, self.newlines + 1)

    @cached_property
    def lines(self) -> Spans:
        r"""What ``splitlines()`` gives: ``\r``, ``\r\n`` and other breaks too; no empty last line."""
        breaks = np.flatnonzero(self.bits & BREAK)
        if len(breaks) == len(self.newlines):
            cut = self.segments
        else:
            breaks = breaks[(self.codes[breaks] & 0xC0) != 0x80]  # the first byte of each character
            first = self.codes[breaks]
            after = breaks + 1 + (first >= 0xC2) + (first >= 0xE0)
            # \r\n is one break, unless one document ends and the next begins between the two.
            pair = (first[:-1] == 13) & (first[1:] == 10) & (after[:-1] == breaks[1:])
            pair &= ~np.isin(breaks[1:], self.offsets)
            second = np.concatenate((np.zeros(1, np.bool_), pair))
            after[:-1][pair] += 1
            cut = self._cut(breaks[~second], after[~second])
        wanted = np.ones(len(cut.starts), np.bool_)
        last = cut.offsets[1:] - 1
        wanted[last] = cut.ends[last] > cut.starts[last]
        return cut.only(wanted)

    @cached_property
    def stripped(self) -> Spans:
        """Each document without the white space at its ends."""
        return self.strip(self.whole)

    @cached_property
    def paragraphs(self) -> Spans:
        """What stands between two or more newlines, of the stripped documents."""
        newlines, text = self.newlines, self.stripped
        opens = np.ones(len(newlines), np.bool_)
        opens[1:] = newlines[1:] != newlines[:-1] + 1
        first = newlines[opens]
        last = newlines[np.concatenate((opens[1:], np.ones(min(1, len(newlines)), np.bool_)))]
        document = np.searchsorted(self.offsets, first, side="right") - 1
        inside = (first >= text.starts[document]) & (last < text.ends[document]) & (last > first)
        first, last = first[inside], last[inside]
        starts = np.sort(np.concatenate((text.starts, last + 1)), kind="stable")
        ends = np.sort(np.concatenate((text.ends, first)), kind="stable")
        counts = 1 + np.bincount(document[inside], minlength=len(self))
        return Spans(starts, ends, np.concatenate(([0], np.cumsum(counts))))

    def word_range(self, spans: Spans) -> tuple[Positions, Positions]:
        """The first word in each stretch, and the one after the last; equal where it is blank."""
        starts = self.words.starts
        return np.searchsorted(starts, spans.starts), np.searchsorted(starts, spans.ends)

    def strip(self, spans: Spans) -> Spans:
        """Each stretch without the white space at its ends; a blank one is empty at its start.

        Stretches must not cut words.
        """
        first, after = self.word_range(spans)
        dark = after > first
        starts, ends = spans.starts.copy(), spans.starts.copy()
        starts[dark] = self.words.starts[first[dark]]
        ends[dark] = self.words.ends[after[dark] - 1]
        return Spans(starts, ends, spans.offsets)

    def ends_with(self, spans: Spans, suffix: bytes) -> NDArray[np.bool_]:
        """Whether each stretch ends with these bytes."""
        found = spans.ends - spans.starts >= len(suffix)
        for back, code in enumerate(reversed(suffix), start=1):
            # Where the stretch is too short the position may be before the buffer; it is False anyway.
            found &= self.codes[spans.ends - back] == code
        return found

    def starts_with(self, spans: Spans, prefix: bytes) -> NDArray[np.bool_]:
        """Whether each stretch begins with these bytes."""
        found = spans.ends - spans.starts >= len(prefix)
        for ahead, code in enumerate(prefix):
            found &= self.codes[np.minimum(spans.starts + ahead, len(self.data))] == code
        return found

    def find(self, pattern: bytes, data: bytes | None = None) -> Positions:
        """Where a pattern begins, within a document; occurrences that overlap are all found.

        Args:
            pattern: At least one byte.
            data: Search in this instead, of the same length (a lower-case copy).
        """
        text = self.data if data is None else data
        if len(pattern) == 1:
            return np.flatnonzero(np.frombuffer(text, np.uint8) == pattern[0])
        found = []
        at = text.find(pattern)
        while at >= 0:
            found.append(at)
            at = text.find(pattern, at + 1)
        where = np.array(found, np.int64)
        document = np.searchsorted(self.offsets, where, side="right") - 1
        return where[where + len(pattern) <= self.offsets[document + 1]]

    def count(self, positions: Positions) -> Positions:
        """How many of these ascending positions are in each document."""
        return np.diff(np.searchsorted(positions, self.offsets))

    def _spans(self, starts: Positions, ends: Positions) -> Spans:
        return Spans(starts, ends, np.searchsorted(starts, self.offsets))

    def _cut(self, ends: Positions, starts: Positions) -> Spans:
        # Both halves ascend already, which a stable sort merges in one pass.
        counts = 1 + np.diff(np.searchsorted(ends, self.offsets))
        return Spans(
            np.sort(np.concatenate((self.offsets[:-1], starts)), kind="stable"),
            np.sort(np.concatenate((ends, self.offsets[1:])), kind="stable"),
            np.concatenate(([0], np.cumsum(counts))),
        )


def _counter(most: int) -> type[np.signedinteger[Any]]:
    return np.int32 if most < 2**31 else np.int64


def total(values: NDArray[np.generic], offsets: Positions) -> Positions:
    """Sums of ``values[offsets[d] : offsets[d + 1]]``; 0 where there are none.

    >>> total(np.array([1, 2, 3]), np.array([0, 2, 2, 3])).tolist()
    [3, 0, 3]
    """
    before = np.concatenate(([0], np.cumsum(values, dtype=np.int64)))
    summed: Positions = before[offsets[1:]] - before[offsets[:-1]]
    return summed


def share(part: NDArray[np.generic], of: NDArray[np.generic]) -> NDArray[np.float64]:
    """``part / of``, and 0 where there is nothing to have a part of."""
    shares = np.zeros(len(part))
    np.divide(part, of, out=shares, where=of != 0)
    return shares


def pieces(texts: pa.Array, size: int = PIECE) -> Iterator[Documents]:
    """The texts of a column, in pieces of about ``size`` bytes; a longer text is a piece of its own.

    Args:
        texts: Strings; a null is an empty text.
        size: Bytes.
    """
    if texts.type != pa.large_string():
        texts = texts.cast(pa.large_string())
    if texts.null_count:
        texts = texts.fill_null("")
    if not len(texts):
        return
    _, where, content = texts.buffers()
    offsets = np.frombuffer(where, np.int64, len(texts) + 1, texts.offset * 8)
    view = memoryview(content) if content is not None else memoryview(b"")
    first = 0
    while first < len(texts):
        last = int(np.searchsorted(offsets, offsets[first] + size, side="right")) - 1
        last = min(max(last, first + 1), len(texts))
        begin, end = int(offsets[first]), int(offsets[last])
        yield Documents(bytes(view[begin:end]), offsets[first : last + 1] - begin)
        first = last
