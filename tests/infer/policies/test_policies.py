"""Policies against brute force, linear programmes and closed forms; replays see only what was asked."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from scipy.optimize import linprog
from scipy.stats import norm

from pilotfish.errors import ConfigError, InputError
from pilotfish.infer.judges.model_agreement import ModelAgreement
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.beliefs import spread
from pilotfish.infer.policies.cascade_routing import CascadeRouting
from pilotfish.infer.policies.chain import Chain, data_shunt, synergy_of_thoughts
from pilotfish.infer.policies.chain_search import search_chains
from pilotfish.infer.policies.dials import Setting, mix, pick, settings_of_plans, sweep
from pilotfish.infer.policies.mixed import Mixed, spend
from pilotfish.infer.policies.policy import Play, Policy, Step, View, play
from pilotfish.infer.policies.reservation import Reservation, reservation_value
from pilotfish.infer.policies.weighted import Weighted

NAMES = ("small", "middle", "large")
COST = np.array([1.0, 3.0, 10.0], np.float32)


def draw(seed: int, n: int = 400, names: tuple[str, ...] = NAMES, **more: Any) -> Outcomes:
    rng = np.random.default_rng(seed)
    m = len(names)
    hard = rng.random((n, 1))
    chance = np.clip(np.linspace(1.1, 1.7, m) - hard, 0, 1)
    quality = (rng.random((n, m)) < chance).astype(np.float32)
    cost = np.tile(np.resize(COST, m), (n, 1)) * rng.uniform(0.5, 1.5, (n, m))
    score = np.clip(0.5 + 0.35 * (quality - 0.5) + 0.2 * rng.normal(size=(n, m)), 0, 1)
    expected = np.clip(chance + 0.1 * rng.normal(size=(n, m)), 0, 1)
    seen = quality + 0.3 * rng.normal(
        size=(n, m)
    )  # posterior = prior times the odds of what was seen
    odds = chance / np.maximum(1 - chance, 1e-6) * np.exp((seen - 0.5) / 0.09)
    signals = {
        "posterior": (odds / (1 + odds)).astype(np.float32),
        "chance": chance.astype(np.float32),
    }
    signals |= {"score": score.astype(np.float32), "expected": expected.astype(np.float32)}
    texts = tuple(f"question {i}" for i in range(n))
    return Outcomes(texts, names, quality, cost.astype(np.float32), signals=signals, **more)


# Routing by price


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


# Cascades


def by_hand(
    order: tuple[int, ...], thresholds: tuple[float, ...], rows: Outcomes
) -> tuple[float, float]:
    """A cascade with two loops."""
    quality = cost = 0.0
    for i in range(len(rows)):
        for number, j in enumerate(order):
            cost += float(rows.cost[i, j])
            if number == len(order) - 1 or rows.signals["score"][i, j] >= thresholds[number]:
                quality += float(rows.quality[i, j])
                break
    return quality / len(rows), cost / len(rows)


def test_a_chain_does_what_two_loops_do() -> None:
    rows = draw(6)
    for order, thresholds in (((0, 1, 2), (0.6, 0.5)), ((2, 0), (0.4,)), ((1,), ())):
        chain = Chain(NAMES, tuple((j,) for j in order), thresholds)
        played = play(chain, rows, scores=rows.signals["score"])
        quality, cost = by_hand(order, thresholds, rows)
        assert played.quality.mean() == pytest.approx(quality)
        assert played.cost.mean() == pytest.approx(cost, rel=1e-5)


def test_the_search_finds_what_trying_everything_finds() -> None:
    rows = draw(7, 150)
    score = rows.signals["score"]
    plans = search_chains(NAMES, rows.quality, rows.cost, score, grid=4, prune=False)
    for plan in plans:  # what a plan claims is what it does
        played = play(plan.chain, rows, scores=score)
        assert played.quality.mean() == pytest.approx(plan.quality, abs=1e-6)
        assert played.cost.mean() == pytest.approx(plan.cost, rel=1e-5)
        assert played.strong_share(2) == pytest.approx(plan.strong_share, abs=1e-6)
    tried = []
    for length in (1, 2, 3):
        for order in itertools.permutations(range(3), length):
            grids = []
            for j in order[:-1]:
                cuts = np.unique(np.quantile(score[:, j].astype(float), np.linspace(0, 1, 4)))
                grids.append([*cuts, 1.01])
            for thresholds in itertools.product(*grids):
                tried.append(by_hand(order, thresholds, rows))
    for budget in np.linspace(min(c for _, c in tried) + 0.01, 11, 12):
        by_search = max(p.quality for p in plans if p.cost <= budget)
        assert by_search == pytest.approx(max(q for q, c in tried if c <= budget), abs=1e-6)
    costs, qualities = [p.cost for p in plans], [p.quality for p in plans]
    assert costs == sorted(costs)
    assert qualities == sorted(qualities)


def test_pruned_orders_lose_nothing_here_and_scores_may_depend_on_who_was_asked() -> None:
    rows = draw(8)
    score = rows.signals["score"]

    def of(asked: tuple[int, ...]) -> Any:
        return score * (0.5 + 0.5 * (len(asked) > 1))

    plans = search_chains(NAMES, rows.quality, rows.cost, of, answer="all", grid=6)
    every = search_chains(NAMES, rows.quality, rows.cost, of, answer="all", grid=6, prune=False)
    assert [(p.cost, p.quality) for p in plans] == [(p.cost, p.quality) for p in every]
    for plan in plans[:: max(len(plans) // 8, 1)]:

        def seen(outcomes: Outcomes, asked: Any) -> Any:
            several = asked.sum(axis=1, keepdims=True) > 1
            return score * (0.5 + 0.5 * several)

        played = play(plan.chain, rows, scores=seen)
        assert played.quality.mean() == pytest.approx(plan.quality, abs=1e-6)
        assert played.cost.mean() == pytest.approx(plan.cost, rel=1e-5)


def test_incomplete_questions_are_refused_by_the_search() -> None:
    rows = draw(9, 5)
    quality = rows.quality.copy()
    quality[0, 0] = np.nan
    with pytest.raises(InputError, match="incomplete"):
        search_chains(NAMES, quality, rows.cost, rows.signals["score"])


def test_synergy_asks_the_large_model_where_the_small_ones_conflict() -> None:
    names = ("a", "b", "large")
    answers = np.array([["1", "1", "3"], ["1", "2", "3"], ["2", "2", "2"]], object)
    rows = Outcomes(("x", "y", "z"), names, np.ones((3, 3), np.float32), answers=answers)
    chain = synergy_of_thoughts(names, ["a", "b"], "large")
    played = play(chain, rows, scores=ModelAgreement())
    assert played.answered.tolist() == [0, 2, 0]
    assert played.asked.tolist() == [[True, True, False], [True, True, True], [True, True, False]]


def test_data_shunt_is_a_threshold_on_the_small_model() -> None:
    rows = draw(10).select(["small", "large"])
    score = rows.signals["score"]
    played = play(data_shunt(rows.models, "small", "large", confidence=0.6), rows, scores=score)
    assert np.array_equal(played.answered == 0, score[:, 0] >= np.float32(0.6))
    assert np.allclose(played.margin[played.answered == 0], score[played.answered == 0, 0])


def test_stages_that_do_not_fit_are_refused() -> None:
    for stages, thresholds in ((((0,), (0,)), (0.5,)), (((0,), (1,)), ()), (((0,), (5,)), (0.5,))):
        with pytest.raises(ConfigError, match="Got"):
            Chain(NAMES, stages, thresholds)


# Cascade routing


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


# Dials


def test_dials_pick_from_the_frontier() -> None:
    some = [
        Setting(Weighted(NAMES, w), c, q, s)
        for w, c, q, s in (
            (3, 1.0, 0.6, 0.0),
            (2, 2.0, 0.7, 0.1),
            (1, 4.0, 0.75, 0.3),
            (0, 9.0, 0.8, 0.9),
        )
    ]
    assert pick(some, max_cost=4.0) is some[2]
    assert pick(some, strong_share=0.2) is some[1]
    assert pick(some, min_quality=0.65) is some[1]
    assert pick(some, max_cost=5, strong_share=0.1) is some[1]
    with pytest.raises(InputError, match="can be had is 1"):
        pick(some, max_cost=0.5)
    with pytest.raises(InputError, match=r"within the other limits is 0\.75"):
        pick(some, min_quality=0.78, max_cost=5)


def test_a_budget_between_two_settings_is_spent_by_a_coin() -> None:
    some = [
        Setting(Weighted(NAMES, w), c, q, 0.0)
        for w, c, q in ((4, 1.0, 0.5), (3, 2.0, 0.52), (2, 3.0, 0.7), (1, 9.0, 0.8))
    ]
    mixed = mix(some, 2.0)
    assert isinstance(mixed, Mixed)
    assert (mixed.first, mixed.second) == (some[0].policy, some[2].policy), (
        "2.0 lies under the hull"
    )
    assert mixed.share == pytest.approx(0.5)
    assert mix(some, 3.0) == some[2].policy
    assert mix(some, 20.0) == some[3].policy
    with pytest.raises(InputError, match="can be had is 1"):
        mix(some, 0.5)
    # The linear programme over all settings agrees.
    for budget in (1.3, 2.5, 5.0):
        best = linprog(
            [-s.quality for s in some], A_ub=[[s.cost for s in some]], b_ub=[budget],
            A_eq=np.ones((1, 4)), b_eq=[1],
        )  # fmt: skip
        coin = mix(some, budget)
        assert isinstance(coin, Mixed)
        of = {s.policy: s.quality for s in some}
        got = coin.share * of[coin.first] + (1 - coin.share) * of[coin.second]
        assert got == pytest.approx(-best.fun)


def test_a_sweep_and_a_search_make_frontiers() -> None:
    rows = draw(15)
    expected = rows.signals["expected"]
    swept = sweep(
        lambda w: Weighted(NAMES, w),
        lambda p: play(p, rows, expected, cost=COST),
        (0, 0.1, 1),
        large=2,
    )
    costs = [s.cost for s in swept]
    assert costs == sorted(costs, reverse=True)
    assert swept[0].strong_share > swept[-1].strong_share
    plans = search_chains(NAMES, rows.quality, rows.cost, rows.signals["score"], max_stages=2)
    assert pick(settings_of_plans(plans), max_cost=3.0).cost <= 3.0


# Replay


class Cheat:
    """Gives an answer that nobody was asked for, or asks twice."""

    models = NAMES

    def __init__(self, ask: int) -> None:
        self.ask = ask

    def step(self, view: View) -> Step:
        n = len(view.asked)
        return Step(np.full(n, self.ask), np.zeros(n, int), np.ones(n, np.float32))


def test_a_replay_refuses_what_service_could_not_do() -> None:
    rows = draw(16, 4)
    with pytest.raises(InputError, match="nobody was asked"):
        play(Cheat(-1), rows)
    with pytest.raises(InputError, match="had answered already"):
        play(Cheat(0), rows)
    with pytest.raises(InputError, match=r"outcomes\.select"):
        play(Weighted(("x",)), rows)


def test_a_policy_sees_no_score_that_was_not_asked_for() -> None:
    rows = draw(17, 30)
    views = []

    class Spy(Weighted):
        def step(self, view: View) -> Step:
            views.append(view)
            return super().step(view)

    play(Spy(NAMES, 0.05), rows, rows.signals["expected"], rows.signals["score"])
    for each in views:
        assert np.array_equal(np.isnan(each.scores), ~each.asked)


def test_unknown_costs_stay_unknown() -> None:
    rows = draw(18, 10)
    cost = rows.cost.copy()
    cost[3] = np.nan
    known = Outcomes(rows.texts, NAMES, rows.quality, cost)
    played = play(Weighted(NAMES), known, cost=COST)
    assert np.flatnonzero(np.isnan(played.cost)).tolist() == [3]
    assert np.isnan(played.latency).all()
