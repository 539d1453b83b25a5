"""Conformal prediction sets of closed labels: an answer is kept where its set is one label.

CP-Router (Su et al. 2025): labels whose probability is at least ``1 - q`` are the prediction set,
with ``q`` the conformal quantile of ``1 - p(right label)`` on labelled questions, so that the right
label is in the set with probability ``1 - alpha`` (Vovk et al. 2005; Sadinle et al. 2019). A question
goes to the large model where the set has more than one label. Of all ``alpha`` the one is taken whose
sets tell questions apart best: the largest "full and binary entropy", ``beta`` times the entropy of
the sets' sizes plus the entropy of being one label or not.

A set has at most one label exactly where the second likeliest label is improbable enough, so this is a
cascade by the confidence ``singleton`` (:mod:`pilotfish.infer.confidence`) with the threshold that is
found here. The promise is about the right label in the set, not about the answer that is kept; for that
there is :mod:`pilotfish.infer.certify`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError

Doubles = NDArray[np.float64]

ALPHAS = tuple(i / 100 for i in range(1, 100))
BETA = 3.0


@dataclass(frozen=True)
class ConformalThreshold:
    """Where a small model's answers are kept.

    Attributes:
        alpha: Share of questions whose right label may be missing from the set.
        quantile: Labels of probability ``1 - quantile`` and more are in the set; above 1: all are.
        threshold: Of the confidence ``singleton``: from it on the set has at most one label.
        entropy: The full and binary entropy of the sets' sizes, in nats.
    """

    alpha: float
    quantile: float
    threshold: float
    entropy: float


def conformal_quantile(right: NDArray[Any], alpha: float) -> float:
    """The ``ceil((n + 1)(1 - alpha))``-th smallest of ``1 - right``; 2 where ``n`` is too small for it.

    Args:
        right: Probability that each of ``n`` questions' right label was given, in [0, 1].
        alpha: Share of questions whose right label may be missing from the set, in (0, 1).
    """
    rank = int(np.ceil((len(right) + 1) * (1 - alpha) - 1e-9))
    return 2.0 if rank > len(right) else float(np.sort(1 - np.asarray(right, float))[rank - 1])


def set_sizes(probabilities: NDArray[Any], quantile: float) -> NDArray[np.int64]:
    """How many labels each question's prediction set has ``[n]``, from probabilities ``[n, labels]``."""
    inside = 1 - np.asarray(probabilities, float) <= quantile
    return np.asarray(inside.sum(axis=1), np.int64)


def size_entropy(sizes: NDArray[Any], beta: float = BETA) -> float:
    """The full and binary entropy of sets' sizes, in nats.

    >>> round(size_entropy(np.array([1, 1, 2, 3]), beta=0), 4)  # half of the sets are one label
    0.6931
    """
    counts = np.unique(sizes, return_counts=True)[1]
    return beta * _entropy(counts) + _entropy([np.sum(sizes == 1), np.sum(sizes != 1)])


def fit_conformal(
    probabilities: NDArray[Any],
    right: NDArray[Any],
    *,
    asked: NDArray[Any] | None = None,
    alphas: Sequence[float] = ALPHAS,
    beta: float = BETA,
) -> ConformalThreshold:
    """Choose ``alpha``, and the threshold that belongs to it.

    Args:
        probabilities: What the small model gives each label of labelled questions ``[n, labels]``.
        right: Position of each one's right label ``[n]``.
        asked: Probabilities of further questions ``[k, labels]``, whose sets are to be told apart; their
            labels need not be known. Default: the labelled ones.
        alphas: To choose from, in (0, 1).
        beta: Weight of the sizes' entropy against that of one label or not.

    Raises:
        InputError: There are no questions, or a label is none of the columns.
    """
    given, at = np.asarray(probabilities, float), np.asarray(right)
    if given.ndim != 2 or at.shape != given.shape[:1] or not at.size:
        raise InputError(
            f"Got probabilities of shape {given.shape} and right labels of shape {at.shape}, but "
            "expected [n, labels] and [n], and one question at least."
        )
    if at.min() < 0 or at.max() >= given.shape[1]:
        raise InputError(f"Got a right label at {at.max()}, but there are {given.shape[1]} labels.")
    known = given[np.arange(len(at)), at]
    shown = given if asked is None else np.asarray(asked, float)
    found = []
    for alpha in alphas:
        quantile = conformal_quantile(known, alpha)
        entropy = size_entropy(set_sizes(shown, quantile), beta)
        threshold = float(np.nextafter(quantile, np.inf))
        found.append(ConformalThreshold(alpha, quantile, threshold, entropy))
    return max(found, key=lambda each: each.entropy)


def _entropy(counts: Sequence[Any] | NDArray[Any]) -> float:
    share = np.asarray([count for count in counts if count], float) / np.sum(counts)
    return float(-(share * np.log(share)).sum())
