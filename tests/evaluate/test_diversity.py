"""Repetition, distinct n-grams and divergence frontiers against closed forms and counts by hand."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.errors import InputError
from pilotfish.evaluate.diversity import (
    distinct_n,
    divergence_frontier,
    diversity,
    frontier_area,
    quantise,
    rep_n,
)

LOOP = "the cat sat on the mat and the cat sat on the mat again"


def test_counts_by_hand() -> None:
    # 14 words: 13 pairs, of which "the cat", "cat sat", "sat on", "on the", "the mat" occur twice.
    assert rep_n([LOOP], 2) == pytest.approx(5 / 13)
    assert rep_n([LOOP], 3) == pytest.approx(4 / 12)
    assert rep_n([LOOP], 4) == pytest.approx(3 / 11)
    assert diversity([LOOP]) == pytest.approx(8 / 13 * 8 / 12 * 8 / 11)
    # Over texts rep-n counts what is repeated inside each, distinct-n also between them.
    assert rep_n([LOOP, LOOP], 2) == pytest.approx(5 / 13)
    assert distinct_n([LOOP, LOOP], 2) == pytest.approx(8 / 26)
    assert distinct_n([LOOP], 1) == pytest.approx(7 / 14)
    assert rep_n([[1, 2, 1, 2]], 2) == rep_n(["a b a b"], 2) == pytest.approx(1 / 3)


def test_without_ngrams_there_is_no_number() -> None:
    assert math.isnan(rep_n(["a", ""], 2))
    assert math.isnan(distinct_n([], 1))


@given(st.lists(st.lists(st.integers(0, 3), max_size=12), min_size=1), st.integers(1, 4))
def test_shares_are_those_of_a_counter(texts: list[list[int]], n: int) -> None:
    each = [Counter(tuple(t[i : i + n]) for i in range(len(t) - n + 1)) for t in texts]
    total = sum(sum(c.values()) for c in each)
    if total:
        repeated = sum(k - 1 for c in each for k in c.values())
        assert rep_n(texts, n) == pytest.approx(repeated / total)
        assert distinct_n(texts, n) == pytest.approx(len(sum(each, Counter())) / total)


@pytest.mark.parametrize("c", [1.0, 2.0, 5.0])
def test_the_area_of_disjoint_histograms_is_its_closed_form(c: float) -> None:
    # x = (1 - s)^c and y = s^c, so the area is c B(c + 1, c).
    wanted = math.gamma(c + 1) ** 2 / math.gamma(2 * c + 1)
    assert frontier_area([2, 3, 0, 0], [0, 0, 1, 4], scaling=c) == pytest.approx(wanted, rel=1e-4)


def test_the_area_under_half_of_the_other() -> None:
    # p is uniform on one of q's two bins. KL(q | r) and KL(p | r) with r = ((1 + s) / 2, (1 - s) / 2):
    # the area is the integral of y over x, both functions of the share s of p.
    s = np.linspace(0, 1, 400_001)[:-1]
    x = np.sqrt((1 + s) * (1 - s)) ** 5
    y = ((1 + s) / 2) ** 5
    wanted = float(np.sum((x[:-1] - x[1:]) * (y[:-1] + y[1:])) / 2)
    assert frontier_area([1, 0], [1, 1]) == pytest.approx(wanted, abs=1e-4)
    assert frontier_area([1, 1], [1, 0]) == pytest.approx(wanted, abs=1e-4)


@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=8))
def test_the_area_is_symmetric_and_1_only_for_equals(bins: list[tuple[int, int]]) -> None:
    p, q = np.array(bins, float).T + 0.5
    area = frontier_area(p, q)
    assert area == pytest.approx(frontier_area(q, p), abs=1e-9)
    assert frontier_area(p, p) == pytest.approx(1.0)
    assert 0 < area <= 1 + 1e-12
    if np.abs(p / p.sum() - q / q.sum()).max() > 0.05:
        assert area < 0.9999


def test_embeddings_from_one_place_are_alike_and_from_two_are_not() -> None:
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(6, 16)) * 3
    where = rng.integers(0, 6, 600)
    rows = centres[where] + rng.normal(size=(600, 16))
    same = divergence_frontier(rows[:300], rows[300:])
    apart = divergence_frontier(rows[where < 3], rows[where >= 3])
    half = divergence_frontier(rows[where < 3], rows)
    assert same > 0.9
    assert apart < 0.05
    assert apart < half < same
    assert divergence_frontier(rows[:300], rows[300:]) == same


def test_clusters_are_found_on_both_samples_together() -> None:
    rows = np.repeat(np.eye(4), 10, axis=0)
    ours, theirs, bins = quantise(rows[:20], rows[20:], bins=4)
    assert bins == 4
    assert len(set(ours)) == len(set(theirs)) == 2
    assert not set(ours) & set(theirs)
    assert quantise(rows[:20], rows[20:], bins=30)[2] == 4  # no more clusters than different rows
    assert divergence_frontier(rows[:20], rows[20:], bins=4, smoothing=0) == pytest.approx(
        1 / 252, rel=1e-3
    )


def test_what_cannot_be_compared_is_refused() -> None:
    with pytest.raises(InputError, match=r"\(3, 2\) and \(3, 4\)"):
        divergence_frontier(np.ones((3, 2)), np.ones((3, 4)))
    with pytest.raises(InputError, match="0 texts"):
        divergence_frontier(np.ones((0, 2)), np.ones((3, 2)))
    with pytest.raises(InputError, match="not finite"):
        divergence_frontier([[1.0, math.nan]], [[1.0, 0.0]])
    with pytest.raises(InputError, match="bins=0"):
        divergence_frontier([[1.0, 0.0]], [[1.0, 0.0]], bins=0)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_embeddings_that_are_all_the_same_are_alike(value: float) -> None:
    assert divergence_frontier(np.full((5, 3), value), np.full((4, 3), value)) == pytest.approx(
        1, abs=0.01
    )
