"""A fitted router as an artifact: a quality predictor, what asking costs, and the price of quality.

A routing artifact is a classifier (:class:`pilotfish.models.protocols.Classifier`) whose classes are
the models: the score of each is its expected quality less the weighted cost of asking it, so a
router in pilotfish.toml (``kind = "router"``, ``by = "FOLDER"``) that takes the largest score routes
by price. The weight is chosen in the user's terms: the most a request may cost, the share of
requests that may go to the best model, or the quality that must be reached.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Self

import numpy as np

from pilotfish.errors import ArtifactError, InputError
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.predictor import FittedPredictor, fit_predictor
from pilotfish.models.protocols import Encoder
from pilotfish.store.artifacts import Artifact, load_artifact, save_artifact
from pilotfish.store.card import Card

KIND = "routing"
HALVINGS = 50


@dataclass(frozen=True)
class Tuned:
    """What a weight did on the questions it was chosen on.

    Attributes:
        weight: Quality that a unit of cost must bring.
        quality: Mean quality of the answers.
        cost: Mean cost of a request; NaN without costs.
        strong_share: Share of the requests that went to the best model.
        questions: How many there were.
        best_single: Name of the best single model on them.
        best_quality: Its mean quality.
        best_cost: Its mean cost.
    """

    weight: float
    quality: float
    cost: float
    strong_share: float
    questions: int
    best_single: str
    best_quality: float
    best_cost: float


@dataclass(eq=False)
class Routing:
    """Names the model with the best expected quality less weighted cost.

    Attributes:
        predictor: Expects qualities.
        cost: What asking each model costs in the mean ``[models]``; without costs 0, and 1 for the
            best one.
        weight: Quality that a unit of cost must bring.
        tuned: What the weight did when it was chosen.
        classes: The models.
    """

    predictor: FittedPredictor
    cost: Floats
    weight: float
    tuned: Tuned
    classes: tuple[str, ...] = field(init=False)

    def __post_init__(self) -> None:
        self.classes = self.predictor.models

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Expected quality less weighted cost ``[n, models]``; at most 1, below 0 where it is dear."""
        values: Floats = self.predictor.predict(texts).mean - np.float32(self.weight) * self.cost
        return values

    def choose(self, texts: Sequence[str]) -> list[str]:
        """The model for each text."""
        return [self.classes[i] for i in self.predict_proba(texts).argmax(axis=1)]

    def save(
        self, folder: str | Path, *, name: str = "", learned_from: Mapping[str, Any] = {}
    ) -> None:
        """Write an artifact; one that is there is replaced in one step.

        Args:
            folder: Where to.
            name: Default: the folder's.
            learned_from: For the card: files, counts.

        Raises:
            ArtifactError: It cannot be written.
        """
        values, arrays = self.predictor.files()
        card = Card.new(
            name=name or Path(folder).name,
            kind=KIND,
            learned_from=dict(learned_from),
            quality=_finite(self.tuned),
            extra={"predictor": self.predictor.name, "models": list(self.classes)},
        )
        save_artifact(
            folder,
            card,
            tensors={"predictor": arrays, "costs": {"cost": self.cost}},
            json_files={"predictor": values, "routing": {"weight": self.weight}},
        )

    @classmethod
    def load(cls, folder: str | Path | Artifact, load_encoder: Callable[[str], Encoder]) -> Self:
        """Read an artifact; every file is checked against the card first.

        Args:
            folder: Where it is, or the artifact when it was checked already.
            load_encoder: Called with the encoder's name when the predictor embeds.

        Raises:
            ArtifactError: It is no routing artifact, or damaged.
        """
        artifact = folder if isinstance(folder, Artifact) else load_artifact(folder)
        if artifact.card.kind != KIND:
            raise ArtifactError(
                f"Got an artifact of kind {artifact.card.kind!r}, but expected {KIND!r}: "
                f"{artifact.folder}.",
                remedy="pilotfish route fit makes one.",
            )
        values, arrays = artifact.json("predictor"), artifact.tensors("predictor")
        predictor = FittedPredictor.from_files(values, arrays, load_encoder)
        cost = np.asarray(artifact.tensors("costs")["cost"], np.float32)
        if cost.shape != (len(predictor.models),):
            raise ArtifactError(f"{artifact.folder} has costs of shape {cost.shape}.")
        numbers: dict[str, Any] = {
            key: float("nan") if v is None else v for key, v in artifact.card.quality.items()
        }
        try:
            tuned = Tuned(**numbers)
        except TypeError as error:
            raise ArtifactError(
                f"{artifact.folder}: the card's quality is not one: {error}."
            ) from error
        return cls(predictor, cost, float(artifact.json("routing")["weight"]), tuned)


def _finite(tuned: Tuned) -> dict[str, Any]:
    values = {name: getattr(tuned, name) for name in Tuned.__dataclass_fields__}
    return {
        k: None if isinstance(v, float) and not np.isfinite(v) else v for k, v in values.items()
    }


def fit_routing(
    learn: Outcomes,
    tune: Outcomes,
    *,
    predictor: str = "stacked",
    settings: Mapping[str, Any] | None = None,
    encoder: Encoder | None = None,
    seed: int = 0,
    max_cost: float | None = None,
    strong_share: float | None = None,
    min_quality: float | None = None,
) -> Routing:
    """Fit a predictor on one part and choose the weight on another.

    Args:
        learn: To fit on.
        tune: To choose the weight on. With questions that the predictor was fitted on, it would be
            taken for better than it is.
        predictor: A name of :data:`pilotfish.infer.predictors.PREDICTORS`.
        settings: The predictor's.
        encoder: For predictors that embed.
        seed: Of every random choice.
        max_cost: Most that a request may cost in the mean.
        strong_share: Share of the requests that may go to the best model.
        min_quality: Least mean quality; the cheapest weight that reaches it.

    Raises:
        InputError: No weight keeps the dial.
    """
    fitted = fit_predictor(predictor, learn, seed=seed, encoder=encoder, **(settings or {}))
    cost = learn.mean_cost()
    if np.isnan(cost).any():
        cost = np.zeros(len(cost), np.float32)
        cost[int(np.nanargmax(learn.mean_quality()))] = 1
    nothing = Tuned(0.0, 0.0, 0.0, 0.0, 0, "", 0.0, 0.0)
    return tune_routing(
        Routing(fitted, cost, 0.0, nothing),
        tune,
        max_cost=max_cost,
        strong_share=strong_share,
        min_quality=min_quality,
    )


def tune_routing(
    routing: Routing,
    tune: Outcomes,
    *,
    max_cost: float | None = None,
    strong_share: float | None = None,
    min_quality: float | None = None,
) -> Routing:
    """Choose the weight anew; without a dial it is 0, which minds quality alone.

    Raises:
        InputError: More than one dial was given, or no weight keeps it.
    """
    given = [d for d in (max_cost, strong_share, min_quality) if d is not None]
    if len(given) > 1:
        raise InputError("Got more than one of max_cost, strong_share and min_quality.")
    tune = tune.select(routing.classes)
    expected = routing.predictor.predict(tune.texts).mean

    def at(weight: float) -> Tuned:
        return _measure(expected - np.float32(weight) * routing.cost, tune, weight)

    free = at(0.0)
    span = float(routing.cost.max() - routing.cost.min())
    if not given or not span:
        kept = max_cost is None or free.cost <= max_cost
        kept &= strong_share is None or free.strong_share <= strong_share
        kept &= min_quality is None or free.quality >= min_quality
        if not kept:
            raise InputError("All models cost the same, so there is nothing to trade.")
        return replace(routing, weight=0.0, tuned=free)
    # The cost of a choice falls with the weight, and so does the share of a dear best model; quality need
    # not, so the dearest setting that reaches it is looked for on a grid.
    grid = np.concatenate([[0.0], np.geomspace(1e-4, 2.0, 200)]) / span
    tried = [at(float(weight)) for weight in grid]
    if min_quality is not None:
        good = [t for t in tried if t.quality >= min_quality]
        if not good:
            top = max(t.quality for t in tried)
            raise InputError(
                f"Got a least quality of {min_quality:g}, but the most that was reached is {top:.4f}."
            )
        return _set(routing, min(good, key=lambda t: (t.cost, t.strong_share)))
    limit = max_cost if max_cost is not None else strong_share
    assert limit is not None  # one dial was given
    spent = [t.cost if max_cost is not None else t.strong_share for t in tried]
    kept_ones = [t for t, s in zip(tried, spent, strict=True) if s <= limit]
    if not kept_ones:
        raise InputError(
            f"Got a limit of {limit:g}, but the least that was reached is {min(spent):g}.",
            remedy="Allow more, or record a cheaper model.",
        )
    return _set(routing, max(kept_ones, key=lambda t: t.quality))


def _set(routing: Routing, tuned: Tuned) -> Routing:
    return replace(routing, weight=tuned.weight, tuned=tuned)


def _measure(values: Floats, tune: Outcomes, weight: float) -> Tuned:
    chosen = values.argmax(axis=1)
    rows = np.arange(len(tune))
    quality, cost = tune.mean_quality(), tune.mean_cost()
    best = int(np.nanargmax(quality))
    got, paid = tune.quality[rows, chosen], tune.cost[rows, chosen]
    return Tuned(
        weight=float(weight),
        quality=float(np.nanmean(got)) if not np.isnan(got).all() else float("nan"),
        cost=float(np.nanmean(paid)) if not np.isnan(paid).all() else float("nan"),
        strong_share=float((chosen == best).mean()),
        questions=len(tune),
        best_single=tune.models[best],
        best_quality=float(quality[best]),
        best_cost=float(cost[best]),
    )
