"""Judges as JSON values and arrays, and what they need when they judge live.

A judge that was fitted (``learned``, ``pairwise``) is its arrays; one that counts votes
(``model-agreement``) is its weights; one that reads the answer's own probability (``confidence``) is
the name of the formula. Two ask a model, ``self-verification`` and ``sample-agreement``: the policy is
fitted on the scores that they left in the recorded outcomes, and which model they ask live is said
when the policy is served.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ArtifactError, ConfigError, InputError, UnknownName
from pilotfish.infer import CONFIDENCES
from pilotfish.infer.judges.confidence import ConfidenceJudge
from pilotfish.infer.judges.judge import AnswerJudge, Bools, only, seen
from pilotfish.infer.judges.learned import LearnedScorer
from pilotfish.infer.judges.model_agreement import ModelAgreement
from pilotfish.infer.judges.pairwise import PairwiseRanker
from pilotfish.infer.judges.sample_agreement import SampleAgreement
from pilotfish.infer.judges.verification import SelfVerification
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.settings import check_settings, keywords_of
from pilotfish.models.protocols import Encoder, Judge, Model
from pilotfish.records import Completion, Request

FITTED: dict[str, Any] = {
    "learned": LearnedScorer,
    "pairwise": PairwiseRanker,
    "model-agreement": ModelAgreement,
}
ASKING: dict[str, Any] = {
    "self-verification": SelfVerification,
    "sample-agreement": SampleAgreement,
}
_WRITTEN = ("samples", "temperature", "max_tokens", "pattern")  # what can be written in one line


class RecordedJudge:
    """The scores that a judge left in recorded outcomes; live, the judge itself must take its place.

    Args:
        signal: Name of the recorded signal.
        settings: Of the judge that takes its place: ``samples`` or ``temperature`` of one that asks,
            ``confidence`` for any other signal.
    """

    def __init__(self, signal: str, settings: Mapping[str, Any] | None = None) -> None:
        self.name = signal
        self.settings = dict(settings or {})

    async def score(self, request: Request, completion: Completion) -> float:
        """Nothing is recorded of an answer that is new.

        Raises:
            InputError: Always.
        """
        raise InputError(f"The recorded signal {self.name!r} says nothing of new answers.")

    def score_many(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """The signal, clipped to [0, 1].

        Raises:
            InputError: The outcomes do not have it.
        """
        if self.name not in outcomes.signals:
            raise InputError(
                f"The outcomes have no signal {self.name!r}.",
                remedy=f"Recorded: {', '.join(outcomes.signals) or 'none'}",
            )
        return only(np.clip(outcomes.signals[self.name], 0.0, 1.0), seen(outcomes, asked))

    def live(self, model: Model | None) -> Judge:
        """The judge for answers as they come.

        Args:
            model: Whom it asks, if it asks.

        Raises:
            ConfigError: It asks a model and there is none, or nobody knows how the signal is made.
        """
        if self.name in ASKING:
            if model is None:
                raise ConfigError(
                    f"The policy is judged by {self.name}, which asks a model, but no model is named.",
                    remedy='Add it to the models, and: judge_model = "NAME"',
                )
            try:
                judge: Judge = ASKING[self.name](model, **self.settings)
            except TypeError as error:
                raise ConfigError(f"{self.name} has no such settings: {error}.") from error
            return judge
        formula = self.settings.get("confidence", self.name)
        if formula not in CONFIDENCES:
            raise ConfigError(
                f"Nobody knows how to make the signal {self.name!r} of a new answer.",
                remedy="Name the formula when the policy is fitted: "
                f"--policy cascade:{self.name},confidence={next(iter(CONFIDENCES))}; there are "
                + ", ".join(CONFIDENCES),
            )
        return ConfidenceJudge(formula, signal=self.name)


def fit_judge(
    name: str, outcomes: Outcomes, settings: Mapping[str, Any], encoder: Encoder | None, seed: int
) -> AnswerJudge:
    """A judge by name: one of :data:`FITTED`, or the name of a recorded signal.

    Args:
        name: The name.
        outcomes: To fit on, if it is fitted.
        settings: Its own; ``pattern`` finds the final answer.
        encoder: Embeds questions and answers of those that are fitted; default not.
        seed: Of every random choice.

    Raises:
        UnknownName: There is neither such a judge nor such a signal.
        InputError: The outcomes hold no answers to fit on.
        ConfigError: It has no such setting, or one cannot have that value.
    """
    if name not in FITTED:
        if name not in outcomes.signals:
            raise UnknownName("judge", name, [*FITTED, *outcomes.signals])
        live: dict[str, Any] = {
            "confidence": str
        }  # the formula that makes the signal of a new answer
        if name in ASKING:
            live = {k: v for k, v in keywords_of(ASKING[name].__init__).items() if k in _WRITTEN}
        check_settings(f"The judge {name!r}", live, settings)
        return RecordedJudge(name, settings)
    if outcomes.answers is None:
        raise InputError(
            f"The judge {name!r} reads answers, but the outcomes hold none.",
            remedy="Record the answers' texts: a column 'answer', or 'answer:NAME' for each model",
        )
    ours = {"seed", "encoder"}  # not the user's
    known = keywords_of(FITTED[name].fit)
    allowed = {each: hint for each, hint in known.items() if each not in ours}
    check_settings(f"The judge {name!r}", allowed, settings)
    given = {**settings, **({"seed": seed, "encoder": encoder} if ours <= set(known) else {})}
    judge: AnswerJudge = FITTED[name].fit(outcomes, **given)
    return judge


def pack_judge(judge: AnswerJudge) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """JSON values and arrays; :func:`unpack_judge` is the inverse."""
    if isinstance(judge, RecordedJudge):
        return {"signal": judge.name, "settings": judge.settings}, {}
    if isinstance(judge, ModelAgreement):
        counted = {
            "weights": judge.weights,
            "prior": judge.prior,
            "pattern": judge.same.pattern,
        }
        return {"judge": judge.name, "settings": counted}, {}
    if not isinstance(judge, (LearnedScorer, PairwiseRanker)):
        raise ArtifactError(f"The judge {judge.name!r} cannot be stored.")
    settings, arrays = judge.state()
    encoder = judge.features.encoder
    named = None
    if encoder is not None:
        named = {"name": encoder.name, "fingerprint": getattr(encoder, "fingerprint", "")}
    values = {"judge": judge.name, "settings": settings, "encoder": named}
    return values, {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def unpack_judge(
    values: Mapping[str, Any],
    arrays: Mapping[str, NDArray[Any]],
    load_encoder: Callable[[str], Encoder],
) -> AnswerJudge:
    """The judge.

    Raises:
        ArtifactError: The values are those of no judge, or this machine's encoder is another one.
    """
    try:
        if "signal" in values:
            return RecordedJudge(values["signal"], values["settings"])
        name, settings = values["judge"], values["settings"]
        if name == "model-agreement":
            return ModelAgreement(
                settings["weights"], prior=settings["prior"], pattern=settings["pattern"]
            )
        encoder = None
        if (wanted := values["encoder"]) is not None:
            encoder = load_encoder(wanted["name"])
            here = getattr(encoder, "fingerprint", "")
            if here != wanted["fingerprint"]:
                raise ArtifactError(
                    f"The judge was fitted on encoder {wanted['name']!r} with fingerprint "
                    f"{wanted['fingerprint']!r}, but here it is {here!r}.",
                    remedy="Install the version of the encoder that the card names, or fit it again.",
                )
        judge: AnswerJudge = FITTED[name].restore(settings, arrays, encoder)
    except (KeyError, TypeError, ValueError) as error:
        raise ArtifactError(f"This is no judge: {type(error).__name__}: {error}.") from error
    except ConfigError as error:
        raise ArtifactError(f"This is no judge: {error.message}") from error
    return judge


def live_judge(judge: AnswerJudge | None, model: Model | None = None) -> Judge | None:
    """What judges new answers in place of a judge of recorded ones.

    Raises:
        ConfigError: It asks a model and there is none, or nobody knows how its signal is made.
    """
    return judge.live(model) if isinstance(judge, RecordedJudge) else judge
