"""The openai library, unchanged but for the base URL: what it does elsewhere works here too."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pilotfish.models.fake_server import FakeServer, Fault
from pilotfish.models.load import load_encoder
from pilotfish.store.keys import Limit
from pilotfish.store.store import open_store
from tests.gateway.clients.fish_model import ASK, FISH, MEASURE, SAID, fish_type
from tests.gateway.clients.libraries import WARNINGS_ARE_THEIRS, needed
from tests.gateway.serving import Running, remote, serving
from tests.gateway.upstream import Upstream

pytestmark = WARNINGS_ARE_THEIRS


@pytest.fixture
def openai() -> Any:
    return needed("openai")


@pytest.fixture
def client(openai: Any, gateway: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=gateway.base_url, api_key="not needed", max_retries=0) as made:
        yield made


@pytest.mark.parametrize("model", ["far", "near", "either"])
def test_openai_chat(client: Any, model: str) -> None:
    reply = client.chat.completions.with_raw_response.create(model=model, messages=ASK, seed=7)
    chat = reply.parse()
    assert chat.choices[0].message.content == SAID
    assert chat.model == ("far" if model == "either" else model)
    assert (chat.usage.prompt_tokens, chat.usage.completion_tokens) == (2, 4)
    assert reply.headers["x-pilotfish-model"] == chat.model
    assert chat._request_id == reply.headers["x-request-id"]


@pytest.mark.parametrize("model", ["far", "near", "either"])
def test_openai_stream(client: Any, model: str) -> None:
    with client.chat.completions.create(
        model=model, messages=ASK, stream=True, stream_options={"include_usage": True}
    ) as stream:
        chunks = list(stream)
    pieces = [c.choices[0].delta.content or "" for c in chunks if c.choices]
    assert "".join(pieces) == SAID
    assert len([piece for piece in pieces if piece]) > 1
    assert chunks[-1].usage.completion_tokens == 4
    assert chunks[-2].choices[0].finish_reason == "stop"


def test_openai_choices_and_log_probabilities(client: Any, upstream: FakeServer) -> None:
    chat = client.chat.completions.create(
        model="far", messages=ASK, n=2, logprobs=True, stop=["x"], extra_body={"top_k": 5}
    )
    assert [choice.message.content for choice in chat.choices] == [SAID, SAID]
    assert [token.token for token in chat.choices[1].logprobs.content] == [
        "Small", " fish", " swim", " ahead.",
    ]  # fmt: skip
    sent = upstream.seen[-1].body
    assert (sent["n"], sent["stop"], sent["top_k"]) == (2, ["x"], 5)


def test_openai_tools_there_and_back(client: Any) -> None:
    first = client.chat.completions.create(model="far", messages=ASK, tools=[MEASURE])
    assert first.choices[0].finish_reason == "tool_calls"
    [call] = first.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"fish": "guppy"}
    told = {"role": "tool", "tool_call_id": call.id, "content": "3 cm"}
    talk = [*ASK, first.choices[0].message, told]
    second = client.chat.completions.create(model="far", messages=talk, tools=[MEASURE])
    assert second.choices[0].message.content == SAID


def test_openai_streamed_tools_are_put_together(client: Any) -> None:
    with client.chat.completions.stream(model="far", messages=ASK, tools=[MEASURE]) as stream:
        kinds = {event.type for event in stream}
        done = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    [call] = done.choices[0].message.tool_calls
    assert (call.function.name, call.function.arguments) == ("measure", '{"fish": "guppy"}')


def test_openai_structured_output(client: Any, upstream: FakeServer) -> None:
    fish = fish_type()
    parsed = client.chat.completions.parse(model="far", messages=ASK, response_format=fish)
    assert parsed.choices[0].message.parsed == fish(**FISH)
    assert upstream.seen[-1].body["response_format"]["json_schema"]["schema"]["required"] == [
        "name", "length",
    ]  # fmt: skip
    with client.chat.completions.stream(model="far", messages=ASK, response_format=fish) as stream:
        for _ in stream:
            pass
        assert stream.get_final_completion().choices[0].message.parsed == fish(**FISH)


def test_openai_models_embeddings_completions(client: Any) -> None:
    listed = [model.id for model in client.models.list()]
    assert {"far", "near", "either", "static"} <= set(listed)
    assert client.models.retrieve("near").owned_by == "pilotfish"
    got = client.embeddings.create(model="static", input=["a fish", "a boat"])  # asks for base64
    expected = load_encoder("static").encode(["a fish", "a boat"])
    np.testing.assert_array_equal(np.float32([row.embedding for row in got.data]), expected)
    text = client.completions.create(model="near", prompt="Which fish?")
    assert text.choices[0].text == SAID
    pieces = client.completions.create(model="near", prompt="Which fish?", stream=True)
    assert "".join(piece.choices[0].text for piece in pieces) == SAID


def test_openai_responses(openai: Any) -> None:
    part = {"type": "output_text", "text": SAID, "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed"}
    usage = {
        "input_tokens": 2,
        "output_tokens": 4,
        "total_tokens": 6,
        "input_tokens_details": {"cached_tokens": 0, "cache_write_tokens": 0},
        "output_tokens_details": {"reasoning_tokens": 0},
    }
    said = {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "model": "theirs",
        "status": "completed",
        "output": [{**message, "content": [part]}],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "usage": usage,
    }
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "logprobs": []}
    events = [
        {"type": "response.created", "response": {**said, "status": "in_progress", "output": []}},
        {
            "type": "response.output_item.added",
            "output_index": 0,
            "item": {**message, "content": []},
        },
        {"type": "response.content_part.added", **place, "part": {**part, "text": ""}},
        {"type": "response.output_text.delta", **place, "delta": SAID},
        {"type": "response.completed", "response": said},
    ]
    stream = [
        f"event: {event['type']}\ndata: {json.dumps({**event, 'sequence_number': i})}\n\n".encode()
        for i, event in enumerate(events)
    ]
    with (
        Upstream(lambda _, body: stream if body.get("stream") else said) as theirs,
        serving(
            {"far": {"backend": "openai", "base_url": theirs.base_url, "model": "theirs"}}
        ) as own,
        openai.OpenAI(base_url=own.base_url, api_key="x") as client,
    ):
        whole = client.responses.create(model="far", input="Which fish?", store=False)
        with client.responses.stream(model="far", input="Which fish?") as pieces:
            text = "".join(e.delta for e in pieces if e.type == "response.output_text.delta")
            last = pieces.get_final_response()
        records = own.records(2)
    assert (whole.output_text, whole.model, whole.usage.output_tokens) == (SAID, "far", 4)
    assert text == last.output_text == SAID
    assert theirs.seen[0][1]["store"] is False
    assert [(r.prompt_tokens, r.completion_tokens) for r in records] == [(2, 4), (2, 4)]


def test_openai_errors_are_its_own(openai: Any, client: Any) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="faar", messages=ASK)
    assert unknown.value.code == "model_not_found"
    assert "Did you mean 'far'" in unknown.value.message
    assert unknown.value.request_id.startswith("req_")
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(model="far", messages=[])
    assert (wrong.value.param, wrong.value.type) == ("messages", "invalid_request_error")
    with pytest.raises(openai.NotFoundError, match="no Responses API"):
        client.responses.create(model="near", input="hi")
    with pytest.raises(openai.InternalServerError) as gone:
        client.chat.completions.create(model="gone", messages=ASK)
    assert gone.value.status_code == 503


def test_openai_keys_and_rates(openai: Any) -> None:
    with serving({"near": {"backend": "fake"}}, keys="required") as own:
        store = open_store(own.store_url)
        key, _ = store.keys.create("me", rate=Limit(2, "month"))
        store.close()
        with (
            openai.OpenAI(base_url=own.base_url, api_key="pf-wrong", max_retries=0) as stranger,
            pytest.raises(openai.AuthenticationError),
        ):
            stranger.models.list()
        with openai.OpenAI(base_url=own.base_url, api_key=key, max_retries=0) as client:
            for _ in range(2):
                client.chat.completions.create(model="near", messages=ASK)
            with pytest.raises(openai.RateLimitError) as limited:
                client.chat.completions.create(model="near", messages=ASK)
    assert int(limited.value.response.headers["retry-after"]) >= 1


def test_openai_retries_what_may_be_retried(openai: Any) -> None:
    with (
        FakeServer(SAID, faults=[Fault.RATE_LIMITED, Fault.RATE_LIMITED]) as server,
        serving({"far": {**remote(server), "max_retries": 0}}) as own,
        openai.OpenAI(base_url=own.base_url, api_key="x", max_retries=0) as once,
        openai.OpenAI(base_url=own.base_url, api_key="x", max_retries=1) as twice,
    ):
        with pytest.raises(openai.RateLimitError):
            once.chat.completions.create(model="far", messages=ASK)
        reply = twice.chat.completions.create(model="far", messages=ASK)
        assert reply.choices[0].message.content == SAID
        assert server.count == 3


def test_openai_sees_a_stream_that_breaks_off(openai: Any) -> None:
    with (
        FakeServer("a b c d e f g h", faults=[Fault.HALF]) as server,
        serving({"far": {**remote(server), "max_retries": 0}}) as own,
        openai.OpenAI(base_url=own.base_url, api_key="x", max_retries=0) as client,
    ):
        stream = client.chat.completions.create(model="far", messages=ASK, stream=True)
        with pytest.raises(openai.APIError, match="connection"):
            for _ in stream:
                pass


async def test_openai_async(openai: Any, gateway: Running) -> None:
    async with openai.AsyncOpenAI(base_url=gateway.base_url, api_key="x") as client:
        stream = await client.chat.completions.create(model="far", messages=ASK, stream=True)
        pieces = [c.choices[0].delta.content or "" async for c in stream if c.choices]
    assert "".join(pieces) == SAID
