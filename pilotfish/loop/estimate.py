"""What a student could serve, estimated on its training answers: guides the work, promises nothing.

The certificate comes from calibration rows and :mod:`pilotfish.infer.certify`. These estimates choose
the student, decide when more training answers no longer pay, and tell the calibration where
disagreements are likely; all of that uses training rows only, so it costs none of delta.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from sklearn.isotonic import IsotonicRegression

Floats = NDArray[np.floating]


def servable(
    scores: Floats, agreed: NDArray[np.bool_], weights: Floats, *, target: float, on: str = "all"
) -> float:
    """Share of inputs that could be answered small at a target, without a margin for chance.

    Args:
        scores: Out-of-fold scores ``[n]``.
        agreed: Whether the out-of-fold answer agrees with the large model's ``[n]``.
        weights: How many inputs each stands for ``[n]``.
        target: Agreement in [0, 1].
        on: ``"all"``: of all answers; ``"served"``: of those answered small.

    Returns:
        A share in [0, 1]; equal scores are served together or not at all.

    >>> s = np.array([0.9, 0.8, 0.7, 0.6])
    >>> servable(s, np.array([True, True, False, False]), np.ones(4), target=0.75)
    0.75
    """
    if not len(scores):
        return 0.0
    order = np.argsort(-scores, kind="stable")
    served = np.cumsum(weights[order])
    wrong = np.cumsum(weights[order] * ~agreed[order])
    base = served if on == "served" else served[-1]
    last_of_tie = np.append(np.diff(scores[order]) != 0, True)
    allowed = (wrong <= (1 - target) * base + 1e-12) & last_of_tie
    return float(served[allowed].max(initial=0.0) / served[-1])


def disagreement_curve(
    scores: Floats, agreed: NDArray[np.bool_], weights: Floats
) -> Callable[[Floats], Floats]:
    """Probability of disagreement as a falling function of the score (isotonic, smoothed).

    Two pseudo-observations keep it inside (0, 1), so that calibration never takes it for certain.
    """
    x = np.concatenate([[0.0, 1.0], scores])
    y = np.concatenate([[1.0, 0.5 / (len(scores) + 1)], ~agreed])
    w = np.concatenate([[1.0, 1.0], weights])
    curve = IsotonicRegression(y_min=1e-3, y_max=1.0, increasing=False, out_of_bounds="clip")
    curve.fit(x, y, sample_weight=w)

    def predict(at: Floats) -> Floats:
        return np.asarray(curve.predict(np.asarray(at, float)), float)

    return predict
