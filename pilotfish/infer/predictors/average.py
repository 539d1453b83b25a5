"""The mean quality of each model, whatever the question: what every other predictor must beat.

Routing by it is choosing the best single model (or the cheapest that is good enough).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.predictor import Arrays, Prediction, State
from pilotfish.models.protocols import Encoder


class Average:
    """One row for all questions.

    Args:
        models: Their names.
        mean: ``[models]``.
        std: Standard error of the mean ``[models]``.
    """

    embeds: ClassVar[bool] = False
    needs: ClassVar[str] = "quality"

    def __init__(self, models: tuple[str, ...], mean: Floats, std: Floats) -> None:
        self.models = models
        self.mean = mean
        self.std = std

    @classmethod
    def fit(cls, outcomes: Outcomes, encoder: Encoder | None, seed: int) -> Self:
        """Average what was recorded; nothing is random."""
        known = ~np.isnan(outcomes.quality)
        count = known.sum(axis=0)
        mean = outcomes.mean_quality()
        squares = np.where(known, outcomes.quality - mean, 0) ** 2
        std = np.sqrt(squares.sum(axis=0) / np.maximum(count - 1, 1) / count)
        return cls(outcomes.models, mean, std.astype(np.float32))

    def predict(self, texts: Sequence[str]) -> Prediction:
        """The same row for every text."""
        n = len(texts)
        return Prediction(
            np.repeat(self.mean[None], n, axis=0), np.repeat(self.std[None], n, axis=0)
        )

    def state(self) -> State:
        """Means and standard errors."""
        return {}, {"mean": self.mean, "std": self.std}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`."""
        return cls(settings["models"], arrays["mean"], arrays["std"])
