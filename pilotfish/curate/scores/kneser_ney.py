"""An n-gram model with interpolated modified Kneser-Ney smoothing, in arrays.

Chen and Goodman 1999, "An empirical study of smoothing techniques for language modeling", section 3: from
each count a discount is taken (one for counts of 1, one of 2, one of 3 and more), and what was taken is
spread by the model of one word less, whose counts are of different preceding words. The model of no
words is uniform over all words that were seen and one that was not.

Words are 32-bit numbers, n-grams are 64-bit hashes in sorted arrays, and all words of a batch are looked
up at once. Texts begin after ``order - 1`` pads and have no end mark.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.curate.rules.hashing import mix

Words = NDArray[np.uint32]
Hashes = NDArray[np.uint64]
Doubles = NDArray[np.float64]

PAD = 0
_START = 0x243F6A8885A308D3
_ODD = np.uint64(0x9E3779B97F4A7C15)
_PLAIN = (0.5, 1.0, 1.5)
"""Discounts where the counts give none (too few n-grams of counts 1 to 4), as in KenLM's fallback."""


def windows(words: Words, offsets: NDArray[np.int64], order: int) -> list[Words]:
    """Each word with the ``order - 1`` words before it in its text, oldest first.

    Args:
        words: Of all texts, one after another; none is :data:`PAD`.
        offsets: Text ``d`` has ``words[offsets[d] : offsets[d + 1]]``.
        order: At least 1.

    Returns:
        ``order`` columns, each as long as ``words``.

    >>> [c.tolist() for c in windows(np.array([5, 6, 7], np.uint32), np.array([0, 2, 3]), 2)]
    [[0, 5, 0], [5, 6, 7]]
    """
    place = np.arange(len(words)) - np.repeat(offsets[:-1], np.diff(offsets))
    columns = []
    for back in range(order - 1, -1, -1):
        column = np.zeros(len(words), np.uint32)
        column[back:] = words[: len(words) - back]
        column[place < back] = PAD
        columns.append(column)
    return columns


def hash_columns(columns: list[Words], n: int, start: Hashes | int = _START) -> Hashes:
    """A hash of each row of columns; of no column, the same for all ``n`` rows."""
    hashes = np.full(n, start, np.uint64) if isinstance(start, int) else start
    for column in columns:
        hashes = mix(hashes * _ODD + column)
    return hashes


@dataclass(frozen=True)
class KneserNey:
    """A fitted model.

    Attributes:
        words: Different words that were seen.
        grams: Of each order from 1 up: hashes, ascending.
        shares: Their discounted share of their context's count.
        contexts: Of each order: hashes of what precedes the last word, ascending.
        weights: What the discounts left for the model of one word less, as a share.
    """

    words: int
    grams: tuple[Hashes, ...]
    shares: tuple[Doubles, ...]
    contexts: tuple[Hashes, ...]
    weights: tuple[Doubles, ...]

    @classmethod
    def fit(cls, columns: list[Words], counts: NDArray[np.int64]) -> Self:
        """Fit on n-grams of the highest order.

        Args:
            columns: Their words, oldest first; no n-gram twice, :data:`PAD` before a text's beginning.
            counts: How often each occurs.
        """
        parts: list[tuple[Hashes, Doubles, Hashes, Doubles]] = []
        words = 0
        while columns:
            words = len(counts)  # in the last turn n-grams are words
            parts.insert(0, _smooth(columns, counts))
            columns = columns[1:]
            # One word less: each n-gram of these counts once for every word that precedes it.
            _, first, counts = np.unique(
                hash_columns(columns, len(counts)), return_index=True, return_counts=True
            )
            columns = [column[first] for column in columns]
        grams, shares, contexts, weights = zip(*parts, strict=True)
        return cls(words, grams, shares, contexts, weights)

    def log_probabilities(self, words: Words, offsets: NDArray[np.int64]) -> Doubles:
        """The natural logarithm of each word's probability after those before it in its text."""
        columns = windows(words, offsets, len(self.grams))
        found = np.full(len(words), 1 / (self.words + 1))
        for k in range(1, len(self.grams) + 1):
            context = hash_columns(columns[-k:-1], len(words))
            gram = mix(context * _ODD + columns[-1])
            weight = _look_up(self.contexts[k - 1], self.weights[k - 1], context, 1.0)
            found *= weight
            found += _look_up(self.grams[k - 1], self.shares[k - 1], gram, 0.0)
        logarithms: Doubles = np.log(found)
        return logarithms

    def save(self, path: Path) -> None:
        """Write to an ``.npz`` file."""
        arrays: dict[str, Any] = {"words": np.array(self.words)}
        for name in ("grams", "shares", "contexts", "weights"):
            arrays |= {f"{name}{k}": array for k, array in enumerate(getattr(self, name))}
        np.savez(path, **arrays)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what :meth:`save` wrote."""
        with np.load(path) as file:
            orders = range(sum(name.startswith("grams") for name in file.files))
            parts = [
                tuple(file[f"{name}{k}"] for k in orders)
                for name in ("grams", "shares", "contexts", "weights")
            ]
            return cls(int(file["words"]), *parts)


def discounts(counts: NDArray[np.int64]) -> Doubles:
    """What is taken from counts of 1, of 2, and of 3 and more (Chen and Goodman 1999, section 3.4).

    >>> discounts(np.array([1, 1, 1, 1, 2, 2, 3, 4])).tolist()
    [0.5, 1.25, 1.0]
    """
    n1, n2, n3, n4 = (int((counts == k).sum()) for k in range(1, 5))
    if not (n1 and n2 and n3 and n4):
        return np.array(_PLAIN)
    y = n1 / (n1 + 2 * n2)
    taken = np.array([1 - 2 * y * n2 / n1, 2 - 3 * y * n3 / n2, 3 - 4 * y * n4 / n3])
    return taken if ((taken >= 0) & (taken <= [1, 2, 3])).all() else np.array(_PLAIN)


def _smooth(
    columns: list[Words], counts: NDArray[np.int64]
) -> tuple[Hashes, Doubles, Hashes, Doubles]:
    """Hashes and shares of n-grams, hashes and left-over weights of their contexts."""
    context = hash_columns(columns[:-1], len(counts))
    gram = mix(context * _ODD + columns[-1])
    taken = discounts(counts)[np.minimum(counts, 3) - 1]
    contexts, of = np.unique(context, return_inverse=True)
    total = np.bincount(of, counts)
    order = np.argsort(gram)
    shares = ((counts - taken) / total[of])[order]
    return gram[order], shares, contexts, np.bincount(of, taken) / total


def _look_up(keys: Hashes, values: Doubles, wanted: Hashes, missing: float) -> Doubles:
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    found: Doubles = np.where(keys[at] == wanted, values[at], missing)
    return found
