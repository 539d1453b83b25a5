"""Answers and scores from probabilities: against enumeration of every outcome."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.errors import InputError
from pilotfish.infer.decide import agrees, decide

CLASSES = ("1", "2", "3", "4")
rows = st.lists(st.floats(0.01, 1), min_size=4, max_size=4)


@given(rows)
def test_label_takes_the_most_probable_class(values: list[float]) -> None:
    proba = np.array([values], np.float32) / np.float32(sum(values))
    answers, scores = decide(proba, CLASSES, "label")
    assert proba[0, CLASSES.index(answers[0])] == proba.max() == scores[0]


@given(rows, st.sampled_from([0.0, 1.0, 2.0]))
def test_rating_score_is_the_probability_of_agreeing(values: list[float], tolerance: float) -> None:
    proba = np.array([values], np.float64) / sum(values)
    answers, scores = decide(proba.astype(np.float32), CLASSES, "rating", tolerance=tolerance)
    best = max(
        sum(p for p, value in zip(proba[0], CLASSES, strict=True)
            if agrees(answer, value, "rating", tolerance=tolerance))
        for answer in CLASSES
    )  # fmt: skip
    assert scores[0] == pytest.approx(best, abs=1e-5)
    mine = sum(
        p for p, value in zip(proba[0], CLASSES, strict=True)
        if agrees(answers[0], value, "rating", tolerance=tolerance)
    )  # fmt: skip
    assert mine == pytest.approx(best, abs=1e-5)


@given(st.lists(st.floats(0, 1), min_size=3, max_size=3))
def test_label_set_is_the_most_probable_subset(values: list[float]) -> None:
    proba = np.array([values], np.float32)
    answers, scores = decide(proba, ("a", "b", "c"), "labels")
    subsets = [
        np.prod([p if member else 1 - p for p, member in zip(proba[0], subset, strict=True)])
        for subset in itertools.product([False, True], repeat=3)
    ]
    assert scores[0] == pytest.approx(max(subsets), abs=1e-6)
    assert set(json.loads(answers[0])) <= {"a", "b", "c"}


@pytest.mark.parametrize(
    ("small", "large", "kind", "tolerance", "same"),
    [
        ("a", "a", "label", 0, True),
        ("a", "A", "label", 0, False),
        ("a", None, "label", 0, False),
        ('["b", "a"]', '["a", "b"]', "labels", 0, True),
        ("[]", '["a"]', "labels", 0, False),
        ("3", "3.0", "rating", 0, True),
        ("3", "4", "rating", 0.9, False),
        ("0.1", "0.3", "rating", 0.2, True),
    ],
)
def test_agrees(small: str, large: str | None, kind: str, tolerance: float, same: bool) -> None:
    assert agrees(small, large, kind, tolerance=tolerance) is same


def test_nothing_in_nothing_out() -> None:
    assert decide(np.zeros((0, 4), np.float32), CLASSES, "label")[0] == []


def test_unknown_kind_is_refused() -> None:
    with pytest.raises(InputError, match="label, labels, rating"):
        decide(np.ones((1, 1), np.float32), ("a",), "free")
