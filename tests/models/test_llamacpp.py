"""The llama.cpp backend on a tiny model of known weights; the oracle is the same network in NumPy.

Tolerance: llama.cpp keeps keys and values in float16, which moved these logits (standard deviation 1.9)
by at most 0.004 in 20 tokens; 0.03 leaves room for other processors.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.config import Config, Price
from pilotfish.errors import ConfigError, MissingModel, ModelError, RequestRefused
from pilotfish.models import llama_c
from pilotfish.models.calls import ask
from pilotfish.models.llamacpp import LlamaModel, LlamaSettings
from pilotfish.models.load import load_model
from pilotfish.models.protocols import LabelScorer, StreamingModel, TokenModel
from pilotfish.records import Request
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
    for _ in range(150):  # a tree that nobody waits for any more
        model.session().feed_tree(tokens[:3], [-1, -1, -1])
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


@given(text=st.text(max_size=40))
def test_tokens_are_the_bytes_of_the_text(model: LlamaModel, text: str) -> None:
    tokens = model.tokenize(text)
    assert b"".join(map(model.token_bytes, tokens)) == text.encode("utf-8", "replace")


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


def test_control_tokens_are_read_on_request_only(model: LlamaModel) -> None:
    assert model.tokenize("<|im_end|>", special=True) == [tiny_gguf.END]
    assert len(model.tokenize("<|im_end|>")) == 10
    assert model.token_bytes(tiny_gguf.END) == b""
    with pytest.raises(RequestRefused, match="Got token 999"):
        model.token_bytes(999)


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
