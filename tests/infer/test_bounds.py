"""Bounds against scipy, brute force and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pilotfish.infer.bounds import (
    bets,
    betting_upper,
    binomial_p_value,
    clopper_pearson_upper,
    log_wealths,
)
from pilotfish.infer.sequential import Boundary, count_crossed, crossed, look_sizes


@given(st.integers(1, 400), st.data(), st.floats(0.01, 0.5))
def test_binomial_p_value_equals_scipy(n: int, data: st.DataObject, alpha: float) -> None:
    x = data.draw(st.integers(0, n))
    expected = stats.binomtest(x, n, alpha, alternative="less").pvalue
    assert binomial_p_value(x, n, alpha) == pytest.approx(expected, rel=1e-8, abs=1e-300)


@given(st.integers(1, 400), st.data(), st.floats(0.001, 0.3))
def test_clopper_pearson_equals_scipy(n: int, data: st.DataObject, delta: float) -> None:
    x = data.draw(st.integers(0, n))
    interval = stats.binomtest(x, n, alternative="less").proportion_ci(1 - delta, method="exact")
    assert clopper_pearson_upper(x, n, delta) == pytest.approx(interval.high, abs=1e-9)


def test_no_rows_prove_nothing() -> None:
    assert binomial_p_value(0, 0, 0.05) == 1.0
    assert clopper_pearson_upper(0, 0, 0.05) == 1.0


@given(st.integers(1, 60), st.floats(0.02, 0.4), st.floats(0.01, 0.2), st.data())
def test_wealth_equals_the_product_of_its_bets(
    n: int, alpha: float, delta: float, data: st.DataObject
) -> None:
    losses = np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n)), dtype=float)
    bins = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)))
    bet = bets(n, alpha, delta, 1 - alpha)
    assert np.exp(bet.log_weights).sum() == pytest.approx(1.0)
    wealth = np.exp(
        bet.wealth(log_wealths(bet, np.full(n, alpha), alpha - losses, bins, thresholds=3))
    )
    for j in range(3):
        brute = 0.0
        for share, weight in zip(bet.shares, np.exp(bet.log_weights), strict=True):
            capital = weight
            for loss, b in zip(losses, bins, strict=True):
                capital *= 1 + share * (alpha - (loss if b <= j else 0.0))
            brute += capital
        assert wealth[j] == pytest.approx(brute, rel=1e-9)


@given(st.integers(0, 60), st.integers(1, 200), st.floats(0.02, 0.3))
def test_betting_upper_is_where_the_wealth_crosses(x: int, n: int, alpha: float) -> None:
    v = (np.arange(n) < x).astype(float)
    bet = bets(n, alpha, 0.05, 1 - alpha)
    bound = betting_upper(bet, np.ones(n), v, 0.05, alpha=alpha)
    assert min(x, n) / n <= bound + 1e-6

    def capital(risk: float) -> float:
        shares = bet.shares if risk >= alpha else np.minimum(bet.shares, 0.999)
        factors = np.prod(1 + shares[:, None] * (risk - v[None, :]), axis=1)
        return float(np.exp(bet.log_weights) @ factors)

    if bound < 1.0:
        assert capital(bound) >= 20 * (1 - 1e-6)
    if 1e-6 < bound < 1.0:
        assert capital(bound - 1e-6) < 20 * (1 + 1e-3)


@pytest.mark.parametrize("weighted", [False, True])
def test_wealth_of_a_broken_promise_rarely_reaches_its_bar(weighted: bool) -> None:
    """Ville's inequality, looked at after every one of 300 rows, exactly at the boundary."""
    rng = np.random.default_rng(3)
    draws, n, alpha, delta = 3000, 300, 0.1, 0.05
    q = rng.choice([0.25, 1.0], size=(draws, n)) if weighted else np.ones((draws, n))
    losses = (rng.random((draws, n)) < alpha) * (rng.random((draws, n)) < q) / q
    bet = bets(n, alpha, delta, 1 / 0.25 - alpha if weighted else 1 - alpha)
    reached = np.zeros(draws, dtype=bool)
    logs = np.zeros((draws, bet.shares.size))
    for i in range(n):
        logs += np.log1p(bet.shares * (alpha - losses[:, i : i + 1]))
        reached |= bet.wealth(logs) >= -np.log(delta)
    assert stats.binomtest(int(reached.sum()), draws, delta, alternative="greater").pvalue > 1e-4
    assert reached.mean() > delta / 20  # it bets in earnest


@pytest.mark.parametrize("early", [False, True])
def test_boundary_spends_delta_exactly(early: bool) -> None:
    """All 2**18 paths of a short walk, weighted by their probability."""
    horizon, rate, delta = 18, 0.3, 0.2
    limits = Boundary(horizon, rate, 0, delta, early)
    paths = np.arange(2**horizon)[:, None] >> np.arange(horizon) & 1
    seen = np.cumsum(paths, axis=1)
    passed = np.any(seen[:, limits.sizes - 1] <= limits.limits(horizon), axis=1)
    errors = seen[passed, -1]
    total = float(np.sum(rate**errors * (1 - rate) ** (horizon - errors)))
    assert delta / 4 < total <= delta + 1e-9  # and does not waste it


@pytest.mark.parametrize("early", [False, True])
def test_boundary_on_long_samples(early: bool) -> None:
    rng = np.random.default_rng(5)
    draws, n, alpha, delta = 6000, 500, 0.05, 0.1
    limits = Boundary(n, alpha, 0, delta, early)
    seen = np.cumsum(rng.random((draws, n)) < alpha, axis=1)[:, limits.sizes - 1]
    passed = np.any(seen <= limits.limits(n), axis=1).sum()
    assert stats.binomtest(int(passed), draws, delta, alternative="greater").pvalue > 1e-4
    assert passed / draws > delta * 0.8


def test_boundary_without_replacement() -> None:
    """A file with one error too many passes with probability <= delta, looked at all the time."""
    rng = np.random.default_rng(6)
    population, allowed, delta, draws = 300, 20, 0.1, 6000
    bad = np.arange(population) < allowed + 1
    passed = sum(
        count_crossed(rng.permutation(bad).astype(float)[:-1], population, allowed, delta)
        for _ in range(draws)
    )
    assert stats.binomtest(passed, draws, delta, alternative="greater").pvalue > 1e-4
    assert passed / draws > delta / 2
    assert count_crossed(np.zeros(300), 300, 0, delta)
    assert not count_crossed(np.ones(300), 300, 299, delta)


def test_last_look_is_nearly_a_test_of_fixed_size() -> None:
    limits = Boundary(2000, 0.05, 0, 0.05, early=False).limits(2000)
    fixed = int(stats.binom.ppf(0.05, 2000, 0.05)) - 1
    assert fixed - 5 <= limits[-1] <= fixed
    assert look_sizes(2000)[-1] == 2000


def test_short_samples_have_not_passed() -> None:
    assert not crossed(np.zeros(3), Boundary(100, 0.1, 0, 0.05, early=True))
    assert not crossed(np.zeros(0), Boundary(1, 0.1, 0, 0.05, early=False))
