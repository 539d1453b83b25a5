"""Several predictors added up, with weights that suit the outcomes: the default.

Stacking (Wolpert 1992; Breiman 1996): each part predicts every recorded question from a fit that did
not see it, and weights that are not negative are chosen so that the weighted sum has the least squared
error; then the parts are fitted on everything. The mean over the models, how easy a question is, and
the deviations from it, who answers it better, have weights of their own, since parts may be good at the
one and not at the other, and routing depends on the second. They are drawn halfway towards equal ones:
what a thousand questions tell of the best weights is itself noisy.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors import PREDICTORS
from pilotfish.infer.predictors.features import Shared
from pilotfish.infer.predictors.fitted import Arrays, State
from pilotfish.infer.predictors.predictor import Method, Prediction, QualityPredictor
from pilotfish.infer.predictors.settings import Share
from pilotfish.models.protocols import Encoder

Part = str | tuple[str, Mapping[str, Any]]
PARTS: tuple[Part, ...] = ("kernel", "forest")
FOLDS = 5
SHRINKAGE = 0.5


class Stacked:
    """A weighted sum of predictors.

    Args:
        models: Their names.
        names: The parts' names.
        parts: The parts.
        weights: Of the parts' mean over models, and of the deviations from it, ``[2, parts]``.
        center: Overall mean of each model ``[models]``: what the parts' deviations are added to.
    """

    embeds: ClassVar[bool] = True
    needs: ClassVar[str] = "quality"

    def __init__(
        self,
        models: tuple[str, ...],
        names: Sequence[str],
        parts: Sequence[QualityPredictor],
        weights: Floats,
        center: Floats,
    ) -> None:
        self.models = models
        self.names = list(names)
        self.parts = list(parts)
        self.weights = weights
        self.center = center

    @property
    def waits(self) -> bool:
        """Whether a part asks another model before it predicts."""
        return any(getattr(part, "waits", False) for part in self.parts)

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        parts: Sequence[Part] = PARTS,
        folds: int = FOLDS,
        shrinkage: Share = SHRINKAGE,
    ) -> Self:
        """Fit every part, and again on parts of the outcomes where it does not bring ``left_out``.

        Args:
            outcomes: What was recorded.
            encoder: For the parts.
            seed: Of folds and parts.
            parts: Names of predictors; one with settings is a pair of name and settings.
            folds: Into which the outcomes are divided for the weights.
            shrinkage: Share of the weights that is equal whatever the outcomes say.
        """
        encoder = None if encoder is None else Shared(encoder)
        fitted = [_fit(each, outcomes, encoder, seed) for each in parts]
        center = outcomes.mean_quality()
        weights = np.full((2, len(parts)), 1 / len(parts), np.float32)
        if len(parts) > 1:
            fold = outcomes.fold_of(seed, min(folds, len(set(outcomes.texts))))
            shown = np.full((len(parts), *outcomes.quality.shape), np.nan, np.float32)
            for i, (each, part) in enumerate(zip(parts, fitted, strict=True)):
                left_out = getattr(part, "left_out", None)
                if left_out is not None:
                    shown[i] = left_out
                    continue
                for k in np.unique(fold) if fold.any() else ():
                    part = _fit(each, outcomes.take(fold != k), encoder, seed)
                    shown[i, fold == k] = part.predict(outcomes.take(fold == k).texts).mean
            weights = stacking_weights(shown, outcomes.quality, center, shrinkage)
        names = [each if isinstance(each, str) else each[0] for each in parts]
        return cls(outcomes.models, names, fitted, weights, center)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """The weighted sum ``[n, models]``, and the parts' weighted mean standard deviation."""
        texts = list(texts)
        mean = np.repeat(self.center[None], len(texts), axis=0)
        std = np.zeros_like(mean)
        for part, (ease, weight) in zip(self.parts, self.weights.T, strict=True):
            one = part.predict(texts)
            apart = one.mean - self.center
            level = apart.mean(axis=1, keepdims=True)
            mean += ease * level + weight * (apart - level)
            # Parts learned from the same rows err together, so their deviations add, not their squares.
            std += weight * one.std
        return Prediction(np.clip(mean, 0, 1), std / max(float(self.weights[1].sum()), 1e-6))

    def state(self) -> State:
        """All parts' states and the weights."""
        arrays: dict[str, NDArray[Any]] = {"weights": self.weights, "center": self.center}
        settings = []
        for i, part in enumerate(self.parts):
            own, values = part.state()
            settings.append(own)
            arrays.update({f"{i}.{name}": value for name, value in values.items()})
        return {"names": self.names, "parts": settings}, arrays

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`."""
        encoder = None if encoder is None else Shared(encoder)
        parts = []
        for i, (name, own) in enumerate(zip(settings["names"], settings["parts"], strict=True)):
            method: Method = PREDICTORS.load(name)
            mark = f"{i}."
            values = {k.removeprefix(mark): v for k, v in arrays.items() if k.startswith(mark)}
            used = encoder if method.embeds else None
            parts.append(method.restore({**own, "models": settings["models"]}, values, used))
        names = settings["names"]
        return cls(settings["models"], names, parts, arrays["weights"], arrays["center"])


def _fit(part: Part, outcomes: Outcomes, encoder: Encoder | None, seed: int) -> QualityPredictor:
    name, settings = (part, {}) if isinstance(part, str) else part
    method: Any = PREDICTORS.load(name)
    made: QualityPredictor = method.fit(
        outcomes, encoder if method.embeds else None, seed, **settings
    )
    return made


def stacking_weights(
    shown: Floats, quality: Floats, center: Floats, shrinkage: float = 0.0
) -> Floats:
    """Non-negative least squares of the qualities on what the parts say, ``[2, parts]``.

    The first row is for means over the models, the second for deviations from them.

    Args:
        shown: What each part predicted without having seen it, ``[parts, n, models]``; NaN: not used.
        quality: ``[n, models]``, NaN where unknown.
        center: ``[models]``.
        shrinkage: Share of equal weights, of the same sum.
    """
    from scipy.optimize import nnls

    parts = len(shown)
    used = ~np.isnan(quality) & ~np.isnan(shown).any(axis=0)
    y = np.where(used, quality - center, 0).astype(np.float64)
    x = np.where(used[None], shown - center, 0).astype(np.float64)
    count = np.maximum(used.sum(axis=1, keepdims=True), 1)
    level_y, level_x = y.sum(axis=1, keepdims=True) / count, x.sum(axis=2, keepdims=True) / count
    apart_y, apart_x = np.where(used, y - level_y, 0), np.where(used[None], x - level_x, 0)
    out = np.empty((2, parts), np.float32)
    for row, (left, right) in enumerate(((level_x, level_y), (apart_x, apart_y))):
        weights = nnls(left.reshape(parts, -1).T, right.ravel())[0]
        total = float(weights.sum())
        if total <= 1e-6:  # nothing to tell apart
            weights, total = np.full(parts, 1 / parts), 1.0
        out[row] = (1 - shrinkage) * weights + shrinkage * total / parts
    return out
