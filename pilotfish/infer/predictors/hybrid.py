"""The probability that a cheap model's answer is as good as the reference model's.

HybridLLM (Ding et al. 2024) trains a router on the quality gap ``H(x) = q_small(x) - q_large(x)`` with
one of three labels: ``deterministic``, ``y = 1[H >= 0]``; ``soft``, ``y = Pr[H >= 0]`` over sampled
answers; and ``transformed``, ``y = Pr[H >= -t]`` with the ``t`` that makes the labels differ most,
their equation 3: ``t* = argmax 1/N^2 sum_ij |y_i(t) - y_j(t)|``, for pairs where the small model is
almost never as good.

Differences: each model of the pool is compared with the reference, not one pair only. A question that
was recorded several times gives the samples; one that was recorded once gives the probability 0 or 1. A
linear model on n-grams, embedding and surface takes the place of a fine-tuned DeBERTa.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ConfigError
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.logistic import STRENGTH, fit_logistic_map, sigmoid
from pilotfish.infer.predictors.mapped import Mapped
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.settings import Positive
from pilotfish.models.protocols import Encoder

Labels = Literal["deterministic", "soft", "transformed"]
RELAXATIONS = tuple(i / 20 for i in range(20))


@dataclass(eq=False)
class Hybrid(Mapped):
    """Log-odds of being as good as the reference, for every model but the reference.

    Attributes:
        reference: Position of the reference among the models.
        relaxation: The ``t`` of each model ``[models]``.
    """

    reference: int
    relaxation: Floats

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        labels: Labels = "transformed",
        reference: str = "",
        strength: Positive = STRENGTH,
    ) -> Self:
        """Learn from outcomes.

        Args:
            outcomes: What was recorded.
            encoder: For the embedding.
            seed: Not used; the solution is unique.
            labels: Which of the paper's three.
            reference: The model to compare with; default the one with the best mean quality.
            strength: How much the data count against the prior.

        Raises:
            ConfigError: There is no such model, or no such kind of labels.
        """
        if labels not in ("deterministic", "soft", "transformed"):
            raise ConfigError(
                f"Got labels {labels!r}, but expected deterministic, soft or transformed."
            )
        if reference and reference not in outcomes.models:
            raise ConfigError(
                f"Got reference {reference!r}, but expected one of {', '.join(outcomes.models)}."
            )
        best = int(np.nanargmax(outcomes.mean_quality()))
        at = outcomes.models.index(reference) if reference else best
        gap = outcomes.quality - outcomes.quality[:, at : at + 1]
        relaxation = np.zeros(len(outcomes.models), np.float32)
        targets = np.empty_like(gap)
        for j in range(len(outcomes.models)):
            if labels == "transformed" and j != at:
                relaxation[j] = best_relaxation(gap[:, j], outcomes.texts)
            hit = np.where(np.isnan(gap[:, j]), np.nan, gap[:, j] >= -relaxation[j])
            targets[:, j] = hit if labels == "deterministic" else shares(hit, outcomes.texts)
        fitted = fit_logistic_map(outcomes.texts, targets, encoder, strength=strength)
        return cls.of(outcomes.models, fitted, at, relaxation)

    def link(self, out: Floats) -> Floats:
        """Probabilities."""
        return sigmoid(out)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Probabilities ``[n, models]``; the reference is as good as itself, so its column is 1."""
        told = super().predict(texts)
        told.mean[:, self.reference], told.std[:, self.reference] = 1, 0
        return told


def shares(hits: NDArray[Any], texts: Sequence[str]) -> Floats:
    """For each row the share of hits among the rows with the same text; NaN where none is known."""
    _, of_row = np.unique(np.array(texts, object), return_inverse=True)
    known = ~np.isnan(hits)
    total = np.bincount(of_row, np.where(known, hits, 0))
    count = np.bincount(of_row, known)
    share = np.where(count > 0, total / np.maximum(count, 1), np.nan)[of_row]
    return np.where(known, share, np.nan).astype(np.float32)


def mean_difference(labels: Floats) -> float:
    """``1/N^2 sum_ij |y_i - y_j|``, from the sorted labels."""
    y = np.sort(labels.astype(np.float64))
    n = len(y)
    return float(2 * ((2 * np.arange(n) - n + 1) @ y) / n**2)


def best_relaxation(gap: Floats, texts: Sequence[str]) -> float:
    """The ``t`` whose labels differ most; the smallest of several."""
    found = []
    for t in RELAXATIONS:
        labels = shares(np.where(np.isnan(gap), np.nan, gap >= -t), texts)
        found.append(mean_difference(labels[~np.isnan(labels)]))
    return RELAXATIONS[int(np.argmax(found))]
