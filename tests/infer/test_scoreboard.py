"""The scoreboard's measures against closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from pilotfish.errors import InputError
from pilotfish.infer import scoreboard as sb
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.policy import play
from pilotfish.infer.policies.weighted import Weighted


def pair(both: int, strong_only: int, weak_only: int, neither: int) -> Outcomes:
    rows = [[1, 1]] * both + [[0, 1]] * strong_only + [[1, 0]] * weak_only + [[0, 0]] * neither
    quality = np.array(rows, np.float32)[np.random.default_rng(0).permutation(len(rows))]
    n = len(rows)
    cost = np.tile(np.array([1, 10], np.float32), (n, 1))
    return Outcomes(tuple(map(str, range(n))), ("weak", "strong"), quality, cost)


def points_of(outcomes: Outcomes, score: np.ndarray) -> sb.Points:
    q = outcomes.quality
    return sb.threshold_points(score.astype(np.float32), q[:, 0], q[:, 1], outcomes.cost)


def test_a_score_that_says_nothing_recovers_half_the_gap() -> None:
    outcomes = pair(40, 40, 10, 10)
    weak, strong = outcomes.quality.T
    flat = points_of(outcomes, np.zeros(100))
    assert sb.apgr(flat, weak, strong) == pytest.approx(0.5)
    assert sb.cpt(flat, weak, strong, 0.5) == pytest.approx(0.5)
    assert sb.cpt(flat, weak, strong, 0.8) == pytest.approx(0.8)
    draws = [
        sb.apgr(points_of(outcomes, np.random.default_rng(s).random(100)), weak, strong)
        for s in range(300)
    ]
    assert np.mean(draws) == pytest.approx(0.5, abs=0.02)


def test_the_oracle_has_its_closed_form() -> None:
    """Gains first (share a, +1 each), then what is alike, then losses (share b, -1 each).

    The area over the weak model's line is a^2/2 + a(1-a-b) + ab - b^2/2 with the gap a - b.
    """
    outcomes = pair(40, 40, 10, 10)
    weak, strong = outcomes.quality.T
    best = points_of(outcomes, strong - weak)
    a, b = 0.4, 0.1
    area = a**2 / 2 + a * (1 - a - b) + a * b - b**2 / 2
    assert sb.apgr(best, weak, strong) == pytest.approx(area / (a - b))
    assert sb.cpt(best, weak, strong, 0.5) == pytest.approx(0.5 * (a - b))
    worst = points_of(outcomes, weak - strong)
    assert sb.apgr(worst, weak, strong) == pytest.approx(1 - area / (a - b))


def test_apgr_is_the_area_under_the_curve_of_single_calls() -> None:
    rng = np.random.default_rng(3)
    outcomes = pair(30, 50, 5, 15)
    weak, strong = outcomes.quality.T
    score = rng.normal(strong - weak, 1.0).astype(np.float32)
    order = np.argsort(-score)
    curve = weak.mean() + np.concatenate([[0], np.cumsum((strong - weak)[order])]) / 100
    recovered = (curve - weak.mean()) / (strong.mean() - weak.mean())
    by_hand = np.mean((recovered[1:] + recovered[:-1]) / 2)
    assert sb.apgr(points_of(outcomes, score), weak, strong) == pytest.approx(by_hand, abs=1e-6)


def test_weights_are_counts() -> None:
    outcomes = pair(20, 30, 10, 10)
    rng = np.random.default_rng(1)
    score = rng.random(70).astype(np.float32)
    counts = rng.integers(0, 3, 70)
    rows = np.repeat(np.arange(70), counts)
    weak, strong = outcomes.quality.T
    weighted = sb.apgr(points_of(outcomes, score), weak, strong, counts.astype(float))
    again = outcomes.take(rows)
    repeated = sb.apgr(points_of(again, score[rows]), *again.quality.T)
    assert weighted == pytest.approx(repeated)


def test_the_hull_never_falls_and_bends_down() -> None:
    cost = np.array([1.0, 2, 3, 4, 2, 5])
    quality = np.array([0.2, 0.3, 0.8, 0.7, 0.25, 0.9])
    x, y = sb.hull(cost, quality)
    assert x.tolist() == [1, 3, 5]
    assert y.tolist() == pytest.approx([0.2, 0.8, 0.9])
    rng = np.random.default_rng(0)
    x, y = sb.hull(rng.random(200), rng.random(200))
    slopes = np.diff(y) / np.diff(x)
    assert np.all(slopes > 0)
    assert np.all(np.diff(slopes) < 0)


def test_quality_between_two_settings_is_their_mix() -> None:
    cost, quality = np.array([1.0, 3.0]), np.array([0.2, 0.6])
    assert sb.quality_at(cost, quality, [2.0])[0] == pytest.approx(0.4)
    assert sb.quality_at(cost, quality, [9.0])[0] == pytest.approx(0.6)
    assert np.isnan(sb.quality_at(cost, quality, [0.5])[0])


def fixed(cost: list[float], quality: list[float]) -> sb.Points:
    def wide(values: list[float]) -> np.ndarray:
        return np.repeat(np.array(values, np.float32)[:, None], 4, axis=1)

    strong = np.zeros((len(cost), 4), bool)
    return sb.Points(wide(quality), wide(cost), strong, np.zeros(len(cost), np.float32))


def test_aiq_is_the_mean_height() -> None:
    straight = fixed([1, 3], [0.2, 0.6])
    assert sb.aiq(straight, (1, 0.2), 3) == pytest.approx(0.4)
    # It stops at 3 and goes on horizontally to 5: (2 * 0.4 + 2 * 0.6) / 4.
    assert sb.aiq(straight, (1, 0.2), 5) == pytest.approx(0.5)
    # One expensive setting is mixed with the cheapest model.
    assert sb.aiq(fixed([3], [0.6]), (1, 0.2), 3) == pytest.approx(0.4)
    with pytest.raises(InputError, match="cost of every answer"):
        sb.aiq(fixed([float("nan")], [0.6]), (1, 0.2), 3)
    with pytest.raises(InputError, match="expected a range"):
        sb.aiq(straight, (1, 0.2), 1)


def test_the_oracle_takes_the_cheapest_of_the_best() -> None:
    outcomes = pair(10, 10, 10, 10)
    top = sb.oracle(outcomes)
    assert top.quality.mean() == pytest.approx(0.75)
    assert top.cost.mean() == pytest.approx((30 * 1 + 10 * 10) / 40)


def test_the_oracle_prefers_a_good_answer_of_unknown_cost_to_a_bad_one() -> None:
    nan = float("nan")
    quality = np.array([[0, 1, 1], [0, 1, 1], [0.5, nan, 0.2], [1, 1, nan]], np.float32)
    cost = np.array([[1, nan, nan], [1, nan, 9], [1, 2, nan], [5, 3, 1]], np.float32)
    top = sb.oracle(Outcomes(("w", "x", "y", "z"), ("a", "b", "c"), quality, cost))
    assert top.quality[0].tolist() == [1, 1, 0.5, 1]
    assert top.cost[0, 1:].tolist() == [9, 1, 3], "of the best, the cheapest whose cost is known"


def test_routing_by_price_is_the_weighted_policy() -> None:
    rng = np.random.default_rng(5)
    n = 80
    quality = rng.random((n, 3)).astype(np.float32)
    cost = rng.random((n, 3)).astype(np.float32) + np.array([0, 1, 3], np.float32)
    outcomes = Outcomes(tuple(map(str, range(n))), ("a", "b", "c"), quality, cost)
    expected = rng.random((n, 3)).astype(np.float32)
    believed = outcomes.mean_cost()
    weights = np.array([0, 0.05, 0.5], np.float32)
    points = sb.weighted_points(expected, outcomes, believed, weights)
    for i, weight in enumerate(weights):
        played = play(Weighted(outcomes.models, float(weight)), outcomes, expected, cost=believed)
        assert np.array_equal(points.quality[i], played.quality)
        assert np.allclose(points.cost[i], played.cost)


def test_the_bootstrap_interval_of_a_mean_is_the_normal_one() -> None:
    values = np.random.default_rng(2).normal(0, 1, 400)
    found = sb.bootstrap(lambda w: float(w @ values / w.sum()), 400, samples=1000)
    half = 1.96 * values.std() / 20
    assert found.value == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - half, abs=0.02)
    assert found.high == pytest.approx(values.mean() + half, abs=0.02)
