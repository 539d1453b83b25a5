"""Every fault that the remote backend can meet, over real sockets: errors, retries and waits."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest

from pilotfish.errors import (
    AccessDenied,
    BadAnswer,
    ModelError,
    RateLimited,
    RequestRefused,
    Unavailable,
)
from pilotfish.models.calls import complete_many
from pilotfish.models.fake_replies import FAULT_STATUS
from pilotfish.models.fake_server import FakeServer, Fault
from pilotfish.models.openai import OpenAIModel
from pilotfish.records import Completion, Request
from tests.models.remote_calls import HELLO, answer, collect, quick

pytestmark = pytest.mark.usefixtures("openai_key")


# Every fault: what it becomes for a whole answer and for a stream, and how often the server is asked
# when three retries are allowed.
FAULTS: dict[Fault, tuple[type[ModelError], int, type[ModelError], int]] = {
    Fault.BAD_REQUEST: (RequestRefused, 1, RequestRefused, 1),
    Fault.UNAUTHORIZED: (AccessDenied, 1, AccessDenied, 1),
    Fault.NO_CREDIT: (AccessDenied, 1, AccessDenied, 1),
    Fault.FORBIDDEN: (AccessDenied, 1, AccessDenied, 1),
    Fault.NOT_FOUND: (RequestRefused, 1, RequestRefused, 1),
    Fault.REQUEST_TIMEOUT: (Unavailable, 4, Unavailable, 4),
    Fault.CONFLICT: (Unavailable, 4, Unavailable, 4),
    Fault.UNPROCESSABLE: (RequestRefused, 1, RequestRefused, 1),
    Fault.RATE_LIMITED: (RateLimited, 4, RateLimited, 4),
    Fault.QUOTA_SPENT: (AccessDenied, 1, AccessDenied, 1),
    Fault.SERVER_ERROR: (Unavailable, 4, Unavailable, 4),
    Fault.BAD_GATEWAY: (Unavailable, 4, Unavailable, 4),
    Fault.OVERLOADED: (Unavailable, 4, Unavailable, 4),
    Fault.RESET: (Unavailable, 4, Unavailable, 4),
    Fault.DISCONNECT: (Unavailable, 4, Unavailable, 4),
    Fault.HANG: (Unavailable, 1, Unavailable, 1),
    Fault.NOT_HTTP: (BadAnswer, 1, BadAnswer, 1),
    Fault.GARBAGE: (BadAnswer, 1, BadAnswer, 1),
    Fault.HTML: (BadAnswer, 1, BadAnswer, 1),
    Fault.ERROR_BODY: (Unavailable, 1, Unavailable, 1),
    Fault.NO_CHOICES: (BadAnswer, 1, BadAnswer, 1),
    Fault.HALF: (Unavailable, 1, Unavailable, 1),
    Fault.HALF_CLEAN: (BadAnswer, 1, Unavailable, 1),
    Fault.SLOW_DRIP: (Unavailable, 1, Unavailable, 1),
}


def test_the_table_has_every_fault() -> None:
    # REFUSE is about connections rather than requests, and has tests of its own.
    assert set(FAULTS) == set(Fault) - {Fault.REFUSE}


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", FAULTS)
async def test_every_fault_becomes_its_error(fault: Fault, stream: bool) -> None:
    expected, asked = FAULTS[fault][2:] if stream else FAULTS[fault][:2]
    faults = itertools.repeat(fault)
    with FakeServer("one two three four five", faults=faults, drip_seconds=0.1) as server:
        model = quick(server, max_retries=3, read_timeout=0.3, total_timeout=0.6)
        with pytest.raises(ModelError) as caught:
            await answer(model, HELLO, stream)
    assert type(caught.value) is expected
    assert server.count == asked
    assert caught.value.retryable == issubclass(expected, (RateLimited, Unavailable))
    assert server.base_url in str(caught.value) or fault is Fault.SLOW_DRIP
    if fault in FAULT_STATUS:
        status, _ = FAULT_STATUS[fault]
        assert f"HTTP {status}" in str(caught.value)
        assert f"told to answer {fault}" in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("fault", [fault for fault, row in FAULTS.items() if row[1] > 1])
async def test_a_passing_fault_is_survived(fault: Fault, stream: bool) -> None:
    with FakeServer("fine", faults=[fault, None, fault, fault]) as server:
        for _ in range(2):
            assert (await answer(quick(server), HELLO, stream)).text == "fine"
    assert server.count == 5
    assert server.answered == 2


@pytest.mark.parametrize("fault", [Fault.HALF, Fault.HANG])
async def test_lost_answers_are_asked_for_again_only_when_told(fault: Fault) -> None:
    with FakeServer("fine", faults=[fault]) as server:
        model = quick(server, retry_lost=True, read_timeout=0.3)
        assert (await answer(model, HELLO, False)).text == "fine"
    assert server.count == 2


async def test_no_second_attempt_after_a_streamed_piece() -> None:
    with FakeServer("one two three four", faults=[Fault.HALF]) as server:
        async with quick(server, retry_lost=True) as model:
            chunks = model.stream(HELLO)
            pieces = [(await anext(chunks)).text, (await anext(chunks)).text]
            with pytest.raises(Unavailable, match="mid-answer"):
                await collect(chunks)
    assert "".join(pieces) == "one"
    assert server.count == 1


@pytest.mark.parametrize("stream", [False, True])
async def test_an_outage_is_waited_out(stream: bool) -> None:
    with FakeServer(
        "back", faults=[Fault.REFUSE, None, Fault.REFUSE], refuse_seconds=0.15
    ) as server:
        model = quick(server, max_retries=50)
        async with model:
            for _ in range(2):
                got = await collect(model.stream(HELLO)) if stream else await model.complete(HELLO)
                assert "back" in str(got)
    assert server.count == 2


async def test_nobody_listens() -> None:
    with socket.socket() as reserved:
        reserved.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{reserved.getsockname()[1]}/v1"
        model = OpenAIModel("m", base_url=url, max_retries=2, first_delay=0.01)
        with pytest.raises(Unavailable, match=r"could not be reached.*Asked 3 times") as caught:
            await model.complete(HELLO)
    assert "base_url" in caught.value.remedy


class Clock:
    """Time that passes only by sleeping."""

    def __init__(self) -> None:
        self.now = 0.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


async def test_waits_are_exponential_with_full_jitter() -> None:
    clock = Clock()
    with FakeServer(faults=itertools.repeat(Fault.OVERLOADED), keep=False) as server:
        model = OpenAIModel(
            "m",
            base_url=server.base_url,
            max_retries=6,
            first_delay=1.0,
            max_delay=8.0,
            total_timeout=1e9,
            clock=clock,
            sleep=clock.sleep,
            rng=random.Random(3),
        )
        async with model:
            for _ in range(60):
                with pytest.raises(Unavailable, match="Asked 7 times"):
                    await model.complete(HELLO)
    assert server.count == 60 * 7
    for retry, ceiling in enumerate([1, 2, 4, 8, 8, 8]):
        waits = [wait / ceiling for wait in clock.slept[retry::6]]
        assert len(waits) == 60
        assert 0 <= min(waits) < 0.1
        assert 0.9 < max(waits) <= 1
        # Kolmogorov-Smirnov against the uniform: D < 1.63 / sqrt(n) at the 1% level.
        ordered = sorted(waits)
        distance = max(abs(x - (i + 0.5) / 60) for i, x in enumerate(ordered)) + 0.5 / 60
        assert distance < 1.63 / 60**0.5


@pytest.mark.parametrize(
    ("headers", "low", "high"),
    [
        ({"retry_after": "3"}, 3.0, 3.5),
        ({"retry_after": "2.5"}, 2.5, 3.0),
        ({"retry_after_ms": "1500", "retry_after": "9"}, 1.5, 2.0),
        ({"retry_after": "3600"}, 7.0, 7.5),
        ({"retry_after": "0"}, 0.0, 0.5),
        ({"retry_after": "soon"}, 0.0, 0.5),
        ({"retry_after": "-5"}, 0.0, 0.5),
        ({"retry_after": format_datetime(datetime.now(UTC) - timedelta(hours=1))}, 0.0, 0.5),
        ({"retry_after": format_datetime(datetime.now(UTC) + timedelta(days=1))}, 7.0, 7.5),
    ],
)
async def test_retry_after_is_honoured_and_capped(
    headers: dict[str, str], low: float, high: float
) -> None:
    for fault in (Fault.RATE_LIMITED, Fault.OVERLOADED):
        clock = Clock()
        with FakeServer(faults=[fault], **headers) as server:
            model = OpenAIModel(
                "m",
                base_url=server.base_url,
                first_delay=0.5,
                max_retry_after=7.0,
                clock=clock,
                sleep=clock.sleep,
            )
            assert (await answer(model, HELLO, False)).text == "ok"
        [wait] = clock.slept
        assert low <= wait <= high


async def test_retry_after_in_real_time() -> None:
    with FakeServer(faults=[Fault.RATE_LIMITED], retry_after="0.4") as server:
        got = await answer(quick(server), HELLO, False)
    assert 0.4 <= got.latency < 2


async def test_a_wait_past_the_deadline_is_not_begun() -> None:
    clock = Clock()
    with FakeServer(faults=itertools.repeat(Fault.RATE_LIMITED), retry_after="20") as server:
        model = OpenAIModel(
            "m", base_url=server.base_url, total_timeout=30, clock=clock, sleep=clock.sleep
        )
        async with model:
            with pytest.raises(RateLimited, match="total timeout of 30 s") as caught:
                await model.complete(HELLO)
    assert len(clock.slept) == 1
    assert server.count == 2
    assert caught.value.retry_after == 20


@pytest.mark.parametrize("stream", [False, True])
async def test_cancelling_closes_the_connection(stream: bool) -> None:
    with FakeServer(faults=[Fault.HANG]) as server:
        async with quick(server) as model:
            job: Any = collect(model.stream(HELLO)) if stream else model.complete(HELLO)
            task = asyncio.create_task(job)
            while not server.active:
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            for _ in range(200):
                if server.abandoned:
                    break
                await asyncio.sleep(0.01)
            assert server.abandoned == 1
            assert server.active == 0
            # Its place is free again.
            assert (await model.complete(HELLO)).text == "ok"


async def test_leaving_a_stream_closes_the_connection() -> None:
    words = "word " * 100
    with FakeServer(words, faults=[Fault.SLOW_DRIP], drip_seconds=0.02) as server:
        async with quick(server, concurrency=1) as model:
            chunks = model.stream(HELLO)
            async for chunk in chunks:
                if chunk.text:
                    break
            await chunks.aclose()  # type: ignore[attr-defined]
            assert (await model.complete(HELLO)).text == words
    assert server.abandoned == 1


async def test_many_at_once_with_faults_lose_nothing() -> None:
    pattern = itertools.cycle(
        [None, Fault.SERVER_ERROR, None, Fault.RESET, None, Fault.RATE_LIMITED, None]
    )
    with FakeServer(lambda body: body["messages"][0]["content"], faults=pattern) as server:
        async with quick(server, max_retries=20) as model:
            requests: Iterator[Request] = (Request.of(f"item {i}") for i in range(120))
            got = {i: a async for i, a in complete_many(model, requests)}
    assert {i: a.text for i, a in got.items() if isinstance(a, Completion)} == {
        i: f"item {i}" for i in range(120)
    }
    assert server.answered == 120
