"""Calibration helpers against scikit-learn, closed forms and simulation."""

from __future__ import annotations

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import expit, softmax

from pilotfish.distill.calibrate import (
    expected_calibration_error,
    fit_temperature,
    log_loss,
    to_proba,
)

RNG = np.random.default_rng(0)


def test_log_loss_equals_scikit_learn() -> None:
    p = RNG.dirichlet(np.ones(4), 50)
    y, w = RNG.integers(4, size=50), RNG.uniform(0.1, 2, 50)
    expected = sklearn.metrics.log_loss(y, p, labels=range(4), sample_weight=w)
    assert log_loss(p, y, w) == pytest.approx(expected)
    member = RNG.random((50, 4)) < 0.3
    each = [sklearn.metrics.log_loss(member[:, j], p[:, j], labels=[0, 1]) for j in range(4)]
    assert log_loss(p, member) == pytest.approx(np.mean(each))
    assert log_loss(np.array([[1.0, 0.0]]), np.array([1])) == pytest.approx(-np.log(1e-7))


@given(st.floats(0.1, 10))
def test_probabilities_equal_scipy(temperature: float) -> None:
    z = (RNG.standard_normal((20, 5)) * 50).astype(np.float32)
    soft = to_proba(z, multilabel=False, temperature=temperature)
    assert soft == pytest.approx(softmax(z / temperature, axis=1), abs=1e-4)
    each = to_proba(z, multilabel=True, temperature=temperature)
    assert each == pytest.approx(expit(z / temperature), abs=1e-4)
    assert soft.dtype == each.dtype == np.float32


@pytest.mark.parametrize("multilabel", [False, True])
@pytest.mark.parametrize("true", [0.3, 1.0, 4.0])
def test_temperature_is_recovered(true: float, multilabel: bool) -> None:
    rng = np.random.default_rng(1)
    logits = (rng.standard_normal((20_000, 4)) * 2).astype(np.float32)
    p = to_proba(logits, multilabel=multilabel)
    if multilabel:
        y = rng.random(p.shape) < p
    else:
        y = np.minimum((p.cumsum(axis=1) < rng.random((len(p), 1))).sum(axis=1), 3)
    found = fit_temperature(logits * np.float32(true), y, multilabel=multilabel)
    assert found == pytest.approx(true, rel=0.06)


def test_expected_calibration_error_by_hand_and_in_the_limit() -> None:
    scores = np.array([0.95, 0.95, 0.55, 0.55])
    correct = np.array([1, 1, 1, 0])
    assert expected_calibration_error(scores, correct, bins=10) == pytest.approx(0.05)
    assert expected_calibration_error(
        scores, correct, bins=10, weights=np.array([1, 1, 0.5, 1.5])
    ) == pytest.approx((2 * 0.05 + 2 * 0.3) / 4)
    s = RNG.random(200_000)
    assert expected_calibration_error(s, RNG.random(200_000) < s) < 0.01
    assert expected_calibration_error(s[:0], s[:0]) == 0


def test_empty_and_extreme_logits() -> None:
    assert fit_temperature(np.zeros((0, 3), np.float32), np.zeros(0, int), multilabel=False) == 1
    assert to_proba(np.zeros((0, 3), np.float32), multilabel=False).shape == (0, 3)
    z = np.array([[1e30, -1e30, 0]], np.float32)
    assert to_proba(z, multilabel=False).tolist() == [[1, 0, 0]]
    assert to_proba(z, multilabel=True)[0] == pytest.approx([1, 0, 0.5])
