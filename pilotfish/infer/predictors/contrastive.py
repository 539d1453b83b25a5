"""Model vectors that lie near the questions the model answers well.

RouterDC (Chen et al. 2024): question and model vectors are compared by cosine, and for each question
the models that answer it well are pulled towards it and those that answer it badly pushed away, by the
softmax loss over one good model and all bad ones. Differences: only this loss (the paper's second one
pulls questions of one cluster together), and a linear projection of a fixed embedding takes the place
of a fine-tuned mDeBERTa; good and bad are the models above and below the question's mean quality (the
paper takes the best and worst few).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.bilinear import centred, fit_bilinear, with_one
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.logistic import softmax
from pilotfish.infer.predictors.predictor import Arrays, Prediction, State
from pilotfish.models.protocols import Encoder


class Contrastive:
    """Bilinear scores, softmaxed.

    Args:
        models: Their names.
        center: Mean embedding ``[dim]``.
        table: Projection times model vectors ``[dim + 1, models]``.
        coverage: Gives the standard deviation.
        encoder: Embeds.
    """

    embeds: ClassVar[bool] = True
    needs: ClassVar[str] = "quality"

    def __init__(
        self,
        models: tuple[str, ...],
        center: Floats,
        table: Floats,
        coverage: Coverage,
        encoder: Encoder,
    ) -> None:
        self.models = models
        self.center = center
        self.table = table
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
        epochs: int = 30,
        rate: float = 3e-3,
        decay: float = 0.1,
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
        assert encoder is not None  # fit_predictor brings one
        x, center = centred(encoder, outcomes.texts, None)
        known = ~np.isnan(outcomes.quality)
        filled = np.where(known, outcomes.quality, 0)
        middle = filled.sum(axis=1, keepdims=True) / np.maximum(known.sum(axis=1, keepdims=True), 1)
        good = known & (outcomes.quality > middle)
        bad = known & (outcomes.quality < middle)

        def gradient(z: NDArray[np.float64], at: NDArray[np.intp]) -> NDArray[np.float64]:
            return contrast_gradient(z, good[at], bad[at])

        projection, vectors = fit_bilinear(
            with_one(x),
            len(outcomes.models),
            gradient,
            rank=rank,
            epochs=epochs,
            rate=rate,
            decay=decay,
            seed=seed,
        )
        table = (projection @ vectors.T).astype(np.float32)
        target = good / np.maximum(good.sum(axis=1, keepdims=True), 1)
        shown = softmax(x @ table[:-1] + table[-1])
        coverage = Coverage.fit([x], (target - shown).astype(np.float32))
        return cls(outcomes.models, center, table, coverage, encoder)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Softmax of the scores ``[n, models]``."""
        x, _ = centred(self.encoder, texts, self.center)
        return Prediction(softmax(x @ self.table[:-1] + self.table[-1]), self.coverage.std([x]))

    def state(self) -> State:
        """The table."""
        return {}, {"center": self.center, "table": self.table, **self.coverage.state()}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`."""
        assert encoder is not None  # the artifact names one
        own = (arrays["center"], arrays["table"], Coverage.restore(arrays))
        return cls(settings["models"], *own, encoder)


def contrast_gradient(
    z: NDArray[np.float64], good: NDArray[np.bool_], bad: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Gradient in ``z`` of ``-sum over good g of log(e^z_g / (e^z_g + sum over bad b of e^z_b))``."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    worse = np.where(bad, e, 0).sum(axis=1, keepdims=True)
    missed = np.where(good & (worse > 0), worse / (e + worse), 0)
    each = np.where(good & (worse > 0), 1 / (e + worse), 0).sum(axis=1, keepdims=True)
    return np.where(bad, e * each, 0) - missed
