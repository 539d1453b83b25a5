"""Steering, search and speculation by the gateway: real sockets, streams, sampling, stops, schemas."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pilotfish.models.fake_server import FakeServer
from tests.gateway.serving import Running, remote, serving
from tests.models import tiny_gguf

KINDS: dict[str, dict[str, Any]] = {
    "contrast": {"kind": "contrast", "models": ["a", "b"]},
    "contrast-views": {
        "kind": "contrast",
        "models": ["a"],
        "views": [{}, {"find": "cab", "replace": "dog"}],
    },
    "contrast-bytes": {"kind": "contrast", "models": ["a", "other"], "bridge": "bytes"},
    "proxy-tuned": {"kind": "proxy-tuned", "models": ["a", "b", "c"]},
    "proxy-bytes": {
        "kind": "proxy-tuned",
        "models": ["a", "other", "another"],
        "bridge": "bytes",
        "strength": 0.5,
    },
    "mixed": {"kind": "mixed", "models": ["a", "b"], "weights": [0.7, 0.3]},
    "mixed-bytes": {"kind": "mixed", "models": ["a", "other"], "bridge": "bytes"},
    "search": {
        "kind": "weak-to-strong-search",
        "models": ["a", "other", "another"],
        "chunk": 3,
    },
    "search-steered": {
        "kind": "weak-to-strong-search",
        "models": ["contrast-views", "b", "c"],
        "chunk": 4,
    },
    "speculative": {"kind": "speculative", "models": ["a"]},
    "speculative-draft": {"kind": "speculative", "models": ["a", "b"]},
    "speculative-steered": {"kind": "speculative", "models": ["contrast-views"]},
    "speculative-bytes": {"kind": "speculative", "models": ["mixed-bytes"]},
}
SAMPLED = {"temperature": 0.8, "top_p": 0.9, "top_k": 40, "seed": 3}


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("served")
    tables = dict(KINDS)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setenv("PILOTFISH_CACHE", str(folder / "cache"))
        for seed, name in enumerate(["a", "b", "c", "other", "another"]):
            if name == "other":
                patch.setattr(tiny_gguf, "MERGES", ["c a", "h e", "o t"])
            path = tiny_gguf.write(folder / f"{name}.gguf", tiny_gguf.random_weights(seed))
            # All kinds share these models and their contexts of 512 tokens, and keep their last prompts.
            tables[name] = {"backend": "llama.cpp", "model": str(path), "threads": 1}
        with FakeServer(_continued) as server:
            tables["remote"] = remote(server)
            tables["search-remote"] = {
                "kind": "weak-to-strong-search",
                "models": ["remote", "b", "c"],
                "chunk": 4,
                "continuation": "prefix",
            }
            tables["best-remote"] = {
                "kind": "weak-to-strong-search",
                "models": ["remote", "b", "c"],
                "beams": 1,
                "samples": 4,
            }
            with serving(tables) as running:
                running.client.timeout = (
                    120  # the first call of a draft measures what reading costs
                )
                yield running


def _continued(body: dict[str, Any]) -> str:
    """The endpoint's answer goes on for ever, by what it was sent; a seed makes it another one."""
    last = body["messages"][-1]
    so_far = last["content"] if last["role"] == "assistant" else ""
    letters = "the cab is here, other cabs are there. "
    start = len(so_far) + int(body.get("seed", 0)) % 7
    return "".join(letters[(start + i) % len(letters)] for i in range(body["max_tokens"]))


def said(running: Running, model: str, content: str = "the cab", **params: Any) -> dict[str, Any]:
    response = running.chat(content, model=model, **{"max_tokens": 10, **params})
    assert response.status_code == 200, response.text
    answer: dict[str, Any] = response.json()
    return answer


def text(answer: dict[str, Any]) -> str:
    content = answer["choices"][0]["message"]["content"]
    assert isinstance(content, str)
    return content


def choices(
    running: Running, model: str, content: str = "the cab", **params: Any
) -> list[dict[str, Any]]:
    messages = [{"role": "user", "content": content}]
    events = running.events(model=model, messages=messages, **{"max_tokens": 10, **params})
    assert events[-1] == "[DONE]"
    return [event["choices"][0] for event in events[:-1] if event["choices"]]


def streamed(running: Running, model: str, content: str = "the cab", **params: Any) -> list[str]:
    deltas = [c["delta"].get("content") for c in choices(running, model, content, **params)]
    return [delta for delta in deltas if delta]


@pytest.mark.parametrize("model", KINDS)
def test_an_answer_and_its_stream_agree_with_any_sampling(gateway: Running, model: str) -> None:
    for params in ({"temperature": 0}, SAMPLED):
        answer = said(gateway, model, **params)
        if "seed" not in params or not model.startswith("speculative"):
            assert "".join(streamed(gateway, model, **params)) == text(answer)
            assert text(said(gateway, model, **params)) == text(answer)
        assert answer["usage"]["prompt_tokens"] > 10
        assert answer["usage"]["completion_tokens"] >= min(10, len(text(answer)))
    drawn = {text(said(gateway, model, **{**SAMPLED, "seed": seed})) for seed in range(4)}
    assert len(drawn) > 1


@pytest.mark.parametrize("model", KINDS)
def test_a_stop_sequence_ends_an_answer(gateway: Running, model: str) -> None:
    params = {**SAMPLED, "max_tokens": 20}
    whole = text(said(gateway, model, **params))
    plain = [c for c in whole if c != "\ufffd"]
    stop = plain[len(plain) // 2]
    answer = said(gateway, model, stop=[stop], **params)
    assert stop not in text(answer)
    if not model.startswith("search"):  # the pair sees what is cut, and may choose another one
        assert answer["choices"][0]["finish_reason"] == "stop"
        assert text(answer) == whole.split(stop)[0]
    assert stop not in "".join(streamed(gateway, model, stop=[stop], **params))


@pytest.mark.parametrize("model", KINDS)
def test_a_json_schema_holds(gateway: Running, model: str) -> None:
    schema = {
        "type": "object",
        "properties": {"kind": {"enum": ["cab", "dog"]}, "many": {"type": "boolean"}},
        "x-guidance": {"whitespace_flexible": False},  # random networks like to write spaces
        "required": ["kind", "many"],
        "additionalProperties": False,
    }
    form = {"type": "json_schema", "json_schema": {"name": "cab", "schema": schema}}
    answer = said(gateway, model, response_format=form, max_tokens=200, **SAMPLED)
    found = json.loads(text(answer))
    assert found["kind"] in ("cab", "dog")
    assert isinstance(found["many"], bool)
    pieces = streamed(gateway, model, response_format=form, max_tokens=200, **SAMPLED)
    again = json.loads("".join(pieces))
    if model.startswith("speculative"):  # what is drawn is equal in distribution only
        assert again.keys() == found.keys()
    else:
        assert again == found


@pytest.mark.parametrize("model", KINDS)
def test_streams_come_in_pieces(gateway: Running, model: str) -> None:
    """Token by token; of a search, as soon as all its beams agree."""
    params = {**SAMPLED, "max_tokens": 24}
    seeds = range(4) if model.startswith("search") else [3]
    streams = [streamed(gateway, model, **{**params, "seed": seed}) for seed in seeds]
    assert max(map(len, streams)) >= (2 if model.startswith("search") else 5)


@pytest.mark.parametrize("model", KINDS)
def test_log_probabilities_are_those_of_the_whole(gateway: Running, model: str) -> None:
    """Greedy: what was chosen is what the steered whole finds likeliest; streams tell the same."""
    params = {"temperature": 0, "logprobs": True, "top_logprobs": 5}
    answer = said(gateway, model, **params)
    entries = answer["choices"][0]["logprobs"]["content"]
    written = bytes(byte for entry in entries for byte in entry["bytes"])
    assert written.decode("utf-8", "replace") == text(answer)
    for entry in entries:
        best = entry["top_logprobs"][0]
        assert (entry["bytes"], entry["logprob"]) == (best["bytes"], best["logprob"])
        assert 0 < sum(np.exp(each["logprob"]) for each in entry["top_logprobs"]) <= 1 + 1e-5
    given = [c["logprobs"]["content"] for c in choices(gateway, model, **params) if c["logprobs"]]
    again = [entry for some in given for entry in some]
    assert [entry["bytes"] for entry in again] == [entry["bytes"] for entry in entries]
    np.testing.assert_allclose(
        [entry["logprob"] for entry in again], [e["logprob"] for e in entries], atol=0.01
    )


def test_max_tokens_counts_tokens_though_bytes_are_chosen(gateway: Running) -> None:
    """The first member's: "th", "er" and "ab" are single tokens of it."""
    grammar = 'root ::= "therthabthertherabab"'
    answer = said(gateway, "mixed-bytes", grammar=grammar, max_tokens=3)
    assert answer["usage"]["completion_tokens"] == 3
    assert answer["choices"][0]["finish_reason"] == "length"
    assert text(answer).startswith("thert")
    assert len(text(answer)) in (5, 6)
    whole = said(gateway, "mixed-bytes", grammar=grammar, max_tokens=50)
    assert text(whole) == "therthabthertherabab"
    assert whole["choices"][0]["finish_reason"] == "stop"


def test_a_search_over_an_endpoint_streams_its_chunks(gateway: Running) -> None:
    pieces = streamed(gateway, "search-remote", max_tokens=16, seed=1)
    answer = said(gateway, "search-remote", max_tokens=16, seed=1)
    assert "".join(pieces) == text(answer)
    assert len(text(answer)) >= 4
    best = said(gateway, "best-remote", max_tokens=12, seed=1)
    assert len(text(best)) == 12
    refused = gateway.chat(
        "hi", model="search-remote", max_tokens=8, response_format={"type": "json_object"}
    )
    assert refused.status_code == 400
    assert "chunk = 0" in refused.text


def test_other_vocabularies_without_a_bridge_are_refused(gateway: Running) -> None:
    from pilotfish.config import Config
    from pilotfish.errors import ConfigError
    from pilotfish.models.load import Models

    config = gateway.app.config
    tables = {**config.models, "apart": {"kind": "contrast", "models": ["a", "other"]}}
    with pytest.raises(ConfigError, match=r'token 259 .*\n.*bridge = "bytes"'):
        Models(Config(models=tables)).load("apart")


def test_views_hold_when_the_answer_is_sped_up_or_searched_for(gateway: Running) -> None:
    """Greedy: the draft guesses for the steered whole, and both members read what their views show."""
    for prompt in ("the cab", "a cab there", "cab and cab"):
        alone = text(said(gateway, "contrast-views", prompt, max_tokens=16))
        assert text(said(gateway, "speculative-steered", prompt, max_tokens=16)) == alone
        found = said(gateway, "search-steered", prompt, max_tokens=16, temperature=0)
        assert text(found) == alone
        assert text(said(gateway, "a", prompt, max_tokens=16)) != alone
