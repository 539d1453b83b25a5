"""Matrix factorisation of preferences: a vector for each model, one for each question.

RouteLLM (Ong et al. 2024, section 4.2): ``delta(M, q) = w2' (v_m * (W1' v_q + b))`` with ``v_q`` the
question's embedding and ``v_m`` the model's vector, fitted so that ``sigmoid(delta(M_w, q) - delta(M_l,
q))`` is the probability that the winner wins. ``w2`` is absorbed in the model's vectors, which gives
the same functions.

Differences: ties count as half a win for each instead of being left out (with 0-1 qualities most pairs
tie), and the factor is fitted by Adam in NumPy.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.bilinear import Bilinear
from pilotfish.infer.predictors.preferences import win_rate, wins
from pilotfish.infer.predictors.settings import AtLeastOne, NotNegative, Positive
from pilotfish.models.protocols import Encoder


@dataclass(eq=False)
class MatrixFactorization(Bilinear):
    """Bilinear scores, whose differences are the log-odds of winning."""

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        rank: AtLeastOne = 32,
        epochs: AtLeastOne = 40,
        rate: Positive = 3e-3,
        decay: NotNegative = 0.1,
    ) -> Self:
        """Learn from outcomes.

        Args:
            outcomes: What was recorded.
            encoder: Embeds.
            seed: Of start and order.
            rank: Length of the models' vectors.
            epochs: Passes over the questions.
            rate: Adam's step.
            decay: Weight decay.
        """
        won = wins(outcomes.quality).astype(np.float64)

        def gradient(z: NDArray[np.float64], at: NDArray[np.intp]) -> NDArray[np.float64]:
            return pair_gradient(z, won[at])

        met = won + np.swapaxes(won, 1, 2)
        pairs = np.maximum(met.sum(axis=2), 1e-9)
        actual = np.where(met.any(axis=2), won.sum(axis=2) / pairs, np.nan)
        return cls.learn(
            outcomes,
            encoder,
            gradient,
            actual,
            seed=seed,
            rank=rank,
            epochs=epochs,
            rate=rate,
            decay=decay,
        )

    @staticmethod
    def link(scores: Floats) -> Floats:
        """Probability of beating another model of the pool."""
        return win_rate(scores)


def pair_gradient(z: NDArray[np.float64], won: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradient in ``z`` ``[n, m]`` of ``-sum_ij won_ij log sigmoid(z_i - z_j)``, ``[n, m]``."""
    gap = z[:, :, None] - z[:, None, :]
    pull = won * 0.5 * (1 - np.tanh(0.5 * gap))  # won_ij * sigmoid(-(z_i - z_j))
    out: NDArray[np.float64] = pull.sum(axis=1) - pull.sum(axis=2)
    return out
