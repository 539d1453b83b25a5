"""Clients that people already have, unchanged but for the base URL: what they do works here too.

They are the extra ``clients`` (and ``litellm``); where one is missing its tests are skipped, or fail if
``PILOTFISH_TEST_CLIENTS=require``.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.models.fake_server import FakeServer, Fault
from pilotfish.models.load import load_encoder
from pilotfish.store.keys import Limit
from pilotfish.store.store import open_store
from tests.gateway.serving import Running, remote, serving
from tests.gateway.upstream import Upstream

# The libraries warn of their own deprecations while they are imported and used.
pytestmark = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
]
SAID = "Small fish swim ahead."
ASK = [{"role": "user", "content": "Which fish?"}]
FISH = {"name": "guppy", "length": 3}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "measure", "arguments": '{"fish": "guppy"}'},
}
MEASURE = {
    "type": "function",
    "function": {
        "name": "measure",
        "description": "Measure a fish.",
        "parameters": {
            "type": "object",
            "properties": {"fish": {"type": "string"}},
            "required": ["fish"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def answer(body: dict[str, Any]) -> str | dict[str, Any]:
    """A large model that calls tools and keeps to schemas."""
    asked = body.get("tools")
    if asked and body["messages"][-1]["role"] == "user":
        call = {**CALL["function"], "name": asked[0]["function"]["name"]}
        return {"content": None, "tool_calls": [{**CALL, "function": call}]}
    if (body.get("response_format") or {}).get("type") == "json_schema":
        return json.dumps(FISH)
    return SAID


@pytest.fixture(scope="module")
def upstream() -> Iterator[FakeServer]:
    with FakeServer(answer) as server:
        yield server


@pytest.fixture(scope="module")
def gateway(upstream: FakeServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    models = {
        "far": remote(upstream),
        "near": {"backend": "fake", "answers": {"Which fish?": SAID}},
        "either": {"kind": "fallback", "models": ["gone", "far"]},
        "gone": {**remote(upstream), "base_url": "http://127.0.0.1:9/v1", "max_retries": 0},
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("gateway"))
        with serving(models) as running:
            yield running


def needed(module: str) -> Any:
    """A client library; skips where it is not installed."""
    extra = "litellm" if module == "litellm" else "clients"
    if importlib.util.find_spec(module) is None:
        why = f"{module} is a client that only tests use: pip install 'pilotfish[{extra}]'"
        if os.environ.get("PILOTFISH_TEST_CLIENTS") == "require":
            pytest.fail(why)
        pytest.skip(why)
    return importlib.import_module(module)


@pytest.fixture
def openai() -> Any:
    return needed("openai")


@pytest.fixture
def client(openai: Any, gateway: Running) -> Iterator[Any]:
    with openai.OpenAI(base_url=gateway.base_url, api_key="not needed", max_retries=0) as made:
        yield made


# openai


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
    fish = _fish_type()
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


# litellm


@pytest.fixture
def litellm(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    return needed("litellm")


def test_litellm(litellm: Any, gateway: Running) -> None:
    at = {"api_base": gateway.base_url, "api_key": "x", "max_retries": 0}
    whole = litellm.completion("openai/far", messages=ASK, **at)
    assert whole.choices[0].message.content == SAID
    stream = litellm.completion("openai/near", messages=ASK, stream=True, **at)
    assert "".join(c.choices[0].delta.content or "" for c in stream) == SAID
    called = litellm.completion("openai/far", messages=ASK, tools=[MEASURE], **at)
    assert called.choices[0].message.tool_calls[0].function.name == "measure"
    shaped = litellm.completion("openai/far", messages=ASK, response_format=_fish_type(), **at)
    assert json.loads(shaped.choices[0].message.content) == FISH
    rows = litellm.embedding("openai/static", input=["a fish"], encoding_format="float", **at)
    assert len(rows.data[0]["embedding"]) == load_encoder("static").encode(["x"]).shape[1]
    with pytest.raises(litellm.NotFoundError):
        litellm.completion("openai/faar", messages=ASK, **at)
    with pytest.raises(litellm.BadRequestError):
        litellm.completion("openai/far", messages=ASK, n=0, **at)


# LangChain


@pytest.fixture
def chat(gateway: Running, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LANGSMITH_TRACING", "false")
    library = needed("langchain_openai")
    return library.ChatOpenAI(model="far", base_url=gateway.base_url, api_key="x", max_retries=0)


def test_langchain(chat: Any) -> None:
    reply = chat.invoke("Which fish?")
    assert reply.content == SAID
    assert reply.usage_metadata["output_tokens"] == 4
    assert reply.response_metadata["model_name"] == "far"
    assert "".join(piece.content for piece in chat.stream("Which fish?")) == SAID
    assert [r.content for r in chat.batch(["Which fish?", "What fish?"])] == [SAID, SAID]


def test_langchain_tools_and_structured_output(chat: Any) -> None:
    [call] = chat.bind_tools([MEASURE]).invoke("Which fish?").tool_calls
    assert (call["name"], call["args"]) == ("measure", {"fish": "guppy"})
    pieces = chat.bind_tools([MEASURE]).stream("Which fish?")
    whole = next(pieces)
    for piece in pieces:
        whole += piece
    assert [(c["name"], c["args"]) for c in whole.tool_calls] == [("measure", {"fish": "guppy"})]
    fish = _fish_type()
    assert chat.with_structured_output(fish).invoke("Which fish?") == fish(**FISH)


def test_langchain_embeddings(gateway: Running, chat: Any) -> None:
    library = needed("langchain_openai")
    made = library.OpenAIEmbeddings(
        model="static", base_url=gateway.base_url, api_key="x", check_embedding_ctx_length=False
    )
    expected = load_encoder("static").encode(["a fish"])[0]
    np.testing.assert_array_equal(np.float32(made.embed_query("a fish")), expected)


# llm


def test_llm_command(gateway: Running, tmp_path: Path) -> None:
    needed("llm")
    listed = [
        {"model_id": "pilot", "model_name": "far", "supports_tools": True, "supports_schema": True},
        {"model_id": "pilot-near", "model_name": "near", "can_stream": True},
    ]
    for row in listed:
        row |= {"api_base": gateway.base_url, "api_key_name": "pilot"}
    (tmp_path / "extra-openai-models.yaml").write_text(json.dumps(listed))  # JSON is YAML

    def llm(*words: str) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "llm", *words],
            env={**os.environ, "LLM_USER_PATH": str(tmp_path)},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    assert llm("-m", "pilot", "--key", "x", "Which fish?") == SAID
    assert llm("-m", "pilot-near", "--key", "x", "--no-stream", "Which fish?") == SAID
    assert (
        json.loads(llm("-m", "pilot", "--key", "x", "--schema", "name,length int", "Fish?")) == FISH
    )
    functions = "def measure(fish: str) -> str:\n    return fish + ' 3 cm'"
    talk = llm("-m", "pilot", "--key", "x", "--functions", functions, "--td", "Which fish?")
    assert talk.startswith(SAID) or talk.endswith(SAID)


# curl


@pytest.fixture
def curl() -> str:
    found = shutil.which("curl")
    if found is None:
        why = "curl is not installed: apt install curl"
        if os.environ.get("PILOTFISH_TEST_CLIENTS") == "require":
            pytest.fail(why)
        pytest.skip(why)
    return found


@pytest.mark.parametrize("version", ["--http1.1", "--http1.0", "--http2"])
def test_curl(curl: str, gateway: Running, version: str) -> None:
    def ask(path: str, body: Any, *words: str) -> str:
        done = subprocess.run(
            [curl, "-sS", "-m", "20", version, f"{gateway.base_url}{path}", "--json", "@-", *words],
            input=json.dumps(body),
            capture_output=True,
            text=True,
            timeout=30,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    body = {"model": "far", "messages": ASK}
    assert json.loads(ask("/chat/completions", body))["choices"][0]["message"]["content"] == SAID
    lines = ask("/chat/completions", {**body, "stream": True}, "-N").strip().split("\n\n")
    assert lines[-1] == "data: [DONE]"
    deltas = [json.loads(line.removeprefix("data: "))["choices"][0]["delta"] for line in lines[:-1]]
    assert "".join(delta.get("content") or "" for delta in deltas) == SAID
    long = {"model": "far", "messages": [{"role": "user", "content": "fish " * 100_000}]}
    said = ask("/chat/completions", long, "-H", "Expect: 100-continue", "-w", "\n%{http_code}")
    assert said.endswith("\n200")
    wrong = ask("/chat/completions", {"model": "far"}, "-w", "\n%{http_code}")
    assert wrong.endswith("\n400")


def _fish_type() -> Any:
    """A pydantic model, as users write them."""
    return importlib.import_module("pydantic").create_model(
        "Fish", name=(str, ...), length=(int, ...)
    )
