"""A policy at work: a model that asks its members as the policy says, and judges their answers.

The same object that was replayed on recorded outcomes decides here, one request at a time: a
router, a cascade with any judge, cascade routing, or any of these with a certificate. A member that
fails cannot give the answer; the policy goes on without it, and only when nothing is left does its
error reach the caller. An answer that will be given whatever a judge says of it is not judged, and
is streamed. What a judge spends on models of its own is part of the answer's cost; an answer whose
judge fails scores 0, so that nothing is kept unjudged.
"""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from contextvars import ContextVar
from typing import Any

import msgspec
import numpy as np
from numpy.typing import ArrayLike

from pilotfish.config import Config
from pilotfish.errors import ConfigError, ModelError
from pilotfish.infer.judges.judge import ComparingJudge, score_answers
from pilotfish.infer.narrow import narrowed
from pilotfish.infer.outcomes import Floats
from pilotfish.infer.policies.certified import Certified
from pilotfish.infer.policies.policy import Policy, Step, View, dice
from pilotfish.infer.predictors.joined import load_joined
from pilotfish.infer.predictors.predictor import QualityPredictor
from pilotfish.infer.routing import Narrowing, Routing
from pilotfish.infer.stored_judges import live_judge
from pilotfish.infer.trail import Trail, failure_reason
from pilotfish.models.calls import closing, stream
from pilotfish.models.labels import LabelModel
from pilotfish.models.load import member_specs
from pilotfish.models.protocols import Judge, Model
from pilotfish.models.settings import read_settings
from pilotfish.records import Chunk, Completion, Request

FAILED = -1.0

_spent: ContextVar[list[Completion] | None] = ContextVar("pilotfish_judging", default=None)


class PolicySettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a ``policy`` in pilotfish.toml, besides ``models`` (the names in the outcomes).

    Attributes:
        by: The folder of the artifact that ``pilotfish route fit`` made.
        judge_model: The member that a judge asks (self-verification, sample-agreement); it may be one of
            the policy's or one more.
        large: The model that would answer everything without the policy, for the saving; default the
            artifact's large model.
    """

    by: str
    judge_model: str = ""
    large: str = ""


class PolicyModel:
    """Members, a policy, and what it looks at.

    Args:
        members: Models by the names that the policy knows them by.
        policy: Decides who is asked next.
        cost: What asking each is expected to cost ``[m]``, in the unit the policy was fitted in.
        predictor: Quality expected before asking; its models are the policy's. Default: ``expected``.
        expected: Quality expected of each model whatever the request ``[m]``; default 0.5.
        judge: Scores answers; default: answers are as good as was expected.
        latency: Seconds that asking each is expected to take ``[m]``; default 0.
        narrowing: For closed labels: what an escalated question is cut down to; default: nothing.
        large: Name of the model that would answer everything without the policy, or "".
        name: The name of the composite.

    Raises:
        ConfigError: A model of the policy is missing, or the predictor knows others.
    """

    def __init__(
        self,
        members: Mapping[str, Model],
        policy: Policy,
        *,
        cost: ArrayLike,
        predictor: QualityPredictor | None = None,
        expected: ArrayLike = 0.5,
        judge: Judge | None = None,
        latency: ArrayLike = 0.0,
        narrowing: Narrowing | None = None,
        large: str = "",
        name: str = "policy",
    ) -> None:
        if missing := [each for each in policy.models if each not in members]:
            raise ConfigError(
                f"The policy asks {', '.join(missing)}, which are not among the members "
                f"{', '.join(members)}.",
                remedy="Its models must bear the names that they have in the outcomes: models = "
                f"[{', '.join(map(repr, policy.models))}]".replace("'", '"'),
            )
        if predictor is not None and tuple(predictor.models) != policy.models:
            raise ConfigError(
                f"The predictor knows {', '.join(predictor.models)}, but the policy asks "
                f"{', '.join(policy.models)}."
            )
        self.name = name
        self.policy = policy
        self.predictor = predictor
        self.judge = judge
        self.narrowing = narrowing
        self.large = large
        self._probes = [np.nan] if judge is None else [np.nan, *probes(policy)]
        self._members = [members[each] for each in policy.models]
        if narrowing is not None:
            self._members = [LabelModel(member) for member in self._members]
        self._cost, self._latency, self._expected = (
            np.broadcast_to(np.asarray(each, np.float32), (1, len(self._members)))
            for each in (cost, latency, expected)
        )

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> PolicyModel:
        """Build from ``[models.NAME]`` with ``kind = "policy"``; see :class:`PolicySettings`.

        Raises:
            ArtifactError: The artifact cannot be read.
            ConfigError: The members are not the policy's, or its judge needs a model.
        """
        checked = read_settings("policy", PolicySettings, settings)
        fitted = Routing.load(checked.by, lambda spec: load_joined(spec, config))
        named = dict(zip(member_specs(name, config), members, strict=True))
        named = {**{member.name: member for member in members}, **named}
        asked: Model | None = None
        if checked.judge_model:
            if checked.judge_model not in named:
                raise ConfigError(
                    f"Got judge_model = {checked.judge_model!r}, which is not among the models.",
                    remedy=f"Its models: {', '.join(named)}",
                )
            asked = _Counted(named[checked.judge_model])
        family = fitted.family
        return cls(
            named,
            fitted.policy,
            cost=family.cost,
            predictor=family.predictor,
            expected=family.quality,
            judge=live_judge(family.judge, asked),
            latency=family.latency,
            narrowing=fitted.narrowing,
            large=checked.large or fitted.large,
            name=name,
        )

    def look(self, request: Request) -> View:
        """What is known before anyone was asked."""
        expected: Floats = self._expected
        if self.predictor is not None:
            expected = self.predictor.predict([request.prompt]).mean
        m = len(self._members)
        scores = np.full((1, m), np.nan, np.float32)
        rolled = np.array([dice(request.prompt)])
        return View(np.zeros((1, m), bool), expected, scores, self._cost, self._latency, rolled)

    async def complete(self, request: Request) -> Completion:
        """The answer that the policy stops at, with what every step decided.

        Raises:
            ModelError: No member gave an answer, or one says that the request is wrong.
        """
        async with closing(self._answer(request, whole=True)) as chunks:
            async for chunk in chunks:
                if chunk.completion is not None:
                    return chunk.completion
        raise ModelError(f"{self.name} gave no answer.")

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """The same, piece by piece where the answer will be given whatever is said of it."""
        async with closing(self._answer(request, whole=False)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _answer(self, request: Request, *, whole: bool) -> AsyncIterator[Chunk]:
        waits = getattr(self.predictor, "waits", False)
        view = await asyncio.to_thread(self.look, request) if waits else self.look(request)
        case = _Case(self.name, self.policy)
        while True:
            step = self.policy.step(view)
            position = int(step.ask[0])
            if position < 0:
                yield case.given_at(step, view)
                return
            name, member = self.policy.models[position], self._members[position]
            asked, began, begun = self._asked(request, case), time.perf_counter(), False
            settled = self._settled(view, position)
            view.asked[0, position] = True
            try:
                if settled and not whole:
                    held: list[Chunk] = []
                    trail, signature = case.settle(view, position)
                    async with closing(stream(member, asked)) as chunks:
                        async for chunk in chunks:
                            held.append(chunk)
                            begun = begun or bool(chunk.text or chunk.completion or chunk.event)
                            if begun:  # until then nothing is lost if it fails
                                for each in held:
                                    yield trail.signed(each, *signature)
                                held.clear()
                    return
                case.answers[name] = await member.complete(asked)
            except ModelError as error:
                reason = failure_reason(error)
                if begun or reason is None:
                    raise
                case.fail(name, reason, time.perf_counter() - began, error)
                view.scores[0, position] = FAILED
                continue
            if settled:
                trail, signature = case.settle(view, position)
                yield trail.signed(Chunk(completion=case.answers[name]), *signature)
                return
            if self.judge is not None:
                await self._judge(request, case, view)

    def _asked(self, request: Request, case: _Case) -> Request:
        """The request, cut down to the labels that are left."""
        if self.narrowing is None or request.params.get("answer", "label") != "label":
            return request
        found = [each.label_probs for each in case.answers.values() if each.label_probs]
        if not found or not request.params.get("labels"):
            return request
        return narrowed(request, found[-1], self.narrowing.top, hint=self.narrowing.hint)

    def _settled(self, view: View, position: int) -> bool:
        """Whether this model's answer will be given, whatever a judge would say of this or another."""
        count = len(self._probes)
        many = view.take(np.zeros(2 * count, int))
        many.asked[:, position] = True
        # A judge that compares may think better of the others now.
        others = many.asked & ~(many.scores < 0)
        many.scores[count:][others[count:]] = 1.0
        many.scores[:, position] = np.tile(self._probes, 2)
        step = self.policy.step(many)
        return bool(np.all((step.ask < 0) & (step.answer == position)))

    async def _judge(self, request: Request, case: _Case, view: View) -> None:
        assert self.judge is not None
        spent: list[Completion] = []
        token = _spent.set(spent)
        answers = case.answers
        if not isinstance(self.judge, ComparingJudge):  # what was judged stays so
            newest = list(answers)[-1]
            answers = {newest: answers[newest]}
        try:
            scores = await score_answers(self.judge, request, answers)
        except ModelError as error:
            if failure_reason(error) is None:
                raise
            scores = dict.fromkeys(answers, 0.0)
            case.unjudged.append(list(case.answers)[-1])
        finally:
            _spent.reset(token)
        case.spent += spent
        for name, score in scores.items():
            view.scores[0, self.policy.models.index(name)] = score


def probes(policy: Policy) -> list[float]:
    """Scores in [0, 1] at which a policy may change its mind: a grid, and around its own thresholds.

    >>> from pilotfish.infer.policies.chain import data_shunt
    >>> [round(p, 3) for p in probes(data_shunt(["a", "b"], "a", "b", confidence=0.7)) if 0.6 < p < 0.74]
    [0.625, 0.625, 0.662, 0.7, 0.7, 0.725]
    """
    corners = sorted({*np.linspace(0, 1, 9).tolist(), *_thresholds(policy)})
    between = [(a + b) / 2 for a, b in itertools.pairwise(corners)]
    below = [float(np.nextafter(np.float32(each), np.float32(-1))) for each in corners[1:]]
    return sorted({*corners, *between, *below})


def _thresholds(policy: Policy) -> list[float]:
    found = [np.ravel(getattr(policy, name, ())).tolist() for name in ("thresholds", "cuts")]
    if isinstance(policy, Certified):
        found.append([] if policy.threshold is None else [policy.threshold])
    inner = [getattr(policy, name, None) for name in ("policy", "first", "second")]
    found += [_thresholds(each) for each in inner if each is not None]
    return [each for part in found for each in part if 0 <= each <= 1]


class _Case:
    """One request: who answered what, who failed, and what judging cost."""

    def __init__(self, by: str, policy: Policy) -> None:
        self.by = by
        self.policy = policy
        self.answers: dict[str, Completion] = {}
        self.spent: list[Completion] = []
        self.unjudged: list[str] = []
        self._failures: list[tuple[str, str, float]] = []
        self._error: ModelError | None = None

    def fail(self, name: str, reason: str, seconds: float, error: ModelError) -> None:
        self._failures.append((name, reason, seconds))
        self._error = error

    def given_at(self, step: Step, view: View) -> Chunk:
        """The answer that was judged best."""
        position = int(step.answer[0])
        name = self.policy.models[position]
        if name not in self.answers:
            raise self._error or ModelError(
                f"The policy gave the answer of {name}, which was not asked."
            )
        several = len(self.answers) > 1
        judged = _known(view.scores[0, position])
        reason = "best-of-asked" if several else "chosen" if judged is None else "good-enough"
        score = float(step.margin[0]) if judged is None else judged
        trail = self._books(view, name, "not-best")
        threshold = None if judged is None else self._threshold()
        return trail.signed(
            Chunk(completion=self.answers[name]), reason, score, threshold, self._not_asked(view)
        )

    def settle(self, view: View, position: int) -> tuple[Trail, tuple[Any, ...]]:
        """The books before an answer that is given whatever it is, and why it is given."""
        name = self.policy.models[position]
        refused = [each for each in self.answers if each != name]
        trail = self._books(view, name, "not-sure")
        score = None if refused else float(view.expected[0, position])
        return trail, ("last" if refused else "chosen", score, None, self._not_asked(view))

    def _books(self, view: View, chosen: str, reason: str) -> Trail:
        trail = Trail(self.by)
        for failure in self._failures:
            trail.fail(*failure)
        for name in self.unjudged:
            trail.skip(name, "judge-failed")
        if self.spent:
            trail.spend(_sum(self.spent))
        for name, answer in self.answers.items():
            if name != chosen:
                score = _known(view.scores[0, self.policy.models.index(name)])
                trail.refuse(answer, name, reason, score, self._threshold())
        return trail

    def _threshold(self) -> float | None:
        return self.policy.threshold if isinstance(self.policy, Certified) else None

    def _not_asked(self, view: View) -> tuple[str, ...]:
        return tuple(n for n, a in zip(self.policy.models, view.asked[0], strict=True) if not a)


class _Counted:
    """A model that a judge asks; what it costs is the request's."""

    def __init__(self, model: Model) -> None:
        self.name = model.name
        self._model = model

    async def complete(self, request: Request) -> Completion:
        answer = await self._model.complete(request)
        if (spent := _spent.get()) is not None:
            spent.append(answer)
        return answer


def _sum(answers: Sequence[Completion]) -> Completion:
    """What asking all at once came to."""
    costs = [each.cost for each in answers]
    known = [cost for cost in costs if cost is not None]
    return dataclasses.replace(
        answers[0],
        usage=sum((each.usage for each in answers[1:]), answers[0].usage),
        cost=sum(known) if len(known) == len(costs) else None,
        latency=max(each.latency for each in answers),
    )


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
