"""Policies at work: what they do live is what they do in a replay."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Price
from pilotfish.errors import ConfigError, RequestRefused, Unavailable
from pilotfish.infer.judges.learned import LearnedScorer
from pilotfish.infer.judges.model_agreement import ModelAgreement
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.certified import Certified
from pilotfish.infer.policies.chain import synergy_of_thoughts
from pilotfish.infer.policies.policy import Policy, play
from pilotfish.infer.policies.reservation import Reservation
from pilotfish.infer.policies.weighted import Weighted
from pilotfish.infer.policy_model import PolicyModel
from pilotfish.models.fake import FakeModel
from pilotfish.models.protocols import Model
from pilotfish.records import Request

NAMES = ("small", "middle", "large")
COST = np.array([0.01, 0.02, 0.1], np.float32)


def lesson(n: int = 300) -> Outcomes:
    rng = np.random.default_rng(0)
    right = rng.random((n, 3)) < [0.6, 0.7, 0.9]
    answers = np.empty((n, 3), object)
    for i, j in itertools.product(range(n), range(3)):
        answers[i, j] = f"It is {10 + i % 80 if right[i, j] else rng.integers(100, 999)}"
    texts = tuple(f"question {i}?" for i in range(n))
    return Outcomes(texts, NAMES, right.astype(np.float32), np.tile(COST, (n, 1)), answers=answers)


def members(rows: Outcomes) -> dict[str, Model]:
    assert rows.answers is not None
    return {
        name: FakeModel(dict(zip(rows.texts, rows.answers[:, j], strict=True)), name=name)
        for j, name in enumerate(rows.models)
    }


MOVES = np.array([[0.1, 0.03, 0.02], [0.03, 0.08, 0.02], [0.02, 0.02, 0.05]], np.float32)


@pytest.mark.parametrize(
    "policy",
    [
        Weighted(NAMES, 1.0),
        Reservation(NAMES, MOVES, 1.0),
        Certified(Reservation(NAMES, MOVES, 1.0), 2, 0.7),
        synergy_of_thoughts(NAMES, ["small", "middle"], "large", agree=0.8),
    ],
)
async def test_live_decisions_are_those_of_the_replay(policy: Policy) -> None:
    rows = lesson()
    judge = LearnedScorer.fit(rows, pattern="[0-9]+")
    expected = np.array([0.6, 0.7, 0.9], np.float32)
    test = rows.take(slice(0, 25))
    played = play(policy, test, expected, judge, cost=COST)
    parts = members(rows)
    live = PolicyModel(parts, policy, cost=COST, expected=expected, judge=judge)
    for i, text in enumerate(test.texts):
        answer = await live.complete(Request.of(text))
        assert answer.model == NAMES[played.answered[i]]
        decision = answer.decisions[-1]
        assert (decision.by, decision.chose) == ("policy", answer.model)
        assert set(decision.rejected) == {
            n for n, a in zip(NAMES, played.asked[i], strict=True) if not a
        }
    for j, name in enumerate(NAMES):
        asked = parts[name]
        assert isinstance(asked, FakeModel)
        assert len(asked.requests) == played.asked[:, j].sum()


async def test_costs_of_all_that_were_asked_add_up() -> None:
    price = Price(1.0, 1.0)
    models = {
        n: FakeModel(t, name=n, price=price) for n, t in zip(NAMES, ("1", "2", "3"), strict=True)
    }
    policy = synergy_of_thoughts(NAMES, ["small", "middle"], "large")
    answer = await PolicyModel(models, policy, cost=COST, judge=ModelAgreement()).complete(
        Request.of("a b")
    )
    assert answer.model == "large"
    assert answer.cost == pytest.approx(3 * (2 + 1) / 1e6)
    assert [d.reason for d in answer.decisions] == ["not-sure", "not-sure", "last"]


async def test_a_member_that_fails_is_passed_over_until_none_is_left() -> None:
    gone: Any = lambda: itertools.repeat(Unavailable("gone"))  # noqa: E731
    models: dict[str, Model] = {n: FakeModel(f"from {n}", name=n) for n in NAMES}
    models["large"] = FakeModel("x", name="large", faults=gone())
    policy = Weighted(NAMES, 0.0)
    expected = [0.1, 0.2, 0.9]
    answer = await PolicyModel(models, policy, cost=COST, expected=expected).complete(
        Request.of("q")
    )
    assert answer.model == "middle"
    assert answer.decisions[0].reason == "unavailable"
    models = {n: FakeModel("x", name=n, faults=gone()) for n in NAMES}
    with pytest.raises(Unavailable):
        await PolicyModel(models, policy, cost=COST, expected=expected).complete(Request.of("q"))
    models["large"] = FakeModel("x", name="large", faults=itertools.repeat(RequestRefused("no")))
    with pytest.raises(RequestRefused):
        await PolicyModel(models, policy, cost=COST, expected=expected).complete(Request.of("q"))


def test_a_policy_without_its_models_is_refused() -> None:
    with pytest.raises(ConfigError, match="large"):
        PolicyModel({"small": FakeModel(""), "middle": FakeModel("")}, Weighted(NAMES), cost=COST)
