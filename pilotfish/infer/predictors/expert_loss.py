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

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np

from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.features import LinearMap
from pilotfish.infer.predictors.linear import fit_ridge_map, some_of
from pilotfish.infer.predictors.predictor import Arrays, Prediction, State
from pilotfish.models.protocols import Encoder

SIGNAL = "loss"


class ExpertLoss:
    """A linear map to losses.

    Args:
        models: Their names.
        map: Features to losses ``[n, models]``.
        coverage: Gives the standard deviation.
        likelihood: Whether the losses are negative log-likelihoods.
    """

    embeds: ClassVar[bool] = True
    needs: ClassVar[str] = "quality"

    def __init__(
        self, models: tuple[str, ...], map: LinearMap, coverage: Coverage, likelihood: bool
    ) -> None:
        self.models = models
        self.map = map
        self.coverage = coverage
        self.likelihood = likelihood

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
        map, residuals, dense = fit_ridge_map(outcomes.texts, losses, encoder)
        return cls(outcomes.models, map, Coverage.fit(dense, residuals), likelihood)

    def losses(self, texts: Sequence[str]) -> np.ndarray[Any, np.dtype[np.float32]]:
        """The losses expected ``[n, models]``, not negative."""
        return np.maximum(self.map(texts)[0], 0)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """``exp(-loss)`` or ``1 - loss``, in [0, 1], ``[n, models]``."""
        out, dense = self.map(texts)
        out, std = np.maximum(out, 0), self.coverage.std(dense)
        if not self.likelihood:
            return Prediction(1 - np.minimum(out, 1), std)
        mean = np.exp(-out)
        return Prediction(mean, std * mean)

    def state(self) -> State:
        """Coefficients and the inverse of the coverage."""
        settings, arrays = self.map.state()
        arrays |= self.coverage.state()
        return {"map": settings, "likelihood": self.likelihood}, arrays

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`."""
        map = LinearMap.restore(settings["map"], arrays, encoder)
        coverage = Coverage.restore(arrays)
        return cls(settings["models"], map, coverage, bool(settings["likelihood"]))
