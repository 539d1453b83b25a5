"""A support vector machine that names the best model.

LLMRouter's SVM router: an RBF support vector classifier on the question's embedding, whose label is the
model with the best recorded answer. Difference: of several equally good models the label is the one
with the best mean quality. Reported is each model's share of the votes of the one-against-one machines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.features import embed
from pilotfish.infer.predictors.fitted import Fitted
from pilotfish.infer.predictors.kernel import gaussian_kernel
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.settings import Positive
from pilotfish.models.protocols import Encoder

BATCH = 512


@dataclass(eq=False)
class SupportVectors(Fitted):
    """Support vectors and the machines' coefficients.

    Attributes:
        labels: Positions of the models that were best at least once, ``[classes]``.
        vectors: ``[support, dim]``.
        coefficients: One column for each pair of classes, ``[support, pairs]``.
        bias: ``[pairs]``.
        width: The kernel's gamma.
        encoder: Embeds.
    """

    labels: NDArray[np.int64]
    vectors: Floats
    coefficients: Floats
    bias: Floats
    width: float
    encoder: Encoder

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        strength: Positive = 1.0,
    ) -> Self:
        """Learn from outcomes.

        Args:
            outcomes: What was recorded.
            encoder: Embeds.
            seed: Not used; the solution is unique.
            strength: scikit-learn's C.
        """
        from sklearn.svm import SVC

        assert encoder is not None  # fit_predictor brings one
        x, best = embed(encoder, outcomes.texts), best_model(outcomes)
        labels, target = np.unique(best, return_inverse=True)
        width = float(1 / (x.shape[1] * max(x.var(), 1e-9)))  # scikit-learn's gamma="scale"
        if len(labels) == 1:
            empty = np.zeros((0, 0), np.float32)
            return cls(outcomes.models, labels, x[:0], empty, empty[0:0].ravel(), width, encoder)
        machine = SVC(C=strength, gamma=width, decision_function_shape="ovo").fit(x, target)
        classes = len(labels)
        ends = np.cumsum(machine.n_support_)
        of_class = np.searchsorted(ends, np.arange(len(machine.support_)), side="right")
        columns = []
        for i in range(classes):
            for j in range(i + 1, classes):
                # dual_coef_ keeps a vector's weight against the l-th other class in row l.
                first = np.where(of_class == i, machine.dual_coef_[j - 1], 0)
                columns.append(first + np.where(of_class == j, machine.dual_coef_[i], 0))
        # With two classes libsvm's sign is turned around by scikit-learn.
        sign = -1 if classes == 2 else 1
        return cls(
            outcomes.models,
            labels,
            machine.support_vectors_.astype(np.float32),
            sign * np.stack(columns, axis=1).astype(np.float32),
            sign * machine.intercept_.astype(np.float32),
            width,
            encoder,
        )

    def decisions(self, texts: Sequence[str]) -> Floats:
        """What each machine says, ``[n, pairs]``; positive for the first of its two classes."""
        x = embed(self.encoder, texts)
        out = np.empty((len(x), len(self.bias)), np.float32)
        for start in range(0, len(x), BATCH):
            part = gaussian_kernel(x[start : start + BATCH], self.vectors, self.width)
            out[start : start + BATCH] = part @ self.coefficients + self.bias
        return out

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Share of the votes ``[n, models]``, ties broken by how sure the machines are."""
        classes = len(self.labels)
        votes = np.zeros((len(texts), classes), np.float32)
        if classes == 1:
            votes += 1
        else:
            said = self.decisions(texts)
            pairs = [(i, j) for i in range(classes) for j in range(i + 1, classes)]
            for column, (i, j) in enumerate(pairs):
                sure = 0.5 * (1 + np.tanh(said[:, column]))
                # A vote counts 1, and less than a vote more for being sure of it.
                votes[:, i] += (said[:, column] > 0) + sure / classes
                votes[:, j] += (said[:, column] <= 0) + (1 - sure) / classes
            votes /= (classes - 1) * (1 + 1 / classes)
        mean = np.zeros((len(texts), len(self.models)), np.float32)
        mean[:, self.labels] = votes
        return Prediction(mean, np.sqrt(mean * np.maximum(1 - mean, 0)))


def best_model(outcomes: Outcomes) -> NDArray[np.int64]:
    """Position of the model with the best answer ``[n]``; of equals the best one on average."""
    quality = np.where(np.isnan(outcomes.quality), -1, outcomes.quality).astype(np.float64)
    out: NDArray[np.int64] = np.argmax(quality + 1e-6 * outcomes.mean_quality(), axis=1)
    return out
