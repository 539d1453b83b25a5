"""Answers that llama.cpp writes: sampling, streams, stops, schemas, threads.

The oracle is the same network in NumPy.
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.errors import RequestRefused
from pilotfish.models.calls import ask, stream, wait
from pilotfish.models.gbnf import refuse_huge
from pilotfish.models.held import Held
from pilotfish.models.llamacpp import LlamaModel, LlamaSettings
from pilotfish.models.sampling import Sampler, StopScanner
from pilotfish.records import Chunk, Completion, Request
from tests.models import tiny_gguf

WEIGHTS = tiny_gguf.random_weights()
CLOSE = {"atol": 0.03, "rtol": 0.0}  # see test_llamacpp.py


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    path = tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", WEIGHTS)
    model = LlamaModel(path, LlamaSettings(threads=1))
    yield model
    model.close()


def test_forks_shorten_the_room_for_an_answer(model: LlamaModel) -> None:
    session = model.session()
    session.feed([70] * 230)
    fork = session.fork()
    completion = ask(model, "Hi", grammar='root ::= "a" root')
    assert completion.finish_reason == "length"
    assert 0 < completion.usage.completion_tokens < 40
    assert len(fork.tokens) == 230


def test_what_is_only_kept_is_given_up_and_read_again(model: LlamaModel) -> None:
    """The context has 512 cells; an answer, a session and another one want 400 each."""
    tokens = [(70 + 7 * i) % 200 for i in range(400)]
    expected = tiny_gguf.forward(WEIGHTS, [*tokens, 71])[-1]
    first, second = model.session(), model.session()
    assert ask(model, "y" * 380, max_tokens=20).usage.completion_tokens == 20
    assert first.room > 500
    first.feed(tokens)
    assert ask(model, "z" * 380, max_tokens=20).usage.completion_tokens == 20
    np.testing.assert_allclose(first.feed([71])[-1], expected, **CLOSE)
    second.rewind(0)
    assert second.room > 500
    second.feed(tokens)
    with pytest.raises(RequestRefused, match="full"):
        first.feed([72])  # the second one was used since the first began
    np.testing.assert_allclose(second.feed([71])[-1], expected, **CLOSE)
    first.rewind(400)
    np.testing.assert_allclose(first.feed([71])[-1], expected, **CLOSE)
    second.rewind(400)
    np.testing.assert_allclose(second.feed_tree([71, 72], [-1, -1])[0], expected, **CLOSE)
    with pytest.raises(RequestRefused, match="full"):
        ask(model, "z" * 380, max_tokens=20)  # the tree is to be kept
    second.keep([0])
    assert ask(model, "z" * 380, max_tokens=20).usage.completion_tokens == 20
    assert second.fork().tokens == [*tokens, 71]


def test_what_was_given_up_does_not_count_as_cached(model: LlamaModel) -> None:
    held, tokens = Held(model), [(70 + 7 * i) % 200 for i in range(400)]
    held.hold(tokens, lambda: None)
    assert held.hold([*tokens, 71], lambda: None)[1] == 400
    assert ask(model, "z" * 380, max_tokens=20).usage.completion_tokens == 20
    row, there = held.hold([*tokens, 71], lambda: None)
    assert there == 0
    np.testing.assert_allclose(row, tiny_gguf.forward(WEIGHTS, [*tokens, 71])[-1], **CLOSE)


def test_a_prompt_that_cannot_fit_is_refused_before_it_is_read(model: LlamaModel) -> None:
    held = Held(model)
    with pytest.raises(RequestRefused, match=r"has 600 tokens, but the context holds 512"):
        held.hold([70] * 600, lambda: None)
    assert not held.session.tokens


def greedy(model: LlamaModel, prompt: str, n: int) -> list[int]:
    """What the NumPy network writes after a prompt in ChatML, token by token."""
    text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    tokens = model.tokenize(text, special=True)
    start = len(tokens)
    for _ in range(n):
        best = int(tiny_gguf.forward(WEIGHTS, tokens)[-1].argmax())
        if best in (tiny_gguf.BOS, tiny_gguf.END):
            break
        tokens.append(best)
    return tokens[start:]


def test_greedy_answers_are_those_of_the_oracle_and_the_same_every_time(model: LlamaModel) -> None:
    prompts = ["Hi", "the cab", "Hi", "other", "Hi there"]
    for prompt in prompts:
        expected = greedy(model, prompt, 12)
        completion = ask(model, prompt, max_tokens=12)
        raw = b"".join(map(model.token_bytes, expected))
        assert completion.text == raw.decode("utf-8", "replace")
        assert completion.usage.completion_tokens == len(expected)
        assert completion.finish_reason == ("length" if len(expected) == 12 else "stop")
        assert completion.usage.prompt_tokens == len(model.prompt_tokens(Request.of(prompt)))
        assert (completion.model, completion.cost) == ("tiny", 0.0)


def test_a_repeated_prefix_is_not_read_again(model: LlamaModel) -> None:
    ask(model, "the same beginning, one", max_tokens=1)
    again = ask(model, "the same beginning, two", max_tokens=1)
    assert again.usage.cached_tokens > 15


def sampled(model: LlamaModel, seed: int, n: int = 20, **params: object) -> str:
    return ask(model, "Hi", max_tokens=n, temperature=1.0, seed=seed, **params).text


def test_sampling_is_seeded_and_follows_its_distribution(model: LlamaModel) -> None:
    assert sampled(model, 3) == sampled(model, 3)
    assert len({sampled(model, seed) for seed in range(5)}) > 1
    assert sampled(model, 3, top_k=1) == ask(model, "Hi", max_tokens=20).text


def test_the_sampler_draws_what_the_settings_leave() -> None:
    p = np.array([0.5, 0.3, 0.15, 0.05])
    logits = np.log(p).astype(np.float32)

    def shares(**params: float) -> np.ndarray:
        sampler = Sampler({"temperature": 1.0, "seed": 0, **params})
        return np.bincount([sampler.choose(logits) for _ in range(1500)], minlength=4) / 1500

    np.testing.assert_allclose(shares(), p, atol=0.05)
    np.testing.assert_allclose(shares(top_k=2), [0.625, 0.375, 0, 0], atol=0.05)
    np.testing.assert_allclose(shares(top_p=0.79), [0.625, 0.375, 0, 0], atol=0.05)
    np.testing.assert_allclose(shares(min_p=0.4), [0.625, 0.375, 0, 0], atol=0.05)
    squared = p**2 / (p**2).sum()
    np.testing.assert_allclose(shares(temperature=0.5), squared, atol=0.05)


def test_logprobs_are_those_of_the_oracle(model: LlamaModel) -> None:
    completion = ask(model, "Hi", max_tokens=1, logprobs=True, top_logprobs=3)
    assert completion.logprobs is not None
    tokens = model.prompt_tokens(Request.of("Hi"))
    logits = tiny_gguf.forward(WEIGHTS, tokens)[-1]
    expected = np.sort(logits - np.log(np.exp(logits).sum()))[::-1][:3]
    entry = completion.logprobs[0]
    assert entry["logprob"] == pytest.approx(expected[0], abs=0.03)
    found = [each["logprob"] for each in entry["top_logprobs"]]
    np.testing.assert_allclose(found, expected, **CLOSE)


async def pieces(model: LlamaModel, request: Request) -> tuple[list[Chunk], Completion]:
    chunks = [chunk async for chunk in stream(model, request)]
    assert chunks[-1].completion is not None
    return chunks, chunks[-1].completion


def test_streaming_gives_the_same_answer_in_pieces(model: LlamaModel) -> None:
    for stop in ([], [ask(model, "Hi", max_tokens=20).text[5:8]]):
        request = Request.of("Hi", max_tokens=20, stop=stop)
        chunks, completion = wait(pieces(model, request))
        assert "".join(chunk.text for chunk in chunks) == completion.text
        whole = ask(model, request)
        assert (completion.text, completion.finish_reason) == (whole.text, whole.finish_reason)
        assert len(chunks) > 2


def test_stop_strings_end_the_answer_and_do_not_show(model: LlamaModel) -> None:
    full = ask(model, "Hi", max_tokens=20).text
    stop = full[6:9]
    cut = ask(model, "Hi", max_tokens=20, stop=stop)
    assert cut.text == full[: full.index(stop)]
    assert cut.finish_reason == "stop"


@pytest.mark.parametrize(
    "grammar",
    [
        "root ::= " + "(" * 300_000 + '"a"' + ")" * 300_000,  # these two would end the process
        "\n".join(f"a{i} ::= a{i + 1}" for i in range(300_000)) + '\na300000 ::= "x"\nroot ::= a0',
        "root ::= " + "(" * 101 + '"a"' + ")" * 101,
    ],
)
def test_grammars_that_no_stack_holds_are_refused(model: LlamaModel, grammar: str) -> None:
    with pytest.raises(RequestRefused, match="brackets in each other"):
        ask(model, "Hi", grammar=grammar)


def test_what_is_not_closed_takes_one_look() -> None:
    began = time.monotonic()
    for unclosed in ("[", '"', "\\", '["'):
        refuse_huge("root ::= " + unclosed * 40_000)
    assert time.monotonic() - began < 5


def test_brackets_that_are_letters_do_not_count(model: LlamaModel) -> None:
    letters = '"(" [(\\](] ' * 100
    grammar = f"root ::= {letters} # {'(' * 200}\n"
    assert ask(model, "Hi", grammar=grammar, max_tokens=3).text[0] == "("
    deep = "root ::= " + "(" * 100 + '"a"' + ")" * 100
    assert ask(model, "Hi", grammar=deep).text == "a"


def test_a_limit_of_null_is_no_limit_and_hides_none(model: LlamaModel) -> None:
    both = ask(model, "Hi", max_tokens=2, max_completion_tokens=None)
    assert both.usage.completion_tokens == 2
    assert ask(model, "Hi", max_tokens=9, max_completion_tokens=3).usage.completion_tokens == 3


@given(
    st.text("ab€", max_size=30),
    st.lists(st.text("ab€", min_size=1, max_size=3), max_size=2),
    st.integers(1, 4),
)
def test_stop_scanner_equals_a_search_in_the_whole(text: str, stops: list[str], size: int) -> None:
    scanner, raw = StopScanner(stops), text.encode()
    shown = "".join(scanner.feed(raw[i : i + size]) for i in range(0, len(raw), size))
    shown += scanner.feed(b"", last=True)
    # A stop string counts as soon as it is complete.
    ends = [text.find(s) + len(s) for s in stops if s in text]
    if not ends:
        assert (shown, scanner.stopped) == (text, False)
    else:
        assert scanner.stopped
        assert text.startswith(shown)
        assert not any(s in shown for s in stops)


def test_json_schema_and_grammar_bind_the_answer(model: LlamaModel) -> None:
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "yy"]}}, "required": ["a"]}
    form = {
        "type": "json_schema",
        "json_schema": {"schema": schema | {"additionalProperties": False}},
    }
    value = json.loads(ask(model, "Hi", max_tokens=200, response_format=form).text)
    assert value["a"] in ("x", "yy")
    text = ask(model, "Hi", max_tokens=50, grammar='root ::= ("yes" | "no") "!"').text
    assert text in ("yes!", "no!")
    with pytest.raises(RequestRefused, match="grammar"):
        ask(model, "Hi", grammar="root ::= (")
    with pytest.raises(RequestRefused, match="JSON schema"):
        ask(
            model,
            "Hi",
            response_format={"type": "json_schema", "json_schema": {"schema": {"type": 7}}},
        )
    with pytest.raises(RequestRefused, match="response_format"):
        ask(model, "Hi", response_format={"type": "xml"})


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"tools": [{}]}, "cannot do what tools asks for"),
        ({"n": 2}, "n=2"),
        ({"temperature": -1}, "temperature=-1"),
        ({"top_p": 0}, "top_p=0"),
        ({"max_tokens": 0}, "max_tokens=0"),
        ({"stop": 3}, "stop=3"),
        ({"seed": "x"}, "seed='x'"),
    ],
)
def test_parameters_it_cannot_use_are_refused(
    model: LlamaModel, params: dict[str, object], message: str
) -> None:
    with pytest.raises(RequestRefused, match=message):
        ask(model, "Hi", **params)


def test_messages_it_cannot_read_are_refused(model: LlamaModel) -> None:
    image = {"role": "user", "content": [{"type": "image_url", "image_url": {}}]}
    with pytest.raises(RequestRefused, match="text only"):
        wait(model.complete(Request((image,))))
    with pytest.raises(RequestRefused, match="text only"):
        wait(model.complete(Request(({"role": "user", "content": 5},))))
    with pytest.raises(RequestRefused, match="without a role"):
        wait(model.complete(Request(({"content": "x"},))))


def test_a_cancelled_call_stops_and_the_next_one_is_answered(model: LlamaModel) -> None:
    endless = Request.of("Hi", grammar='root ::= "a" root')
    cache = model._cache

    async def cancel_in_mid_answer() -> None:
        chunks = model.stream(endless)
        await anext(chunks)
        await chunks.aclose()  # type: ignore[attr-defined]
        task = asyncio.ensure_future(model.complete(endless))
        await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    before = ask(model, "Hi", max_tokens=8).text
    wait(cancel_in_mid_answer())
    with cache.lock:  # free again, long before the context was full
        assert len(cache.prompt) < cache.context.n_ctx - 1
    assert ask(model, "Hi", max_tokens=8).text == before
    assert ask(model, endless).usage.completion_tokens > 400


def test_sessions_and_answers_share_the_context_from_several_threads(model: LlamaModel) -> None:
    tokens = model.tokenize("the other cab, and there: 12€ or more")
    expected = tiny_gguf.forward(WEIGHTS, tokens)
    answer = ask(model, "Hi", max_tokens=8).text
    errors: list[str] = []

    def feed() -> None:
        for _ in range(5):
            got = model.session().feed(tokens)
            if not np.allclose(got, expected, **CLOSE):
                errors.append("logits")

    def write() -> None:
        for _ in range(5):
            if ask(model, "Hi", max_tokens=8).text != answer:
                errors.append("text")

    threads = [threading.Thread(target=work) for work in (feed, write, feed)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
