"""The llama.cpp backend on a tiny model of known weights; the oracle is the same network in NumPy.

Tolerance: llama.cpp keeps keys and values in float16, which moved these logits (standard deviation 1.9)
by at most 0.004 in 20 tokens; 0.03 leaves room for other processors.
"""

from __future__ import annotations

import asyncio
import gc
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.config import Config, Price
from pilotfish.errors import ConfigError, MissingModel, ModelError, RequestRefused
from pilotfish.models import llama_c
from pilotfish.models.calls import ask, stream, wait
from pilotfish.models.llamacpp import LlamaModel, LlamaSettings
from pilotfish.models.load import load_model
from pilotfish.models.protocols import LabelScorer, StreamingModel, TokenModel
from pilotfish.models.sampling import Sampler, StopScanner
from pilotfish.records import Chunk, Completion, Request
from tests.models import tiny_gguf

WEIGHTS = tiny_gguf.random_weights()
CLOSE = {"atol": 0.03, "rtol": 0.0}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", WEIGHTS)


@pytest.fixture(scope="module")
def model(path: Path) -> Iterator[LlamaModel]:
    model = LlamaModel(path, LlamaSettings(threads=1))
    yield model
    model.close()


TEXT = "the other cab, and there: 12€ or more"


def test_it_is_every_kind_of_model(model: LlamaModel) -> None:
    assert isinstance(model, TokenModel)
    assert isinstance(model, StreamingModel)
    assert isinstance(model, LabelScorer)


def test_logits_equal_a_forward_pass_in_numpy(model: LlamaModel) -> None:
    tokens = model.tokenize(TEXT)
    logits = model.session().feed(tokens)
    assert logits.dtype == np.float32
    assert logits.shape == (len(tokens), model.vocab)
    np.testing.assert_allclose(logits, tiny_gguf.forward(WEIGHTS, tokens), **CLOSE)


def test_feeding_in_pieces_rewinding_and_forking_equal_a_fresh_feed(model: LlamaModel) -> None:
    tokens = model.tokenize(TEXT)
    whole = tiny_gguf.forward(WEIGHTS, tokens)
    session = model.session()
    pieces = [session.feed(tokens[:7]), session.feed(tokens[7:8]), session.feed(tokens[8:])]
    np.testing.assert_allclose(np.concatenate(pieces), whole, **CLOSE)

    session.rewind(5)
    other = session.fork()
    assert list(other.tokens) == tokens[:5]
    branch = model.tokenize("abba")
    np.testing.assert_allclose(
        other.feed(branch), tiny_gguf.forward(WEIGHTS, tokens[:5] + branch)[5:], **CLOSE
    )
    np.testing.assert_allclose(session.feed(tokens[5:]), whole[5:], **CLOSE)
    assert list(session.tokens) == tokens
    assert session.feed([]).shape == (0, model.vocab)


def test_a_feed_longer_than_a_batch(path: Path) -> None:
    model = LlamaModel(path, LlamaSettings(threads=1, context=256))
    tokens = model.tokenize(TEXT)
    model._cache.context.batch = 5
    np.testing.assert_allclose(
        model.session().feed(tokens), tiny_gguf.forward(WEIGHTS, tokens), **CLOSE
    )
    model.close()


def test_dead_sessions_give_their_cells_and_numbers_back(path: Path) -> None:
    model = LlamaModel(path, LlamaSettings(threads=1, context=256))
    tokens = model.tokenize("a" * 40)
    for _ in range(300):
        model.session().feed(tokens[:2])
    gc.collect()
    model.session().feed(tokens)
    model.close()


def test_an_interrupted_feed_leaves_the_session_as_it_was(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = LlamaModel(path, LlamaSettings(threads=1, context=256))
    before, after = model.tokenize("ab cd"), model.tokenize("the cab")
    expected = model.session().feed([*before, *after])[len(before) :]
    session = model.session()
    session.feed(before)
    context = model._cache.context
    decode = context.decode

    def interrupted(*rows: object) -> None:
        decode(*rows)
        raise KeyboardInterrupt

    monkeypatch.setattr(context, "decode", interrupted)
    with pytest.raises(KeyboardInterrupt):
        session.feed(model.tokenize("other"))
    monkeypatch.undo()
    assert list(session.tokens) == before
    np.testing.assert_allclose(session.feed(after), expected, **CLOSE)
    model.close()


def test_a_full_context_is_an_error_and_leaves_the_session_as_it_was(path: Path) -> None:
    model = LlamaModel(path, LlamaSettings(threads=1, context=256))
    n_ctx = model._cache.context.n_ctx
    session = model.session()
    first = session.feed(model.tokenize("ab cd"))
    with pytest.raises(RequestRefused, match=r"full(.|\n)*longer context"):
        session.feed([70] * n_ctx)
    assert len(session.tokens) == 4
    session.rewind(3)
    np.testing.assert_allclose(session.feed(model.tokenize("d")), first[3:], **CLOSE)
    with pytest.raises(RequestRefused, match=r"tokens, but the context holds"):
        ask(model, "a" * (n_ctx + 50))
    assert ask(model, "still alive", max_tokens=1).usage.completion_tokens <= 1
    with pytest.raises(RequestRefused, match="rewind to 9"):
        session.rewind(9)
    model.close()


@given(st.text(max_size=40))
def test_tokens_are_the_bytes_of_the_text(text: str) -> None:
    assert MODEL is not None
    tokens = MODEL.tokenize(text)
    assert b"".join(map(MODEL.token_bytes, tokens)) == text.encode("utf-8", "replace")


MODEL: LlamaModel | None = None


@pytest.fixture(autouse=True, scope="module")
def _shared(model: LlamaModel) -> None:
    global MODEL
    MODEL = model


def test_a_token_outside_the_vocabulary_is_refused_and_the_session_survives(
    model: LlamaModel,
) -> None:
    session = model.session()
    session.feed([70, 71])
    with pytest.raises(ModelError, match=r"failed on a batch of 1 tokens"):
        session.feed([9999])
    assert list(session.tokens) == [70, 71]
    np.testing.assert_allclose(
        session.feed([72]), tiny_gguf.forward(WEIGHTS, [70, 71, 72])[2:], **CLOSE
    )


def test_sessions_shorten_the_room_for_an_answer(model: LlamaModel) -> None:
    session = model.session()
    session.feed([70] * 460)
    completion = ask(model, "Hi", grammar='root ::= "a" root')
    assert completion.finish_reason == "length"
    assert 0 < completion.usage.completion_tokens < 40


def test_control_tokens_are_read_on_request_only(model: LlamaModel) -> None:
    assert model.tokenize("<|im_end|>", special=True) == [tiny_gguf.END]
    assert len(model.tokenize("<|im_end|>")) == 10
    assert model.token_bytes(tiny_gguf.END) == b""
    with pytest.raises(RequestRefused, match="Got token 999"):
        model.token_bytes(999)


def greedy(prompt: str, n: int) -> list[int]:
    """What the NumPy network writes after a prompt in ChatML, token by token."""
    assert MODEL is not None
    text = f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"
    tokens = MODEL.tokenize(text, special=True)
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
        expected = greedy(prompt, 12)
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
    tokens = model.tokenize(TEXT)
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


def test_wrong_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="Cannot read the model file"):
        LlamaModel(tmp_path / "none.gguf")
    text = tmp_path / "text.gguf"
    text.write_text("not a model")
    with pytest.raises(ConfigError, match="not a GGUF file"):
        LlamaModel(text)
    cut = tmp_path / "cut.gguf"
    cut.write_bytes(tiny_gguf.write(tmp_path / "whole.gguf", WEIGHTS).read_bytes()[:30000])
    with pytest.raises(ConfigError, match=r"cannot load .*cut.gguf.* llama.cpp says"):
        LlamaModel(cut)
    broken = WEIGHTS | {"output_norm": np.full(tiny_gguf.DIM, np.nan, np.float32)}
    with pytest.raises(ConfigError, match="not finite"):
        LlamaModel(tiny_gguf.write(tmp_path / "nan.gguf", broken))


def test_another_build_of_the_library_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    llama_c.library.cache_clear()
    try:
        monkeypatch.setattr(llama_c, "BUILD", "2025.1.1")
        with pytest.raises(ConfigError, match=r"(?s)2026.*pip install xllamacpp==2025.1.1"):
            llama_c.library()
        monkeypatch.undo()
        monkeypatch.setitem(llama_c._KNOWN_DEFAULTS["context"], "n_ubatch", 99)
        with pytest.raises(ConfigError, match="other context defaults"):
            llama_c.library()
    finally:
        monkeypatch.undo()
        llama_c.library.cache_clear()
    llama_c.library()


def test_specs_settings_and_base_models(tmp_path: Path, path: Path) -> None:
    declared = Config(models={"mine": {"backend": "llama.cpp", "model": str(path), "context": 256}})
    loaded = load_model("mine", declared)
    assert isinstance(loaded, LlamaModel)
    assert loaded.name == "mine"
    loaded.close()
    priced = load_model(f"llama.cpp:{path}", Config(prices={"tiny": Price(2.0, 8.0)}))
    answer = ask(priced, "Hi", max_tokens=3)
    assert answer.cost == Price(2.0, 8.0).cost(answer.usage) > 0
    with pytest.raises(ConfigError, match="contxt"):
        load_model(f"llama.cpp:{path}", Config(), contxt=3)
    with pytest.raises(MissingModel, match="pilotfish pull qwen"):
        load_model("qwen2.5-coder-0.5b", Config(cache_dir=tmp_path))
    base = LlamaModel(tiny_gguf.write(tmp_path / "base.gguf", WEIGHTS, template=None))
    assert base.prompt_tokens(Request.of("Once")) == base.tokenize("Once")
    with pytest.raises(RequestRefused, match="empty prompt"):
        ask(base, "")
    base.close()
