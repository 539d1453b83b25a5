"""What one request has met inside a composite: answers paid for, decisions taken, and the sum of both.

Every composite keeps its books the same way, so that an answer can always say why it came from where it
came from and what all of it cost.
"""

from __future__ import annotations

import dataclasses

from pilotfish.errors import (
    AccessDenied,
    BadAnswer,
    MissingModel,
    ModelError,
    RateLimited,
    RequestRefused,
    Unavailable,
)
from pilotfish.models.deadline import remaining
from pilotfish.records import Chunk, Completion, Decision, Usage

ANSWER_USAGE = "answer_usage"

_REASONS: tuple[tuple[type[ModelError], str], ...] = (
    (RateLimited, "rate-limited"),
    (Unavailable, "unavailable"),
    (BadAnswer, "bad-answer"),
    (AccessDenied, "access-denied"),
    (MissingModel, "missing-model"),
)


def failure_reason(error: ModelError) -> str | None:
    """Why another model should be asked after this error, as a decision's reason.

    None when it should not: the request itself was refused, or the caller's deadline has passed.
    """
    left = remaining()
    if isinstance(error, RequestRefused) or (left is not None and left <= 0):
        return None
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "failed")


class Trail:
    """The books of one request in one composite.

    Args:
        by: The composite's name.

    Attributes:
        kept: The answer that is given, once there is one.
    """

    def __init__(self, by: str) -> None:
        self.by = by
        self.kept: Completion | None = None
        self._refused: list[Completion] = []
        self._decisions: list[Decision] = []
        self._lost_seconds = 0.0

    def skip(self, model: str, reason: str) -> None:
        """A member was not asked."""
        self._decisions.append(Decision(self.by, "", reason, rejected=(model,)))

    def fail(self, model: str, reason: str, seconds: float) -> None:
        """A member was asked and gave no answer."""
        self._decisions.append(Decision(self.by, "", reason, rejected=(model,)))
        self._lost_seconds += seconds

    def refuse(
        self,
        answer: Completion,
        model: str,
        reason: str,
        score: float | None,
        threshold: float | None,
    ) -> None:
        """A member's answer was not good enough."""
        self._refused.append(answer)
        self._decisions.append(Decision(self.by, "", reason, score, threshold, (model,)))

    def spend(self, answer: Completion) -> None:
        """An answer was paid for that judged others, and about which nothing was decided."""
        self._refused.append(answer)

    def settle(
        self,
        answer: Completion,
        reason: str,
        score: float | None = None,
        threshold: float | None = None,
        rejected: tuple[str, ...] = (),
    ) -> None:
        """This answer is given."""
        self.kept = answer
        self._decisions.append(Decision(self.by, answer.model, reason, score, threshold, rejected))

    def signed(
        self,
        chunk: Chunk,
        reason: str,
        score: float | None = None,
        threshold: float | None = None,
        rejected: tuple[str, ...] = (),
    ) -> Chunk:
        """A piece of the answer that is given, streamed: each says why it comes, the last one sums up."""
        if chunk.completion is not None:
            self.settle(chunk.completion, reason, score, threshold, rejected)
            return dataclasses.replace(chunk, completion=self.result())
        last = Decision(self.by, chunk.model, reason, score, threshold, rejected)
        return dataclasses.replace(chunk, decisions=(*chunk.decisions, *self._decisions, last))

    def result(self) -> Completion:
        """The answer with the sums over all members that were asked.

        The cost is None as soon as one of them is unknown. When several answered,
        ``extra["answer_usage"]`` keeps ``[prompt, completion, cached]`` tokens of the one that was kept,
        which the sum would hide.
        """
        assert self.kept is not None
        answers = [*self._refused, self.kept]
        costs = [answer.cost for answer in answers]
        known = [cost for cost in costs if cost is not None]
        extra = self.kept.extra
        if self._refused and ANSWER_USAGE not in extra:
            usage = self.kept.usage
            tokens = [usage.prompt_tokens, usage.completion_tokens, usage.cached_tokens]
            extra = {**extra, ANSWER_USAGE: tokens}
        return dataclasses.replace(
            self.kept,
            usage=sum((answer.usage for answer in self._refused), self.kept.usage),
            cost=sum(known) if len(known) == len(costs) else None,
            latency=sum(answer.latency for answer in answers) + self._lost_seconds,
            decisions=(*self.kept.decisions, *self._decisions),
            extra=extra,
        )


def answer_usage(completion: Completion) -> Usage:
    """Tokens of the answer that was kept, without those of the answers that were not."""
    tokens = completion.extra.get(ANSWER_USAGE)
    return completion.usage if tokens is None else Usage(*tokens)
