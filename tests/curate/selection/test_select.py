"""Selection against brute force, its own bounds, and the edges of its arguments."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.curate.selection import cover
from pilotfish.curate.selection.select import (
    FIRST,
    facility_location,
    k_center_greedy,
    k_means_medoids,
    nearest,
    representative,
    uncertain_and_diverse,
    uncertainty,
)
from pilotfish.errors import ConfigError, InputError

METHODS = sorted(FIRST)


def unit(seed: int, n: int, dim: int = 5) -> np.ndarray:
    x = np.random.default_rng(seed).standard_normal((n, dim)).astype(np.float32)
    return x / np.linalg.norm(x, axis=1, keepdims=True)


def radius(x: np.ndarray, centers: object) -> float:
    gaps = np.linalg.norm(x[:, None] - x[list(centers)][None], axis=2)  # type: ignore[call-overload]
    return float(gaps.min(axis=1).max())


def coverage(x: np.ndarray, facilities: object, weights: np.ndarray) -> float:
    value = (1 + x @ x[list(facilities)].T) / 2  # type: ignore[call-overload]
    return float(weights @ value.max(axis=1))


@given(st.integers(0, 10_000), st.integers(4, 10), st.integers(1, 4))
def test_k_center_is_within_twice_the_optimum(seed: int, n: int, k: int) -> None:
    x = unit(seed, n)
    best = min(radius(x, c) for c in itertools.combinations(range(n), k))
    assert radius(x, k_center_greedy(x, k, seed=seed)) <= 2 * best + 1e-3


@given(st.integers(0, 10_000), st.integers(4, 10), st.integers(1, 4))
def test_facility_location_reaches_its_bound_and_equals_plain_greedy(
    seed: int, n: int, k: int
) -> None:
    x, w = unit(seed, n), np.random.default_rng(seed).uniform(0.5, 2, n).astype(np.float32)
    chosen = facility_location(x, k, weights=w, seed=seed)
    best = max(coverage(x, c, w) for c in itertools.combinations(range(n), k))
    assert coverage(x, chosen, w) >= (1 - 1 / np.e) * best - 1e-4
    plain: list[int] = []
    for _ in range(k):
        rest = [i for i in range(n) if i not in plain]
        plain.append(max(rest, key=lambda i: coverage(x, [*plain, i], w)))
    assert coverage(x, chosen, w) == pytest.approx(coverage(x, plain, w), rel=1e-4)


def test_facility_location_on_samples_stays_close(monkeypatch: pytest.MonkeyPatch) -> None:
    x, w = unit(0, 1500, 8), np.ones(1500, np.float32)
    whole = coverage(x, facility_location(x, 20), w)
    monkeypatch.setattr(cover, "CUSTOMERS", 400)
    monkeypatch.setattr(cover, "CANDIDATES", 500)
    assert coverage(x, facility_location(x, 20), w) > 0.97 * whole


def test_k_means_medoids_find_every_cluster_and_the_largest_first() -> None:
    centers = np.eye(6, dtype=np.float32)
    sizes = [300, 100, 50, 40, 30, 20]
    label = np.repeat(np.arange(6), sizes)
    noise = np.random.default_rng(1).normal(0, 0.05, (len(label), 6)).astype(np.float32)
    found = [label[k_means_medoids(centers[label] + noise, 6, seed=s)] for s in range(5)]
    assert np.mean([len(set(f.tolist())) for f in found]) > 5
    assert all(f[0] == 0 for f in found)


def test_k_means_weights_pull_the_choice() -> None:
    x = unit(3, 400, 3)
    heavy = (x[:, 0] > 0).astype(np.float32) * 1000
    share = np.mean(heavy[k_means_medoids(x, 30, weights=heavy, seed=0)] > 0)
    assert share > 0.9 > np.mean(heavy[k_means_medoids(x, 30, seed=0)] > 0)


@pytest.mark.parametrize("method", METHODS)
def test_first_batches_are_distinct_deterministic_and_clipped(method: str) -> None:
    x = unit(0, 60)
    a = representative(x, 20, method=method, seed=4)
    assert len(set(a.tolist())) == 20
    assert a.tolist() == representative(x, 20, method=method, seed=4).tolist()
    assert sorted(representative(x, 99, method=method).tolist()) == list(range(60))
    assert len(representative(x, 0, method=method)) == 0
    assert len(representative(x[:0], 3, method=method)) == 0


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("rows", [np.ones((30, 4)), np.zeros((30, 4))])
def test_all_alike_still_gives_distinct_positions(method: str, rows: np.ndarray) -> None:
    assert len(set(representative(rows.astype(np.float32), 7, method=method).tolist())) == 7


@pytest.mark.parametrize("choose", [k_center_greedy, facility_location])
def test_what_is_chosen_already_is_kept_and_not_repeated(choose: object) -> None:
    x = unit(0, 40)
    more = choose(x, 35, chosen=[3, 4, 5, 6, 7])  # type: ignore[operator]
    assert sorted([*more.tolist(), 3, 4, 5, 6, 7]) == list(range(40))
    assert len(choose(x, 99, chosen=list(range(38)))) == 2  # type: ignore[operator]


def test_large_pools_are_sampled_and_memory_stays_flat(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cover, "POOL", 200)
    x = unit(0, 5000)
    chosen = k_means_medoids(x, 50, seed=0)
    assert len(set(chosen.tolist())) == 50
    assert chosen.max() > 200
    assert len(set(k_means_medoids(x, 300, seed=0).tolist())) == 300


def test_nearest_equals_a_sort() -> None:
    x = unit(0, 50)
    expected = sorted(range(50), key=lambda i: -float(x[i] @ x[7]))[:6]
    assert nearest(x, x[7], 6).tolist() == expected


def test_uncertainty_by_hand() -> None:
    p = np.array([[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.6, 0.3, 0.1]], np.float32)
    assert uncertainty(p) == pytest.approx([1, 0, 0.7])
    assert uncertainty(p, kind="least") == pytest.approx([0.5, 0, 0.4])
    assert uncertainty(p, kind="entropy") == pytest.approx(
        [np.log(2) / np.log(3), 0, 0.8979 / np.log(3)], abs=1e-3
    )
    assert uncertainty(np.array([[0.9]], np.float32)) == pytest.approx([0.1])


@pytest.mark.parametrize("method", ["k-means", "k-center", "top", "random"])
def test_later_batches_exclude_what_was_asked(method: str) -> None:
    x = unit(0, 300)
    p = np.random.default_rng(0).dirichlet(np.ones(4), 300).astype(np.float32)
    asked = list(range(0, 300, 2))
    chosen = uncertain_and_diverse(p, x, 10, exclude=asked, method=method, seed=1)
    assert len(set(chosen.tolist())) == 10
    assert not set(chosen.tolist()) & set(asked)
    again = uncertain_and_diverse(p, x, 10, exclude=asked, method=method, seed=1)
    assert chosen.tolist() == again.tolist()
    everything = uncertain_and_diverse(p, x, 999, exclude=asked, method=method)
    assert sorted(everything.tolist()) == list(range(1, 300, 2))
    if method != "random":
        assert uncertainty(p)[chosen].mean() > uncertainty(p).mean()


def test_diverse_batches_spread_more_than_the_most_unsure_ones() -> None:
    x = np.concatenate([np.repeat(unit(0, 1), 100, axis=0), unit(1, 200)])
    p = np.tile(np.array([[0.5, 0.5]], np.float32), (300, 1))
    p[100:] = [0.55, 0.45]
    assert (uncertain_and_diverse(p, x, 20, method="top") < 100).all()
    for method in ("k-means", "k-center"):
        assert (uncertain_and_diverse(p, x, 20, method=method) >= 100).sum() >= 15


def test_bad_arguments_are_named() -> None:
    x = unit(0, 5)
    with pytest.raises(InputError, match="finite rows"):
        k_center_greedy(np.full((3, 2), np.nan, np.float32), 1)
    with pytest.raises(InputError, match="k=-1"):
        representative(x, -1)
    with pytest.raises(InputError, match="weights"):
        representative(x, 2, weights=np.ones(4))
    with pytest.raises(ConfigError, match="Known: k-means"):
        representative(x, 2, method="kmeans")
    with pytest.raises(ConfigError, match="Known: k-means"):
        uncertain_and_diverse(np.ones((5, 2), np.float32), x, 2, method="best")
    with pytest.raises(ConfigError, match="Known: margin"):
        uncertainty(np.ones((5, 2), np.float32), kind="x")
