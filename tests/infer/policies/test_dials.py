"""Dials: settings picked from a frontier, and a budget between two of them spent by a coin."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import linprog

from pilotfish.errors import InputError
from pilotfish.infer.policies.chain_search import search_chains
from pilotfish.infer.policies.dials import Setting, mix, pick, settings_of_plans, sweep
from pilotfish.infer.policies.mixed import Mixed
from pilotfish.infer.policies.policy import play
from pilotfish.infer.policies.weighted import Weighted
from tests.infer.policies.drawn_outcomes import COST, NAMES, draw


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
