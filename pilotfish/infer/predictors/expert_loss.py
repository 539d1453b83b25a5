"""Predict the loss that each expert model will have.

Tryage (Hari and Thomson 2023): the router predicts every expert's loss on the prompt and routes to
``argmin_m loss_m + sum_k lambda_k C_k(m)`` with constraints such as size or recency. The choice is the
policy's work; here is the prediction. A recorded signal ``loss`` (for example the negative
log-likelihood of the right answer) is used where there is one, else the loss is ``1 - quality``.

Differences: a ridge regression takes the place of a fine-tuned BERT-small, and the squared error that
of the divergence between predicted and real losses. The mean that is reported is ``exp(-loss)`` for a
likelihood and ``1 - loss`` otherwise, so that larger is better as with all predictors.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.linear import fit_ridge_map, some_of
from pilotfish.infer.predictors.mapped import Mapped
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.models.protocols import Encoder

SIGNAL = "loss"


@dataclass(eq=False)
class ExpertLoss(Mapped):
    """A linear map to losses.

    Attributes:
        likelihood: Whether the losses are negative log-likelihoods.
    """

    likelihood: bool

    @classmethod
    def fit(cls, outcomes: Outcomes, encoder: Encoder | None, seed: int) -> Self:
        """Learn from outcomes; above 4,000 rows from a random part of that size.

        Args:
            outcomes: What was recorded, with or without the signal ``loss``.
            encoder: For the embedding.
            seed: Of the part.
        """
        outcomes = some_of(outcomes, seed)
        likelihood = SIGNAL in outcomes.signals
        losses = outcomes.signals[SIGNAL] if likelihood else 1 - outcomes.quality
        fitted = fit_ridge_map(outcomes.texts, losses, encoder)
        return cls.of(outcomes.models, fitted, likelihood)

    def link(self, out: Floats) -> Floats:
        """``exp(-loss)`` or ``1 - loss``."""
        loss = np.maximum(out, 0)
        return np.exp(-loss) if self.likelihood else 1 - np.minimum(loss, 1)

    def losses(self, texts: Sequence[str]) -> Floats:
        """The losses expected ``[n, models]``, not negative."""
        return np.maximum(self.map(texts)[0], 0)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """``exp(-loss)`` or ``1 - loss``, in [0, 1], ``[n, models]``."""
        told = super().predict(texts)
        return Prediction(told.mean, told.std * told.mean) if self.likelihood else told
