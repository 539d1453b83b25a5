"""How far a linear estimate may be off at a text: its leverage, in closed form.

With features ``x``, a ridge regression on ``X`` has at ``x`` the variance ``s2 * x' (X'X + r I)^-1 x``
(Hoerl and Kennard 1970; the Bayesian linear model's posterior). A text unlike all that were learned
from has a large one. Only the embedding and the statistics of the surface are used, so that it costs
one small product however many n-grams there are; the spread of predictors that read n-grams too, or
that are not linear, is therefore approximate.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pilotfish.infer.outcomes import Floats
from pilotfish.infer.predictors.fitted import Arrays, State
from pilotfish.models.protocols import Encoder

RIDGE = 1.0


@dataclass(eq=False)
class Coverage:
    """Standard deviations from the leverage.

    Attributes:
        inverse: ``(X'X + r I)^-1``, ``[width, width]``.
        sigma: Standard deviation of the residuals of each output ``[outputs]``.
        rows: Number of rows that were learned from.
    """

    inverse: Floats
    sigma: Floats
    rows: int

    @classmethod
    def fit(cls, dense: Sequence[Floats], residuals: Floats) -> Coverage:
        """From dense blocks ``[n, width]`` and residuals ``[n, outputs]``, NaN where unknown."""
        n = len(residuals)
        x = np.hstack([np.zeros((n, 0), np.float32), *dense]).astype(np.float64)
        inverse = np.linalg.inv(x.T @ x + RIDGE * np.eye(x.shape[1]))
        known = ~np.isnan(residuals)
        squares = np.where(known, residuals, 0) ** 2
        sigma = np.sqrt(squares.sum(axis=0) / np.maximum(known.sum(axis=0), 1))
        return cls(inverse.astype(np.float32), sigma.astype(np.float32), n)

    def std(self, dense: Sequence[Floats]) -> Floats:
        """``[n, outputs]``; the mean that every estimate contains adds ``s2 / rows``."""
        x = np.hstack(dense) if dense else np.zeros((1, 0), np.float32)
        leverage = np.einsum("ij,ij->i", x @ self.inverse, x)
        out: Floats = np.sqrt(np.maximum(leverage, 0) + 1 / self.rows)[:, None] * self.sigma
        return out

    def state(self) -> State:
        """Arrays; :meth:`restore` is the inverse."""
        return {}, {
            "coverage.inverse": self.inverse,
            "coverage.sigma": self.sigma,
            "coverage.rows": np.array([self.rows], np.int64),
        }

    @classmethod
    def restore(
        cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None
    ) -> Coverage:
        """Rebuild from :meth:`state`."""
        rows = int(arrays["coverage.rows"][0])
        return cls(arrays["coverage.inverse"], arrays["coverage.sigma"], rows)
