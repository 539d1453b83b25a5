"""Elo ratings: a league table for all questions alike.

What LLMRouter (ulab-uiuc) calls its Elo router: Bradley-Terry strengths of the recorded comparisons,
whatever the question. An Elo rating is ``400 / ln 10`` times the log-strength, so that 400 points are
odds of 10 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.fitted import Fitted, same_for_all
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.preferences import bradley_terry, win_rate, wins
from pilotfish.models.protocols import Encoder

POINTS = 400 / math.log(10)


@dataclass(eq=False)
class Elo(Fitted):
    """One rating a model.

    Attributes:
        rating: In Elo points, mean 1000, ``[models]``.
        comparisons: How many each rating rests on ``[models]``.
    """

    embeds: ClassVar[bool] = False

    rating: Floats
    comparisons: Floats

    @classmethod
    def fit(cls, outcomes: Outcomes, encoder: Encoder | None, seed: int) -> Self:
        """Rate by all comparisons at once, so their order does not matter; nothing is random."""
        won = wins(outcomes.quality).sum(axis=0, dtype=np.float64)
        rating = 1000 + POINTS * bradley_terry(won)
        met = (won + won.T).sum(axis=1)
        return cls(outcomes.models, rating.astype(np.float32), met.astype(np.float32))

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Probability of beating another model of the pool; the same row for every text."""
        rate = win_rate((self.rating - 1000) / POINTS)
        std = np.sqrt(rate * (1 - rate) / np.maximum(self.comparisons, 1))
        return Prediction(same_for_all(rate, texts), same_for_all(std, texts))
