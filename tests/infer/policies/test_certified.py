"""Certified policies keep their promise, whatever the policy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.certified import Certified, agreements, certify_policy
from pilotfish.infer.policies.chain import Chain
from pilotfish.infer.policies.policy import Play, Policy, play
from pilotfish.infer.policies.reservation import Reservation
from pilotfish.infer.policies.weighted import Weighted

NAMES = ("small", "middle", "large")
COST = np.array([1.0, 2.0, 10.0], np.float32)


def population(n: int = 4000) -> Outcomes:
    rng = np.random.default_rng(1)
    easy = rng.random((n, 1))
    same = rng.random((n, 3)) < np.clip([0.5, 0.6, 1.0] + 0.5 * easy, 0, 1)
    answers = np.where(same, "yes", "no").astype(object)
    score = np.clip(easy + 0.15 * rng.normal(size=(n, 3)), 0, 1).astype(np.float32)
    quality = ((answers == "yes") ^ (rng.random((n, 3)) < 0.1)).astype(np.float32)
    texts = tuple(map(str, range(n)))
    signals = {"score": score, "expected": np.clip(score + 0.1, 0, 1)}
    return Outcomes(texts, NAMES, quality, np.tile(COST, (n, 1)), answers=answers, signals=signals)


POLICIES: dict[str, Policy] = {
    "routing": Weighted(NAMES, 0.02),
    "cascade": Chain(NAMES, ((0,), (1,)), (0.6,)),
    "cascade to the large one": Chain(NAMES, ((0,), (2,)), (0.3,)),
    "reservation": Reservation(NAMES, 0.02 * np.eye(3, dtype=np.float32), 0.02),
}


def replay(policy: Policy, rows: Outcomes) -> Play:
    return play(policy, rows, rows.signals["expected"], rows.signals["score"], cost=COST)


@pytest.mark.parametrize("risk", ["answer", "quality"])
@pytest.mark.parametrize("name", POLICIES)
def test_the_promise_holds_in_at_least_95_percent_of_draws(name: str, risk: Any) -> None:
    rows, policy = population(), POLICIES[name]
    whole = replay(policy, rows)
    agreed = agreements(whole, rows, 2, risk)
    margin = np.where(whole.asked[:, 2], 1.0, whole.margin)
    rng = np.random.default_rng(0)
    broken, served = [], []
    for _ in range(120):
        take = rng.integers(len(rows), size=400)
        part = rows.take(take)
        certified = certify_policy(
            policy, replay(policy, part), part, "large", agree=0.9, risk=risk
        )
        at = 2.0 if certified.threshold is None else certified.threshold
        broken.append(((margin >= at) & ~agreed).mean() > 0.1)
        served.append((margin >= at).mean())
    assert np.mean(broken) <= 0.05 + 2.5 * np.sqrt(0.05 * 0.95 / 120)
    assert np.mean(served) > 0.2, "a promise kept by always asking would be no feat"


@pytest.mark.parametrize("name", POLICIES)
def test_what_is_certified_is_what_is_replayed(name: str) -> None:
    """Below the threshold the large model answers; everything else is as it was."""
    rows, policy = population(600), POLICIES[name]
    whole = replay(policy, rows)
    for threshold in (0.0, 0.5, 0.8, 1.01):
        played = replay(Certified(policy, 2, threshold), rows)
        moved = (whole.margin < threshold) | whole.asked[:, 2]
        assert np.array_equal(played.answered, np.where(moved, 2, whole.answered))
        assert np.array_equal(played.asked[:, 2], moved)
        assert np.all(played.asked >= whole.asked)
    never = replay(Certified(policy, 2, None), rows)
    assert (never.answered == 2).all()
    assert never.asked.sum() == len(rows), "without a certificate nobody else is asked"


def test_an_answer_that_is_missing_or_worse_is_no_agreement() -> None:
    answers = np.array([["a", "a"], ["a", "b"], [None, "a"]], object)
    quality = np.array([[1, 1], [1, 0], [np.nan, 1]], np.float32)
    rows = Outcomes(("x", "y", "z"), ("small", "large"), quality, answers=answers)
    zero = np.zeros(3, np.float32)
    asked = np.array([[True, False]] * 3)
    played = Play(np.zeros(3, np.int64), asked, quality[:, 0], zero, zero, zero)
    assert agreements(played, rows, 1, "answer").tolist() == [True, False, False]
    assert agreements(played, rows, 1, "quality").tolist() == [True, True, False]
    bare = Outcomes(("x",), ("small", "large"), np.ones((1, 2), np.float32))
    with pytest.raises(InputError, match="quality"):
        agreements(played, bare, 1, "answer")
    with pytest.raises(InputError, match="no model 'huge'"):
        certify_policy(Weighted(("small", "large")), played, rows, "huge")
