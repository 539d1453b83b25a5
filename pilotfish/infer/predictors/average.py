"""The mean quality of each model, whatever the question: what every other predictor must beat.

Routing by it is choosing the best single model (or the cheapest that is good enough).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.fitted import Fitted, same_for_all
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.models.protocols import Encoder


@dataclass(eq=False)
class Average(Fitted):
    """One row for all questions.

    Attributes:
        mean: ``[models]``.
        std: Standard error of the mean ``[models]``.
    """

    embeds: ClassVar[bool] = False

    mean: Floats
    std: Floats

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
        return Prediction(same_for_all(self.mean, texts), same_for_all(self.std, texts))
