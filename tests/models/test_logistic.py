"""Our logistic regression against scikit-learn's."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from sklearn.linear_model import LogisticRegression

from pilotfish.distill import softmax
from pilotfish.models.logistic import as_matrix, fit_logistic

RNG = np.random.default_rng(0)


@pytest.fixture(autouse=True)
def _to_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "TOLERANCE", 1e-8)


def problem(n: int = 120, width: int = 200, classes: int = 4) -> tuple[np.ndarray, np.ndarray]:
    x = RNG.standard_normal((n, width)).astype(np.float32) / np.sqrt(width)
    y = (x[:, :classes] * 40 + RNG.standard_normal((n, classes))).argmax(axis=1)
    return x, y


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("route", ["gram", "sparse", "features", "groups"])
def test_multinomial_equals_scikit_learn(
    weighted: bool, route: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = problem()
    w = RNG.uniform(0.2, 3, len(y)) if weighted else np.ones(len(y))
    w /= w.mean()
    monkeypatch.setattr(softmax, "VIRTUAL", 0.0)
    if route == "features":
        monkeypatch.setattr(softmax, "MAX_GRAM", 0)
    groups = {
        "sparse": [sp.csr_array(x)],
        "groups": [sp.csr_array(x[:, :150]), x[:, 150:]],
    }.get(route, [x])
    [(parts, bias)] = fit_logistic(groups, as_matrix(y, 4), w, multilabel=False, strengths=[5.0])
    theirs = LogisticRegression(C=5.0, tol=1e-8, max_iter=2000).fit(x, y, sample_weight=w)
    ours = x @ np.vstack(parts) + bias
    ours -= ours.mean(axis=1, keepdims=True)
    expected = theirs.decision_function(x)
    expected -= expected.mean(axis=1, keepdims=True)
    assert ours == pytest.approx(expected, abs=0.03)


def test_one_vs_rest_equals_separate_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(softmax, "VIRTUAL", 0.0)
    x, _ = problem()
    y = x[:, :3] > 0.03
    [((coefficients,), bias)] = fit_logistic(
        [x], as_matrix(y, 3), np.ones(len(y)), multilabel=True, strengths=[5.0]
    )
    for j in range(3):
        theirs = LogisticRegression(C=5.0, tol=1e-8, max_iter=2000).fit(x, y[:, j])
        expected = theirs.decision_function(x)
        assert (x @ coefficients + bias)[:, j] == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("multilabel", [False, True])
def test_classes_that_never_or_always_hold_stay_finite(multilabel: bool) -> None:
    x, y = problem(40, 60, 3)
    targets = as_matrix(y, 5)
    if multilabel:
        targets[:, 3] = 1
    [((coefficients,), bias)] = fit_logistic(
        [x], targets, np.ones(40), multilabel=multilabel, strengths=[10.0]
    )
    logits = x @ coefficients + bias
    assert np.isfinite(logits).all()
    assert np.abs(logits).max() < 30
    assert logits[:, 4].max() < logits[:, :3].max(axis=1).min()


def test_duplicates_equal_weights() -> None:
    x, y = problem(60, 100, 3)
    w = np.where(np.arange(60) < 20, 2.0, 1.0)
    twice = np.repeat(np.arange(60), w.astype(int))
    [((a,), abias)] = fit_logistic(
        [x], as_matrix(y, 3), w, multilabel=False, strengths=[3.0 * 80 / 60]
    )
    [((b,), bbias)] = fit_logistic(
        [x[twice]], as_matrix(y[twice], 3), np.ones(80), multilabel=False, strengths=[3.0]
    )
    ours, theirs = x @ a + abias, x @ b + bbias
    ours -= ours.mean(axis=1, keepdims=True)
    theirs -= theirs.mean(axis=1, keepdims=True)
    assert ours == pytest.approx(theirs, abs=0.05)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("noise", [0.0, 1e-7, 1e-5])
def test_many_near_duplicates_can_be_fitted(sparse: bool, noise: float) -> None:
    rows = np.repeat(RNG.standard_normal((2, 1500)), 600, axis=0)
    rows += noise * RNG.standard_normal(rows.shape)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    group = sp.csr_array(rows) if sparse else rows
    y = np.repeat([0, 1], 600)
    [((coefficients,), bias)] = fit_logistic(
        [group], as_matrix(y, 2), np.ones(1200), multilabel=False, strengths=[5.0]
    )
    assert ((rows @ coefficients + bias).argmax(axis=1) == y).all()
