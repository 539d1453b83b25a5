"""Asking a remote endpoint again: when, after how long, and how many at once.

Waits are exponential with full jitter, ``uniform(0, min(max_delay, first_delay * 2**retry))``: clients
that were refused together do not come back together (M. Brooker, "Exponential Backoff and Jitter", AWS
Architecture Blog, 2015, https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). When
the endpoint names a time, that time is waited for (up to a cap) with jitter on top, never less.

Differences from the note: a total deadline. A wait that would pass it is not begun, because the answer
could not arrive in time, and the error says so at once. A request keeps its place among the
``concurrency`` while it waits, so an endpoint that asks for patience is really asked less.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
import weakref
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TypeVar

from pilotfish.errors import ModelError, Unavailable
from pilotfish.models.settings import RemoteSettings

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]
Clock = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Again:
    """An attempt that failed in a way that makes another attempt safe and useful."""

    error: ModelError


def retry_delay(
    settings: RemoteSettings, retry: int, retry_after: float | None, rng: random.Random
) -> float:
    """Seconds to wait before a retry.

    Args:
        settings: ``first_delay``, ``max_delay``, ``max_retry_after``.
        retry: 0 for the first retry.
        retry_after: What the endpoint asked for, in seconds, or None.
        rng: Source of the jitter.
    """
    # 2**64 seconds is past any cap; a larger exponent would overflow a float.
    ceiling = min(settings.max_delay, settings.first_delay * 2.0 ** min(retry, 64))
    if retry_after is None:
        return rng.uniform(0.0, ceiling)
    return min(retry_after, settings.max_retry_after) + rng.uniform(0.0, settings.first_delay)


def parse_retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """Seconds that ``retry-after-ms`` or ``Retry-After`` (seconds or HTTP date) asks for.

    Unreadable values count as absent; a date in the past as 0.

    >>> parse_retry_after({"retry-after": "1.5"}), parse_retry_after({"retry-after-ms": "250"})
    (1.5, 0.25)
    >>> parse_retry_after({"retry-after": "soon"}) is None
    True
    """
    for name, unit in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) * unit
        except (KeyError, ValueError):
            continue
        if 0 <= seconds < float("inf"):
            return seconds
    try:
        when = parsedate_to_datetime(headers.get("retry-after", ""))
    except ValueError:
        return None
    if when.tzinfo is None:
        when = when.replace(tzinfo=UTC)
    return max(0.0, (when - (now or datetime.now(UTC))).total_seconds())


class Lane:
    """The way to one endpoint: limits what is under way, and asks again where that helps.

    Args:
        settings: Limits and waits.
        clock: Monotonic seconds.
        sleep: Waits that many seconds; tests pass their own and look at the schedule.
        rng: Source of the jitter.
    """

    def __init__(
        self,
        settings: RemoteSettings,
        *,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        self.settings = settings
        self.clock = clock
        self._sleep = sleep
        self._rng = rng or random.Random()
        self._lock = threading.Lock()
        self._places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    def place(self) -> asyncio.Semaphore:
        """The running loop's semaphore: ``async with lane.place(): ...``."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._places:
                self._places[loop] = asyncio.Semaphore(self.settings.concurrency)
            return self._places[loop]

    def deadline(self) -> float:
        """The moment, on this lane's clock, by which an answer begun now must be complete."""
        return self.clock() + self.settings.total_timeout

    async def before(self, deadline: float, awaitable: Awaitable[T]) -> T:
        """Await something, but not past the deadline.

        Raises:
            Unavailable: The deadline came first.
            TimeoutError: The awaitable's own, passed on.
        """
        timer = asyncio.timeout(deadline - self.clock())
        try:
            async with timer:
                return await awaitable
        except TimeoutError as error:
            if not timer.expired():
                raise
            raise Unavailable(
                f"No complete answer within {self.settings.total_timeout:g} s.",
                remedy="Raise total_timeout, or ask for fewer tokens (max_tokens).",
            ) from error

    async def persist(self, attempt: Callable[[], Awaitable[T | Again]], deadline: float) -> T:
        """Attempt until there is an answer, a final error, no retry left, or no time left.

        Args:
            attempt: Returns the answer, or :class:`Again` when another attempt makes sense; raises what
                is final.
            deadline: From :meth:`deadline`.

        Raises:
            ModelError: What the last attempt met; its message says why there is no further one.
        """
        retry = 0
        while True:
            outcome = await self.before(deadline, attempt())
            if not isinstance(outcome, Again):
                return outcome
            error = outcome.error
            if retry >= self.settings.max_retries:
                if retry:
                    error.message += f" Asked {retry + 1} times."
                raise error
            asked: float | None = getattr(error, "retry_after", None)
            wait = retry_delay(self.settings, retry, asked, self._rng)
            if self.clock() + wait >= deadline:
                error.message += (
                    f" Waiting {wait:.3g} s more would pass the total timeout of "
                    f"{self.settings.total_timeout:g} s."
                )
                raise error
            await self._sleep(wait)
            retry += 1
