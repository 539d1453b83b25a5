"""Trees: our evaluation against scikit-learn's, and fields that are missing or odd."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingClassifier

from pilotfish.distill import trees
from pilotfish.distill.student import (
    fit_and_crossfit,
    fit_student,
    restore_student,
    student_files,
    unavailable,
)
from pilotfish.distill.trees import Column, columns_of
from pilotfish.errors import InputError
from pilotfish.models.load import load_encoder
from pilotfish.records import Inputs


@pytest.fixture(autouse=True)
def _few_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trees, "ROUNDS", 25)


def table(n: int, seed: int = 0) -> tuple[Inputs, np.ndarray]:
    rng = np.random.default_rng(seed)
    age, pay = rng.uniform(18, 80, n), rng.uniform(0, 100, n)
    city = rng.choice(["Oslo", "Rome", "Lima"], n)
    target = np.where(city == "Lima", 2, (age + pay > 100).astype(int))
    fields = {
        "age": [None if i % 17 == 0 else float(a) for i, a in enumerate(age)],
        "pay": [f"{p:.1f}" for p in pay],
        "city": city.tolist(),
        "note": [f"free text {i}" for i in range(n)],
    }
    return Inputs([f"{a} {c}" for a, c in zip(age, city, strict=True)], fields), target


def test_numeric_and_categorical_columns_are_recognised() -> None:
    inputs, _ = table(100)
    assert columns_of(inputs) == [
        Column("age"),
        Column("pay"),
        Column("city", ("Lima", "Oslo", "Rome")),
    ]
    assert unavailable("trees", Inputs(["a", "b"]), None) == "no numeric or categorical field"
    with pytest.raises(InputError, match="'trees' needs one"):
        fit_student("trees", Inputs(["a", "b"]), np.array([0, 1]), classes=("a", "b"))


@pytest.mark.parametrize("classes", [2, 3])
def test_evaluation_equals_scikit_learn(classes: int, monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []
    original = HistGradientBoostingClassifier.fit

    def keep(self, x, y, **rest):  # type: ignore[no-untyped-def]
        fitted.append(self)
        return original(self, x, y, **rest)

    monkeypatch.setattr(HistGradientBoostingClassifier, "fit", keep)
    inputs, target = table(300)
    target = np.minimum(target, classes - 1)
    student = fit_student("trees", inputs, target, classes=("a", "b", "c")[:classes])
    fresh, _ = table(200, seed=4)
    rows = trees._table(columns_of(inputs), fresh)
    theirs = fitted[-1].decision_function(rows)
    ours = student.scorer.logits(fresh)
    expected = theirs if classes == 3 else np.stack([0 * theirs, theirs], axis=1)
    assert ours == pytest.approx(expected, abs=1e-4)


def test_learns_calibrates_and_stores() -> None:
    inputs, target = table(300)
    student, oof = fit_and_crossfit("trees", inputs, target, classes=("a", "b", "c", "never"))
    assert (oof.argmax(axis=1) == target).mean() > 0.9
    assert oof[:, 3].max() < 0.02
    card, arrays, _ = student_files(student)
    back = restore_student(json.loads(json.dumps(card)), arrays, load_encoder)
    assert (back.predict_proba(inputs) == student.predict_proba(inputs)).all()


def test_multilabel() -> None:
    inputs, target = table(300)
    member = np.stack([target == 2, target == 1, np.zeros(300, bool)], axis=1)
    _, oof = fit_and_crossfit("trees", inputs, member, classes=("a", "b", "never"), multilabel=True)
    assert ((oof > 0.5) == member).mean() > 0.95


def test_missing_odd_and_unseen_values_are_served() -> None:
    inputs, target = table(200)
    student = fit_student("trees", inputs, target, classes=("a", "b", "c"))
    odd = {
        "age": [None, float("inf"), "n/a", True, 10**400],
        "pay": ["", "nan", None, "1e999", "50"],
        "city": ["Paris", None, 7, "", "Rome"],
    }
    proba = student.predict_proba(Inputs([""] * 5, odd))
    assert np.isfinite(proba).all()
    without = student.predict_proba(Inputs(["", ""], {"pay": ["1", "2"]}))
    assert np.isfinite(without).all()
