"""Embeddings, legacy completions and the Responses API: from here, and passed on."""

from __future__ import annotations

import base64
import json
from typing import Any

import numpy as np
import pytest

from pilotfish.models.load import load_encoder
from tests.gateway.serving import serving
from tests.gateway.upstream import Upstream

USAGE = {"prompt_tokens": 4, "completion_tokens": 2, "total_tokens": 6}


def openai(upstream: Upstream) -> dict[str, Any]:
    price = {"input": 1.0, "output": 2.0}
    return {"backend": "openai", "model": "theirs", "base_url": upstream.base_url, "price": price}


def test_embeddings_of_this_machine_are_the_encoders() -> None:
    texts = ["a small fish", "", "ein kleiner Fisch"]
    expected = load_encoder("static").encode(texts)
    with serving({"fake": {"backend": "fake"}}) as gateway:
        body = {"model": "static", "input": texts}
        got = gateway.client.post("/v1/embeddings", json=body).json()
        packed = gateway.client.post("/v1/embeddings", json={**body, "encoding_format": "base64"})
        one = gateway.client.post("/v1/embeddings", json={**body, "input": texts[0]}).json()
        short = gateway.client.post("/v1/embeddings", json={**body, "dimensions": 16}).json()
        records = gateway.records(4)
    rows = np.array([row["embedding"] for row in got["data"]], np.float32)
    np.testing.assert_array_equal(rows, expected)
    assert [row["index"] for row in got["data"]] == [0, 1, 2]
    assert got["model"] == "static"
    unpacked = [
        np.frombuffer(base64.b64decode(row["embedding"]), "<f4") for row in packed.json()["data"]
    ]
    np.testing.assert_array_equal(np.array(unpacked), expected)
    np.testing.assert_array_equal(one["data"][0]["embedding"], rows[0])
    cut = np.array(short["data"][2]["embedding"])
    assert len(cut) == 16
    np.testing.assert_allclose(np.linalg.norm(cut), 1, rtol=1e-6)
    np.testing.assert_allclose(cut, expected[2, :16] / np.linalg.norm(expected[2, :16]), rtol=1e-5)
    assert {record.endpoint for record in records} == {"embeddings"}
    assert {record.model for record in records} == {"static"}


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"model": "static"}, "input"),
        ({"model": "static", "input": []}, "input"),
        ({"model": "static", "input": [[1, 2, 3]]}, "input"),
        ({"model": "static", "input": "x", "dimensions": 100_000}, "dimensions"),
        ({"model": "static", "input": "x", "encoding_format": "int8"}, "encoding_format"),
        ({"model": "fake", "input": "x"}, "model"),
    ],
)
def test_wrong_embedding_requests(body: dict[str, Any], param: str) -> None:
    with serving({"fake": {"backend": "fake"}}) as gateway:
        got = gateway.client.post("/v1/embeddings", json=body)
    assert got.status_code == (404 if param == "model" else 400)
    assert got.json()["error"]["param"] == param


def test_embeddings_of_a_remote_model_are_passed_on() -> None:
    vectors = [{"object": "embedding", "index": 0, "embedding": [0.5, 0.25]}]
    said = {"object": "list", "model": "theirs", "data": vectors, "usage": {"prompt_tokens": 4}}
    with (
        Upstream(lambda path, body: said) as upstream,
        serving({"far": openai(upstream)}) as gateway,
    ):
        sent = {"model": "far", "input": [[1, 2]], "dimensions": 2, "unknown": True}
        got = gateway.client.post("/v1/embeddings", json=sent)
        [record] = gateway.records(1)
    assert upstream.seen == [("/v1/embeddings", {**sent, "model": "theirs"})]
    assert got.json() == {**said, "model": "far"}
    assert got.headers["x-pilotfish-model"] == "far"
    assert float(got.headers["x-pilotfish-cost"]) == pytest.approx(4e-6)
    assert record.prompt_tokens == 4


def test_legacy_completions_are_passed_on() -> None:
    choices = [{"text": " fish", "index": 0, "finish_reason": "stop", "logprobs": None}]
    said = {"id": "cmpl-1", "object": "text_completion", "model": "theirs", "choices": choices}
    pieces = [
        b'data: {"id":"cmpl-1","choices":[{"text":" fi","index":0}]}\n\n',
        b'data: {"id":"cmpl-1","choices":[{"text":"sh","index":0,"finish_reason":"stop"}],'
        b'"usage":{"prompt_tokens":4,"completion_tokens":2}}\n\ndata: [DONE]\n\n',
    ]

    def answer(path: str, body: dict[str, Any]) -> dict[str, Any] | list[bytes]:
        return pieces if body.get("stream") else {**said, "usage": USAGE}

    sent = {"model": "far", "prompt": "A small", "echo": True, "suffix": "."}
    with Upstream(answer) as upstream, serving({"far": openai(upstream)}) as gateway:
        whole = gateway.client.post("/v1/completions", json=sent)
        streamed = gateway.client.post("/v1/completions", json={**sent, "stream": True})
        records = gateway.records(2)
    assert [path for path, _ in upstream.seen] == ["/v1/completions"] * 2
    assert upstream.seen[0][1] == {**sent, "model": "theirs"}
    assert whole.json() == {**said, "usage": USAGE, "model": "far"}
    assert streamed.content == b"".join(pieces)
    assert streamed.headers["x-pilotfish-model"] == "far"
    for record in records:
        assert record.completion is not None
        assert record.completion.text == " fish"
        assert (record.prompt_tokens, record.completion_tokens) == (4, 2)
        assert record.cost == pytest.approx(8e-6)


def test_legacy_completions_of_a_chat_model() -> None:
    with serving({"fake": {"backend": "fake"}}) as gateway:
        chat = gateway.chat("tell me").json()["choices"][0]["message"]["content"]
        sent: dict[str, Any] = {"model": "fake", "prompt": ["tell me", "tell me"]}
        whole = gateway.client.post("/v1/completions", json=sent).json()
        sent = {"model": "fake", "prompt": "tell me", "stream": True}
        sent["stream_options"] = {"include_usage": True}
        streamed = gateway.client.post("/v1/completions", json=sent).text
        refused = gateway.client.post("/v1/completions", json={**sent, "echo": True})
        tokens = gateway.client.post("/v1/completions", json={"model": "fake", "prompt": [1, 2]})
    assert [choice["text"] for choice in whole["choices"]] == [chat, chat]
    assert whole["object"] == "text_completion"
    data = [line[6:] for line in streamed.splitlines() if line.startswith("data: ")]
    assert data.pop() == "[DONE]"
    events = [json.loads(line) for line in data]
    assert "usage" in events[-1]
    assert "".join(c["text"] for event in events for c in event["choices"]) == chat
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "echo")
    assert (tokens.status_code, tokens.json()["error"]["param"]) == (400, "prompt")


def test_responses_are_passed_on() -> None:
    usage = {"input_tokens": 5, "output_tokens": 3, "input_tokens_details": {"cached_tokens": 2}}
    output = [{"type": "message", "content": [{"type": "output_text", "text": "a fish"}]}]
    said = {"id": "resp_1", "object": "response", "model": "theirs", "output": output}
    pieces = [
        b'event: response.output_text.delta\ndata: {"type":"response.output_text.delta",'
        b'"delta":"a fish"}\n\n',
        b"event: response.completed\ndata: "
        + json.dumps({"type": "response.completed", "response": {**said, "usage": usage}}).encode()
        + b"\n\n",
    ]

    def answer(path: str, body: dict[str, Any]) -> dict[str, Any] | list[bytes]:
        return pieces if body.get("stream") else {**said, "usage": usage}

    sent = {"model": "far", "input": "What swims?", "previous_response_id": "resp_0", "store": True}
    with Upstream(answer) as upstream, serving({"far": openai(upstream)}) as gateway:
        whole = gateway.client.post("/v1/responses", json=sent)
        streamed = gateway.client.post("/v1/responses", json={**sent, "stream": True})
        records = gateway.records(2)
    assert upstream.seen[0] == ("/v1/responses", {**sent, "model": "theirs"})
    assert whole.json() == {**said, "usage": usage, "model": "far"}
    assert streamed.content == b"".join(pieces)
    for record in records:
        assert (record.prompt_tokens, record.completion_tokens, record.cached_tokens) == (5, 3, 2)
        assert record.completion is not None
        assert record.completion.text == "a fish"
        assert record.request is not None
        assert record.request.prompt == "What swims?"


def test_a_model_without_the_responses_api_says_so() -> None:
    with serving({"fake": {"backend": "fake"}}) as gateway:
        got = gateway.client.post("/v1/responses", json={"model": "fake", "input": "hi"})
    assert got.status_code == 404
    assert got.json()["error"]["code"] == "endpoint_not_supported"
