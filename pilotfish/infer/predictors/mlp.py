"""A small network that names the best model.

LLMRouter's MLP router: a multi-layer perceptron on the question's embedding, whose label is the model
with the best recorded answer; RouterBench (Hu et al. 2024) has the same with qualities as targets,
which is the setting ``target="quality"``. Fitted by scikit-learn, restored from its weights.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Self

import numpy as np

from pilotfish.errors import ConfigError
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.bilinear import centred
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.fitted import Fitted
from pilotfish.infer.predictors.logistic import softmax
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.settings import AtLeastOne, NotNegative
from pilotfish.infer.predictors.svm import best_model
from pilotfish.models.protocols import Encoder


@dataclass(eq=False)
class Perceptron(Fitted):
    """Weights of a network with rectified units.

    Attributes:
        center: Mean embedding ``[dim]``.
        weights: One matrix for each layer.
        biases: One row for each layer.
        probabilities: Whether the output is a softmax; else qualities.
        coverage: Gives the standard deviation.
        encoder: Embeds.
    """

    center: Floats
    weights: list[Floats]
    biases: list[Floats]
    probabilities: bool
    coverage: Coverage
    encoder: Encoder

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        target: Literal["best", "quality"] = "best",
        hidden: AtLeastOne = 64,
        decay: NotNegative = 1e-2,
        epochs: AtLeastOne = 30,
    ) -> Self:
        """Learn from outcomes.

        Args:
            outcomes: What was recorded; an unknown quality counts as the model's mean.
            encoder: Embeds.
            seed: Of start and order.
            target: The best model's name, or all qualities.
            hidden: Units of the hidden layer.
            decay: scikit-learn's alpha.
            epochs: Passes over the questions.

        Raises:
            ConfigError: There is no such target.
        """
        from warnings import catch_warnings, simplefilter

        from sklearn.exceptions import ConvergenceWarning
        from sklearn.neural_network import MLPClassifier, MLPRegressor

        assert encoder is not None  # fit_predictor brings one
        if target not in ("best", "quality"):
            raise ConfigError(f"Got target {target!r}, but expected best or quality.")
        x, center = centred(encoder, outcomes.texts, None)
        filled = np.where(np.isnan(outcomes.quality), outcomes.mean_quality(), outcomes.quality)
        m = len(outcomes.models)
        y = np.eye(m, dtype=np.float32)[best_model(outcomes)] if target == "best" else filled
        kind = MLPClassifier if target == "best" else MLPRegressor
        network = kind((hidden,), alpha=decay, max_iter=epochs, random_state=seed)
        with catch_warnings():
            simplefilter("ignore", ConvergenceWarning)  # it is stopped early on purpose
            network.fit(x, best_model(outcomes) if target == "best" else filled)
        weights = [np.asarray(w, np.float32) for w in network.coefs_]
        biases = [np.asarray(b, np.float32) for b in network.intercepts_]
        if target == "best":
            weights[-1], biases[-1] = _all_models(network.classes_, weights[-1], biases[-1], m)
        empty = Coverage(np.zeros((0, 0), np.float32), np.zeros(m, np.float32), 1)
        made = cls(outcomes.models, center, weights, biases, target == "best", empty, encoder)
        made.coverage = Coverage.fit([x], (y - made.forward(x)).astype(np.float32))
        return made

    def forward(self, x: Floats) -> Floats:
        """The network's outputs ``[n, models]`` for rows ``[n, dim]``."""
        for w, b in zip(self.weights[:-1], self.biases[:-1], strict=True):
            x = np.maximum(x @ w + b, 0)
        z = x @ self.weights[-1] + self.biases[-1]
        return softmax(z) if self.probabilities else np.clip(z, 0, 1)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Probabilities of being the best, or qualities, ``[n, models]``."""
        x, _ = centred(self.encoder, texts, self.center)
        return Prediction(self.forward(x), self.coverage.std([x]))


def _all_models(classes: Any, w: Floats, b: Floats, m: int) -> tuple[Floats, Floats]:
    """Outputs for all models from those of the models that were best at least once."""
    whole, bias = np.zeros((len(w), m), np.float32), np.full(m, -30, np.float32)
    if len(classes) == 2:  # one logistic unit: the odds of the second class
        bias[classes[0]] = 0
        whole[:, classes[1]], bias[classes[1]] = w[:, 0], b[0]
    elif len(classes) == 1:
        bias[classes[0]] = 0
    else:
        whole[:, classes], bias[classes] = w, b
    return whole, bias
