"""Kernel ridge regression: what :mod:`~pilotfish.infer.predictors.linear` learns, and curves.

The kernel is a sum: n-grams linearly, and Gaussian kernels of the embedding and of the text's surface,
with which "long and many digits" can be harder than either. It is the mean of a Gaussian process with
these covariances (Rasmussen and Williams 2006). The strength of the noise is chosen by the
leave-one-out error.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.features import Features, LinearMap
from pilotfish.infer.predictors.fitted import Fitted
from pilotfish.infer.predictors.linear import some_of
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.ridge import STRENGTHS, gram_matrix, solve_ridge
from pilotfish.infer.predictors.settings import Positives
from pilotfish.models.protocols import Encoder

BATCH = 1024
WIDTHS = (1.0, 0.5)
"""Exponents of the embedding's and the surface's Gaussian kernel. Rows of the first have length 1,
those of the second about 1 (see :data:`~pilotfish.infer.predictors.features.STATISTICS_SCALE`)."""


@dataclass(eq=False)
class Kernel(Fitted):
    """A linear map of n-grams and a sum over the recorded questions.

    Attributes:
        map: Reads the n-grams, and computes the dense blocks.
        rows: The dense blocks of the recorded questions, each ``[n, width]``.
        dual: ``[n, models]``.
        coverage: Gives the standard deviation.
    """

    map: LinearMap
    rows: list[Floats]
    dual: Floats
    coverage: Coverage
    left_out: Floats | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        self._norms = [(block**2).sum(axis=1) for block in self.rows]
        # One text against all of them is a product with columns that lie side by side.
        self.rows = [np.asfortranarray(block) for block in self.rows]

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        strengths: Positives = STRENGTHS,
        ngrams: bool = True,
    ) -> Self:
        """Learn from outcomes.

        Args:
            outcomes: What was recorded; above 4,000 rows a random part of that size.
            encoder: For the embedding.
            seed: Of the part.
            strengths: What the noise is chosen from.
            ngrams: Whether to read word and character n-grams.
        """
        whole, outcomes = outcomes, some_of(outcomes, seed)
        features = Features.fit(outcomes.texts, encoder, ngrams=ngrams)
        blocks = features.blocks(outcomes.texts)
        count = len(features.groups)
        sparse, dense = blocks[:count], blocks[count:]
        gram = np.zeros((len(outcomes), len(outcomes)))
        if sparse:
            gram += gram_matrix(sparse)
        for block, width in zip(dense, WIDTHS, strict=True):
            gram += gaussian_kernel(block, block, width)
        solution = solve_ridge(gram, outcomes.quality, strengths)
        outputs = len(outcomes.models)
        coefficients = [np.asarray(block.T @ solution.dual, np.float32) for block in sparse]
        coefficients += [np.zeros((block.shape[1], outputs), np.float32) for block in dense]
        map = LinearMap(features, coefficients, solution.bias)
        coverage = Coverage.fit(dense, outcomes.quality - solution.left_out)
        made = cls(outcomes.models, map, list(dense), solution.dual, coverage)
        if outcomes is whole:
            made.left_out = np.clip(solution.left_out, 0, 1)
        return made

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Qualities ``[n, models]``."""
        out, dense = self.map(texts)
        for start in range(0, len(texts), BATCH):
            part = slice(start, start + BATCH)
            for i, (block, width) in enumerate(zip(dense, WIDTHS, strict=True)):
                near = gaussian_kernel(block[part], self.rows[i], width, self._norms[i])
                out[part] += near @ self.dual
        return Prediction(np.clip(out, 0, 1), self.coverage.std(dense))


def gaussian_kernel(a: Floats, b: Floats, width: float, norms: Floats | None = None) -> Floats:
    """``exp(-width |a_i - b_j|^2)``, ``[len(a), len(b)]``; ``norms`` are ``|b_j|^2`` if known."""
    if norms is None:
        norms = (b**2).sum(axis=1)
    squares = (a**2).sum(axis=1)[:, None] + norms - 2 * (a @ b.T)
    out: Floats = np.exp(-width * np.maximum(squares, 0))
    return out
