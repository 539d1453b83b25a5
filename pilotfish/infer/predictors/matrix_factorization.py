"""Matrix factorisation of preferences: a vector for each model, one for each question.

RouteLLM (Ong et al. 2024, section 4.2): ``delta(M, q) = w2' (v_m * (W1' v_q + b))`` with ``v_q`` the
question's embedding and ``v_m`` the model's vector, fitted so that ``sigmoid(delta(M_w, q) - delta(M_l,
q))`` is the probability that the winner wins. ``w2`` is absorbed in the model's vectors, which gives
the same functions.

Differences: ties count as half a win for each instead of being left out (with 0-1 qualities most pairs
tie), and the factor is fitted by Adam in NumPy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.bilinear import centred, fit_bilinear, scores, with_one
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.predictor import Arrays, Prediction, State
from pilotfish.infer.predictors.preferences import win_rate, wins
from pilotfish.models.protocols import Encoder


class MatrixFactorization:
    """Bilinear scores of models for questions.

    Args:
        models: Their names.
        center: Mean embedding ``[dim]``.
        projection: ``[dim + 1, rank]``.
        vectors: ``[models, rank]``.
        coverage: Gives the standard deviation.
        encoder: Embeds.
    """

    embeds: ClassVar[bool] = True
    needs: ClassVar[str] = "quality"

    def __init__(
        self,
        models: tuple[str, ...],
        center: Floats,
        projection: Floats,
        vectors: Floats,
        coverage: Coverage,
        encoder: Encoder,
    ) -> None:
        self.models = models
        self.center = center
        self.projection = projection
        self.vectors = vectors
        self.coverage = coverage
        self.encoder = encoder

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        rank: int = 32,
        epochs: int = 40,
        rate: float = 3e-3,
        decay: float = 0.1,
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
        assert encoder is not None  # fit_predictor brings one
        rows, center = centred(encoder, outcomes.texts, None)
        x, won = with_one(rows), wins(outcomes.quality).astype(np.float64)

        def gradient(z: NDArray[np.float64], at: NDArray[np.intp]) -> NDArray[np.float64]:
            return pair_gradient(z, won[at])

        projection, vectors = fit_bilinear(
            x,
            len(outcomes.models),
            gradient,
            rank=rank,
            epochs=epochs,
            rate=rate,
            decay=decay,
            seed=seed,
        )
        shown = win_rate(scores(x, projection, vectors))
        met = won + np.swapaxes(won, 1, 2)
        pairs = np.maximum(met.sum(axis=2), 1e-9)
        actual = np.where(met.any(axis=2), won.sum(axis=2) / pairs, np.nan)
        coverage = Coverage.fit([rows], (actual - shown).astype(np.float32))
        return cls(
            outcomes.models,
            center,
            projection.astype(np.float32),
            vectors.astype(np.float32),
            coverage,
            encoder,
        )

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Probability of beating another model of the pool, ``[n, models]``."""
        rows, _ = centred(self.encoder, texts, self.center)
        z = (rows @ self.projection[:-1] + self.projection[-1]) @ self.vectors.T
        return Prediction(win_rate(z), self.coverage.std([rows]))

    def state(self) -> State:
        """Projection and vectors."""
        arrays = {"center": self.center, "projection": self.projection, "vectors": self.vectors}
        return {}, {**arrays, **self.coverage.state()}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`."""
        assert encoder is not None  # the artifact names one
        own = (arrays["center"], arrays["projection"], arrays["vectors"])
        return cls(settings["models"], *own, Coverage.restore(arrays), encoder)


def pair_gradient(z: NDArray[np.float64], won: NDArray[np.float64]) -> NDArray[np.float64]:
    """Gradient in ``z`` ``[n, m]`` of ``-sum_ij won_ij log sigmoid(z_i - z_j)``, ``[n, m]``."""
    gap = z[:, :, None] - z[:, None, :]
    pull = won * 0.5 * (1 - np.tanh(0.5 * gap))  # won_ij * sigmoid(-(z_i - z_j))
    out: NDArray[np.float64] = pull.sum(axis=1) - pull.sum(axis=2)
    return out
