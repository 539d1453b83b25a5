"""Checks of small answers in service: some are asked of the large model too, off the user's path.

A promise about a small model holds for what it was calibrated on; traffic drifts. So a share of the
answers that the large model did not give is compared with what it would have said, and each comparison
is recorded with its cost. Nobody waits for it: it begins when the answer is out, a few run at once, and
one that fails is counted and forgotten. Which answers are checked follows from the request's random id
(:func:`pilotfish.infer.watch.is_checked`), never from the answer.

Closed labels are compared as labels, as the task says; everything else as text without regard to case,
white space, quotes and a final period. That is strict for free text: there the numbers are an upper
bound of the disagreement. Answers with tool calls are not compared.
"""

from __future__ import annotations

import asyncio
import contextvars
import json
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pilotfish.errors import BadAnswer, InputError, PilotfishError
from pilotfish.gateway.served import Served
from pilotfish.infer.decide import agrees
from pilotfish.infer.watch import is_checked
from pilotfish.models.deadline import deadline
from pilotfish.models.labels import LabelModel
from pilotfish.models.parse import parse_label, parse_labels, parse_rating
from pilotfish.models.protocols import Model
from pilotfish.records import Completion, Request
from pilotfish.store.feedback import Check

__all__ = ["Check", "Checks", "Form"]

AT_ONCE = 4
MOST_WAITING = 256  # answers that wait to be checked; more are let go, and counted
SECONDS = 120.0  # for one answer of the large model


class Checks:
    """Compares a share of the small answers with the large model's.

    Args:
        served: Knows each composite's large model.
        write: Records a check; called in a thread, so it may wait for a disk.
        share: Of the small answers, in [0, 1].
        seconds: For one answer of the large model.

    Attributes:
        done: Checks recorded.
        failed: Checks that came to nothing, because the large model or the store failed.
        dropped: Answers that were to be checked, but too many were waiting.
    """

    def __init__(
        self,
        served: Served,
        write: Callable[[Check], None],
        *,
        share: float,
        seconds: float = SECONDS,
    ) -> None:
        self.share = share
        self.done = self.failed = self.dropped = 0
        self._served = served
        self._write = write
        self._seconds = seconds
        self._places = asyncio.Semaphore(AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()

    def consider(
        self, request_id: str, asked: str, request: Request, completion: Completion
    ) -> None:
        """An answer is out; begin its check, if it is to be checked. Never waits, never raises.

        Args:
            request_id: Decides whether it is checked.
            asked: The served name.
            request: What was asked.
            completion: What was answered.
        """
        if not self.share or not completion.decisions or completion.tool_calls:
            return
        if not is_checked(request_id, self.share):
            return
        if len(self._tasks) >= MOST_WAITING:
            self.dropped += 1
            return
        # A context of its own: the user's deadline is no deadline of the check.
        task = asyncio.get_running_loop().create_task(
            self._check(request_id, asked, request, completion), context=contextvars.Context()
        )
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def aclose(self, seconds: float = 5.0) -> None:
        """Let what is under way end, for at most so long."""
        tasks = list(self._tasks)
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def _check(
        self, request_id: str, asked: str, request: Request, completion: Completion
    ) -> None:
        async with self._places:
            try:
                check = await self._compare(request_id, asked, request, completion)
                if check is not None:
                    await asyncio.to_thread(self._write, check)
                    self.done += 1
            except (PilotfishError, OSError):
                self.failed += 1

    async def _compare(
        self, request_id: str, asked: str, request: Request, completion: Completion
    ) -> Check | None:
        large = await self._served.large(asked)
        if large is None or answered_by(large, completion):
            return None
        form = Form.of(await self._served.ready(asked), request, completion)
        with deadline(self._seconds):
            async with asyncio.timeout(self._seconds):
                other = await LabelModel(large).complete(request)
        if other.tool_calls:
            return None
        return Check(
            request_id=request_id,
            asked=asked,
            small=completion.model,
            large=other.model,
            small_answer=completion.text,
            large_answer=other.text,
            agreed=form.same(completion.text, other.text),
            cost=other.cost,
        )


def answered_by(model: Model, completion: Completion) -> bool:
    """Whether a model gave an answer, itself or by one of its members."""
    return completion.model == model.name or any(d.by == model.name for d in completion.decisions)


@dataclass(frozen=True, slots=True)
class Form:
    """What an answer may be, and so when two are the same.

    Attributes:
        kind: ``"label"``, ``"labels"``, ``"rating"``, or "" for free text.
        labels: The closed set.
        scale: Lowest and highest rating of a continuous scale.
        tolerance: Ratings that differ by no more than this are the same.
    """

    kind: str = ""
    labels: tuple[str, ...] = ()
    scale: tuple[float, float] | None = None
    tolerance: float = 0.0

    @classmethod
    def of(cls, model: Model, request: Request, completion: Completion) -> Form:
        """From the model's task, else the request's parameters, else the labels that were scored."""
        task: Any = getattr(model, "task", None)
        if task is not None:
            return cls(task.kind, tuple(task.labels), task.range, task.tolerance)
        labels: Sequence[str] = request.params.get("labels") or ()
        scale = request.params.get("range")
        if labels or scale:
            kind = str(request.params.get("answer") or "label")
            return cls(kind, tuple(labels), (scale[0], scale[1]) if scale else None)
        if completion.label_probs and completion.text in completion.label_probs:
            return cls("label", tuple(completion.label_probs))
        return cls()

    def same(self, small: str, large: str) -> bool:
        """Whether two answers are the same; one that is none of the allowed ones never is."""
        if not self.kind:
            return plain(small) == plain(large)
        try:
            return agrees(
                self._canonical(small), self._canonical(large), self.kind, tolerance=self.tolerance
            )
        except (BadAnswer, InputError):
            return False

    def _canonical(self, text: str) -> str:
        if self.kind == "label":
            return parse_label(text, self.labels)
        if self.kind == "labels":
            return json.dumps(parse_labels(text, self.labels))
        return parse_rating(text, self.labels, scale=self.scale)


def plain(text: str) -> str:
    """A text without what does not change an answer.

    >>> plain(' "Yes,  it is." ') == plain("yes, it is")
    True
    """
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return folded.strip("\"'`* ").rstrip(".")
