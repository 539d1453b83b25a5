"""What every judge promises, whatever it looks at; the rows are those of tests/contract_rows.py."""

from __future__ import annotations

import numpy as np
import pytest

from pilotfish.infer.judges.judge import AnswerJudge, score_answers
from pilotfish.infer.outcomes import Outcomes
from pilotfish.models.protocols import Judge
from pilotfish.records import Completion, Request
from tests.contract_rows import JUDGES

NAMES = ("a", "b", "c")


def outcomes(seed: int = 0, n: int = 80) -> Outcomes:
    rng = np.random.default_rng(seed)
    right = rng.random((n, 3)) < 0.6
    answers = np.where(right, "It is 7", "Perhaps it is 12").astype(object)
    answers[0, 1] = None
    quality = right.astype(np.float32)
    quality[0, 1] = np.nan
    shown = rng.random((n, 3)).astype(np.float32)
    signals = dict.fromkeys(("margin", "self-verification", "sample-agreement"), shown)
    texts = tuple(f"question {i}" for i in range(n))
    return Outcomes(texts, NAMES, quality, answers=answers, signals=signals)


@pytest.mark.parametrize("name", JUDGES)
def test_recorded_answers_get_scores_where_they_were_asked(name: str) -> None:
    rows = outcomes()
    judge = JUDGES[name](rows)
    assert isinstance(judge, AnswerJudge)
    asked = np.random.default_rng(1).random((len(rows), 3)) < 0.7
    scores = judge.score_many(rows, asked)
    assert scores.shape == (len(rows), 3)
    assert scores.dtype == np.float32
    visible = asked & ~np.isnan(rows.quality)
    assert np.isfinite(scores[visible]).all()
    assert np.isnan(scores[~asked]).all()
    assert np.nanmin(scores) >= 0
    assert np.nanmax(scores) <= 1
    assert np.array_equal(judge.score_many(rows, asked), scores, equal_nan=True)


@pytest.mark.parametrize("name", JUDGES)
def test_what_was_not_asked_changes_nothing(name: str) -> None:
    """A judge that peeked at answers nobody asked for would make replays too good."""
    rows = outcomes()
    judge = JUDGES[name](rows)
    asked = np.zeros((len(rows), 3), bool)
    asked[:, :2] = True
    assert rows.answers is not None
    others = rows.answers.copy()
    others[:, 2] = "It is 99"
    changed = Outcomes(rows.texts, NAMES, rows.quality, answers=others, signals=rows.signals)
    before, after = judge.score_many(rows, asked), judge.score_many(changed, asked)
    assert np.array_equal(before, after, equal_nan=True)


@pytest.mark.parametrize("name", JUDGES)
async def test_live_answers_get_scores(name: str) -> None:
    judge = JUDGES[name](outcomes())
    assert isinstance(judge, Judge)
    assert judge.name
    probs = {"x": 0.8, "y": 0.2}
    given = {n: Completion("It is 7", n, label_probs=probs) for n in NAMES}
    request = Request.of("What is it?")
    alone = await judge.score(request, given["a"])
    assert 0 <= alone <= 1
    together = await score_answers(judge, request, given)
    assert set(together) == set(NAMES)
    assert all(0 <= score <= 1 for score in together.values())
