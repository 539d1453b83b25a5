"""Elo ratings: a league table for all questions alike.

What LLMRouter (ulab-uiuc) calls its Elo router: Bradley-Terry strengths of the recorded comparisons,
whatever the question. An Elo rating is ``400 / ln 10`` times the log-strength, so that 400 points are
odds of 10 to 1.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.predictor import Arrays, Prediction, State
from pilotfish.infer.predictors.preferences import bradley_terry, win_rate, wins
from pilotfish.models.protocols import Encoder

POINTS = 400 / math.log(10)


class Elo:
    """One rating a model.

    Args:
        models: Their names.
        rating: In Elo points, mean 1000, ``[models]``.
        comparisons: How many each rating rests on ``[models]``.
    """

    embeds: ClassVar[bool] = False
    needs: ClassVar[str] = "quality"

    def __init__(self, models: tuple[str, ...], rating: Floats, comparisons: Floats) -> None:
        self.models = models
        self.rating = rating
        self.comparisons = comparisons

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
        n = len(texts)
        return Prediction(np.repeat(rate[None], n, axis=0), np.repeat(std[None], n, axis=0))

    def state(self) -> State:
        """Ratings and counts."""
        return {}, {"rating": self.rating, "comparisons": self.comparisons}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`."""
        return cls(settings["models"], arrays["rating"], arrays["comparisons"])
