"""Model vectors that lie near the questions the model answers well.

RouterDC (Chen et al. 2024): question and model vectors are compared by cosine, and for each question
the models that answer it well are pulled towards it and those that answer it badly pushed away, by the
softmax loss over one good model and all bad ones. Differences: only this loss (the paper's second one
pulls questions of one cluster together), and a linear projection of a fixed embedding takes the place
of a fine-tuned mDeBERTa; good and bad are the models above and below the question's mean quality (the
paper takes the best and worst few).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.bilinear import Bilinear
from pilotfish.infer.predictors.logistic import softmax
from pilotfish.infer.predictors.settings import AtLeastOne, NotNegative, Positive
from pilotfish.models.protocols import Encoder


@dataclass(eq=False)
class Contrastive(Bilinear):
    """Bilinear scores, softmaxed."""

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        rank: AtLeastOne = 32,
        epochs: AtLeastOne = 30,
        rate: Positive = 3e-3,
        decay: NotNegative = 0.1,
    ) -> Self:
        """Learn from outcomes.

        Args:
            outcomes: What was recorded.
            encoder: Embeds.
            seed: Of start and order.
            rank: Length of the vectors.
            epochs: Passes over the questions.
            rate: Adam's step.
            decay: Weight decay.
        """
        known = ~np.isnan(outcomes.quality)
        filled = np.where(known, outcomes.quality, 0)
        middle = filled.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
        good = known & (outcomes.quality > middle)
        bad = known & (outcomes.quality < middle)

        def gradient(z: NDArray[np.float64], at: NDArray[np.intp]) -> NDArray[np.float64]:
            return contrast_gradient(z, good[at], bad[at])

        return cls.learn(
            outcomes,
            encoder,
            gradient,
            good / np.maximum(good.sum(axis=1, keepdims=True), 1),
            seed=seed,
            rank=rank,
            epochs=epochs,
            rate=rate,
            decay=decay,
        )

    @staticmethod
    def link(scores: Floats) -> Floats:
        """A distribution over models."""
        return softmax(scores)


def contrast_gradient(
    z: NDArray[np.float64], good: NDArray[np.bool_], bad: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Gradient in ``z`` of ``-sum over good g of log(e^z_g / (e^z_g + sum over bad b of e^z_b))``."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    worse = np.where(bad, e, 0).sum(axis=1, keepdims=True)
    missed = np.where(good & (worse > 0), worse / (e + worse), 0)
    each = np.where(good & (worse > 0), 1 / (e + worse), 0).sum(axis=1, keepdims=True)
    return np.where(bad, e * each, 0) - missed
