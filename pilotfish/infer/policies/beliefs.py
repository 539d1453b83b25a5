"""What is believed of every model's quality after some have answered: a multivariate normal distribution.

Before asking, the estimate is the predictor's. Judging an answer moves the estimate of its own
model to the judge's score, and those of the others by linear regression on what was seen, since
questions are hard or easy for all models. The covariance of these moves is found on outcomes that
neither predictor nor judge was fitted to.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats
from pilotfish.infer.policies.policy import View

RIDGE = 1e-6


def spread(expected: NDArray[Any], scores: NDArray[Any]) -> Floats:
    """The covariance of ``scores - expected`` ``[m, m]``, both ``[n, m]`` of questions held out."""
    moved = np.asarray(scores, np.float64) - np.asarray(expected, np.float64)
    moved = np.nan_to_num(moved - np.nanmean(moved, axis=0))
    found: Floats = (moved.T @ moved / max(len(moved) - 1, 1)).astype(np.float32)
    return found


def after(covariance: Floats, view: View, asked: Sequence[int]) -> tuple[Floats, Floats]:
    """Mean ``[n, m]`` and covariance ``[m, m]`` of the qualities after ``asked`` have answered.

    Args:
        covariance: Of the moves ``[m, m]``.
        view: Requests of which exactly these models were asked.
        asked: Their positions. A model that failed keeps a negative mean and tells nothing of the others.
    """
    m = len(covariance)
    mean = np.array(view.expected, np.float64)
    if not asked:
        return mean.astype(np.float32), np.asarray(covariance, np.float32)
    known, rest = list(asked), [j for j in range(m) if j not in asked]
    given = np.array(view.judged(), np.float64)[:, known]
    inner = covariance[np.ix_(known, known)].astype(np.float64)
    inner[np.diag_indices(len(known))] += RIDGE
    across = covariance[np.ix_(rest, known)].astype(np.float64)
    slopes = np.linalg.solve(inner, across.T).T  # [rest, known]
    moved = np.where(given < 0, 0.0, given - mean[:, known])
    mean[:, rest] = np.clip(mean[:, rest] + moved @ slopes.T, 0.0, 1.0)
    mean[:, known] = given
    left = np.zeros((m, m))
    left[np.ix_(rest, rest)] = covariance[np.ix_(rest, rest)] - slopes @ across.T
    return mean.astype(np.float32), left.astype(np.float32)


def by_pattern(view: View) -> Iterator[tuple[NDArray[np.int64], tuple[int, ...]]]:
    """Rows of the view by who was asked: their positions, and the models'."""
    patterns, group = np.unique(view.asked, axis=0, return_inverse=True)
    group = group.reshape(-1)
    for g, pattern in enumerate(patterns):
        yield np.flatnonzero(group == g), tuple(int(j) for j in np.flatnonzero(pattern))
