"""Ridge regression of each model's quality on n-grams, an embedding and the text's surface.

FORC (Sakota et al. 2024, "Fly-Swat or Cannon") predicts each model's quality by regression, and
RouterBench (Hu et al. 2024) by linear models on embeddings. FORC fine-tunes a DistilBERT with the
model's name in its input; here each model has coefficients of its own over features that need no
fine-tuning, and the strength is chosen by the leave-one-out error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.features import Features, LinearMap
from pilotfish.infer.predictors.mapped import FittedMap, Mapped
from pilotfish.infer.predictors.ridge import MAX_ROWS, STRENGTHS, gram_matrix, solve_ridge
from pilotfish.infer.predictors.settings import Positives
from pilotfish.models.protocols import Encoder


@dataclass(eq=False)
class Linear(Mapped):
    """A linear map for each model, clipped to [0, 1]."""

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        strengths: Positives = STRENGTHS,
        ngrams: bool = True,
        statistics: bool = True,
    ) -> Self:
        """Learn from outcomes.

        Args:
            outcomes: What was recorded; above :data:`MAX_ROWS` rows a random part of that size.
            encoder: For the embedding.
            seed: Of the part.
            strengths: What regularisation is chosen from.
            ngrams: Whether to read word and character n-grams.
            statistics: Whether to read the text's surface.
        """
        outcomes = some_of(outcomes, seed)
        fitted = fit_ridge_map(
            outcomes.texts,
            outcomes.quality,
            encoder,
            strengths=strengths,
            ngrams=ngrams,
            statistics=statistics,
        )
        return cls.of(outcomes.models, fitted)

    def link(self, out: Floats) -> Floats:
        """Qualities."""
        return np.clip(out, 0, 1)


def some_of(outcomes: Outcomes, seed: int, most: int = MAX_ROWS) -> Outcomes:
    """All, or a random part of ``most`` rows."""
    if len(outcomes) <= most:
        return outcomes
    return outcomes.take(np.random.default_rng(seed).permutation(len(outcomes))[:most])


def fit_ridge_map(
    texts: Sequence[str],
    targets: Floats,
    encoder: Encoder | None,
    *,
    strengths: Sequence[float] = STRENGTHS,
    ngrams: bool = True,
    statistics: bool = True,
) -> FittedMap:
    """A ridge regression: the map, leave-one-out residuals ``[n, outputs]``, and the dense blocks."""
    features = Features.fit(texts, encoder, ngrams=ngrams, statistics=statistics)
    blocks = features.blocks(texts)
    solution = solve_ridge(gram_matrix(blocks), targets, strengths)
    coefficients = [np.asarray(block.T @ solution.dual, np.float32) for block in blocks]
    map = LinearMap(features, coefficients, solution.bias)
    return map, targets - solution.left_out, blocks[len(features.groups) :]
