"""Rows that share a hash, joined to groups, with memory for the rows that have a duplicate only.

All hashes of a corpus do not fit in memory. They are spread over files by their bits, so that equal ones
meet in one file, files that are still large are spread again, and each is sorted by itself. What it finds
are pairs of rows; pairs are joined to groups (connected components) whenever there are half as many new
ones as rows known, so the work stays proportional to the pairs. At the peak that takes about 60 bytes
for each row that has a duplicate, and nothing for the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pilotfish.curate.rules.hashing import mix

Numbers = NDArray[np.uint64]

SLAB = 4 << 20  # bytes of hashes that are sorted at once; the peak is about four times that
FAN_OUT = 256  # files that hashes are spread over at once
PENDING = 1 << 16  # pairs
NO_CUT = 0.95  # a file with so large a part of what was spread holds one hash, mostly


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
        if self._count > max(PENDING, len(self.rows) // 2):
            self.join()

    def join(self) -> None:
        """Bring :attr:`rows` and :attr:`first` up to date."""
        if not self._count:
            return
        one = np.concatenate([pair[0] for pair in self._pending])
        other = np.concatenate([pair[1] for pair in self._pending])
        self._pending, self._count = [], 0
        rows = np.union1d(self.rows, np.union1d(one, other))
        group = np.arange(len(rows))
        group[np.searchsorted(rows, self.rows)] = np.searchsorted(rows, self.first)
        _unite(group, np.searchsorted(rows, one), np.searchsorted(rows, other))
        self.rows, self.first = rows, rows[group]


def _unite(group: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64]) -> None:
    """Join the groups of each pair.

    Args:
        group: For each of ``n`` things the smallest of its group; changed in place.
        one: Some of them.
        other: As many.
    """
    while True:
        one, other = group[one], group[other]
        apart = one != other
        if not apart.any():
            return
        one, other = one[apart], other[apart]
        np.minimum.at(group, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(further := group[group], group):
            group[:] = further


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
    groups = Groups()
    records = (_records(rows, hashes) for rows, hashes in chunks())
    for lines in _lots(records, size, folder, slab):
        groups.add(*_pairs(lines))
    groups.join()
    return groups


def _records(rows: Numbers, hashes: Numbers) -> Numbers:
    """A line for each hash: its words, then the row."""
    n, count, words = hashes.shape
    lines = np.empty((n, count, words + 1), np.uint64)
    lines[:, :, :words] = hashes
    lines[:, :, words] = rows[:, None]
    return lines.reshape(-1, words + 1)


def _lots(
    records: Iterable[Numbers], size: int, folder: Path, slab: int, level: int = 0
) -> Iterator[Numbers]:
    """The lines in lots of about ``slab`` bytes, those with equal hashes in one of them."""
    parts = min(FAN_OUT, -(-size // slab))
    if parts <= 1:
        if held := list(records):
            yield np.concatenate(held)
        return
    width = 0
    for lines in _slabs(records, slab):
        width = lines.shape[1]
        _append(lines, parts, folder, level)
    for path in (_part(folder, level, part) for part in range(parts)):
        if not path.exists():
            continue
        own = path.stat().st_size
        if own <= 2 * slab or own > NO_CUT * size:
            yield np.fromfile(path, np.uint64).reshape(-1, width)
        else:
            yield from _lots(_read(path, width, slab), own, folder, slab, level + 1)
        path.unlink()


def _part(folder: Path, level: int, part: int) -> Path:
    return folder / f"hashes-{level}-{part}.bin"


def _read(path: Path, width: int, slab: int) -> Iterator[Numbers]:
    with path.open("rb") as file:
        while len(numbers := np.fromfile(file, np.uint64, width * max(1, slab // (8 * width)))):
            yield numbers.reshape(-1, width)


def _slabs(records: Iterable[Numbers], slab: int) -> Iterator[Numbers]:
    """The same lines, about ``slab`` bytes at once."""
    held, size = list[Numbers](), 0
    for lines in records:
        held.append(lines)
        size += lines.nbytes
        if size >= slab:
            yield np.concatenate(held)
            held, size = [], 0
    if held:
        yield np.concatenate(held)


def _append(lines: Numbers, parts: int, folder: Path, level: int) -> None:
    """Write each line to the file of its part."""
    if not len(lines):
        return
    spread = mix(lines[:, 0] + np.uint64(level)) >> np.uint64(32)
    part = (spread * np.uint64(parts) >> np.uint64(32)).astype(np.uint16)
    order = np.argsort(part, kind="stable")
    lines, part = lines.take(order, axis=0), part[order]  # 25 times as fast as lines[order]
    cuts = np.flatnonzero(np.concatenate(([True], part[1:] != part[:-1])))
    for start, end in zip(cuts.tolist(), [*cuts[1:].tolist(), len(part)], strict=True):
        # Opened anew each time: there are more of them, at all levels, than a process may have open.
        with _part(folder, level, int(part[start])).open("ab") as file:
            lines[start:end].tofile(file)


def _pairs(lines: Numbers) -> tuple[Numbers, Numbers]:
    """For rows that share a hash, the smallest of them and each other one."""
    words = lines.shape[1] - 1
    order = (
        np.argsort(lines[:, 0]) if words == 1 else np.lexsort([lines[:, k] for k in range(words)])
    )
    lines = lines.take(order, axis=0)
    same = (lines[1:, :words] == lines[:-1, :words]).all(axis=1)
    shared = np.zeros(len(lines), np.bool_)
    shared[1:] = same
    shared[:-1] |= same
    rows, new = lines[shared, words], ~np.concatenate(([False], same))[: len(lines)][shared]
    if not len(rows):
        return rows, rows
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=len(rows))
    first = np.repeat(np.minimum.reduceat(rows, starts), lengths)
    wanted = rows != first
    return first[wanted], rows[wanted]
