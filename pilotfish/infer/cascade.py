"""Confidence cascade: ask the cheapest model first, go on while the answer is not sure enough.

A cascade is a model. Its members are models in order of cost; each but the last has a threshold, and
its answer is kept when its confidence reaches that threshold. The thresholds come from
:mod:`pilotfish.infer.certify`; ``None`` means that no threshold kept the promise, and then the member
is not asked at all.

Papers: IDK cascades (Wang et al. 2017), Enomoto and Eda 2021. They choose the threshold on validation
data without a guarantee; here it carries a certificate.
"""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncIterator, Callable, Sequence

from pilotfish.errors import ConfigError
from pilotfish.models.calls import stream
from pilotfish.models.protocols import Model
from pilotfish.records import Chunk, Completion, Decision, Request


def top_probability(completion: Completion) -> float:
    """Confidence of a closed-label answer: its score, else its largest label probability, else 0."""
    if "score" in completion.extra:
        return float(completion.extra["score"])
    return max(completion.label_probs.values(), default=0.0) if completion.label_probs else 0.0


class Cascade:
    """Models in order of cost, with a threshold for each but the last.

    Args:
        models: At least one; the last one's answer is always kept.
        thresholds: One for each model but the last; None skips that model.
        confidence: Answer to confidence in [0, 1].
        name: The name of the composite.

    Raises:
        ConfigError: The numbers of models and thresholds do not fit.
    """

    def __init__(
        self,
        models: Sequence[Model],
        thresholds: Sequence[float | None],
        *,
        confidence: Callable[[Completion], float] = top_probability,
        name: str = "cascade",
    ) -> None:
        if len(thresholds) != len(models) - 1:
            raise ConfigError(
                f"Got {len(models)} models and {len(thresholds)} thresholds, but expected one "
                "threshold for each model but the last."
            )
        self.models = list(models)
        self.thresholds = list(thresholds)
        self.confidence = confidence
        self.name = name

    async def complete(self, request: Request) -> Completion:
        """The first answer that is sure enough, with what every step decided.

        Latency, usage and costs of the members that were asked add up; the cost is None as soon as
        one of them is unknown.
        """
        climb = await self._climb(request)
        if climb.kept is None:
            climb.settle(await self.models[-1].complete(request), self.name)
        return climb.result()

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream the answer; only the last member streams, since the others are judged whole first."""
        climb = await self._climb(request)
        if climb.kept is not None:
            yield Chunk(text=climb.kept.text, completion=climb.result())
            return
        async for chunk in stream(self.models[-1], request):
            if chunk.completion is not None:
                climb.settle(chunk.completion, self.name)
                chunk = dataclasses.replace(chunk, completion=climb.result())
            yield chunk

    async def _climb(self, request: Request) -> _Climb:
        climb = _Climb()
        for model, threshold in zip(self.models[:-1], self.thresholds, strict=True):
            if threshold is None:
                climb.decisions.append(
                    Decision(self.name, "", "not-certified", rejected=(model.name,))
                )
                continue
            answer = await model.complete(request)
            score = self.confidence(answer)
            if score >= threshold:
                climb.settle(answer, self.name, score, threshold, "score>=threshold")
                break
            climb.refuse(
                answer, Decision(self.name, "", "score<threshold", score, threshold, (model.name,))
            )
        return climb


class _Climb:
    """What one request has cost and decided on its way up."""

    def __init__(self) -> None:
        self.kept: Completion | None = None
        self.refused: list[Completion] = []
        self.decisions: list[Decision] = []

    def refuse(self, answer: Completion, decision: Decision) -> None:
        self.refused.append(answer)
        self.decisions.append(decision)

    def settle(
        self,
        answer: Completion,
        by: str,
        score: float | None = None,
        threshold: float | None = None,
        reason: str = "last",
    ) -> None:
        self.kept = answer
        self.decisions.append(Decision(by, answer.model, reason, score, threshold))

    def result(self) -> Completion:
        assert self.kept is not None
        answers = [*self.refused, self.kept]
        costs = [answer.cost for answer in answers]
        known = [cost for cost in costs if cost is not None]
        return dataclasses.replace(
            self.kept,
            usage=sum((answer.usage for answer in self.refused), self.kept.usage),
            cost=sum(known) if len(known) == len(costs) else None,
            latency=sum(answer.latency for answer in answers),
            decisions=(*self.kept.decisions, *self.decisions),
        )
