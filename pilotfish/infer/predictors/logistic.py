"""Logistic regression of each model's quality on n-grams, an embedding and the text's surface.

The probability that a model's answer is right, given the question alone: what HybridLLM (Ding et al.
2024) and RouteLLM's BERT router (Ong et al. 2024) fine-tune an encoder for. Qualities between 0 and 1
are soft labels. Strong regularisation helps: on 1,500 labelled questions of MMLU the APGR was 0.004
lower at C = 1 than at 0.3, and 0.011 lower at 3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.features import Features, LinearMap
from pilotfish.infer.predictors.mapped import FittedMap, Mapped
from pilotfish.infer.predictors.settings import Positive
from pilotfish.models.logistic import fit_logistic
from pilotfish.models.protocols import Encoder

STRENGTH = 0.3


@dataclass(eq=False)
class Logistic(Mapped):
    """A linear map to log-odds for each model."""

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        strength: Positive = STRENGTH,
        ngrams: bool = True,
        statistics: bool = True,
    ) -> Self:
        """Learn from outcomes.

        Args:
            outcomes: What was recorded.
            encoder: For the embedding.
            seed: Not used; the solution is unique.
            strength: How much the data count against the prior (scikit-learn's C).
            ngrams: Whether to read word and character n-grams.
            statistics: Whether to read the text's surface.
        """
        fitted = fit_logistic_map(
            outcomes.texts,
            outcomes.quality,
            encoder,
            strength=strength,
            ngrams=ngrams,
            statistics=statistics,
        )
        return cls.of(outcomes.models, fitted)

    def link(self, out: Floats) -> Floats:
        """Probabilities."""
        return sigmoid(out)


def sigmoid(z: NDArray[Any]) -> Floats:
    """``1 / (1 + exp(-z))``, without overflow."""
    half: Floats = np.asarray(0.5 * (1 + np.tanh(0.5 * z)), np.float32)
    return half


def fit_logistic_map(
    texts: Sequence[str],
    targets: Floats,
    encoder: Encoder | None,
    *,
    strength: float = STRENGTH,
    multilabel: bool = True,
    ngrams: bool = True,
    statistics: bool = True,
) -> FittedMap:
    """A logistic regression: the map, its residuals ``[n, outputs]``, and the dense blocks.

    Args:
        texts: ``n`` of them.
        targets: Soft labels in [0, 1], ``[n, outputs]``, NaN where unknown.
        encoder: For the embedding.
        strength: How much the data count against the prior.
        multilabel: One sigmoid for each output instead of one softmax; a softmax needs all targets.
        ngrams: Whether to read word and character n-grams.
        statistics: Whether to read the text's surface.
    """
    features = Features.fit(texts, encoder, ngrams=ngrams, statistics=statistics)
    blocks = features.blocks(texts)
    outputs = targets.shape[1]
    coefficients = [np.zeros((block.shape[1], outputs), np.float32) for block in blocks]
    bias = np.zeros(outputs, np.float32)
    patterns, group = np.unique(~np.isnan(targets), axis=1, return_inverse=True)
    for g in range(patterns.shape[1]):
        rows, columns = np.flatnonzero(patterns[:, g]), np.flatnonzero(group == g)
        ((own, own_bias),) = fit_logistic(
            [block[rows] for block in blocks],
            targets[np.ix_(rows, columns)],
            np.ones(len(rows)),
            multilabel=multilabel,
            strengths=[strength],
        )
        for whole, part in zip(coefficients, own, strict=True):
            whole[:, columns] = part
        bias[columns] = own_bias
    map = LinearMap(features, coefficients, bias)
    dense = blocks[len(features.groups) :]
    fitted = bias + sum(block @ own for block, own in zip(blocks, coefficients, strict=True))
    shown = sigmoid(fitted) if multilabel else softmax(fitted)
    return map, targets - shown, dense


def softmax(z: NDArray[Any]) -> Floats:
    """Rows of ``exp(z)`` that sum to 1."""
    e = np.exp(z - z.max(axis=1, keepdims=True))
    out: Floats = np.asarray(e / e.sum(axis=1, keepdims=True), np.float32)
    return out
