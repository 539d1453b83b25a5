"""Scores of the form ``(W x) . V_m``: fitting by Adam, and prediction.

Matrix factorisation and contrastive learning give every model a vector and project the question's
embedding to the same space; they differ in the loss alone.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.features import embed
from pilotfish.infer.predictors.fitted import Fitted, unit_rows
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.models.protocols import Encoder

Doubles = NDArray[np.float64]
Loss = Callable[[Doubles, NDArray[np.intp]], Doubles]


@dataclass(eq=False)
class Bilinear(Fitted):
    """Scores of models for questions, linked to what is predicted.

    Attributes:
        center: Mean embedding ``[dim]``.
        table: Projection times model vectors ``[dim + 1, models]``; the last row belongs to a 1.
        coverage: Gives the standard deviation.
        encoder: Embeds.
    """

    center: Floats
    table: Floats
    coverage: Coverage
    encoder: Encoder

    @classmethod
    def learn(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        gradient: Loss,
        target: Floats,
        *,
        seed: int,
        **settings: Any,
    ) -> Self:
        """Fit projection and vectors, which are kept as their product.

        Args:
            outcomes: What was recorded.
            encoder: Embeds.
            gradient: As in :func:`fit_bilinear`.
            target: What the linked scores should have been ``[n, models]``, NaN where unknown.
            seed: Of start and order.
            settings: Further ones of :func:`fit_bilinear`.
        """
        assert encoder is not None  # fit_predictor brings one
        rows, center = centred(encoder, outcomes.texts, None)
        models = outcomes.models
        parts = fit_bilinear(with_one(rows), len(models), gradient, seed=seed, **settings)
        table = (parts[0] @ parts[1].T).astype(np.float32)
        shown = cls.link(rows @ table[:-1] + table[-1])
        coverage = Coverage.fit([rows], (target - shown).astype(np.float32))
        return cls(models, center, table, coverage, encoder)

    @staticmethod
    @abstractmethod
    def link(scores: Floats) -> Floats:
        """What scores ``[n, models]`` stand for, in [0, 1]."""

    def predict(self, texts: Sequence[str]) -> Prediction:
        """The linked scores ``[n, models]``."""
        rows, _ = centred(self.encoder, texts, self.center)
        return Prediction(
            self.link(rows @ self.table[:-1] + self.table[-1]), self.coverage.std([rows])
        )


def with_one(x: Floats) -> Doubles:
    """A column of ones at the end."""
    return np.hstack([x, np.ones((len(x), 1))]).astype(np.float64)


def fit_bilinear(
    x: Doubles,
    models: int,
    gradient: Loss,
    *,
    rank: int,
    epochs: int,
    rate: float,
    decay: float,
    seed: int,
    batch: int = 64,
) -> tuple[Doubles, Doubles]:
    """Projection ``[width, rank]`` and vectors ``[models, rank]`` by Adam with weight decay.

    Args:
        x: ``[n, width]``.
        models: Their number.
        gradient: From scores ``[batch, models]`` and the rows' positions to the gradient of the loss.
        rank: Length of the vectors.
        epochs: Passes over the rows.
        rate: Adam's step.
        decay: Weight decay (decoupled, as in AdamW).
        seed: Of start and order.
        batch: Rows of a step.
    """
    rng = np.random.default_rng(seed)
    weights = [
        rng.normal(0, 1 / np.sqrt(x.shape[1]), (x.shape[1], rank)),
        rng.normal(0, 1 / np.sqrt(rank), (models, rank)),
    ]
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            part = x[rows]
            hidden = part @ weights[0]
            error = gradient(hidden @ weights[1].T, rows) / len(rows)
            own = [part.T @ (error @ weights[1]), error.T @ hidden]
            step += 1
            for w, g, m, v in zip(weights, own, first, second, strict=True):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                move = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
                w -= rate * (move + decay * w)
    return weights[0], weights[1]


def centred(encoder: Encoder, texts: Sequence[str], center: Floats | None) -> tuple[Floats, Floats]:
    """Embeddings about a center (default: their mean), as unit rows; and the center."""
    rows = embed(encoder, texts)
    middle = rows.mean(axis=0) if center is None else center
    return unit_rows(rows - middle), middle
