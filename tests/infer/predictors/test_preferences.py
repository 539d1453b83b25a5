"""Preferences: Bradley-Terry, Elo, factorisation and contrast against formulas and numerical slopes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from pilotfish.infer.predictors.bradley_terry import BradleyTerry
from pilotfish.infer.predictors.contrastive import contrast_gradient
from pilotfish.infer.predictors.elo import Elo
from pilotfish.infer.predictors.logistic import sigmoid
from pilotfish.infer.predictors.matrix_factorization import pair_gradient
from pilotfish.infer.predictors.preferences import bradley_terry, win_rate, wins
from tests.infer.predictors.plane import NAN, Plane, outcomes_of


def test_bradley_terry_of_two_is_the_log_odds() -> None:
    won = np.array([[0, 30.0], [10, 0]])
    log = bradley_terry(won)
    assert log[0] - log[1] == pytest.approx(math.log(30.5 / 10.5), abs=1e-4)
    assert win_rate(log) == pytest.approx([30.5 / 41, 10.5 / 41], abs=1e-4)


def test_bradley_terry_is_the_maximum_of_the_likelihood() -> None:
    won = np.random.default_rng(0).integers(1, 20, (4, 4)).astype(float)
    np.fill_diagonal(won, 0)
    log = bradley_terry(won, rounds=2000)
    counted = won + 0.5 * (1 - np.eye(4))
    p = sigmoid(log[:, None] - log[None])
    surplus = (counted - (counted + counted.T) * p).sum(axis=1)  # the likelihood's gradient
    assert surplus == pytest.approx(np.zeros(4), abs=1e-3)


def test_preferences_count_ties_half_and_leave_out_the_unknown() -> None:
    won = wins(np.array([[1, 0.5, 0.5], [1, NAN, 0]], np.float32))
    assert won[0].tolist() == [[0, 1, 1], [0, 0, 0.5], [0, 0.5, 0]]
    assert won[1].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_similarity_weights_are_the_papers() -> None:
    data = outcomes_of(["1 0", "0 1", "0.6 0.8"], [[1, 0], [0, 1], [1, 0]])
    made = BradleyTerry.fit(data, Plane(), 0)
    alike = np.array([0.8, 0.6, 0.6 * 0.8 + 0.8 * 0.6])
    assert made.weights(["0.8 0.6"])[0] == pytest.approx(10 * 10 ** (alike / 0.96), rel=1e-4)
    flat = BradleyTerry.fit(data, Plane(), 0, base=1.0).predict(["1 0"]).mean[0]
    assert flat == pytest.approx([2.5 / 4, 1.5 / 4], abs=1e-3)


def test_four_hundred_elo_points_are_odds_of_ten_to_one() -> None:
    quality = [[1, 0]] * 199 + [[0, 1]] * 19  # with the half win for each: 199.5 to 19.5
    made = Elo.fit(outcomes_of([str(i) for i in range(218)], quality), None, 0)
    assert made.rating[0] - made.rating[1] == pytest.approx(400 * math.log10(199.5 / 19.5), abs=0.1)
    assert made.rating.mean() == pytest.approx(1000)
    assert made.predict(["x"]).mean[0] == pytest.approx([199.5 / 219, 19.5 / 219], abs=1e-4)


def numerical(loss: Any, z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    out = np.zeros_like(z)
    for at in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[at] = 1e-5
        out[at] = (loss(z + step) - loss(z - step)) / 2e-5
    return out


def test_the_factorisations_gradient_is_that_of_its_loss() -> None:
    rng = np.random.default_rng(0)
    z, won = rng.normal(size=(3, 4)), wins(rng.random((3, 4)).astype(np.float32)).astype(float)

    def loss(z: np.ndarray[Any, Any]) -> float:
        return float(-(won * np.log(1 / (1 + np.exp(z[:, None, :] - z[:, :, None])))).sum())

    assert pair_gradient(z, won) == pytest.approx(numerical(loss, z), abs=1e-6)


def test_the_contrasts_gradient_is_that_of_its_loss() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(4, 5))
    good = rng.random((4, 5)) < 0.4
    bad = ~good & (rng.random((4, 5)) < 0.7)
    good[3] = False

    def loss(z: np.ndarray[Any, Any]) -> float:
        e = np.exp(z)
        worse = np.where(bad, e, 0).sum(axis=1, keepdims=True)
        each = np.log(e / (e + worse))
        return float(-each[good & (worse > 0)].sum())

    assert contrast_gradient(z, good, bad) == pytest.approx(numerical(loss, z), abs=1e-6)
