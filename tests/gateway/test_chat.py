"""Chat through the gateway, whole and streamed: everything passes, and the headers say who answered."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pilotfish.config import Price
from pilotfish.models.fake_server import FakeServer, Fault
from tests.gateway.serving import remote, serving
from tests.gateway.upstream import Upstream

CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "weather", "arguments": '{"city": "Köln", "days": 3}'},
}


def test_an_answer_says_who_gave_it_and_what_it_cost() -> None:
    with FakeServer("Hello, dear friend") as upstream:
        models = {"fake": remote(upstream, price={"input": 2.0, "output": 8.0})}
        with serving(models) as gateway:
            got = gateway.chat("Say hello please")
            [record] = gateway.records(1)
    assert got.status_code == 200
    reply = got.json()
    assert reply["choices"][0]["message"] == {"role": "assistant", "content": "Hello, dear friend"}
    assert reply["choices"][0]["finish_reason"] == "stop"
    assert reply["model"] == "fake"
    assert reply["object"] == "chat.completion"
    assert reply["id"] == "chatcmpl-fake"
    assert reply["usage"] == {"prompt_tokens": 3, "completion_tokens": 3, "total_tokens": 6}
    assert got.headers["x-pilotfish-model"] == "fake"
    assert got.headers["x-pilotfish-reason"] == "asked"
    assert float(got.headers["x-pilotfish-cost"]) == pytest.approx((3 * 2 + 3 * 8) / 1e6)
    assert float(got.headers["x-pilotfish-saving"]) == 0
    assert got.headers["content-type"] == "application/json"
    assert (record.id, record.status, record.asked, record.model) == (
        got.headers["x-request-id"],
        200,
        "fake",
        "fake",
    )
    assert record.completion is not None
    assert record.completion.text == "Hello, dear friend"
    assert record.request is not None
    assert record.request.prompt == "Say hello please"


def test_what_a_client_sends_reaches_the_model_unchanged() -> None:
    sent: dict[str, Any] = {
        "model": "fake",
        "messages": [
            {"role": "system", "content": "Be brief.", "name": "boss", "unknown": [1]},
            {
                "role": "user",
                "content": [{"type": "text", "text": "péché 🐟"}],
                "cache": {"a": None},
            },
        ],
        "tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}],
        "tool_choice": {"type": "function", "function": {"name": "f"}},
        "response_format": {"type": "json_schema", "json_schema": {"name": "x", "schema": {}}},
        "n": 2,
        "logprobs": True,
        "top_logprobs": 3,
        "seed": 7,
        "stop": ["\n", "END"],
        "temperature": 0,
        "max_completion_tokens": 5,
        "user": "someone",
        "metadata": {"k": "v"},
        "guided_choice": ["a", "b"],
        "nobody_knows_this": {"deep": [1, 2.5, None, "x"]},
    }
    with FakeServer("ok") as upstream, serving({"fake": remote(upstream)}) as gateway:
        got = gateway.client.post("/v1/chat/completions", json=sent)
        assert got.status_code == 200
        gateway.events(**sent, stream_options={"include_usage": True, "chunk": 1})
    whole, streamed = (seen.body for seen in upstream.seen)
    assert whole == {**sent, "model": "upstream-name"}
    assert streamed == {
        **sent,
        "model": "upstream-name",
        "stream": True,
        "stream_options": {"include_usage": True, "chunk": 1},
    }


def test_whole_answers_come_back_complete() -> None:
    message = {"content": "Let me look", "tool_calls": [CALL], "reasoning_content": "hm"}
    with (
        FakeServer(lambda body: message) as upstream,
        serving({"fake": remote(upstream)}) as gateway,
    ):
        reply = gateway.chat(n=2, logprobs=True, tools=[{"type": "function"}]).json()
    assert [choice["index"] for choice in reply["choices"]] == [0, 1]
    for choice in reply["choices"]:
        assert choice["message"]["content"] == "Let me look"
        assert choice["message"]["tool_calls"] == [CALL]
        assert choice["message"]["reasoning_content"] == "hm"
        assert choice["finish_reason"] == "tool_calls"
        said = [token["token"] for token in choice["logprobs"]["content"]]
        assert "".join(said) == "Let me look"


def test_streams_carry_all_choices_tools_and_logprobs() -> None:
    message = {"content": "Let me look", "tool_calls": [CALL], "reasoning_content": "hm"}
    with (
        FakeServer(lambda body: message) as upstream,
        serving({"fake": remote(upstream)}) as gateway,
    ):
        events = gateway.events(n=2, logprobs=True, tools=[{"type": "function"}])
        [record] = gateway.records(1)
    assert events.pop() == "[DONE]"
    assert {event["model"] for event in events} == {"fake"}
    assert all("usage" not in event for event in events)
    assert all(event["choices"] for event in events)
    for index in (0, 1):
        mine = [c for event in events for c in event["choices"] if c["index"] == index]
        text = "".join(choice["delta"].get("content") or "" for choice in mine)
        calls = [call for choice in mine for call in choice["delta"].get("tool_calls") or ()]
        arguments = "".join(call["function"]["arguments"] for call in calls)
        tokens = [t for c in mine if c.get("logprobs") for t in c["logprobs"]["content"]]
        assert text == "".join(token["token"] for token in tokens) == "Let me look"
        assert arguments == CALL["function"]["arguments"]  # type: ignore[index]
        assert any(choice["delta"].get("reasoning_content") == "hm" for choice in mine)
        assert [c["finish_reason"] for c in mine if c["finish_reason"]] == ["tool_calls"]
    assert record.streamed
    assert record.completion is not None
    assert record.completion.text == "Let me look"
    assert record.prompt_tokens == 1


def test_usage_in_a_stream_only_when_asked() -> None:
    with FakeServer("one two") as upstream, serving({"fake": remote(upstream)}) as gateway:
        silent = gateway.events()
        told = gateway.events(stream_options={"include_usage": True})
    assert silent.pop() == told.pop() == "[DONE]"
    assert all("usage" not in event for event in silent)
    *others, last = told
    assert all(event["usage"] is None for event in others)
    assert last["choices"] == []
    assert last["usage"] == {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}


@pytest.mark.parametrize("path", ["/chat/completions", "/completions"])
def test_each_event_goes_out_when_it_comes(path: str) -> None:
    go_on = threading.Event()
    choice = {"index": 0, "delta": {"content": "one"}, "text": "one"}
    end = {"index": 0, "delta": {}, "text": "", "finish_reason": "stop"}

    def pieces() -> Iterator[bytes]:
        yield b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n"
        assert go_on.wait(10)
        yield b"data: " + json.dumps({"choices": [end]}).encode() + b"\n\ndata: [DONE]\n\n"

    models = {"fake": {"backend": "openai"}}
    with Upstream(lambda *_: pieces()) as upstream:
        models["fake"]["base_url"] = upstream.base_url
        with serving(models) as gateway:
            body = {"model": "fake", "stream": True, "prompt": "x"}
            body["messages"] = [{"role": "user", "content": "x"}]
            with gateway.client.stream("POST", f"/v1{path}", json=body) as response:
                lines = response.iter_lines()
                assert "one" in next(lines)
                go_on.set()
                assert "data: [DONE]" in list(lines)


def test_a_local_model_streams_too() -> None:
    with serving({"fake": {"backend": "fake"}}) as gateway:
        whole = gateway.chat("tell me").json()["choices"][0]["message"]["content"]
        events = gateway.events(messages=[{"role": "user", "content": "tell me"}])
    assert events.pop() == "[DONE]"
    deltas = [event["choices"][0]["delta"] for event in events]
    assert deltas[0]["role"] == "assistant"
    assert "".join(delta.get("content") or "" for delta in deltas) == whole
    assert events[-1]["choices"][0]["finish_reason"] == "stop"


def test_saving_is_against_the_large_model() -> None:
    with FakeServer("small says") as small, FakeServer("large says") as large:
        models = {
            "small": remote(small, price={"input": 1.0, "output": 1.0}),
            "large": remote(large, price={"input": 10.0, "output": 10.0}),
            "both": {"kind": "cascade", "models": ["small", "large"], "thresholds": [0.5]},
        }
        with serving(models, prices={"large": Price(10.0, 10.0)}) as gateway:
            got = gateway.chat("one two", model="both")
    # The small one's score is 0, so the large one answers, and the small one's answer is a loss.
    assert got.json()["model"] == got.headers["x-pilotfish-model"] == "large"
    assert got.headers["x-pilotfish-reason"] == "score<threshold"
    assert float(got.headers["x-pilotfish-score"]) == 0
    assert float(got.headers["x-pilotfish-cost"]) == pytest.approx((4 + 40) / 1e6)
    assert float(got.headers["x-pilotfish-saving"]) == pytest.approx(-4 / 1e6)


def test_a_stream_says_who_and_why_in_its_headers() -> None:
    """Also through nested composites: the outermost decision counts, as of a whole answer."""
    with FakeServer("small says") as small, FakeServer("large says") as large:
        models = {
            "small": remote(small),
            "large": remote(large),
            "both": {"kind": "cascade", "models": ["small", "large"], "thresholds": [0.5]},
            "safe": {"kind": "fallback", "models": ["both", "small"]},
            "routed": {"kind": "router", "models": ["small", "both"], "by": []},
        }
        names = ("x-pilotfish-model", "x-pilotfish-reason", "x-pilotfish-score")
        heads = {}
        with serving(models) as gateway:
            for model in models:
                for stream in (False, True):
                    got = gateway.chat("one two", model=model, stream=stream)
                    heads[model, stream] = [got.headers.get(name) for name in names]
    assert heads["both", True] == ["large", "score<threshold", "0"]
    assert heads["safe", True] == ["large", "first", None]
    assert heads["routed", True] == ["large", "no-rule", None]
    assert heads["small", True] == ["small", "asked", None]
    assert all(heads[model, True] == heads[model, False] for model in models)


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fault", "status", "code"),
    [
        (Fault.BAD_REQUEST, 400, "refused_by_model"),
        (Fault.UNAUTHORIZED, 502, "gateway_not_authorised_by_model"),
        (Fault.RATE_LIMITED, 429, "rate_limited_by_model"),
        (Fault.SERVER_ERROR, 503, "model_unavailable"),
        (Fault.GARBAGE, 502, "bad_answer_from_model"),
        (Fault.NOT_HTTP, 502, "bad_answer_from_model"),
        (Fault.HTML, 502, "bad_answer_from_model"),
        (Fault.RESET, 503, "model_unavailable"),
    ],
)
def test_a_models_failure_is_an_error_object(
    fault: Fault, status: int, code: str, stream: bool
) -> None:
    with (
        FakeServer(faults=[fault] * 9, retry_after="7") as upstream,
        serving({"fake": remote(upstream, max_retries=0)}) as gateway,
    ):
        got = gateway.chat(stream=stream)
        [record] = gateway.records(1)
    if fault is Fault.GARBAGE and stream:
        # Its first events were good: the answer had begun, so the error is an event.
        assert got.status_code == 200
        last = [line for line in got.text.splitlines() if line.startswith("data: ")][-1]
        error = json.loads(last.removeprefix("data: "))["error"]
    else:
        assert got.status_code == status
        error = got.json()["error"]
        assert got.headers["x-pilotfish-reason"] == code
        assert got.headers["x-pilotfish-model"] == "fake"
        assert got.headers["x-request-id"].startswith("req_")
    assert error["code"] == code
    assert set(error) == {"message", "type", "param", "code"}
    if fault is Fault.RATE_LIMITED:
        assert got.headers["retry-after"] == "7"
    assert (record.status, record.error) == (status, code)


def test_a_stream_that_breaks_off_ends_with_an_error_event() -> None:
    with (
        FakeServer("one two three four", faults=[Fault.HALF]) as upstream,
        serving({"fake": remote(upstream)}) as gateway,
    ):
        events = gateway.events()
        [record] = gateway.records(1)
    assert events[-1]["error"]["code"] == "model_unavailable"
    assert any(event.get("choices") for event in events)
    assert record.status == 503


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_cancels_the_model(stream: bool) -> None:
    fault = Fault.SLOW_DRIP if stream else Fault.HANG
    body = {"model": "fake", "messages": [{"role": "user", "content": "x"}], "stream": stream}
    data = json.dumps(body).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(
        data
    )
    with (
        FakeServer("word " * 50, faults=[fault], drip_seconds=0.5) as upstream,
        serving({"fake": remote(upstream)}) as gateway,
    ):
        with socket.create_connection(("127.0.0.1", gateway.port), 10) as client:
            client.sendall(head + data)
            for _ in range(1000):
                if upstream.active:
                    break
                threading.Event().wait(0.01)
        for _ in range(1000):
            if upstream.abandoned:
                break
            threading.Event().wait(0.01)
        [record] = gateway.records(1)
        assert upstream.abandoned == 1
        assert gateway.gateway.admission.active == 0
    assert (record.status, record.error) == (499, "client_left")


def test_deadlines_go_down_and_end_the_request() -> None:
    body = {"model": "fake", "messages": [{"role": "user", "content": "x"}]}
    headers = {"x-request-timeout": "0.5"}
    with (
        FakeServer(faults=[None, Fault.HANG]) as upstream,
        serving({"fake": remote(upstream)}) as gateway,
    ):
        ok = gateway.client.post("/v1/chat/completions", json=body, headers=headers)
        late = gateway.client.post("/v1/chat/completions", json=body, headers=headers)
    assert ok.status_code == 200
    assert 0 < float(upstream.seen[0].headers["x-request-timeout"]) <= 0.5
    assert late.status_code in (503, 504)
    assert late.elapsed.total_seconds() < 2


def test_many_at_once_are_not_mixed_up() -> None:
    async def ask_all(url: str) -> list[tuple[str, str]]:
        async with httpx.AsyncClient(timeout=20) as client:

            async def one(i: int) -> tuple[str, str]:
                message = {"role": "user", "content": f"item {i}"}
                body = {"model": "fake", "messages": [message], "stream": bool(i % 2)}
                got = await client.post(f"{url}/chat/completions", json=body)
                return f"item {i}", got.text

            return await asyncio.gather(*(one(i) for i in range(100)))

    with (
        FakeServer(lambda body: body["messages"][0]["content"]) as upstream,
        serving({"fake": remote(upstream)}) as gateway,
    ):
        pairs = asyncio.run(ask_all(gateway.base_url))
        records = gateway.records(100)
    for wanted, text in pairs:
        if text.startswith("data: "):
            events = [
                json.loads(line[6:]) for line in text.splitlines() if line.startswith("data: {")
            ]
            deltas = [c["delta"] for event in events for c in event["choices"]]
            assert "".join(delta.get("content") or "" for delta in deltas) == wanted
        else:
            assert json.loads(text)["choices"][0]["message"]["content"] == wanted
    texts = {r.completion.text for r in records if r.completion is not None}
    assert texts == {wanted for wanted, _ in pairs}
