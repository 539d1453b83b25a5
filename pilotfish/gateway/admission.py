"""How many requests are worked on at once, how many may wait, and what the others are told.

A server that takes everything answers nothing in time. Here ``max_active`` requests are worked on, the
next ``max_waiting`` wait in order of arrival for at most ``wait_seconds``, and all others are refused at
once with HTTP 503 and an estimate of when a place will be free: the requests ahead over the rate at which
requests have lately ended. A waiting client that leaves gives its turn to the next.

No model may take all places, or one upstream that hangs would stop them all. A request gets a place only
while its model holds fewer than :data:`SHARE` times those that are free: a single model in trouble ends
with 4/5 of the places, two with 4/9 each, and there always is one for a model that holds none. These are
the dynamic thresholds by which switches share their buffers among queues (Choudhury and Hahne 1998).

One object for each event loop (each worker process has one).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque
from dataclasses import dataclass

from pilotfish.errors import ConfigError
from pilotfish.gateway.refusals import Refusal
from pilotfish.models.deadline import remaining

SHARE = 4
MEMORY = 10.0  # seconds over which the rate of endings is averaged
LEAST_RETRY, MOST_RETRY = 1.0, 60.0  # seconds that a refused client is told to wait


@dataclass(frozen=True, slots=True, eq=False)
class _Turn:
    """A request that waits."""

    number: int
    admitted: asyncio.Future[bool]


class Admission:
    """A bounded number of places and a bounded queue before them.

    Args:
        max_active: Requests that are worked on at once (>= 1).
        max_waiting: Requests that may wait for a place (>= 0).
        wait_seconds: The longest wait.

    Attributes:
        active: Requests that are worked on now.
        waiting: Requests that wait for a place now.
        refused: Requests refused since the start.

    Raises:
        ConfigError: There is no place at all.
    """

    def __init__(self, max_active: int, max_waiting: int, wait_seconds: float) -> None:
        if max_active < 1 or max_waiting < 0 or not wait_seconds >= 0:
            raise ConfigError(
                f"Got max_active={max_active}, max_waiting={max_waiting} and wait_seconds="
                f"{wait_seconds}, but expected at least 1, 0 and 0."
            )
        self.max_active, self.max_waiting = max_active, max_waiting
        self.wait_seconds = wait_seconds
        self.active = self.waiting = self.refused = 0
        self._held: dict[str, int] = {}  # places by model
        self._queues: dict[str, deque[_Turn]] = {}  # by model; none is empty
        self._arrivals = 0
        self._endings, self._noted = 0.0, time.monotonic()  # decaying count, and when it was right

    def place(self, model: str = "") -> Place:
        """``async with admission.place(model): ...`` works on one request.

        Args:
            model: The served name that is asked.

        Raises:
            Refusal: The queue is full, or the wait was too long.
        """
        return Place(self, model)

    def retry_after(self) -> float:
        """Seconds until a request that came now would find a place, as the recent rate tells."""
        age = time.monotonic() - self._noted
        rate = self._endings * math.exp(-age / MEMORY) / MEMORY
        estimate = (self.waiting + 1) / rate if rate > 0 else self.wait_seconds
        return min(MOST_RETRY, max(LEAST_RETRY, estimate))

    async def enter(self, model: str) -> None:
        """Take a place; :meth:`leave` gives it back.

        Raises:
            Refusal: The queue is full, or the wait was too long.
        """
        if not self._take(model):
            await self._queue(model)

    def leave(self, model: str) -> None:
        """Give a place back: the request has ended."""
        now = time.monotonic()
        self._endings = self._endings * math.exp((self._noted - now) / MEMORY) + 1.0
        self._noted = now
        self._give_back(model)

    def _take(self, model: str) -> bool:
        held = self._held.get(model, 0)
        if held >= SHARE * (self.max_active - self.active):
            return False
        self._held[model] = held + 1
        self.active += 1
        return True

    def _give_back(self, model: str) -> None:
        """Those who can use it get their turn, the first to come first."""
        self._drop(model)
        while self._queues:
            heads = sorted((queue[0].number, name) for name, queue in self._queues.items())
            name = next((name for _, name in heads if self._take(name)), None)
            if name is None:
                return
            turn = self._queues[name][0]
            self._forget(name, turn)
            if turn.admitted.done():  # it has left or given up, but has not run since
                self._drop(name)
            else:
                turn.admitted.set_result(True)

    def _drop(self, model: str) -> None:
        held = self._held.pop(model) - 1
        if held:
            self._held[model] = held
        self.active -= 1

    async def _queue(self, model: str) -> None:
        if self.waiting >= self.max_waiting:
            raise self._refuse("The queue is full")
        left = remaining()
        limit = self.wait_seconds if left is None else min(self.wait_seconds, left)
        loop = asyncio.get_running_loop()
        self._arrivals += 1
        turn = _Turn(self._arrivals, loop.create_future())
        self._queues.setdefault(model, deque()).append(turn)
        self.waiting += 1
        timer = loop.call_later(limit, self._give_up, model, turn)
        try:
            if not await turn.admitted:
                raise self._refuse(f"No place became free within {limit:.3g} s")
        except asyncio.CancelledError:
            if turn.admitted.done() and not turn.admitted.cancelled() and turn.admitted.result():
                self._give_back(model)  # the place came in the same moment as the cancellation
            raise
        finally:
            timer.cancel()
            self._forget(model, turn)

    def _give_up(self, model: str, turn: _Turn) -> None:
        if not turn.admitted.done():
            turn.admitted.set_result(False)

    def _forget(self, model: str, turn: _Turn) -> None:
        queue: deque[_Turn] = self._queues.get(model, deque())
        if turn in queue:
            queue.remove(turn)
            self.waiting -= 1
            if not queue:
                del self._queues[model]

    def _refuse(self, why: str) -> Refusal:
        self.refused += 1
        return Refusal(
            503,
            "overloaded",
            f"{why}: {self.active} requests are worked on and {self.waiting} wait.",
            retry_after=self.retry_after(),
            remedy="Try again after the time in Retry-After.",
        )


class Place:
    """One request's place; see :meth:`Admission.place`."""

    __slots__ = ("_admission", "_model")

    def __init__(self, admission: Admission, model: str) -> None:
        self._admission = admission
        self._model = model

    async def __aenter__(self) -> None:
        await self._admission.enter(self._model)

    async def __aexit__(self, *_: object) -> None:
        self._admission.leave(self._model)
