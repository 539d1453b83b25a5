"""Cascades against two loops, and the search for them against trying everything."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from pilotfish.errors import ConfigError, InputError
from pilotfish.infer.judges.model_agreement import ModelAgreement
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.chain import Chain, data_shunt, synergy_of_thoughts
from pilotfish.infer.policies.chain_search import search_chains
from pilotfish.infer.policies.policy import play
from tests.infer.policies.drawn_outcomes import NAMES, draw


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
