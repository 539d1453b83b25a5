"""Exact nearest neighbours by matrix products, within groups, in slabs.

A million entries of 256 numbers are 1.0 GB of float32 and take a product over all of it for each
question: 136 ms of one core (13 ms for 100,000, 3 ms for 20,000; a sixth of that for each of 200
questions at once). Entries are sorted by group, so a search touches only the rows of its own group: what
another group holds can neither be found nor be timed. No approximate index: below a million entries it
would save little and lose neighbours, and the certificate would be about what it happened to find.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError

SLAB = 32_768  # entries in one product: with 256 questions 32 MB of similarities
Floats = NDArray[np.float32]
Ints = NDArray[np.int64]


class Nearest:
    """Unit rows, sorted by group.

    Args:
        vectors: ``[n, dim]`` float32, unit rows (or zero rows), sorted by group.
        groups: The names of the groups, in their order.
        starts: ``[groups + 1]``: where each begins; the last one is ``n``.

    Raises:
        InputError: The parts do not fit together.
    """

    def __init__(self, vectors: Floats, groups: Sequence[str], starts: Ints) -> None:
        if len(starts) != len(groups) + 1 or (len(groups) and int(starts[-1]) != len(vectors)):
            raise InputError(
                f"Got {len(vectors)} vectors for {len(groups)} groups with {len(starts)} starts."
            )
        self.vectors = vectors
        self.groups = tuple(groups)
        self.starts = starts
        self._at = {name: i for i, name in enumerate(groups)}

    def span(self, group: str | None) -> tuple[int, int]:
        """The rows of a group, as start and stop; empty where there is no such group."""
        at = None if group is None else self._at.get(group)
        return (0, 0) if at is None else (int(self.starts[at]), int(self.starts[at + 1]))

    def search(self, queries: Floats, span: tuple[int, int], k: int) -> tuple[Ints, Floats]:
        """The nearest rows of a span.

        Args:
            queries: ``[m, dim]``, unit rows.
            span: Start and stop.
            k: How many, at most the span's length are given.

        Returns:
            Row numbers and cosines ``[m, min(k, span)]``, nearest first; of equal ones the earlier row.
        """
        start, stop = span
        k = min(k, stop - start)
        rows = np.zeros((len(queries), 0), np.int64)
        cosines = np.zeros((len(queries), 0), np.float32)
        for at in range(start, stop if k else start, SLAB):
            similar = queries @ self.vectors[at : min(at + SLAB, stop)].T
            some = min(k, similar.shape[1])
            if some < similar.shape[1]:
                near = np.sort(np.argpartition(-similar, some - 1, axis=1)[:, :some], axis=1)
            else:
                near = np.broadcast_to(np.arange(some), similar.shape)
            rows = np.concatenate([rows, near + at], axis=1)
            cosines = np.concatenate([cosines, np.take_along_axis(similar, near, axis=1)], axis=1)
            order = np.argsort(-cosines, axis=1, kind="stable")[:, :k]
            rows = np.take_along_axis(rows, order, axis=1)
            cosines = np.take_along_axis(cosines, order, axis=1)
        return rows, cosines
