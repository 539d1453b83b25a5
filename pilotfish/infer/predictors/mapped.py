"""A linear map of features with a link: what fine-tuned text encoders are replaced by here.

Several papers differ in what their encoder is trained to say (a quality, a loss, a distribution over
models, the chance of being as good as another) and in nothing else; so they differ here in the targets
of the map and in the link from its outputs to what is predicted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

from pilotfish.infer.outcomes import Floats
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.features import LinearMap
from pilotfish.infer.predictors.fitted import Fitted
from pilotfish.infer.predictors.predictor import Prediction

FittedMap = tuple[LinearMap, Floats, list[Floats]]
"""A map, its residuals ``[n, outputs]``, and the dense blocks that it was fitted on."""


@dataclass(eq=False)
class Mapped(Fitted):
    """A linear map, a link, and the map's leverage.

    Attributes:
        map: Features to outputs ``[n, models]``.
        coverage: Gives the standard deviation.
    """

    map: LinearMap
    coverage: Coverage

    @classmethod
    def of(cls, models: tuple[str, ...], fitted: FittedMap, *more: Any) -> Self:
        """From a fitted map and the class's own fields."""
        map, residuals, dense = fitted
        return cls(models, map, Coverage.fit(dense, residuals), *more)

    @abstractmethod
    def link(self, out: Floats) -> Floats:
        """What the map's outputs ``[n, models]`` stand for, in [0, 1]."""

    def predict(self, texts: Sequence[str]) -> Prediction:
        """The linked outputs ``[n, models]``."""
        out, dense = self.map(texts)
        return Prediction(self.link(out), self.coverage.std(dense))
