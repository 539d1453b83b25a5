"""Routing by price against brute force and linear programmes."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.mixed import Mixed, spend
from pilotfish.infer.policies.policy import Play, Policy, play
from pilotfish.infer.policies.weighted import Weighted
from tests.infer.policies.drawn_outcomes import COST, NAMES, draw


def test_weighted_is_the_best_of_quality_less_weighted_cost() -> None:
    rows = draw(0)
    expected = rows.signals["expected"]
    played = play(Weighted(NAMES, 0.05), rows, expected, cost=COST)
    assert np.array_equal(played.answered, (expected - 0.05 * COST).argmax(axis=1))
    assert np.array_equal(played.asked.sum(axis=1), np.ones(len(rows)))
    at = np.arange(len(rows))
    assert np.array_equal(played.quality, rows.quality[at, played.answered])
    assert np.array_equal(played.cost, rows.cost[at, played.answered])


def test_the_threshold_between_a_weak_and_a_strong_model_is_the_weight() -> None:
    """RouteLLM and HybridLLM: strong where the predicted gain is above the threshold."""
    rows = draw(1).select(["small", "large"])
    expected = rows.signals["expected"]
    for threshold in (-0.2, 0.1, 0.4):
        if threshold < 0:  # a negative price is a subsidy of the strong model
            continue
        played = play(Weighted(rows.models, threshold), rows, expected, cost=np.array([0.0, 1.0]))
        gain = expected[:, 1] - expected[:, 0]
        assert np.array_equal(played.answered == 1, gain > threshold)


def test_min_quality_asks_the_cheapest_that_is_good_enough() -> None:
    expected = np.array([[0.9, 0.95, 0.99], [0.2, 0.85, 0.99], [0.1, 0.2, 0.3]], np.float32)
    rows = draw(2, 3)
    played = play(Weighted(NAMES, min_quality=0.8), rows, expected, cost=COST)
    assert played.answered.tolist() == [0, 1, 2], "none good enough: the best"


def test_of_equally_good_models_the_cheapest_is_asked_wherever_it_stands() -> None:
    expected = np.array([[0.99, 0.85, 0.9], [0.99, 0.85, 0.7]], np.float32)
    for weight in (0.0, 1e-9):
        policy = Weighted(NAMES, weight, min_quality=0.8)
        played = play(policy, draw(2, 2), expected, cost=np.array([10.0, 3.0, 1.0]))
        assert played.answered.tolist() == [2, 1]


def test_latency_counts_where_it_is_given() -> None:
    expected = np.array([[0.8, 0.85, 0.9]], np.float32)
    policy = Weighted(NAMES, latency_weight=0.1)
    played = play(policy, draw(3, 1), expected, latency=np.array([1.0, 0.2, 5.0]))
    assert played.answered.tolist() == [1]


@pytest.mark.parametrize("budget", [1.5, 2.0, 4.0, 7.5])
def test_spending_a_budget_is_the_linear_programmes_optimum(budget: float) -> None:
    """Routing under a budget is a linear programme; its optimum is a weight and a coin."""
    rows = draw(4, 60)
    expected = rows.signals["expected"].astype(np.float64)
    n, m = expected.shape
    price = np.tile(COST.astype(np.float64), (n, 1)) * np.linspace(0.5, 1.5, n)[:, None]
    known = Outcomes(rows.texts, NAMES, expected.astype(np.float32), price.astype(np.float32))
    one_each = np.kron(np.eye(n), np.ones(m))
    best = linprog(
        -expected.ravel() / n,
        A_ub=[price.ravel() / n],
        b_ub=[budget],
        A_eq=one_each,
        b_eq=np.ones(n),
    )

    def replay(policy: Policy, seed: int = 0) -> Play:
        return play(policy, known, expected, cost=price, seed=seed)

    policy = spend(lambda w: Weighted(NAMES, w), lambda p: float(replay(p).cost.mean()), budget)
    assert isinstance(policy, Mixed)
    first, second = replay(policy.first), replay(policy.second)
    share = policy.share
    cost = share * first.cost.mean() + (1 - share) * second.cost.mean()
    quality = share * first.quality.mean() + (1 - share) * second.quality.mean()
    assert cost == pytest.approx(budget, rel=1e-4)
    assert quality == pytest.approx(-best.fun, abs=1e-4)
    coin = np.mean([replay(policy, seed).cost.mean() for seed in range(20)])
    assert coin == pytest.approx(budget, rel=0.05)


def test_a_budget_that_cannot_be_kept_says_what_can() -> None:
    rows = draw(5)
    with pytest.raises(InputError, match="cheapest choice costs"):
        spend(lambda w: Weighted(NAMES, w), lambda p: 2.0 + 0 * len(rows), 1.0)
    dear = spend(lambda w: Weighted(NAMES, w), lambda p: 2.0, 3.0)
    assert dear == Weighted(NAMES, 0.0), "a budget that is not needed is not spent"
