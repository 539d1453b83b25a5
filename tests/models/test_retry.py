"""Limits over all requests to one endpoint: the retry budget, the breaker, the caller's deadline."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from typing import Any

import pytest

from pilotfish.errors import AccessDenied, BadAnswer, ModelError, RateLimited, Unavailable
from pilotfish.models.deadline import deadline, remaining
from pilotfish.models.fake_server import FakeServer
from pilotfish.models.openai import OpenAIModel
from pilotfish.models.retry import Again, Lane, RetryBudget
from pilotfish.models.settings import BreakerSettings, RemoteSettings, read_settings
from pilotfish.records import Request

REQUEST = Request.of("hi")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_retries_are_a_share_of_the_requests_and_a_few() -> None:
    clock = Clock()
    budget = RetryBudget(0.2, 0.5, clock)  # 5 in ten seconds are free
    assert sum(budget.withdraw() for _ in range(100)) == 5
    for _ in range(100):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(100)) == 20
    clock.now += 5
    assert not budget.withdraw()
    clock.now += 5.5  # both the requests and the retries are forgotten
    assert sum(budget.withdraw() for _ in range(100)) == 5


def test_the_budget_is_that_of_a_sliding_window() -> None:
    """Compared with the list of all deposits and withdrawals of the last ten seconds."""
    rng, clock = random.Random(1), Clock()
    budget = RetryBudget(0.5, 0.3, clock)
    past: list[tuple[int, float]] = []
    for _ in range(5000):
        clock.now += rng.choice([0, 0, 0.3, 1, 4, 15])
        now = int(clock.now)
        if rng.random() < 0.5:
            budget.deposit()
            past.append((now, 0.5))
            continue
        balance = 3.0 + sum(tokens for second, tokens in past if second > now - 10)
        assert budget.withdraw() == (balance >= 1.0)
        if balance >= 1.0:
            past.append((now, -1.0))


async def down() -> Again:
    return Again(Unavailable("down"))


def lane(clock: Clock | None = None, **settings: Any) -> Lane:
    clock = clock or Clock()

    async def sleep(seconds: float) -> None:
        clock.now += seconds

    return Lane(read_settings("test", RemoteSettings, settings), clock=clock, sleep=sleep)


async def one(subject: Lane, attempt: Any = down) -> Any:
    async with subject.place():
        return await subject.persist(attempt, subject.deadline())


async def test_an_endpoint_that_is_down_is_not_asked_many_times_over() -> None:
    subject = lane(retry_rate=0, retry_share=0.2, first_delay=1e-3)
    attempts = 0

    async def attempt() -> Again:
        nonlocal attempts
        attempts += 1
        return Again(Unavailable("down"))

    for _ in range(1000):
        with pytest.raises(Unavailable, match="down"):
            await one(subject, attempt)
    assert 1000 < attempts <= 1200


async def test_the_error_says_that_the_budget_is_spent() -> None:
    subject = lane(retry_rate=0, retry_share=0)
    with pytest.raises(Unavailable, match="Not asked again: retries are 0% of the recent"):
        await one(subject)


async def test_with_a_breaker_a_dead_endpoint_is_left_alone() -> None:
    clock = Clock()
    subject = lane(clock, breaker={"minimum": 5, "open_seconds": 1000}, max_retries=3)
    asked = 0

    async def attempt() -> Again:
        nonlocal asked
        asked += 1
        return Again(Unavailable("down"))

    for _ in range(50):
        with pytest.raises(Unavailable):
            await one(subject, attempt)
    assert asked == 5  # retries count, and stop when it opens
    clock.now += 1000

    async def well() -> str:
        return "well"

    assert await one(subject, well) == "well"
    assert subject.breaker is not None
    assert subject.breaker.state == "closed"


@pytest.mark.parametrize(
    ("error", "opens"),
    [
        (Unavailable("cut off"), True),
        (BadAnswer("no JSON"), True),
        (RateLimited("slowly"), False),
        (AccessDenied("who?"), False),
        (asyncio.CancelledError(), False),
    ],
)
async def test_what_counts_against_an_endpoint(error: BaseException, opens: bool) -> None:
    subject = lane(breaker={"minimum": 5})
    for _ in range(5):
        with pytest.raises(type(error)):
            async with subject.place():
                raise error
    assert subject.breaker is not None
    assert subject.breaker.state == ("open" if opens else "closed")


async def test_impatient_callers_do_not_open_the_breaker_for_the_others() -> None:
    with FakeServer(latency=0.2) as server:
        model = OpenAIModel("m", base_url=server.base_url, breaker={"minimum": 1}, max_retries=0)
        for _ in range(3):
            with deadline(0.02), pytest.raises(Unavailable, match="the caller gave"):
                await model.complete(REQUEST)
        assert (await model.complete(REQUEST)).text == "ok"
        await model.aclose()


async def test_a_deadline_counts_over_the_total_timeout_whichever_is_sooner() -> None:
    clock = Clock()
    subject = lane(clock, total_timeout=100)
    assert subject.deadline() == 1100
    with deadline(1000):
        assert subject.deadline() == 1100
        with deadline(10):
            assert subject.deadline() == pytest.approx(1010, abs=1)
            with deadline(50):  # a wider one inside changes nothing
                assert subject.deadline() == pytest.approx(1010, abs=1)
    assert remaining() is None


async def test_a_deadline_holds_while_waiting_for_a_place() -> None:
    subject = lane(concurrency=1)
    async with subject.place():
        began = time.monotonic()
        with deadline(0.05), pytest.raises(Unavailable, match="the caller gave"):
            async with subject.place():
                pass
        assert 0.04 < time.monotonic() - began < 5
    async with subject.place():  # the place was not lost
        pass


async def test_a_deadline_is_that_of_its_task() -> None:
    async def inside(seconds: float) -> float:
        with deadline(seconds):
            await asyncio.sleep(0.01)
            left = remaining()
            assert left is not None
            return left

    lefts = await asyncio.gather(*(inside(seconds) for seconds in (10, 20, 30)))
    assert [round(left) for left in lefts] == [10, 20, 30]


async def test_one_bad_endpoint_does_not_slow_another() -> None:
    """Each has places of its own: a hundred requests that hang hold up nobody else."""
    with FakeServer(faults=itertools.repeat("hang")) as dead, FakeServer("alive") as good:
        bad = OpenAIModel("bad", base_url=dead.base_url, total_timeout=30)
        well = OpenAIModel("well", base_url=good.base_url)
        hanging = [asyncio.create_task(bad.complete(REQUEST)) for _ in range(100)]
        await asyncio.sleep(0.1)
        began = time.monotonic()
        for _ in range(20):
            assert (await well.complete(REQUEST)).text == "alive"
        assert time.monotonic() - began < 5
        for task in hanging:
            task.cancel()
        errors = await asyncio.gather(*hanging, return_exceptions=True)
        assert not any(isinstance(error, ModelError) for error in errors)
        await bad.aclose()
        await well.aclose()


async def test_one_that_leaves_while_it_waits_for_a_place_gives_its_probe_back() -> None:
    """Else the breaker would wait for ever for an attempt that was never made."""
    clock = Clock()
    settings = RemoteSettings(concurrency=1, breaker=BreakerSettings(minimum=1, open_seconds=1))
    lane = Lane(settings, clock=clock)
    assert lane.breaker is not None
    lane.breaker.record(lane.breaker.admit(), False)
    assert lane.breaker.state == "open"
    clock.now += 10
    await lane.semaphore().acquire()

    async def wait_for_a_place() -> None:
        async with lane.place():
            pass

    for _ in range(3):
        waiting = asyncio.create_task(wait_for_a_place())
        await asyncio.sleep(0)
        assert lane.breaker.state == "half-open"
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
    lane.semaphore().release()
    await wait_for_a_place()
    assert lane.breaker.state == "closed"
