"""Outcomes out of a store that a gateway wrote."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from pilotfish.errors import InputError
from pilotfish.infer.stored_outcomes import read_stored_outcomes
from pilotfish.records import Completion, Request
from pilotfish.store import open_store
from pilotfish.store.feedback import Check, Feedback
from pilotfish.store.traffic import Exchange

NAN = float("nan")


def exchange(number: int, model: str, *, text: bool = True, status: int = 200) -> Exchange:
    return Exchange(
        id=f"req_{number:04x}",
        time=1_700_000_000.0 + number,
        caller="",
        task="",
        asked="both",
        endpoint="chat",
        streamed=False,
        status=status,
        error="",
        latency=0.25,
        first_byte=None,
        request=Request.of(f"question {number}") if text else None,
        completion=Completion("an answer", model, cost=0.001),
        baseline=None,
    )


def test_feedback_and_checks_become_outcomes(tmp_path: Path) -> None:
    store = open_store(f"sqlite:///{tmp_path}/s.db")
    store.traffic.add([exchange(i, "small") for i in range(4)])
    store.traffic.add([exchange(4, "large"), exchange(5, "small", text=False)])
    store.checks.add(Check("req_0000", "both", "small", "large", agreed=True, cost=0.02))
    texts = {"small_answer": "yes", "large_answer": "no"}
    store.checks.add(Check("req_0001", "both", "small", "large", agreed=False, cost=0.02, **texts))
    store.feedback.add(Feedback("req_0001", score=0.5))
    store.feedback.add(Feedback("req_0002", label="other"))
    store.feedback.add(Feedback("req_0004", score=0.2))
    store.feedback.add(Feedback("req_0004", score=0.9))
    store.feedback.add(Feedback("req_0005", score=1))
    outcomes, times = read_stored_outcomes(store)
    assert outcomes.texts == ("question 0", "question 1", "question 4"), "others were not judged"
    assert times == [1_700_000_000.0, 1_700_000_001.0, 1_700_000_004.0]
    assert outcomes.models == ("large", "small")
    expected = [
        [1, 1],
        [1, 0.5],
        [0.9, NAN],
    ]  # feedback goes before the check; the last word counts
    assert np.array_equal(outcomes.quality, np.array(expected, np.float32), equal_nan=True)
    cost = np.array([[0.02, 0.001], [0.02, 0.001], [0.001, NAN]], np.float32)
    assert np.array_equal(outcomes.cost, cost, equal_nan=True)
    assert outcomes.answers is not None
    said = [[None, None], ["no", "yes"], ["an answer", None]]
    assert outcomes.answers.tolist() == said, "what was served, and what a check wrote down"
    later = datetime.fromtimestamp(1_700_000_003, UTC)
    assert read_stored_outcomes(store, since=later)[0].texts == ("question 4",)
    with pytest.raises(InputError, match="somebody judged"):
        read_stored_outcomes(store, task="nothing")
    store.close()
