"""Cascade routing by reservation values: whom to ask next when asking costs and one may stop.

Judging an answer is opening a box: it costs, and shows a value; the best value seen may be taken at
any time. Weitzman (1979, "Optimal Search for the Best Alternative") proves for independent boxes
that the best of *all* policies opens them in falling order of their reservation values, where box
``i`` has the ``z_i`` with ``E max(X_i - z_i, 0) = cost_i``, and stops as soon as the best value
seen is at least the largest reservation value left.

Against :mod:`~pilotfish.infer.policies.cascade_routing`, which compares sets as if all of a set
were to be asked, this counts the freedom to stop, and costs one number for each model instead of
one for each set. With correlated qualities beliefs are renewed after every answer and the rule is
no longer proven best. Without spread it is routing.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtr

from pilotfish.infer.outcomes import Floats
from pilotfish.infer.policies.beliefs import after, by_pattern
from pilotfish.infer.policies.policy import STOP, Ints, Step, View

_Z = np.linspace(8.0, -40.0, 4801)
_LOSS = np.exp(-0.5 * _Z**2) / np.sqrt(2 * np.pi) - _Z * ndtr(-_Z)  # E max(Z - z, 0), rising


def reservation_value(
    mean: NDArray[np.floating], deviation: NDArray[np.floating], cost: NDArray[np.floating]
) -> Floats:
    """The ``z`` with ``E max(X - z, 0) = cost`` for a normal ``X``; shapes are broadcast.

    >>> z = reservation_value(np.array(0.5), np.array(0.2), np.array(0.0797885))
    >>> round(float(z), 4)  # E max(X - mean, 0) = deviation / sqrt(2 pi)
    0.5
    """
    sure = deviation < 1e-6
    scaled = cost / np.where(sure, 1.0, deviation)
    z = mean + deviation * np.interp(scaled, _LOSS, _Z)
    out: Floats = np.where(sure, mean - cost, z).astype(np.float32)
    return out


@dataclass(frozen=True, eq=False)
class Reservation:
    """Asks by reservation values.

    Attributes:
        models: ``m`` of them.
        covariance: Of how far judging an answer moves the estimate of each model's quality
            ``[m, m]``, see :func:`pilotfish.infer.policies.beliefs.spread`.
        weight: Quality that one unit of cost must bring.
        latency_weight: Quality that one second must bring.
    """

    models: tuple[str, ...]
    covariance: Floats
    weight: float = 0.0
    latency_weight: float = 0.0

    def step(self, view: View) -> Step:
        """Ask the model with the largest reservation value, unless an answer at hand is as good."""
        n = len(view.asked)
        judged = view.judged()
        ask: Ints = np.full(n, STOP, np.int64)
        for rows, asked in by_pattern(view):
            own = view.take(rows)
            mean, covariance = after(self.covariance, own, asked)
            price = self.weight * own.cost + self.latency_weight * own.latency
            deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
            worth = reservation_value(mean, deviation, price)
            worth[:, list(asked)] = -np.inf
            best = judged[rows].max(axis=1, initial=-np.inf)
            goes_on = (worth.max(axis=1) > best) | (best < 0)
            goes_on &= len(asked) < len(self.models)
            ask[rows] = np.where(goes_on, worth.argmax(axis=1), STOP)
        stops = ask < 0
        answer = np.where(stops, judged.argmax(axis=1), STOP)
        margin = np.where(stops, judged.max(axis=1, initial=-np.inf), 0.0)
        return Step(ask, answer, np.clip(margin, 0, 1).astype(np.float32))
