"""How many requests are worked on at once, how many may wait, and what the others are told.

A server that takes everything answers nothing in time. Here ``max_active`` requests are worked on, the
next ``max_waiting`` wait in order of arrival for at most ``wait_seconds``, and all others are refused at
once with HTTP 503 and an estimate of when a place will be free: the requests ahead over the rate at which
requests have lately ended. A waiting client that leaves gives its turn to the next.

One object for each event loop (each worker process has one).
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import deque

from pilotfish.errors import ConfigError
from pilotfish.gateway.refusals import Refusal
from pilotfish.models.deadline import remaining

MEMORY = 10.0  # seconds over which the rate of endings is averaged
LEAST_RETRY, MOST_RETRY = 1.0, 60.0  # seconds that a refused client is told to wait


class Admission:
    """A bounded number of places and a bounded queue before them.

    Args:
        max_active: Requests that are worked on at once (>= 1).
        max_waiting: Requests that may wait for a place (>= 0).
        wait_seconds: The longest wait.

    Attributes:
        active: Requests that are worked on now.
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
        self.active = 0
        self.refused = 0
        self._queue: deque[asyncio.Future[bool]] = deque()
        self._endings, self._noted = 0.0, time.monotonic()  # decaying count, and when it was right

    @property
    def waiting(self) -> int:
        """Requests that wait for a place now."""
        return len(self._queue)

    def place(self) -> Admission:
        """``async with admission.place(): ...`` works on one request.

        Raises:
            Refusal: The queue is full, or the wait was too long.
        """
        return self

    async def __aenter__(self) -> None:
        if self.active < self.max_active:  # then nobody waits: a place that is freed is handed on
            self.active += 1
            return
        if len(self._queue) >= self.max_waiting:
            raise self._refuse("The queue is full")
        loop = asyncio.get_running_loop()
        turn: asyncio.Future[bool] = loop.create_future()
        left = remaining()
        limit = self.wait_seconds if left is None else min(self.wait_seconds, left)
        timer = loop.call_later(limit, _give_up, turn)
        self._queue.append(turn)
        try:
            admitted = await turn
        except asyncio.CancelledError:
            if turn in self._queue:
                self._queue.remove(turn)
            elif not turn.cancelled() and turn.result():
                self._release()  # the place came in the same moment as the cancellation
            raise
        finally:
            timer.cancel()
        if not admitted:
            self._queue.remove(turn)
            raise self._refuse(f"No place became free within {limit:.3g} s")

    async def __aexit__(self, *_: object) -> None:
        now = time.monotonic()
        self._endings = self._endings * math.exp((self._noted - now) / MEMORY) + 1.0
        self._noted = now
        self._release()

    def retry_after(self) -> float:
        """Seconds until a request that came now would find a place, as far as the recent rate tells."""
        age = time.monotonic() - self._noted
        rate = self._endings * math.exp(-age / MEMORY) / MEMORY
        ahead = self.waiting + 1
        estimate = ahead / rate if rate > 0 else self.wait_seconds
        return min(MOST_RETRY, max(LEAST_RETRY, estimate))

    def _release(self) -> None:
        while self._queue:
            turn = self._queue.popleft()
            if not turn.done():
                turn.set_result(True)  # the place goes on to the next: ``active`` stays
                return
        self.active -= 1

    def _refuse(self, why: str) -> Refusal:
        self.refused += 1
        return Refusal(
            503,
            "overloaded",
            f"{why}: {self.active} requests are worked on and {self.waiting} wait.",
            retry_after=self.retry_after(),
            remedy="Try again after the time in Retry-After.",
        )


def _give_up(turn: asyncio.Future[bool]) -> None:
    if not turn.done():
        turn.set_result(False)
