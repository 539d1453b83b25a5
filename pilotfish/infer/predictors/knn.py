"""The mean quality of each model on the recorded questions most like this one.

OrchestraLLM (Lee et al. 2024) keeps for each expert the inputs it answered well and lets the nearest
ones vote; RouterBench (Hu et al. 2024) averages the recorded quality of the k nearest. With 0-1
qualities and a pool of one each, the vote is the average. Differences: the neighbours' mean is shrunk
towards the model's overall mean as if ``prior`` more neighbours had shown it, so that few neighbours do
not claim certainty.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.features import embed
from pilotfish.infer.predictors.fitted import Fitted, unit_rows
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.settings import AtLeastOne, NotNegative
from pilotfish.models.protocols import Encoder

BATCH = 512


@dataclass(eq=False)
class Neighbours(Fitted):
    """Recorded questions with their qualities.

    Attributes:
        center: Mean embedding, subtracted before comparing ``[dim]``.
        rows: Unit rows of the recorded questions ``[n, dim]``.
        quality: ``[n, models]``, NaN where unknown.
        k: Neighbours that are asked.
        prior: Neighbours that the overall mean counts for.
        encoder: Embeds.
    """

    center: Floats
    rows: Floats
    quality: Floats
    k: int
    prior: float
    encoder: Encoder
    left_out: Floats | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._known = ~np.isnan(self.quality)
        self._values = np.where(self._known, self.quality, 0).astype(np.float32)
        seen = np.maximum(self._known.sum(axis=0), 1)
        self._mean = self._values.sum(axis=0) / seen
        self._variance = (self._values**2).sum(axis=0) / seen - self._mean**2

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        k: AtLeastOne = 40,
        prior: NotNegative = 5.0,
    ) -> Self:
        """Keep the outcomes.

        Args:
            outcomes: What was recorded.
            encoder: Embeds.
            seed: Not used; nothing is random.
            k: Neighbours that are asked.
            prior: Neighbours that the overall mean counts for; 0 gives the plain mean.
        """
        assert encoder is not None  # fit_predictor brings one
        rows = embed(encoder, outcomes.texts)
        center = rows.mean(axis=0)
        k = min(k, len(outcomes))
        rows = unit_rows(rows - center)
        made = cls(outcomes.models, center, rows, outcomes.quality, k, prior, encoder)
        made.left_out = made._read(rows, own=True).mean
        return made

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Means of the neighbours ``[n, models]``."""
        return self._read(unit_rows(embed(self.encoder, texts) - self.center))

    def _read(self, asked: Floats, *, own: bool = False) -> Prediction:
        """``own``: the rows are the recorded ones, and none is its own neighbour."""
        mean = np.empty((len(asked), len(self.models)), np.float32)
        std = np.empty_like(mean)
        k = min(self.k, len(self.rows) - own)
        for start in range(0, len(asked), BATCH):
            part = slice(start, start + BATCH)
            alike = asked[part] @ self.rows.T
            if own:
                alike[np.arange(len(alike)), np.arange(start, start + len(alike))] = -2
            near = np.argpartition(-alike, k - 1, axis=1)[:, :k]
            count = self._known[near].sum(axis=1) + self.prior
            safe = np.maximum(count, 1e-9)
            value = (self._values[near].sum(axis=1) + self.prior * self._mean) / safe
            square = (self._values[near] ** 2).sum(axis=1) + self.prior * (
                self._variance + self._mean**2
            )
            unseen = count == 0
            mean[part] = np.where(unseen, self._mean, value)
            spread = np.maximum(square / safe - value**2, self._variance / (safe + 1))
            std[part] = np.sqrt(np.where(unseen, 0.25, spread / np.maximum(safe, 1)))
        return Prediction(mean, std)
