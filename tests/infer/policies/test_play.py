"""Replays see only what was asked, and refuse what service could not do."""

from __future__ import annotations

import numpy as np
import pytest

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.policy import Step, View, play
from pilotfish.infer.policies.weighted import Weighted
from tests.infer.policies.drawn_outcomes import COST, NAMES, draw


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
