"""What a quality predictor is, how one is fitted, stored and loaded.

A predictor is fitted on outcomes and says, for a text alone, how good each model's answer will be. Its
state is JSON values and numeric arrays, so loading one runs no code. It is also a classifier in the
sense of :class:`pilotfish.models.protocols.Classifier`, whose classes are the models and whose rows do
not sum to 1, so that whatever takes a classifier can route by it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ArtifactError, InputError
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors import PREDICTORS
from pilotfish.infer.predictors.fitted import Arrays, State
from pilotfish.infer.predictors.settings import check_settings, keywords_of
from pilotfish.models.protocols import Encoder

FORMAT = 1


@dataclass(frozen=True)
class Prediction:
    """The quality expected of each model's answer.

    Attributes:
        mean: ``[n, models]``. In [0, 1]; predictors that learn from preferences give the probability of
            being preferred to another model of the pool.
        std: Standard deviation of the mean itself, ``[n, models]``, not negative: how far the estimate
            may be off because little like this text was seen, not how much answers vary.
    """

    mean: Floats
    std: Floats


@runtime_checkable
class QualityPredictor(Protocol):
    """A fitted predictor.

    It may have an attribute ``left_out``, what it predicts for each row it was fitted on from all
    others ``[n, models]``; :mod:`~pilotfish.infer.predictors.stacked` then need not fit it again. It
    may have one ``waits``, true where it asks another model before it predicts.

    Attributes:
        models: The models it knows, in the order of its columns.
    """

    models: tuple[str, ...]

    def predict(self, texts: Sequence[str]) -> Prediction:
        """The quality expected of each model's answer to each text, ``[n, models]``."""
        ...

    def state(self) -> State:
        """JSON settings and arrays that :meth:`Method.restore` rebuilds it from."""
        ...


class Method(Protocol):
    """What a name of :data:`~pilotfish.infer.predictors.PREDICTORS` stands for: a class of predictors.

    Attributes:
        embeds: Whether it needs an encoder.
        needs: What of the outcomes it reads besides the texts: ``"quality"`` or ``"answers"``.
    """

    embeds: ClassVar[bool]
    needs: ClassVar[str]

    @classmethod
    def fit(cls, outcomes: Outcomes, encoder: Encoder | None, seed: int) -> QualityPredictor:
        """Learn from outcomes; its further keywords are its settings."""
        ...

    @classmethod
    def restore(
        cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None
    ) -> QualityPredictor:
        """Rebuild from a state; the encoder is the one that it was fitted with."""
        ...


@dataclass(frozen=True)
class FittedPredictor:
    """A predictor with what is needed to store it.

    Attributes:
        name: Its name in :data:`~pilotfish.infer.predictors.PREDICTORS`.
        predictor: What predicts.
        encoder: What it embeds with, or None.
    """

    name: str
    predictor: QualityPredictor
    encoder: Encoder | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The models it knows, in the order of its columns."""
        return self.predictor.models

    @property
    def classes(self) -> tuple[str, ...]:
        """The models, under the name that classifiers use."""
        return self.predictor.models

    @property
    def waits(self) -> bool:
        """Whether predicting asks another model, so that an event loop must not wait for it."""
        return bool(getattr(self.predictor, "waits", False))

    def predict(self, texts: Sequence[str]) -> Prediction:
        """The quality expected of each model's answer to each text, ``[n, models]``."""
        m = len(self.models)
        if not len(texts):
            return Prediction(np.zeros((0, m), np.float32), np.zeros((0, m), np.float32))
        return self.predictor.predict(texts)

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """The mean of :meth:`predict`; rows do not sum to 1."""
        return self.predict(texts).mean

    def files(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """What to store: JSON values, and arrays for safetensors."""
        settings, arrays = self.predictor.state()
        encoder = self.encoder
        values = {
            "format": FORMAT,
            "predictor": self.name,
            "models": list(self.models),
            "encoder": None
            if encoder is None
            else {"name": encoder.name, "fingerprint": getattr(encoder, "fingerprint", "")},
            "settings": settings,
        }
        return values, {name: np.ascontiguousarray(array) for name, array in arrays.items()}

    @classmethod
    def from_files(
        cls,
        values: Mapping[str, Any],
        arrays: Arrays,
        load_encoder: Callable[[str], Encoder],
    ) -> Self:
        """Rebuild from :meth:`files`.

        Args:
            values: The JSON values.
            arrays: The arrays.
            load_encoder: Called with the encoder's name when the predictor embeds.

        Raises:
            ArtifactError: Another format, a part is missing, or this machine's encoder is another one.
        """
        if values.get("format") != FORMAT:
            raise ArtifactError(
                f"Got a predictor of format {values.get('format')!r}, but this version reads {FORMAT}.",
                remedy="Install the version of pilotfish that the card names, or fit it again.",
            )
        encoder = None
        if (wanted := values["encoder"]) is not None:
            encoder = load_encoder(wanted["name"])
            here = getattr(encoder, "fingerprint", "")
            if here != wanted["fingerprint"]:
                raise ArtifactError(
                    f"The predictor was fitted on encoder {wanted['name']!r} with fingerprint "
                    f"{wanted['fingerprint']!r}, but here it is {here!r}.",
                    remedy="Install the version of the encoder that the card names, or fit it again.",
                )
        method: Method = PREDICTORS.load(values["predictor"])
        settings = {**values["settings"], "models": tuple(values["models"])}
        try:
            predictor = method.restore(settings, arrays, encoder)
        except KeyError as missing:
            raise ArtifactError(
                f"The predictor's files lack {missing}.", remedy="Fetch the artifact again."
            ) from missing
        return cls(values["predictor"], predictor, encoder)


def fit_predictor(
    name: str,
    outcomes: Outcomes,
    *,
    seed: int = 0,
    encoder: Encoder | None = None,
    **settings: Any,
) -> FittedPredictor:
    """Fit a predictor.

    Args:
        name: A name of :data:`~pilotfish.infer.predictors.PREDICTORS`.
        outcomes: What was recorded.
        seed: Of every random choice.
        encoder: For predictors that embed; default the static one.
        settings: The method's own; its ``fit`` lists them.

    Raises:
        UnknownName: No predictor has that name.
        ConfigError: It has no such setting, or one cannot have that value.
        InputError: The outcomes do not hold what it learns from.
    """
    method: Any = PREDICTORS.load(name)
    check_settings(f"The predictor {name!r}", keywords_of(method.fit), settings)
    if len(outcomes) < 2:
        raise InputError(f"Got {len(outcomes)} outcomes, but a predictor learns from 2 at least.")
    if method.needs == "quality":
        missing = [
            model
            for model, quality in zip(outcomes.models, outcomes.quality.T, strict=True)
            if np.isnan(quality).all()
        ]
        if missing:
            raise InputError(
                f"No quality was recorded of {', '.join(missing)}.",
                remedy="Leave these models out: --models, in Python outcomes.select([...])",
            )
    if method.needs == "answers" and outcomes.answers is None:
        raise InputError(
            f"The predictor {name!r} compares answers, but the outcomes hold none.",
            remedy="Record the answers' texts: a column 'answer', or 'answer:NAME' for each model",
        )
    if method.embeds and encoder is None:
        from pilotfish.models.load import load_encoder

        encoder = load_encoder("static")
    used = encoder if method.embeds else None
    return FittedPredictor(name, method.fit(outcomes, used, seed, **settings), used)
