"""Asking a remote endpoint again: when, after how long, and how many at once.

Waits are exponential with full jitter, ``uniform(0, min(max_delay, first_delay * 2**retry))``: clients
that were refused together do not come back together (M. Brooker, "Exponential Backoff and Jitter", AWS
Architecture Blog, 2015, https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/). When
the endpoint names a time, that time is waited for (up to a cap) with jitter on top, never less.

Differences from the note: a total deadline. A wait that would pass it is not begun, because the answer
could not arrive in time, and the error says so at once. A request keeps its place among the
``concurrency`` while it waits, so an endpoint that asks for patience is really asked less.

How often, over all requests together, is bounded by a budget (:class:`RetryBudget`): when an endpoint is
down, retries must not multiply the load that keeps it down. A circuit breaker
(:mod:`pilotfish.models.breaker`), where one is set, stops asking it at all for a while.
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

from pilotfish.errors import BadAnswer, ModelError, Unavailable
from pilotfish.models.breaker import Breaker
from pilotfish.models.deadline import remaining
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


class RetryBudget:
    """Retries as a share of requests: a token bucket whose tokens expire.

    Each request puts ``share`` of a token in, each retry takes a whole one out, and what is older than
    :attr:`TTL` is forgotten; ``rate`` tokens per second are there without any request. The form and the
    defaults (20%, 10 per second, 10 seconds) are those of Finagle's RetryBudget
    (https://finagle.github.io/blog/2016/02/08/retry-budgets).

    Args:
        share: Tokens per request.
        rate: Tokens per second on top.
        clock: Monotonic seconds.
    """

    TTL = 10
    """Seconds until a request and a retry are forgotten, in steps of one."""

    def __init__(self, share: float, rate: float, clock: Clock = time.monotonic) -> None:
        self.share = share
        self.reserve = rate * self.TTL
        self._clock = clock
        self._tokens = [0.0] * self.TTL
        self._second = int(clock())

    def deposit(self) -> None:
        """A request is made."""
        self._tokens[self._now()] += self.share

    def withdraw(self) -> bool:
        """Whether one more retry is within the budget; if so, it is counted."""
        slot = self._now()
        if self.reserve + sum(self._tokens) < 1.0 - 1e-6:  # shares do not add up exactly
            return False
        self._tokens[slot] -= 1.0
        return True

    def _now(self) -> int:
        second = int(self._clock())
        if second != self._second:
            for passed in range(max(self._second + 1, second - self.TTL + 1), second + 1):
                self._tokens[passed % self.TTL] = 0.0
            self._second = second
        return second % self.TTL


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
        self.budget = RetryBudget(settings.retry_share, settings.retry_rate, clock)
        self.breaker = Breaker(settings.breaker, clock) if settings.breaker else None
        self._places: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, asyncio.Semaphore] = (
            weakref.WeakKeyDictionary()
        )

    def place(self) -> Place:
        """One of the ``concurrency`` places of the running loop: ``async with lane.place(): ...``.

        What the block raises tells the breaker how the endpoint is.
        """
        return Place(self)

    def semaphore(self) -> asyncio.Semaphore:
        """The running loop's places."""
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._places:
                self._places[loop] = asyncio.Semaphore(self.settings.concurrency)
            return self._places[loop]

    def deadline(self) -> float:
        """The moment, on this lane's clock, by which an answer begun now must be complete."""
        left = remaining()
        limit = self.settings.total_timeout
        return self.clock() + (limit if left is None else min(limit, left))

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
            raise self.too_late() from error

    def too_late(self) -> Unavailable:
        """The error of an answer that did not come in time."""
        if remaining() == 0.0:
            return Unavailable("No complete answer within the time that the caller gave.")
        return Unavailable(
            f"No complete answer within {self.settings.total_timeout:g} s.",
            remedy="Raise total_timeout, or ask for fewer tokens (max_tokens).",
        )

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
                    f"{self.settings.total_timeout:g} s, or the caller's."
                )
                raise error
            if not self.budget.withdraw():
                error.message += (
                    f" Not asked again: retries are {self.settings.retry_share:.0%} of the recent "
                    f"requests and {self.settings.retry_rate:g} per second already."
                )
                raise error
            if self.breaker is not None and isinstance(error, Unavailable):
                self.breaker.note_failure()
                if self.breaker.state != "closed":
                    error.message += " Not asked again: it has failed too often of late."
                    raise error
            await self._sleep(wait)
            retry += 1


class Place:
    """One request's place in a lane; see :meth:`Lane.place`."""

    __slots__ = ("_lane", "_semaphore", "_ticket")

    def __init__(self, lane: Lane) -> None:
        self._lane = lane

    async def __aenter__(self) -> None:
        lane = self._lane
        self._semaphore = semaphore = lane.semaphore()
        breaker = lane.breaker
        self._ticket = breaker.admit() if breaker else 0
        try:
            if semaphore.locked() and (left := remaining()) is not None:
                try:
                    async with asyncio.timeout(left):
                        await semaphore.acquire()
                except TimeoutError as error:
                    raise lane.too_late() from error
            else:
                await semaphore.acquire()
        except BaseException:  # cancelled, too: the breaker must not wait for this one
            if breaker:
                breaker.record(self._ticket, None)
            raise
        lane.budget.deposit()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._semaphore.release()
        if self._lane.breaker is not None:
            self._lane.breaker.record(self._ticket, healthy(error))


def healthy(error: BaseException | None) -> bool | None:
    """What the end of a request says of the endpoint: True, False, or None when it says nothing.

    A refused request or key shows that the endpoint works. Too many requests, a caller that left, and a
    caller's own deadline say nothing.
    """
    if error is None:
        return True
    if isinstance(error, (Unavailable, BadAnswer)):
        return None if remaining() == 0.0 else False
    if isinstance(error, ModelError) and not error.retryable:
        return True
    return None
