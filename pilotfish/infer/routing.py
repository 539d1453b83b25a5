"""A fitted policy as an artifact: whom to ask, in what order and when to stop, ready to be served.

It holds the policy at the operating point that a user's dials meant, all its settings (so that it can
be tuned to other dials without being fitted again), the quality predictor and the judge that it looks
at, what asking is believed to cost, and what it did on questions that it was not chosen on. Served as
``kind = "policy"`` (:mod:`pilotfish.infer.policy_model`). One that asks once, by price, is a
classifier as well (:class:`pilotfish.models.protocols.Classifier`): the score of each model is its
expected quality less the weighted cost, so a ``router`` can take it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ArtifactError, ConfigError
from pilotfish.infer.families import PLAIN, Family, fit_family
from pilotfish.infer.operating import Dials, Measured, certificate_of, dials_of, measure, operate
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.policies.files import pack, unpack
from pilotfish.infer.policies.mixed import Mixed
from pilotfish.infer.policies.policy import Policy, View, dice
from pilotfish.infer.policies.weighted import Weighted
from pilotfish.infer.predictors.embedded_once import embedded_once
from pilotfish.infer.predictors.predictor import FittedPredictor
from pilotfish.infer.scoreboard import Interval
from pilotfish.infer.stored_judges import pack_judge, unpack_judge
from pilotfish.models.protocols import Encoder
from pilotfish.store.artifacts import Artifact, load_artifact, save_artifact
from pilotfish.store.card import Card

KIND = "routing"
FORMAT = 2


@dataclass(frozen=True)
class Narrowing:
    """What the large model of a closed-label task is told once a smaller one was not sure.

    Attributes:
        top: How many of the smaller one's likeliest labels it chooses from.
        hint: Whether it is told their probabilities.
    """

    top: int = 3
    hint: bool = False


@dataclass(frozen=True, eq=False)
class Routing:
    """A policy at its operating point.

    Attributes:
        family: All settings, and what they look at.
        policy: The one that was chosen.
        dials: What it was chosen by.
        measured: What it did on questions that it was not chosen on; None before that was measured.
        narrowing: For closed labels, what an escalated question is cut down to; None: nothing.
    """

    family: Family
    policy: Policy
    dials: Dials
    measured: Measured | None = None
    narrowing: Narrowing | None = None

    @property
    def classes(self) -> tuple[str, ...]:
        """The models."""
        return self.family.models

    @property
    def large(self) -> str:
        """The large model's name."""
        return self.family.models[self.family.large]

    def look(self, texts: Sequence[str]) -> View:
        """What is known of requests before anyone is asked."""
        m = len(self.classes)
        shape = (len(texts), m)
        expected: Floats = np.broadcast_to(self.family.quality, shape)
        if self.family.predictor is not None:
            expected = self.family.predictor.predict(texts).mean
        return View(
            np.zeros(shape, bool),
            expected,
            np.full(shape, np.nan, np.float32),
            np.broadcast_to(self.family.cost, shape),
            np.broadcast_to(self.family.latency, shape),
            np.array([dice(text) for text in texts], np.float64),
        )

    def choose(self, texts: Sequence[str]) -> list[str]:
        """The model that is asked first, for each text."""
        return [self.classes[i] for i in self.policy.step(self.look(texts)).ask]

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Expected quality less weighted cost ``[n, models]``; at most 1, below 0 where it is dear.

        Raises:
            ConfigError: The policy does more than choose one model by price.
        """
        return _values(self.policy, self.look(texts))

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
        family = self.family
        packed, arrays = pack([self.policy, *family.settings])
        values = {
            "format": FORMAT,
            "policy": packed[0],
            "settings": packed[1:],
            "name": family.name,
            "models": list(self.classes),
            "large": family.large,
            "unordered": family.unordered,
            "dials": dataclasses.asdict(self.dials),
            "narrowing": None if self.narrowing is None else dataclasses.asdict(self.narrowing),
        }
        believed = {"cost": family.cost, "latency": family.latency, "quality": family.quality}
        tensors: dict[str, dict[str, NDArray[Any]]] = {"costs": believed}
        json_files: dict[str, Any] = {"routing": values}
        if arrays:
            tensors["policies"] = arrays
        if family.predictor is not None:
            json_files["predictor"], tensors["predictor"] = family.predictor.files()
        if family.judge is not None:
            json_files["judge"], judged = pack_judge(family.judge)
            if judged:
                tensors["judge"] = judged
        certificate = certificate_of(self.policy)
        card = Card.new(
            name=name or Path(folder).name,
            kind=KIND,
            learned_from=dict(learned_from),
            quality=_quality(self.measured),
            certificate=None if certificate is None else dataclasses.asdict(certificate),
            extra={
                "policy": family.name,
                "models": list(self.classes),
                "large": self.large,
                "dials": {k: v for k, v in values["dials"].items() if v not in (None, "")},
            },
        )
        save_artifact(
            folder,
            card,
            tensors={k: v for k, v in tensors.items() if v},
            json_files=json_files,
        )

    @classmethod
    def load(cls, folder: str | Path | Artifact, load_encoder: Callable[[str], Encoder]) -> Self:
        """Read an artifact; every file is checked against the card first.

        Args:
            folder: Where it is, or the artifact when it was checked already.
            load_encoder: Called with the encoder's name when the predictor or the judge embeds.

        Raises:
            ArtifactError: It is no routing artifact, from another version, or damaged.
        """
        artifact = folder if isinstance(folder, Artifact) else load_artifact(folder)
        if artifact.card.kind != KIND:
            raise ArtifactError(
                f"Got an artifact of kind {artifact.card.kind!r}, but expected {KIND!r}: "
                f"{artifact.folder}.",
                remedy="pilotfish route fit makes one.",
            )
        values = artifact.json("routing")
        if values.get("format") != FORMAT:
            raise ArtifactError(
                f"{artifact.folder} has format {values.get('format')!r}, but this version reads "
                f"{FORMAT}.",
                remedy="Fit it again: pilotfish route fit",
            )
        try:
            family, policy = _restore(artifact, values, load_encoder)
            narrowing = values["narrowing"]
            return cls(
                family,
                policy,
                dials_of(values["dials"]),
                _measured(artifact.card.quality),
                None if narrowing is None else Narrowing(**narrowing),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ArtifactError(
                f"{artifact.folder} is damaged: {type(error).__name__}: {error}.",
                remedy="Fetch it again, or fit it again: pilotfish route fit",
            ) from error


def fit_routing(
    learn: Outcomes,
    choose: Outcomes,
    check: Outcomes,
    *,
    policy: str = "stacked",
    dials: Dials | None = None,
    large: str = "",
    encoder: Encoder | None = None,
    narrowing: Narrowing | None = None,
    seed: int = 0,
) -> Routing:
    """Fit a policy, choose its setting and measure it, each on questions of its own.

    Args:
        learn: To fit predictor and judge on.
        choose: To choose the setting on.
        check: To measure on; for ``agree`` to certify on as well, which its bound accounts for.
        policy: As in :mod:`pilotfish.infer.families`.
        dials: What the user wants; default the best quality.
        large: Name of the large model; default the best one of ``learn``.
        encoder: For predictors that embed.
        narrowing: For closed labels, what an escalated question is cut down to.
        seed: Of every random choice.

    Raises:
        ConfigError: The policy cannot be stored, or no promise can be made of it.
        InputError: No setting keeps the dials.
    """
    wanted = dials or Dials()
    if policy.partition(":")[0] in PLAIN[1:]:
        raise ConfigError(
            f"The policy {policy!r} is a baseline.", remedy="Take another, such as stacked."
        )
    if narrowing is not None and wanted.agree is not None:
        raise ConfigError(
            "A narrowed question is another question, so agreement with the large model's answer to the "
            "whole one cannot be promised from these outcomes.",
            remedy="Leave out either --agree or --narrow.",
        )
    family = fit_family(
        policy,
        learn,
        seed=seed,
        encoder=embedded_once(encoder, learn.texts, choose.texts, check.texts),
        large=large,
        latency=wanted.max_latency is not None,
    )
    blank = Routing(family, family.settings[0], wanted, narrowing=narrowing)
    return tune_routing(blank, choose, check, wanted, seed=seed)


def tune_routing(
    routing: Routing, choose: Outcomes, check: Outcomes, dials: Dials, *, seed: int = 0
) -> Routing:
    """Choose another setting, and measure it.

    Args:
        routing: What was fitted, on other questions than these.
        choose: To choose the setting on.
        check: To measure on; for ``agree`` to certify on as well.
        dials: What the user wants.
        seed: Of the dice of policies that mix.

    Raises:
        InputError: No setting keeps the dials.
    """
    choose, check = (part.select(routing.classes) for part in (choose, check))
    policy = operate(routing.family, choose, dials, certify_on=check, seed=seed)
    measured = measure(routing.family, policy, check, dials, seed=seed)
    return replace(routing, policy=policy, dials=dials, measured=measured)


def _values(policy: Policy, view: View) -> Floats:
    if isinstance(policy, Weighted):
        return policy.values(view)
    if isinstance(policy, Mixed):
        heads = (view.dice < policy.share)[:, None]
        out: Floats = np.where(heads, _values(policy.first, view), _values(policy.second, view))
        return out
    raise ConfigError(
        "This policy does more than choose one model by price, so it is no classifier.",
        remedy='Serve it by itself: kind = "policy", by = "FOLDER"',
    )


def _quality(measured: Measured | None) -> dict[str, Any]:
    if measured is None:
        return {}
    found: dict[str, Any] = {"questions": measured.questions}
    for name, one in measured.measures.items():
        found[name] = {"value": one.value, "low": one.low, "high": one.high}
    return found


def _measured(quality: Mapping[str, Any]) -> Measured | None:
    if not quality:
        return None
    measures = {
        name: Interval(**found) for name, found in quality.items() if isinstance(found, Mapping)
    }
    return Measured(int(quality["questions"]), measures)


def _restore(
    artifact: Artifact, values: Mapping[str, Any], load_encoder: Callable[[str], Encoder]
) -> tuple[Family, Policy]:
    models = tuple(str(name) for name in values["models"])
    files = artifact.card.files
    arrays = artifact.tensors("policies") if "policies.safetensors" in files else {}
    policy, *settings = unpack([values["policy"], *values["settings"]], arrays, models)
    believed = {name: np.asarray(v, np.float32) for name, v in artifact.tensors("costs").items()}
    for name in ("cost", "latency", "quality"):
        if believed[name].shape != (len(models),) or not np.isfinite(believed[name]).all():
            raise ArtifactError(f"{artifact.folder} holds no {name} of {', '.join(models)}.")
    if not 0 <= values["large"] < len(models):
        raise ArtifactError(f"{artifact.folder} has no large model {values['large']!r}.")
    predictor = judge = None
    if "predictor.json" in files:
        predictor = FittedPredictor.from_files(
            artifact.json("predictor"), artifact.tensors("predictor"), load_encoder
        )
        if predictor.models != models:
            raise ArtifactError(f"{artifact.folder} predicts {', '.join(predictor.models)}.")
    if "judge.json" in files:
        judged = artifact.tensors("judge") if "judge.safetensors" in files else {}
        judge = unpack_judge(artifact.json("judge"), judged, load_encoder)
    family = Family(
        str(values["name"]),
        tuple(settings),
        believed["cost"],
        believed["latency"],
        believed["quality"],
        int(values["large"]),
        predictor,
        judge,
        bool(values["unordered"]),
    )
    return family, policy
