"""Joining rows that share a hash, beside the plain way; and that its memory does not grow."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from pilotfish.curate.dedup import groups as module
from pilotfish.curate.dedup.groups import group
from pilotfish.curate.dedup.keep import survivors

Numbers = NDArray[np.uint64]


def plainly(rows: list[int], hashes: list[list[tuple[int, ...]]]) -> dict[int, int]:
    """For each row that is in a pair the smallest row of its group."""
    parent = {row: row for row in rows}

    def find(row: int) -> int:
        while parent[row] != row:
            row = parent[row]
        return row

    seen: dict[tuple[int, ...], int] = {}
    paired = set()
    for row, own in zip(rows, hashes, strict=True):
        for one in own:
            other = seen.setdefault(one, row)
            if other != row:
                paired |= {row, other}
                a, b = find(row), find(other)
                parent[max(a, b)] = min(a, b)
    return {row: find(row) for row in sorted(paired)}


@pytest.mark.parametrize("words", [1, 2])
@pytest.mark.parametrize("slab", [1 << 30, 3000, 500])
def test_the_groups_are_those_of_the_plain_way(
    words: int, slab: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "PENDING", 10)
    monkeypatch.setattr(module, "FAN_OUT", 3)  # files are spread again, and again
    draw = np.random.default_rng(words)
    n, count = 600, 3
    rows = draw.permutation(10 * n)[:n].astype(np.uint64)
    # Few enough that some meet, from all over the range; the second word alone may differ.
    hashes = draw.integers(0, 2500, (n, count, words)).astype(np.uint64) << np.uint64(52)
    if words == 2:
        hashes[:, :, 0] = draw.integers(0, 50, (n, count)).astype(np.uint64) << np.uint64(58)
        hashes[:, :, 1] = draw.integers(0, 50, (n, count)).astype(np.uint64)
    found = group(
        lambda: ((rows[i : i + 70], hashes[i : i + 70]) for i in range(0, n, 70)), tmp_path, slab
    )
    expected = plainly(rows.tolist(), [[tuple(one) for one in own] for own in hashes.tolist()])
    assert 50 < len(expected) < n
    assert len(set(expected.values())) > 20
    assert dict(zip(found.rows.tolist(), found.first.tolist(), strict=True)) == expected
    assert not list(tmp_path.iterdir())


def test_nothing_and_no_pairs(tmp_path: Path) -> None:
    assert len(group(lambda: (), tmp_path).rows) == 0
    rows, hashes = np.arange(5, dtype=np.uint64), np.arange(10, dtype=np.uint64).reshape(5, 2, 1)
    assert len(group(lambda: [(rows, hashes)], tmp_path).rows) == 0


def test_memory_grows_with_the_duplicates_not_with_the_rows(tmp_path: Path) -> None:
    def peak(n: int) -> int:
        def chunks() -> Iterator[tuple[Numbers, Numbers]]:
            draw = np.random.default_rng(0)
            for start in range(0, n, 5000):
                rows = np.arange(start, start + 5000, dtype=np.uint64)
                hashes = draw.integers(0, 1 << 64, (5000, 4, 1), np.uint64)
                if not start:
                    hashes[:100] = 7
                yield rows, hashes

        tracemalloc.start()
        found = group(chunks, tmp_path, slab=1 << 20)
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert found.rows.tolist() == list(range(100))
        return most

    small = peak(100_000)
    assert small < 8 << 20
    assert peak(1_000_000) < 2 * small  # which would be ten times, did it grow


@given(
    st.lists(st.tuples(st.integers(0, 4), st.sampled_from([-np.inf, 0.0, 0.5, 1.0])), max_size=30),
    st.booleans(),
)
def test_who_stays(members: list[tuple[int, float]], keyed: bool) -> None:
    rows = np.arange(len(members), dtype=np.uint64)[::-1].copy()
    groups = np.array([group for group, _ in members], np.uint64)
    keys = np.array([key for _, key in members])
    kept = survivors(rows, groups, keys if keyed else None)
    for i, one in enumerate(kept.tolist()):
        rivals = [j for j in range(len(members)) if members[j][0] == members[i][0]]
        best = min(rivals, key=lambda j: (-members[j][1] if keyed else 0, rows[j]))
        assert one == rows[best]
