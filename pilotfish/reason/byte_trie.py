"""A vocabulary sorted by the bytes of its tokens: what a token that begins so may go on with.

Tokens that begin with the same bytes are neighbours in the sorted list, so the probability of "the next
token begins with these bytes" is the sum over a range, and what follows these bytes splits the range.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Doubles = NDArray[np.float64]
Floats = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Span:
    """The tokens that begin with certain bytes, as a range of the sorted vocabulary.

    Attributes:
        low: Where the range begins; the tokens that are these bytes and no more come first.
        longer: Where those begin that have more.
        high: Where it ends.
        following: The bytes that may follow, ascending.
        starts: Where the tokens with each of them begin, from ``longer``.
    """

    low: int
    longer: int
    high: int
    following: NDArray[np.intp]
    starts: NDArray[np.intp]

    def following_masses(self, p: Doubles) -> Doubles:
        """The probability of each of :attr:`following`, by the tokens' ``p``."""
        return np.add.reduceat(p[self.longer : self.high], self.starts)


class ByteTrie:
    """Which tokens begin with which bytes.

    Args:
        tokens: What each token stands for; b"" where it stands for nothing.
        ends: Tokens that end an answer.

    Attributes:
        tokens: The tokens that stand for something and end nothing, sorted by their bytes.

    >>> trie = ByteTrie([b"a", b"ab", b"b", b"", b"ac"], [3])
    >>> span = trie.span(b"a")
    >>> span.low, span.longer, span.high, span.following.tolist()
    (0, 1, 3, [98, 99])
    """

    def __init__(self, tokens: Sequence[bytes], ends: Iterable[int]) -> None:
        self._ends = np.array(sorted(ends), dtype=np.intp)
        ended = set(self._ends.tolist())
        order = [token for token, raw in enumerate(tokens) if raw and token not in ended]
        order.sort(key=tokens.__getitem__)
        self.tokens = np.array(order, dtype=np.intp)
        self._bytes = [tokens[token] for token in order]
        self._spans: dict[bytes, Span] = {}

    def probabilities(self, row: Floats) -> tuple[Doubles, float]:
        """Of each of :attr:`tokens`, and of an end; what stands for nothing is left out, the sum is 1."""
        logits, ends = row[self.tokens].astype(np.float64), row[self._ends].astype(np.float64)
        top = max(logits.max(), ends.max(initial=-np.inf))
        p, end = np.exp(logits - top), np.exp(ends - top).sum()
        total = p.sum() + end
        return p / total, float(end / total)

    def span(self, prefix: bytes) -> Span | None:
        """The tokens that begin with ``prefix``; None when there are none."""
        span = self._spans.get(prefix)
        if span is None:
            span = self._find(prefix)
            if span is not None:  # there are so many of these only
                self._spans[prefix] = span
        return span

    def longest(self, text: bytes) -> int:
        """The place of the token that covers most of the beginning of ``text``; -1: there is none."""
        found = -1
        for length in range(1, len(text) + 1):
            span = self.span(text[:length])
            if span is None:
                break
            if span.longer > span.low:
                found = span.low
        return found

    def bytes_of(self, place: int) -> bytes:
        """What the token at a place of the sorted vocabulary stands for."""
        return self._bytes[place]

    def _find(self, prefix: bytes) -> Span | None:
        size = len(prefix)
        low = bisect_left(self._bytes, prefix)
        high = bisect_right(self._bytes, prefix, low, key=lambda raw: raw[:size])
        if low == high:
            return None
        longer = bisect_right(self._bytes, prefix, low, high)
        seen = np.frombuffer(bytes(raw[size] for raw in self._bytes[longer:high]), np.uint8)
        following, starts = np.unique(seen, return_index=True)
        return Span(low, longer, high, following.astype(np.intp), starts.astype(np.intp))
