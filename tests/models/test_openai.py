"""The remote backend against a real server over real sockets, with every fault it can meet."""

from __future__ import annotations

import asyncio
import itertools
import random
import socket
import traceback
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import msgspec
import pytest

from pilotfish.config import Config, Price
from pilotfish.errors import (
    AccessDenied,
    BadAnswer,
    ConfigError,
    ModelError,
    RateLimited,
    RequestRefused,
    Unavailable,
    UnknownName,
)
from pilotfish.models.calls import ask, complete_many
from pilotfish.models.fake_replies import FAULT_STATUS
from pilotfish.models.fake_server import FakeServer, Fault
from pilotfish.models.load import load_model
from pilotfish.models.openai import OpenAIModel
from pilotfish.models.protocols import Model, StreamingModel
from pilotfish.records import Chunk, Completion, Request, Usage

KEY = "sk-very-secret-0123456789"
HELLO = Request.of("Say hello please")


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)


def quick(server: FakeServer, **settings: Any) -> OpenAIModel:
    """A model that retries fast."""
    defaults = {"first_delay": 0.01, "max_delay": 0.02, "read_timeout": 5.0}
    return OpenAIModel("fake", base_url=server.base_url, **{**defaults, **settings})


async def collect(chunks: AsyncIterator[Chunk]) -> tuple[list[str], Completion]:
    pieces = []
    async for chunk in chunks:
        pieces.append(chunk.text)
        if chunk.completion:
            return pieces, chunk.completion
    raise AssertionError("no completion in the last chunk")


async def answer(model: OpenAIModel, request: Request, stream: bool) -> Completion:
    async with model:
        return (
            (await collect(model.stream(request)))[1] if stream else await model.complete(request)
        )


async def test_it_is_a_model() -> None:
    model = OpenAIModel("m")
    assert isinstance(model, Model)
    assert isinstance(model, StreamingModel)
    assert OpenAIModel("m").base_url == "https://api.openai.com/v1"


@pytest.mark.parametrize("stream", [False, True])
async def test_answers_with_usage_cost_and_latency(stream: bool) -> None:
    with FakeServer("Hello, dear friend", latency=0.05) as server:
        model = quick(server, price={"input": 2.0, "output": 8.0})
        got = await answer(model, HELLO, stream)
    assert got.text == "Hello, dear friend"
    assert got.model == "fake"
    assert got.usage == Usage(prompt_tokens=3, completion_tokens=3)
    assert got.cost == pytest.approx((3 * 2 + 3 * 8) / 1e6)
    assert 0.05 <= got.latency < 2
    assert got.finish_reason == "stop"
    assert got.extra["id"] == "chatcmpl-fake"
    assert not got.cached


async def test_streamed_and_whole_answers_are_equal() -> None:
    call = {
        "id": "call_1",
        "type": "function",
        "function": {"name": "weather", "arguments": '{"city": "Köln", "days": 3}'},
    }
    message = {
        "content": "Let me  look\nthat up: \u00e9\U0001f41f",
        "tool_calls": [call, {**call, "id": "call_2"}],
        "reasoning_content": "hm",
    }
    request = Request.of("weather?", logprobs=True, n=2, tools=[{"type": "function"}])
    with FakeServer(lambda body: message) as server:
        async with quick(server) as model:
            whole = await model.complete(request)
            pieces, streamed = await collect(model.stream(request))
    assert "".join(pieces) == whole.text == message["content"]
    assert len(pieces) > 3
    assert whole.tool_calls == (call, {**call, "id": "call_2"})
    assert whole.finish_reason == "tool_calls"
    assert whole.logprobs is not None
    assert "".join(token["token"] for token in whole.logprobs) == whole.text
    assert whole.extra["message"] == {"reasoning_content": "hm"}
    assert [choice["index"] for choice in whole.extra["choices"]] == [1]
    for name in ("text", "usage", "tool_calls", "logprobs", "finish_reason", "extra"):
        assert getattr(streamed, name) == getattr(whole, name), name


async def test_parameters_reach_the_endpoint_unchanged() -> None:
    with FakeServer() as server:
        async with quick(server, params={"temperature": 0, "top_k": 5}) as model:
            await model.complete(
                Request.of("x", system="s", temperature=1, guided_choice=["a"], stream=True)
            )
            await collect(model.stream(Request.of("x", stream_options={"chunk": 1})))
    first, second = (seen.body for seen in server.seen)
    assert first == {
        "model": "fake",
        "messages": [{"role": "system", "content": "s"}, {"role": "user", "content": "x"}],
        "temperature": 1,
        "top_k": 5,
        "guided_choice": ["a"],
    }
    assert second["stream_options"] == {"include_usage": True, "chunk": 1}
    assert second["temperature"] == 0


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


async def test_concurrency_is_what_the_server_sees() -> None:
    with FakeServer(latency=0.03) as server:
        async with quick(server, concurrency=5) as model:
            await asyncio.gather(*(model.complete(HELLO) for _ in range(40)))
            assert server.max_active == 5
            await asyncio.gather(*(collect(model.stream(HELLO)) for _ in range(10)))
    assert server.max_active == 5
    assert server.count == 50


async def test_waiting_in_our_own_queue_does_not_count_against_the_deadline() -> None:
    with FakeServer(latency=0.1) as server:
        async with quick(server, concurrency=1, total_timeout=0.35) as model:
            answers = await asyncio.gather(*(model.complete(HELLO) for _ in range(8)))
    assert len(answers) == 8


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


async def test_a_megabyte_goes_there_and_back() -> None:
    text = "péché 🐟 " * 90_000
    assert len(text.encode()) > 1 << 20
    with FakeServer(lambda body: body["messages"][0]["content"]) as server:
        async with quick(server) as model:
            assert (await model.complete(Request.of(text))).text == text
            _, streamed = await collect(model.stream(Request.of("short " * 2000)))
    assert streamed.text == "short " * 2000


@pytest.mark.parametrize("fault", [Fault.UNAUTHORIZED, Fault.SERVER_ERROR, Fault.HTML, Fault.HANG])
async def test_the_key_shows_nowhere(fault: Fault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TEAM_HEADER", "team-secret-42424242")

    with FakeServer(faults=[fault]) as server:
        model = OpenAIModel(
            "m",
            base_url=server.base_url,
            headers={"X-Team": "$TEAM_HEADER"},
            read_timeout=0.2,
            max_retries=0,
        )
        async with model:
            with pytest.raises(ModelError) as caught:
                await model.complete(HELLO)
    shown = "".join(traceback.format_exception(caught.value))
    shown += repr(model) + str(caught.value) + repr(caught.value) + str(vars(caught.value))
    shown += str(vars(model)) + model.identity
    for secret in (KEY, "team-secret-42424242"):
        assert secret not in shown
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"
    assert server.seen[0].headers["x-team"] == "team-secret-42424242"


async def test_a_password_in_the_url_is_sent_but_shows_nowhere() -> None:
    with FakeServer(faults=[Fault.UNAUTHORIZED]) as server:
        url = server.base_url.replace("127", "user:hunter2secret@127")
        async with OpenAIModel("m", base_url=url) as model:
            with pytest.raises(AccessDenied) as caught:
                await model.complete(HELLO)
            shown = "".join(traceback.format_exception(caught.value))
            shown += repr(model) + str(vars(model)) + model.identity
    assert "hunter2secret" not in shown
    assert server.seen[0].headers["authorization"] == "Basic dXNlcjpodW50ZXIyc2VjcmV0"


async def test_a_key_in_the_endpoints_own_words_is_cut_out() -> None:
    # As OpenAI does it: "Incorrect API key provided: sk-...".
    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = b'{"error": {"message": "Incorrect API key: %s"}}' % KEY.encode()
        head = b"HTTP/1.1 401 No\r\ncontent-length: %d\r\nconnection: close\r\n\r\n" % len(body)
        writer.write(head + body)
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(refuse, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        model = OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1")
        with pytest.raises(AccessDenied, match=r"Incorrect API key: \[secret\]"):
            await model.complete(HELLO)
        await model.aclose()


async def test_without_a_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OPENAI_API_KEY")
    with pytest.raises(AccessDenied, match="OPENAI_API_KEY is not set"):
        await OpenAIModel("m").complete(HELLO)
    with FakeServer() as server:
        assert (await answer(quick(server), HELLO, False)).text == "ok"
    assert "authorization" not in server.seen[0].headers


async def test_a_request_that_is_no_json_is_refused() -> None:
    model = OpenAIModel("m")
    with pytest.raises(RequestRefused, match="surrogates"):
        await model.complete(Request.of("\ud800"))
    with pytest.raises(RequestRefused, match="JSON"):
        await model.complete(Request.of("x", stop=object()))


async def test_a_redirect_does_not_carry_the_key_along() -> None:
    with FakeServer() as elsewhere:

        async def move(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.readuntil(b"\r\n\r\n")
            writer.write(
                b"HTTP/1.1 307 Moved\r\ncontent-length: 0\r\nconnection: close\r\n"
                b"location: %s/chat/completions\r\n\r\n" % elsewhere.base_url.encode()
            )
            await writer.drain()
            writer.close()

        async with await asyncio.start_server(move, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            model = OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1")
            with pytest.raises(RequestRefused, match="307"):
                await model.complete(HELLO)
            await model.aclose()
    assert elsewhere.count == 0


def test_settings_are_checked() -> None:
    with pytest.raises(UnknownName, match="Did you mean 'concurrency'"):
        OpenAIModel("m", concurency=1)
    with pytest.raises(ConfigError, match="setting concurrency is wrong"):
        OpenAIModel("m", concurrency=0)
    with pytest.raises(ConfigError, match=r"Expected `float`"):
        OpenAIModel("m", total_timeout="long")
    for url in ("localhost:8000", "ftp://x/v1", "http://", "http://x:port/v1"):
        with pytest.raises(ConfigError, match="base_url"):
            OpenAIModel("m", base_url=url)
    with pytest.raises(ConfigError, match="openai:MODEL"):
        OpenAIModel.from_spec("", {}, Config())


def test_spec_and_prices() -> None:
    with FakeServer() as server:
        config = Config(
            models={"big": {"backend": "openai", "model": "gpt", "base_url": server.base_url}},
            prices={"gpt": Price(input=1.0, output=1.0)},
        )
        big = load_model("big", config)
        assert ask(big, "one two").cost == pytest.approx(3e-6)
        assert ask(big, "one two").model == big.name == "big"
        other = load_model("openai:other", config, base_url=server.base_url)
        assert ask(other, "one two").cost is None
    assert [seen.body["model"] for seen in server.seen] == ["gpt", "gpt", "other"]


def test_identity_changes_with_what_changes_answers() -> None:
    def identity(**settings: Any) -> str:
        return OpenAIModel("gpt", **settings).identity

    assert identity() == identity(concurrency=3, max_retries=0) == "gpt"
    assert len({identity(), identity(name="big"), identity(params={"temperature": 0})}) == 3


def test_synchronous_use_from_several_loops() -> None:
    with FakeServer() as server:
        model = quick(server)

        async def once() -> str:
            got = await model.complete(HELLO)
            await model.aclose()
            return got.text

        assert [asyncio.run(once()) for _ in range(3)] == ["ok"] * 3
    assert server.count == 3


async def test_a_server_that_does_not_stream() -> None:
    reply = {"choices": [{"message": {"content": "whole"}, "finish_reason": "stop"}]}
    body = msgspec.json.encode(reply)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(
            b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n"
            b"content-length: %d\r\nconnection: close\r\n\r\n" % len(body) + body
        )
        await writer.drain()
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        async with OpenAIModel("m", base_url=f"http://127.0.0.1:{port}/v1") as model:
            pieces, got = await collect(model.stream(HELLO))
    assert pieces == ["whole"]
    assert got.text == "whole"
    assert got.cost is None


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
