"""Cascade routing and reservation values against closed forms, brute force and dynamic programming."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.beliefs import spread
from pilotfish.infer.policies.cascade_routing import CascadeRouting
from pilotfish.infer.policies.chain import Chain
from pilotfish.infer.policies.policy import View, play
from pilotfish.infer.policies.reservation import Reservation, reservation_value
from pilotfish.infer.policies.weighted import Weighted
from tests.infer.policies.drawn_outcomes import COST, NAMES, draw


def view(expected: Any, asked: Any = None, scores: Any = None) -> View:
    expected = np.atleast_2d(np.asarray(expected, np.float32))
    n, m = expected.shape
    seen = np.zeros((n, m), bool) if asked is None else np.atleast_2d(asked)
    given = np.full((n, m), np.nan, np.float32) if scores is None else np.atleast_2d(scores)
    cost = np.broadcast_to(np.resize(COST, m), (n, m)).astype(np.float32)
    return View(seen, expected, given, cost, np.zeros((n, m), np.float32), np.zeros(n))


SPREAD = np.array([[0.04, 0.01, 0.0], [0.01, 0.03, 0.01], [0.0, 0.01, 0.02]], np.float32)


def test_sets_of_one_model_are_routing() -> None:
    rows = draw(11)
    expected = rows.signals["expected"]
    for weight in (0.0, 0.03, 0.1):
        one = CascadeRouting(NAMES, SPREAD, weight, family="one")
        routed = play(Weighted(NAMES, weight), rows, expected, cost=COST)
        assert np.array_equal(play(one, rows, expected, cost=COST).answered, routed.answered)
    certain = CascadeRouting(NAMES, np.zeros((3, 3), np.float32), 0.03)
    played = play(certain, rows, expected, expected, cost=COST)
    assert np.array_equal(
        played.answered, play(Weighted(NAMES, 0.03), rows, expected, cost=COST).answered
    )
    assert played.asked.sum(axis=1).max() == 1, "without uncertainty nothing more is to be learned"


@pytest.mark.parametrize("weight", [0.002, 0.01, 0.03])
def test_a_cascade_of_two_goes_on_exactly_where_the_closed_form_says(weight: float) -> None:
    """E max(s, N(mu, sigma^2)) - s = (mu - s) Phi(z) + sigma phi(z), z = (mu - s) / sigma."""
    moves = np.diag([0.05, 0.04]).astype(np.float32)
    policy = CascadeRouting(("a", "b"), moves, weight, family="prefix", draws=512)
    scores = np.linspace(0, 1, 201).astype(np.float32)
    n = len(scores)
    seen = np.tile([True, False], (n, 1))
    given = np.column_stack([scores, np.full(n, np.nan)]).astype(np.float32)
    step = policy.step(view(np.tile([0.5, 0.6], (n, 1)), seen, given))
    sigma, z = 0.2, (0.6 - scores) / 0.2
    gain = (0.6 - scores) * norm.cdf(z) + sigma * norm.pdf(z) - weight * COST[1]
    clear = np.abs(gain) > 0.003
    assert np.array_equal((step.ask == 1)[clear], (gain > 0)[clear])
    assert (step.ask == 1).any()
    assert (step.ask == -1).any()
    assert np.array_equal(step.margin[step.ask < 0], scores[step.ask < 0])


def test_a_prefix_family_asks_in_order_only() -> None:
    rows = draw(12)
    policy = CascadeRouting(NAMES, SPREAD, 0.01, family="prefix", order=(1, 0, 2))
    played = play(policy, rows, rows.signals["expected"], rows.signals["score"], cost=COST)
    patterns = {tuple(row) for row in played.asked.tolist()}
    assert patterns <= {(False, True, False), (True, True, False), (True, True, True)}
    assert len(patterns) > 1


@pytest.mark.parametrize("asked", [(), (0,), (2,), (0, 1)])
def test_the_best_set_is_what_brute_force_finds(asked: tuple[int, ...]) -> None:
    """All supersets, by a million independent draws of the conditional normal distribution."""
    rng = np.random.default_rng(0)
    policy = CascadeRouting(NAMES, SPREAD, 0.01, draws=512)
    known, rest = list(asked), [j for j in range(3) if j not in asked]
    for trial in range(5):
        expected = rng.uniform(0.3, 0.7, 3)
        scores = np.where(np.isin(np.arange(3), known), rng.uniform(0.2, 0.8, 3), np.nan)
        seen = np.isin(np.arange(3), known)
        mean, covariance = expected.copy(), SPREAD.astype(float)
        if known:
            inner = np.linalg.inv(SPREAD[np.ix_(known, known)].astype(float))
            across = SPREAD[np.ix_(rest, known)].astype(float)
            mean[rest] += across @ inner @ (scores[known] - expected[known])
            mean[known] = scores[known]
            covariance = np.zeros((3, 3))
            covariance[np.ix_(rest, rest)] = SPREAD[np.ix_(rest, rest)] - across @ inner @ across.T
        draws = rng.multivariate_normal(mean, covariance, 200_000)
        worth = {}
        for size in range(1, 4):
            for members in itertools.combinations(range(3), size):
                if set(known) <= set(members):
                    new = [j for j in members if j not in known]
                    worth[members] = (
                        draws[:, list(members)].max(axis=1).mean() - 0.01 * COST[new].sum()
                    )
        now = view(expected, seen, scores.astype(np.float32))
        sets, values = policy.set_values(now, asked)
        for members, value in zip(sets, values[0], strict=True):
            assert value == pytest.approx(worth[members], abs=0.004), (trial, members)
        best = max(worth, key=worth.__getitem__)
        order = sorted(worth.values())
        if len(order) < 2 or order[-1] - order[-2] > 0.008:
            new = [j for j in best if j not in known]
            expected_ask = min(new, key=lambda j: COST[j]) if new else -1
            assert int(policy.step(now).ask[0]) == expected_ask


def test_cascade_routing_is_better_than_routing_and_counting_the_stops_better_still() -> None:
    fit, test = draw(13, 2000), draw(14, 4000)
    moves = spread(fit.signals["chance"], fit.signals["posterior"])

    def best(kind: Any = CascadeRouting, **family: Any) -> float:
        policy = kind(NAMES, moves, 0.02, **family)
        played = play(policy, test, test.signals["chance"], test.signals["posterior"], cost=COST)
        return float(played.quality.mean() - 0.02 * played.cost.mean())

    both = best()
    assert both > best(family="one") + 0.005
    stopping = best(Reservation)
    assert stopping > both + 0.01, "the freedom to stop is worth something"
    assert stopping == pytest.approx(best(family="prefix"), abs=0.003)


@pytest.mark.parametrize("cost", [0.001, 0.05, 0.3, 2.0])
def test_the_reservation_value_solves_its_equation(cost: float) -> None:
    z = float(reservation_value(np.array(0.6), np.array(0.2), np.array(cost)))
    at = (0.6 - z) / 0.2
    expected_gain = (0.6 - z) * norm.cdf(at) + 0.2 * norm.pdf(at)
    assert expected_gain == pytest.approx(cost, rel=2e-3)


def test_reservation_values_are_as_good_as_the_best_of_all_policies() -> None:
    """Weitzman 1979 against dynamic programming over (who was asked, best value so far)."""
    mean, deviation, price = (
        np.array([0.5, 0.55, 0.6]),
        np.array([0.2, 0.1, 0.25]),
        [0.02, 0.04, 0.08],
    )
    points = norm.ppf((np.arange(200) + 0.5) / 200)
    values = mean[:, None] + deviation[:, None] * points  # 200 equally likely values of each box
    grid = np.linspace(-0.5, 1.6, 1401)

    def best_from(opened: frozenset[int]) -> np.ndarray:
        """Value of going on optimally, for every best value so far on the grid."""
        out = grid.copy()
        for j in set(range(3)) - opened:
            after_j = best_from(opened | {j})
            shown = np.maximum(grid[:, None], values[j][None])
            out = np.maximum(out, np.interp(shown, grid, after_j).mean(axis=1) - price[j])
        return out

    optimum = max(
        np.interp(values[j], grid, best_from(frozenset({j}))).mean() - price[j] for j in range(3)
    )
    n = 40_000
    rng = np.random.default_rng(0)
    drawn = (mean + deviation * rng.normal(size=(n, 3))).astype(np.float32)
    rows = Outcomes(tuple(map(str, range(n))), NAMES, np.clip(drawn, 0, 1))
    policy = Reservation(NAMES, np.diag(deviation**2).astype(np.float32), 1.0)
    played = play(policy, rows, mean, drawn, cost=np.array(price))
    got = drawn[np.arange(n), played.answered] - (played.asked * price).sum(axis=1)
    error = got.std() / np.sqrt(n)
    assert got.mean() == pytest.approx(optimum, abs=4 * error + 0.001)


def test_without_spread_reservation_values_are_routing() -> None:
    rows = draw(19)
    expected = rows.signals["expected"]
    policy = Reservation(NAMES, np.zeros((3, 3), np.float32), 0.03)
    played = play(policy, rows, expected, expected, cost=COST)
    routed = play(Weighted(NAMES, 0.03), rows, expected, cost=COST)
    assert np.array_equal(played.answered, routed.answered)
    assert np.array_equal(played.asked, routed.asked)


def test_a_failed_model_is_passed_over_and_its_answer_never_given() -> None:
    for policy in (
        Weighted(NAMES, 0.0),
        CascadeRouting(NAMES, SPREAD, 0.01),
        CascadeRouting(NAMES, SPREAD, 0.01, family="one"),
        Reservation(NAMES, SPREAD, 0.0001),
        Chain(NAMES, ((2,), (0,)), (0.5,)),
    ):
        now = view([0.5, 0.6, 0.99])
        first = policy.step(now)
        assert first.ask[0] == 2
        now.asked[0, 2], now.scores[0, 2] = True, -1.0
        assert policy.step(now).ask[0] in (0, 1), policy
