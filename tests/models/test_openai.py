"""The remote backend against a real server over real sockets: answers, settings, several loops."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest

from pilotfish.config import Config, Price
from pilotfish.errors import AccessDenied, ConfigError, RequestRefused, UnknownName
from pilotfish.models.calls import ask
from pilotfish.models.fake_server import FakeServer
from pilotfish.models.load import load_model
from pilotfish.models.openai import OpenAIModel
from pilotfish.models.protocols import Model, StreamingModel
from pilotfish.records import Request, Usage
from tests.models.remote_calls import HELLO, answer, collect, quick

pytestmark = pytest.mark.usefixtures("openai_key")


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


async def test_a_megabyte_goes_there_and_back() -> None:
    text = "péché 🐟 " * 90_000
    assert len(text.encode()) > 1 << 20
    with FakeServer(lambda body: body["messages"][0]["content"]) as server:
        async with quick(server) as model:
            assert (await model.complete(Request.of(text))).text == text
            _, streamed = await collect(model.stream(Request.of("short " * 2000)))
    assert streamed.text == "short " * 2000


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
