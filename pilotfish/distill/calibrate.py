"""Probabilities that mean what they say: temperature scaling, and how far off they are.

Temperature scaling (Guo et al. 2017) divides logits by one number, chosen to minimise the log loss of
answers that the fit did not see. It changes how sure a student is, never what it answers. Here it is
fitted on out-of-fold logits instead of a validation set, so no answer is set aside for it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from pilotfish.models.logistic import as_matrix

Floats = NDArray[np.float32]

TINY = 1e-7  # probabilities are kept this far from 0 and 1 where logarithms are taken


def to_proba(logits: Floats, *, multilabel: bool, temperature: float = 1.0) -> Floats:
    """Softmax (or one sigmoid per class) of ``logits / temperature``, ``[n, classes]``."""
    z: Floats = (logits / np.float32(temperature)).astype(np.float32)
    if multilabel:
        half = np.exp(-np.abs(z))
        np.divide(np.where(z >= 0, np.float32(1), half), 1 + half, out=z)
        return z
    if not z.size:
        return z
    z -= z.max(axis=1, keepdims=True)
    np.exp(z, out=z)
    z /= z.sum(axis=1, keepdims=True)
    return z


def fit_temperature(
    logits: Floats,
    targets: NDArray[Any],
    *,
    multilabel: bool,
    weights: NDArray[np.floating[Any]] | None = None,
) -> float:
    """The temperature in [0.05, 20] with the least log loss.

    Args:
        logits: Out-of-fold logits ``[n, classes]``.
        targets: Class indices ``[n]`` or memberships ``[n, classes]``.
        multilabel: One sigmoid per class.
        weights: ``[n]``, default all alike.
    """
    if not len(logits):
        return 1.0

    def loss(log_temperature: float) -> float:
        proba = to_proba(logits, multilabel=multilabel, temperature=float(np.exp(log_temperature)))
        return log_loss(proba, targets, weights)

    bounds = (np.log(0.05), np.log(20.0))
    found = scipy.optimize.minimize_scalar(
        loss, bounds=bounds, method="bounded", options={"xatol": 1e-3}
    )
    return float(np.exp(found.x))


def log_loss(
    proba: NDArray[np.floating[Any]],
    targets: NDArray[Any],
    weights: NDArray[np.floating[Any]] | None = None,
) -> float:
    """Mean negative log-likelihood in nats; for memberships the mean over inputs and classes.

    Args:
        proba: ``[n, classes]``; clipped to [1e-7, 1 - 1e-7].
        targets: Class indices ``[n]`` or memberships ``[n, classes]``.
        weights: ``[n]``, default all alike.
    """
    p = np.clip(np.asarray(proba, np.float64), TINY, 1 - TINY)
    if targets.ndim == 2:
        y = as_matrix(targets, p.shape[1])
        each = -(y * np.log(p) + (1 - y) * np.log1p(-p)).mean(axis=1)
    else:
        each = -np.log(p[np.arange(len(p)), targets])
    return float(np.average(each, weights=weights)) if len(each) else 0.0


def expected_calibration_error(
    scores: NDArray[np.floating[Any]],
    correct: NDArray[Any],
    *,
    bins: int = 15,
    weights: NDArray[np.floating[Any]] | None = None,
) -> float:
    """Mean distance between score and accuracy over equal-width bins (Guo et al. 2017, eq. 3).

    Args:
        scores: Confidence of the answer given, ``[n]``, in [0, 1].
        correct: Whether it was right, ``[n]``.
        bins: Bins of ``(0, 1]``.
        weights: ``[n]``, default all alike.

    >>> round(expected_calibration_error(np.array([.9, .9]), np.array([1, 0])), 3)
    0.4
    """
    if not len(scores):
        return 0.0
    s = np.asarray(scores, np.float64)
    w = np.ones(len(s)) if weights is None else np.asarray(weights, np.float64)
    bin_of = np.clip(np.ceil(s * bins).astype(int) - 1, 0, bins - 1)
    gap = np.bincount(bin_of, w * (s - np.asarray(correct, np.float64)), minlength=bins)
    return float(np.abs(gap).sum() / w.sum())
