"""What every policy promises; the rows are those of tests/contract_rows.py."""

from __future__ import annotations

import numpy as np
import pytest

from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.policy import Policy, View, play
from tests.contract_rows import POLICIES

NAMES = ("small", "middle", "large")
COST = np.array([1.0, 2.0, 5.0], np.float32)


def outcomes(n: int = 60) -> Outcomes:
    rng = np.random.default_rng(0)
    quality = (rng.random((n, 3)) < [0.4, 0.6, 0.8]).astype(np.float32)
    score = np.clip(0.3 * quality + 0.7 * rng.random((n, 3)), 0, 1).astype(np.float32)
    texts = tuple(f"question {i}" for i in range(n))
    return Outcomes(texts, NAMES, quality, np.tile(COST, (n, 1)), signals={"score": score})


@pytest.mark.parametrize("name", POLICIES)
def test_a_policy_answers_everything_from_what_was_asked(name: str) -> None:
    rows, policy = outcomes(), POLICIES[name](NAMES)
    assert isinstance(policy, Policy)
    played = play(policy, rows, np.array([0.4, 0.6, 0.8]), rows.signals["score"], cost=COST)
    at = np.arange(len(rows))
    assert played.asked[at, played.answered].all()
    assert np.array_equal(played.quality, rows.quality[at, played.answered])
    np.testing.assert_allclose(played.cost, (played.asked * rows.cost).sum(axis=1))
    assert played.margin.min() >= 0
    assert played.margin.max() <= 1
    again = play(policy, rows, np.array([0.4, 0.6, 0.8]), rows.signals["score"], cost=COST)
    assert np.array_equal(again.answered, played.answered)


@pytest.mark.parametrize("name", POLICIES)
def test_a_request_is_decided_alone_as_in_a_batch(name: str) -> None:
    policy = POLICIES[name](NAMES)
    rng = np.random.default_rng(1)
    asked = rng.random((40, 3)) < [0.7, 0.4, 0.0]
    scores = np.where(asked, rng.random((40, 3)), np.nan).astype(np.float32)
    expected = rng.random((40, 3)).astype(np.float32)
    cost = np.broadcast_to(COST, (40, 3))
    view = View(asked, expected, scores, cost, np.zeros((40, 3), np.float32), rng.random(40))
    if name == "verification-pomdp":  # its order is fixed: no other view can come about
        view = view.take(np.all(np.sort(asked)[:, ::-1] == asked, axis=1))
    step = policy.step(view)
    for i in range(len(view.asked)):
        single = policy.step(view.take([i]))
        assert single.ask[0] == step.ask[i]
        assert single.answer[0] == step.answer[i]
        assert single.margin[0] == pytest.approx(step.margin[i], abs=1e-5)
