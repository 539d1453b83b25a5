"""Rank and fuse: all members answer, a judge ranks their answers, and one model fuses the best.

LLM-Blender (Jiang, Ren and Lin 2023): PairRanker chooses the top ``k`` answers and GenFuser, a
fine-tuned FLAN-T5, fuses them. Here the ranker is any judge
(:class:`~pilotfish.infer.judges.pairwise.PairwiseRanker` is the paper's; the default, which needs
no training, is how far the answers agree), and the fuser is any model that is shown the request
with the top answers. With ``top = 1`` nothing is fused and the best answer is given.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from pilotfish.config import Config
from pilotfish.errors import ConfigError, ModelError
from pilotfish.infer.judges.judge import score_answers
from pilotfish.infer.judges.model_agreement import ModelAgreement
from pilotfish.infer.trail import Trail, failure_reason
from pilotfish.models.protocols import Judge, Model
from pilotfish.models.settings import Count, read_settings
from pilotfish.records import Completion, Request


class FuseSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a ``fuse`` in pilotfish.toml, besides ``models``, of which the last one fuses.

    Attributes:
        top: How many answers it is shown; 1 gives the best one as it is.
        pattern: A regular expression whose last match in an answer is what answers are compared by;
            default all their words.
        large: The model that would answer everything without it, for the saving; default unknown.
    """

    top: Count = 3
    pattern: str = ""
    large: str = ""


class Fuse:
    """Members that all answer, and one that makes one answer of the best.

    Args:
        models: Those that answer, at least one, and last the one that fuses.
        judge: Ranks answers by the names of their models.
        top: How many are fused.
        name: The name of the composite.

    Raises:
        ConfigError: There are fewer than two models, or ``top`` is below 1.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        judge: Judge | None = None,
        top: int = 3,
        name: str = "fuse",
    ) -> None:
        if len(models) < 2 or top < 1:
            raise ConfigError(
                f"Got {len(models)} models and top = {top}, but expected models that answer, one that "
                "fuses, and a top of 1 at least."
            )
        self.models = list(models)
        self.judge = judge or ModelAgreement()
        self.top = top
        self.name = name

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> Fuse:
        """Build from ``[models.NAME]`` with ``kind = "fuse"``; see :class:`FuseSettings`."""
        checked = read_settings("fuse", FuseSettings, settings)
        judge = ModelAgreement(pattern=checked.pattern)
        return cls(members, judge=judge, top=checked.top, name=name)

    async def complete(self, request: Request) -> Completion:
        """The fused answer, with the rank of each; members are asked at the same time.

        Raises:
            ModelError: No member answered, or the one that fuses did not.
        """
        trail = Trail(self.name)
        given = await asyncio.gather(
            *(model.complete(request) for model in self.models[:-1]), return_exceptions=True
        )
        answers: dict[str, Completion] = {}
        failed: list[ModelError] = []
        for position, answer in enumerate(given):
            model = self.models[position].name
            if isinstance(answer, Completion):
                # Two members may bear the same name; the judge must tell them apart.
                answers[model if model not in answers else f"{model}#{position}"] = answer
            elif isinstance(answer, ModelError) and (reason := failure_reason(answer)):
                trail.fail(model, reason, 0.0)
                failed.append(answer)
            else:
                raise answer
        if not answers:
            raise failed[-1]
        scores = await score_answers(self.judge, request, answers)
        ranked = sorted(answers, key=lambda each: -scores[each])
        best = ranked[0]
        slowest = max(answer.latency for answer in answers.values())
        if self.top == 1 or len(ranked) == 1:
            for each in ranked[1:]:
                trail.refuse(answers[each], each, "ranked-lower", scores[each], None)
            trail.settle(answers[best], "ranked-first", scores[best])
            return dataclasses.replace(trail.result(), latency=slowest)
        for rank, each in enumerate(ranked):
            reason = "fused" if rank < self.top else "ranked-lower"
            trail.refuse(answers[each], each, reason, scores[each], None)
        shown = [answers[each].text for each in ranked[: self.top]]
        fused = await self.models[-1].complete(fusing(request, shown))
        trail.settle(fused, "fuser")
        return dataclasses.replace(trail.result(), latency=slowest + fused.latency)


def fusing(request: Request, answers: Sequence[str]) -> Request:
    """The request with candidate answers and what to do with them.

    >>> print(fusing(Request.of("2+2?"), ["4", "5"]).prompt[:4])
    2+2?
    """
    shown = "\n\n".join(f"Candidate {i}:\n{text}" for i, text in enumerate(answers, 1))
    told = (
        f"{shown}\n\nThe candidates above are answers to the request before them, the most trusted "
        "first. Answer the request yourself: keep what is right in them, correct what is wrong, and do "
        "not mention the candidates."
    )
    return dataclasses.replace(request, messages=added(request, told))


def added(request: Request, text: str) -> tuple[Mapping[str, Any], ...]:
    """The messages with a paragraph added to the last one of the user, or as one of its own."""
    messages = [dict(message) for message in request.messages]
    for message in reversed(messages):
        if message.get("role") == "user":
            content = message.get("content") or ""
            if isinstance(content, str):
                message["content"] = f"{content}\n\n{text}"
            else:
                message["content"] = [*content, {"type": "text", "text": text}]
            return tuple(messages)
    return (*messages, {"role": "user", "content": text})
