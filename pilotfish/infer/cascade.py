"""Confidence cascade: ask the cheapest model first, go on while the answer is not sure enough.

A cascade is a model. Its members are models in order of cost; each but the last has a threshold, and
its answer is kept when its confidence reaches that threshold. The thresholds come from
:mod:`pilotfish.infer.certify`; ``None`` means that no threshold kept the promise, and then the member
is not asked at all. A member that fails is not sure enough either, so the next one answers; only the last
one's errors, and those that say that the request itself is wrong, reach the caller.

Papers: IDK cascades (Wang et al. 2017), Enomoto and Eda 2021. They choose the threshold on validation
data without a guarantee; here it carries a certificate.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from pilotfish.config import Config
from pilotfish.errors import ConfigError, ModelError
from pilotfish.infer import CONFIDENCES
from pilotfish.infer.confidence import top_probability
from pilotfish.infer.trail import Trail, failure_reason
from pilotfish.models.calls import closing, stream
from pilotfish.models.protocols import Model
from pilotfish.models.settings import read_settings
from pilotfish.records import Chunk, Completion, Request

__all__ = ["Cascade", "CascadeSettings", "top_probability"]


class CascadeSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a ``cascade`` in pilotfish.toml, besides ``models`` (in order of cost).

    Attributes:
        thresholds: One for each model but the last: its answer is kept from this confidence on;
            ``"never"`` skips the model.
        confidence: How sure an answer is: one of :data:`pilotfish.infer.CONFIDENCES`.
        large: The model that would answer everything without the cascade; default the last.
    """

    thresholds: list[float | Literal["never"]]
    confidence: str = "top_probability"
    large: str = ""


class Cascade:
    """Models in order of cost, with a threshold for each but the last.

    Args:
        models: At least one; the last one's answer is always kept.
        thresholds: One for each model but the last; None skips that model.
        confidence: Answer to confidence in [0, 1], or None when there is nothing to judge by.
        name: The name of the composite.

    Raises:
        ConfigError: The numbers of models and thresholds do not fit.
    """

    def __init__(
        self,
        models: Sequence[Model],
        thresholds: Sequence[float | None],
        *,
        confidence: Callable[[Completion], float | None] = top_probability,
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

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> Cascade:
        """Build from ``[models.NAME]`` with ``kind = "cascade"``; see :class:`CascadeSettings`."""
        checked = read_settings("cascade", CascadeSettings, settings)
        thresholds = [None if isinstance(t, str) else t for t in checked.thresholds]
        confidence = CONFIDENCES.load(checked.confidence)
        return cls(members, thresholds, confidence=confidence, name=name)

    async def complete(self, request: Request) -> Completion:
        """The first answer that is sure enough, with what every step decided.

        Latency, usage and costs of the members that were asked add up; the cost is None as soon as
        one of them is unknown.
        """
        trail = await self._climb(request)
        if trail.kept is None:
            trail.settle(await self.models[-1].complete(request), "last")
        return trail.result()

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream the answer; only the last member streams, since the others are judged whole first."""
        trail = await self._climb(request)
        if trail.kept is not None:
            yield Chunk(text=trail.kept.text, completion=trail.result())
            return
        async with closing(stream(self.models[-1], request)) as chunks:
            async for chunk in chunks:
                yield trail.signed(chunk, "last")

    async def _climb(self, request: Request) -> Trail:
        trail = Trail(self.name)
        for model, threshold in zip(self.models[:-1], self.thresholds, strict=True):
            if threshold is None:
                trail.skip(model.name, "not-certified")
                continue
            began = time.perf_counter()
            try:
                answer = await model.complete(request)
            except ModelError as error:
                reason = failure_reason(error)
                if reason is None:
                    raise
                trail.fail(model.name, reason, time.perf_counter() - began)
                continue
            score = self.confidence(answer)
            if score is not None and score >= threshold:
                trail.settle(answer, "score>=threshold", score, threshold)
                break
            reason = "no-score" if score is None else "score<threshold"
            trail.refuse(answer, model.name, reason, score, threshold)
        return trail
