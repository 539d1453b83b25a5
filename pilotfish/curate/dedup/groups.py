"""Rows that share a hash, joined to groups, with memory for the rows that have a duplicate only.

All hashes of a corpus do not fit in memory. They are spread over files by their first bits, so that
equal ones meet in one file, and each file is sorted by itself. What it finds are pairs of rows; pairs are
joined to groups (connected components) whenever there are as many new ones as rows known, so the work
stays proportional to the pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

Numbers = NDArray[np.uint64]

SLAB = 32 << 20  # bytes of hashes that are sorted at once; the peak is about four times that
PENDING = 1 << 20  # pairs


class Groups:
    """Groups of rows that grow pair by pair.

    Attributes:
        rows: The rows that are in a pair, ascending, as of the last :meth:`join`.
        first: For each the smallest row of its group.
    """

    def __init__(self) -> None:
        self.rows: Numbers = np.zeros(0, np.uint64)
        self.first: Numbers = np.zeros(0, np.uint64)
        self._pending: list[tuple[Numbers, Numbers]] = []
        self._count = 0

    def add(self, one: Numbers, other: Numbers) -> None:
        """Each row of ``one`` and that of ``other`` belong together."""
        if not len(one):
            return
        self._pending.append((one, other))
        self._count += len(one)
        if self._count > max(PENDING, len(self.rows)):
            self.join()

    def join(self) -> None:
        """Bring :attr:`rows` and :attr:`first` up to date."""
        if not self._count:
            return
        one = np.concatenate([self.rows, *(pair[0] for pair in self._pending)])
        other = np.concatenate([self.first, *(pair[1] for pair in self._pending)])
        self._pending, self._count = [], 0
        rows, place = np.unique(np.concatenate([one, other]), return_inverse=True)
        edges = (place[: len(one)], place[len(one) :])
        graph = coo_array((np.ones(len(one), np.bool_), edges), shape=(len(rows), len(rows)))
        n, label = connected_components(graph, directed=False)
        first = np.empty(n, np.uint64)
        first[label[::-1]] = rows[::-1]  # the last one written is the smallest
        self.rows, self.first = rows, first[label]


def group(
    chunks: Callable[[], Iterable[tuple[Numbers, Numbers]]], folder: Path, slab: int = SLAB
) -> Groups:
    """Join rows that share a hash.

    Args:
        chunks: Called twice; gives some rows ``[n]`` and their hashes ``[n, hashes, words]``, where two
            rows are joined if one of their hashes is equal in all of its words (of 64 bits). A hash must
            say by itself what is hashed: the first hash of one row may meet the second of another.
        folder: For files; they are removed.
        slab: Bytes.
    """
    size = sum(hashes.nbytes + hashes.shape[1] * rows.nbytes for rows, hashes in chunks())
    parts = -(-size // slab)
    groups = Groups()
    records = (_records(rows, hashes) for rows, hashes in chunks())
    if parts <= 1:
        held = list(records)
        if held:
            groups.add(*_pairs(np.concatenate(held)))
    else:
        for path, width in _spread(records, parts, folder, slab):
            groups.add(*_pairs(np.fromfile(path, np.uint64).reshape(-1, width)))
            path.unlink()
    groups.join()
    return groups


def _records(rows: Numbers, hashes: Numbers) -> Numbers:
    """A line for each hash: its words, then the row."""
    n, count, words = hashes.shape
    lines = np.empty((n, count, words + 1), np.uint64)
    lines[:, :, :words] = hashes
    lines[:, :, words] = rows[:, None]
    return lines.reshape(-1, words + 1)


def _spread(
    records: Iterable[Numbers], parts: int, folder: Path, slab: int
) -> Iterator[tuple[Path, int]]:
    """Files in which equal hashes meet, and how many numbers a line has."""
    width, held, size = 0, list[Numbers](), 0
    for lines in records:
        width = lines.shape[1]
        held.append(lines)
        size += lines.nbytes
        if size > slab:
            _append(held, parts, folder)
            size = 0
    _append(held, parts, folder)
    for part in range(parts):
        path = folder / f"hashes-{part}.bin"
        if path.exists():
            yield path, width


def _append(held: list[Numbers], parts: int, folder: Path) -> None:
    """Write each line to the file of its part; empties the list."""
    if not held:
        return
    lines = np.concatenate(held)
    held.clear()
    part = (lines[:, 0] >> np.uint64(32)) * np.uint64(parts) >> np.uint64(32)
    order = np.argsort(part, kind="stable")
    lines, part = lines[order], part[order]
    cuts = np.flatnonzero(np.diff(part, prepend=part[0] + np.uint64(1)))
    for start, end in zip(cuts, [*cuts[1:], len(part)], strict=True):
        # Opened anew each time: a large corpus has more parts than a process may have files open.
        with (folder / f"hashes-{part[start]}.bin").open("ab") as file:
            lines[start:end].tofile(file)


def _pairs(lines: Numbers) -> tuple[Numbers, Numbers]:
    """For rows that share a hash, the smallest of them and each other one."""
    if not len(lines):
        return np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    words = lines.shape[1] - 1
    order = (
        np.argsort(lines[:, 0]) if words == 1 else np.lexsort([lines[:, k] for k in range(words)])
    )
    hashes, rows = lines[order, :words], lines[order, words]
    new = np.concatenate(([True], (hashes[1:] != hashes[:-1]).any(axis=1)))
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=len(rows))
    first = np.repeat(np.minimum.reduceat(rows, starts), lengths)
    wanted = np.repeat(lengths > 1, lengths) & (rows != first)
    return first[wanted], rows[wanted]
