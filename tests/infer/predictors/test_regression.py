"""Neighbours, ridge, logistic, kernel and stacks against second fits, closed forms and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from pilotfish.infer.predictors.average import Average
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.features import Features
from pilotfish.infer.predictors.kernel import Kernel, gaussian_kernel
from pilotfish.infer.predictors.knn import Neighbours
from pilotfish.infer.predictors.logistic import fit_logistic_map
from pilotfish.infer.predictors.ridge import gram_matrix, solve_ridge
from pilotfish.infer.predictors.stacked import Stacked, stacking_weights
from tests.infer.predictors.plane import NAN, Plane, noisy, outcomes_of


def test_neighbours_are_averaged() -> None:
    texts = ["1 0", "0.9 0.1", "-1 0", "-0.9 0.1"]
    data = outcomes_of(texts, [[1, 0], [1, NAN], [0, 1], [0, 0]])
    near = Neighbours.fit(data, Plane(), 0, k=2, prior=0)
    assert near.predict(["5 0"]).mean.tolist() == [[1, 0]]
    assert near.predict(["-5 0"]).mean.tolist() == [[0, 0.5]]
    # Two neighbours with one success each of the first model, shrunk as if 2 more had its mean of .5.
    shrunk = Neighbours.fit(data, Plane(), 0, k=2, prior=2).predict(["5 0"])
    assert shrunk.mean[0, 0] == pytest.approx((2 + 2 * 0.5) / 4)
    everything = Neighbours.fit(data, Plane(), 0, k=4, prior=0).predict(["0 7"])
    assert everything.mean.tolist() == [Average.fit(data, None, 0).mean.tolist()]


def test_a_neighbour_is_left_out_of_its_own_prediction() -> None:
    data = noisy(30)
    kept = Neighbours.fit(data, Plane(), 0, k=3, prior=0).left_out
    for i in (0, 7, 29):
        others = np.delete(np.arange(30), i)
        # The same center, so that only the row itself is missing.
        near = Neighbours.fit(data, Plane(), 0, k=3, prior=0)
        alike = near.rows[others] @ near.rows[i]
        best = others[np.argsort(-alike)[:3]]
        assert kept is not None
        assert kept[i] == pytest.approx(data.quality[best].mean(axis=0))
    every = Neighbours.fit(data, Plane(), 0, k=99, prior=0).left_out
    assert every is not None
    assert every[4] == pytest.approx(np.delete(data.quality, 4, axis=0).mean(axis=0))


def test_ridge_leaves_out_as_a_second_fit_would() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(25, 4)), rng.random((25, 3)).astype(np.float32)
    y[3, 1] = NAN
    solved = solve_ridge(gram_matrix([x]), y, strengths=[2.0])
    for j in range(3):
        known = ~np.isnan(y[:, j])
        mean = y[known, j].mean()
        ridge = KernelRidge(alpha=2.0, kernel="linear").fit(x[known], y[known, j] - mean)
        assert x @ (x.T @ solved.dual[:, j]) == pytest.approx(ridge.predict(x), abs=1e-5)
        i = 5
        rest = known.copy()
        rest[i] = False
        again = KernelRidge(alpha=2.0, kernel="linear").fit(x[rest], y[rest, j] - mean)
        assert solved.left_out[i, j] == pytest.approx(
            float(again.predict(x[i : i + 1])[0] + mean), abs=1e-5
        )
    assert np.isnan(solved.left_out[3, 1])
    # How easy a question is, and who answers it better, get strengths of their own.
    signal = x[:, :1] + rng.normal(size=(25, 1)) * [3, -3]
    own = solve_ridge(gram_matrix([x]), signal.astype(np.float32), strengths=[0.1, 1e6])
    assert own.strength.tolist() == [1e6, 1e6]
    assert np.corrcoef((x @ (x.T @ own.dual)).mean(axis=1), x[:, 0])[0, 1] > 0.9
    both = solve_ridge(gram_matrix([x]), y[:, :1], strengths=[0.5, 2.0, 100.0])
    errors = [
        np.mean((solve_ridge(gram_matrix([x]), y[:, :1], strengths=[s]).left_out - y[:, :1]) ** 2)
        for s in (0.5, 2.0, 100.0)
    ]
    assert both.strength[0] == (0.5, 2.0, 100.0)[int(np.argmin(errors))]


def test_logistic_with_soft_labels_is_stationary() -> None:
    """At the optimum the gradient of the loss equals the pull of the prior, feature by feature."""
    data = noisy(80)
    soft = np.clip(data.quality * 0.8 + 0.1, 0, 1)
    made, residuals, dense = fit_logistic_map(data.texts, soft, Plane(), strength=0.5, ngrams=False)
    for block, own in zip(dense, made.coefficients, strict=True):
        assert own == pytest.approx(0.5 * block.T @ residuals, abs=2e-2)


def test_the_kernel_is_a_gaussian_process_mean() -> None:
    data = noisy(50)
    made = Kernel.fit(data, Plane(), 0, strengths=[3.0], ngrams=False)
    features = Features.fit(data.texts, Plane(), ngrams=False)
    dense = features.dense(data.texts)
    gram = sum(
        gaussian_kernel(block, block, width) for block, width in zip(dense, (1.0, 0.5), strict=True)
    )
    mean = data.quality.mean(axis=0)
    oracle = KernelRidge(alpha=3.0, kernel="precomputed").fit(gram, data.quality - mean)
    expected = np.clip(oracle.predict(gram) + mean, 0, 1)
    assert made.predict(data.texts).mean == pytest.approx(expected, abs=1e-4)


def test_the_spread_is_the_leverage() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    residuals = rng.normal(size=(40, 2)).astype(np.float32)
    residuals[0, 1] = NAN
    made = Coverage.fit([x[:, :1], x[:, 1:]], residuals)
    at = np.array([[5, 0, 0], [0.1, 0, 0]], np.float32)
    inverse = np.linalg.inv(x.T @ x + np.eye(3))
    sigma = [np.sqrt((residuals[:, 0] ** 2).mean()), np.sqrt((residuals[1:, 1] ** 2).mean())]
    expected = np.sqrt(np.diag(at @ inverse @ at.T) + 1 / 40)[:, None] * sigma
    assert made.std([at[:, :1], at[:, 1:]]) == pytest.approx(expected, rel=1e-4)


def test_stacking_finds_the_weights_of_a_sum() -> None:
    rng = np.random.default_rng(0)
    parts = rng.normal(0, 0.1, (3, 500, 2)) + 0.5
    center = np.array([0.5, 0.5], np.float32)
    truth = 0.5 + 0.7 * (parts[0] - 0.5) + 0.2 * (parts[1] - 0.5)
    found = stacking_weights(parts.astype(np.float32), truth.astype(np.float32), center)
    assert found == pytest.approx(np.array([[0.7, 0.2, 0.0]] * 2), abs=1e-3)
    half = stacking_weights(parts.astype(np.float32), truth.astype(np.float32), center, 0.5)
    assert half[1] == pytest.approx(0.5 * np.array([0.7, 0.2, 0]) + 0.5 * 0.3, abs=1e-3)
    # One part knows how easy a question is, another who answers it better.
    level = parts[0].mean(axis=1, keepdims=True)
    apart = parts[1] - parts[1].mean(axis=1, keepdims=True)
    mixed = stacking_weights(parts.astype(np.float32), (level + apart).astype(np.float32), center)
    assert mixed == pytest.approx(np.array([[1, 0, 0], [0, 1, 0]]), abs=1e-3)


def test_a_stacks_parts_have_settings_of_their_own() -> None:
    data = noisy(80)
    alone = Neighbours.fit(data, Plane(), 0, k=3, prior=0).predict(data.texts)
    one = Stacked.fit(data, Plane(), 0, parts=[("knn", {"k": 3, "prior": 0})])
    assert one.predict(data.texts).mean == pytest.approx(alone.mean, abs=1e-6)
    two = Stacked.fit(data, Plane(), 0, parts=["average", ("knn", {"k": 3})], shrinkage=1)
    settings, arrays = two.state()
    assert settings["names"] == ["average", "knn"]
    again = Stacked.restore({**settings, "models": data.models}, arrays, Plane())
    assert np.array_equal(again.predict(data.texts).mean, two.predict(data.texts).mean)
    assert two.weights[1, 0] == pytest.approx(two.weights[1, 1]), "equal weights"
