"""Other people's clients, unchanged but for the base URL: litellm, LangChain, llm and curl."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.models.load import load_encoder
from tests.gateway.clients.fish_model import ASK, FISH, MEASURE, SAID, fish_type
from tests.gateway.clients.libraries import WARNINGS_ARE_THEIRS, needed
from tests.gateway.serving import Running

pytestmark = WARNINGS_ARE_THEIRS


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
    shaped = litellm.completion("openai/far", messages=ASK, response_format=fish_type(), **at)
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
    fish = fish_type()
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
