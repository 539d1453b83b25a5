"""Similarity-weighted Bradley-Terry: a league table for each question.

RouteLLM's similarity-weighted ranking (Ong et al. 2024, section 4.2): for a question ``q`` the recorded
comparisons ``i`` get the weights ``10 * 10^(S(q, q_i) / max_j S(q, q_j))`` with ``S`` the cosine
similarity, and Bradley-Terry strengths are fitted to the weighted comparisons. Nothing is trained.

Difference: the models themselves have strengths, not ten tiers of models, and every pair of recorded
answers to a question is a comparison.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.features import embed
from pilotfish.infer.predictors.fitted import Fitted
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.preferences import bradley_terry, win_rate, wins
from pilotfish.infer.predictors.settings import Positive
from pilotfish.models.protocols import Encoder

BATCH = 512


@dataclass(eq=False)
class BradleyTerry(Fitted):
    """Recorded questions with who beat whom.

    Attributes:
        rows: Unit rows of the recorded questions ``[n, dim]``.
        won: Wins of row model over column model ``[n, models, models]``.
        base: The weights' base, 10 in the paper.
        encoder: Embeds.
    """

    rows: Floats
    won: Floats
    base: float
    encoder: Encoder

    @classmethod
    def fit(
        cls, outcomes: Outcomes, encoder: Encoder | None, seed: int, *, base: Positive = 10.0
    ) -> Self:
        """Keep the comparisons.

        Args:
            outcomes: What was recorded.
            encoder: Embeds.
            seed: Not used; nothing is random.
            base: The weights' base; with 1 all questions count alike.
        """
        assert encoder is not None  # fit_predictor brings one
        rows = embed(encoder, outcomes.texts)
        return cls(outcomes.models, rows, wins(outcomes.quality), base, encoder)

    def weights(self, texts: Sequence[str]) -> Floats:
        """Weight of each recorded question for each text, ``[n, recorded]``."""
        alike = embed(self.encoder, texts) @ self.rows.T
        top = np.maximum(alike.max(axis=1, keepdims=True), 1e-6)
        out: Floats = self.base * self.base ** np.clip(alike / top, -1, 1)
        return out

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Probability of beating another model of the pool, ``[n, models]``."""
        m = len(self.models)
        flat = self.won.reshape(len(self.won), m * m)
        mean = np.empty((len(texts), m), np.float32)
        std = np.empty_like(mean)
        for start in range(0, len(texts), BATCH):
            weight = self.weights(texts[start : start + BATCH])
            # Weights are relative: scaled so that together they count for the effective number of rows.
            effective = weight.sum(axis=1) ** 2 / (weight**2).sum(axis=1)
            weight *= (effective / weight.sum(axis=1))[:, None]
            rate = win_rate(bradley_terry((weight @ flat).reshape(-1, m, m).astype(np.float64)))
            mean[start : start + BATCH] = rate
            std[start : start + BATCH] = np.sqrt(rate * (1 - rate) / effective[:, None])
        return Prediction(mean, std)
