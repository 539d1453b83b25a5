"""A small pretrained transformer, fine-tuned whole to predict every model's quality.

What the papers' routers are: HybridLLM (Ding et al. 2024) fine-tunes DeBERTa, Zooter (Lu et al. 2024)
mDeBERTa, FORC (Sakota et al. 2024) DistilBERT and RouteLLM (Ong et al. 2024) BERT, each with a head on
top. Here the head has one sigmoid for each model and is trained with the encoder on the recorded
qualities, by the cross-entropy with soft labels. Difference: the encoder is a MiniLM of 22 million
parameters, which reads the first 128 tokens.

Needs the torch extra. Training is done in another room and found by its name in
:data:`pilotfish.models.LEARNERS`. The standard deviation is the leverage of the fine-tuned vectors, as
if the encoder had been given (a last-layer Laplace approximation).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.fitted import Arrays, Fitted, State
from pilotfish.infer.predictors.logistic import sigmoid
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.settings import NotNegative
from pilotfish.models import LEARNERS
from pilotfish.models.protocols import Encoder

LEARNER = "transformer"


@runtime_checkable
class TextLearner(Protocol):
    """An encoder that was fitted to numbers for texts, with the linear head that gives them."""

    @classmethod
    def learn(
        cls, texts: Sequence[str], targets: Floats, *, seed: int, base: str, epochs: float
    ) -> Self:
        """Fit to targets ``[n, outputs]`` in [0, 1], starting from a pretrained encoder."""
        ...

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit rows ``[n, dim]``, float32."""
        ...

    def head(self) -> tuple[Floats, Floats]:
        """Weights ``[dim, outputs]`` and bias ``[outputs]`` that give log-odds of rows."""
        ...

    def state(self) -> State:
        """JSON values and arrays."""
        ...

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays) -> Self:
        """Rebuild from a state."""
        ...


@dataclass(eq=False)
class Transformer(Fitted):
    """A fine-tuned encoder with a head.

    Attributes:
        learner: The encoder and its head.
        center: Mean of the vectors that were learned from ``[dim]``.
        coverage: Gives the standard deviation.
    """

    embeds: ClassVar[bool] = False

    learner: TextLearner
    center: Floats
    coverage: Coverage

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        base: str = "all-MiniLM-L6-v2",
        epochs: NotNegative = 3.0,
    ) -> Self:
        """Fine-tune on the outcomes.

        Args:
            outcomes: What was recorded; an unknown quality counts as the model's mean.
            encoder: Not used; the transformer is its own.
            seed: Of start and order.
            base: The pretrained encoder: its name in the catalogue, or a folder.
            epochs: Passes over the questions; 0 fits the head alone.

        Raises:
            MissingExtra: torch is not installed.
            MissingModel: The encoder was not pulled.
        """
        filled = np.where(np.isnan(outcomes.quality), outcomes.mean_quality(), outcomes.quality)
        kind: type[TextLearner] = LEARNERS.load(LEARNER)
        learner = kind.learn(outcomes.texts, filled, seed=seed, base=base, epochs=epochs)
        rows = learner.encode(outcomes.texts)
        center = rows.mean(axis=0)
        shown = _linked(learner, rows)
        coverage = Coverage.fit([rows - center], (outcomes.quality - shown).astype(np.float32))
        return cls(outcomes.models, learner, center, coverage)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Probabilities ``[n, models]``."""
        rows = self.learner.encode(texts)
        return Prediction(_linked(self.learner, rows), self.coverage.std([rows - self.center]))

    def state(self) -> State:
        """Weights and tokenizer of the transformer, and the coverage."""
        settings, arrays = self.learner.state()
        arrays = {f"learner.{name}": array for name, array in arrays.items()}
        return {"learner": settings}, {**arrays, "center": self.center, **self.coverage.state()[1]}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`.

        Raises:
            MissingExtra: torch is not installed.
        """
        kind: type[TextLearner] = LEARNERS.load(LEARNER)
        mark = "learner."
        own = {k.removeprefix(mark): v for k, v in arrays.items() if k.startswith(mark)}
        learner = kind.restore(settings["learner"], own)
        coverage = Coverage.restore({}, arrays, None)
        return cls(tuple(settings["models"]), learner, arrays["center"], coverage)


def _linked(learner: TextLearner, rows: Floats) -> Floats:
    weights, bias = learner.head()
    return sigmoid(rows @ weights + bias)
