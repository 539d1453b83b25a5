"""Curves of judged policies: their measures, and that no judge sees what was not asked."""

from __future__ import annotations

import numpy as np
import pytest

from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.replay import replay
from pilotfish.infer.replayed_judges import JUDGED, judged_points


def telling(n: int = 500) -> Outcomes:
    """A signal that says well whether the answer is right; the question alone says nothing."""
    rng = np.random.default_rng(0)
    quality = (rng.random((n, 3)) < [0.55, 0.7, 0.9]).astype(np.float32)
    signal = np.clip(0.1 + 0.8 * quality + 0.1 * rng.normal(size=(n, 3)), 0, 1)
    texts = tuple(f"question number {i}" for i in range(n))
    cost = np.tile(np.array([1, 3, 10], np.float32), (n, 1))
    signals = {"probability": signal.astype(np.float32)}
    return Outcomes(texts, ("small", "middle", "large"), quality, cost, signals=signals)


def test_judging_answers_beats_predicting_them_where_questions_say_nothing() -> None:
    names = ["logistic", "oracle", *(f"{kind}:probability" for kind in JUDGED)]
    scores = {s.policy: s for s in replay(telling(), names, seeds=1, samples=0)}
    aiq = {name: s.measures["aiq"].value for name, s in scores.items() if "aiq" in s.measures}
    for kind in JUDGED:
        assert aiq[f"{kind}:probability"] > aiq["logistic"] + 0.05, aiq
        best = scores[f"{kind}:probability"].measures["quality"].value
        assert best <= scores["oracle"].measures["quality"].value + 1e-9
        assert best >= 0.9


@pytest.mark.parametrize("kind", JUDGED)
def test_no_judge_sees_answers_that_were_not_asked_for(kind: str) -> None:
    """Small and large agree exactly where small is right; that shows only once both were asked.

    Who peeked would keep the right small answers and have all right for little; who does not can only
    draw lots between the two.
    """
    rng = np.random.default_rng(1)
    n = 600
    right = rng.random(n) < 0.5
    number = rng.integers(100, 999, n)
    answers = np.empty((n, 2), object)
    answers[:, 1] = [f"It is {k}" for k in number]
    answers[:, 0] = [f"It is {k if r else k + 1}" for k, r in zip(number, right, strict=True)]
    quality = np.stack([right, np.ones(n)], axis=1).astype(np.float32)
    cost = np.tile(np.array([1, 10], np.float32), (n, 1))
    texts = tuple(f"question {i}" for i in range(n))
    rows = Outcomes(texts, ("small", "large"), quality, cost, answers=answers)
    learn, test = rows.split(0, fit=0.6)
    points = judged_points(kind, "learned", learn, test, 0, None)
    reached, spent, _ = points.means()
    lots = test.quality[:, 0].mean() + 0.5 * np.clip((spent - 1) / 9, 0, 1)
    assert np.all(reached <= lots + 0.08), (reached, spent)
