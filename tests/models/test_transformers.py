"""The transformers backend against a forward pass in NumPy, and llama.cpp with the same weights."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.infer.speculate.cost import CostCurve
from pilotfish.infer.speculate.model_draft import ModelDraft
from pilotfish.infer.speculate.speculative import Speculative
from pilotfish.models.llamacpp import LlamaModel, LlamaSettings
from pilotfish.models.load import load_model
from pilotfish.models.protocols import StreamingModel, TokenModel
from pilotfish.reason.rules import contrast
from pilotfish.reason.steered import Steered
from pilotfish.records import Completion, Request
from tests.models import tiny_gguf

pytest.importorskip("torch", reason='needs torch: pip install "pilotfish[torch]"')

WEIGHTS = [tiny_gguf.random_weights(seed) for seed in range(2)]
TEXT = "the other cab, caf\u00e9 \u2603"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from tests.models import tiny_llama

    folder = tmp_path_factory.mktemp("tiny")
    for i, weights in enumerate(WEIGHTS):
        tiny_llama.write(folder / f"t{i}", weights)
        tiny_gguf.write(folder / f"t{i}.gguf", weights)
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Any]:
    model = load_model(f"transformers:{folder / 't0'}", Config(), threads=1)
    yield model
    model.close()  # type: ignore[attr-defined]


@pytest.fixture(scope="module")
def llama(folder: Path) -> Iterator[LlamaModel]:
    model = LlamaModel(folder / "t0.gguf", LlamaSettings(threads=1))
    yield model
    model.close()


def test_layers_of_a_draft_whose_head_was_trimmed(folder: Path, tmp_path: Path, model: Any) -> None:
    """The same as of the whole output layer, and -inf for tokens that were left out."""
    draft = tmp_path / "draft"
    shutil.copytree(folder / "t0", draft)
    (draft / "head_tokens.json").write_text("[9, 200, 5]")
    trimmed: Any = load_model(f"transformers:{draft}", Config(), threads=1)
    tokens = model.tokenize(TEXT)
    whole, some = (each.layer_logits(tokens, [5, 7, 9], last=2) for each in (model, trimmed))
    trimmed.close()
    np.testing.assert_allclose(some[..., [0, 2]], whole[..., [0, 2]], atol=1e-5)
    assert np.isneginf(some[..., 1]).all()


def ask(model: Any, prompt: str, **params: Any) -> Completion:
    return asyncio.run(model.complete(Request.of(prompt, **{"max_tokens": 16, **params})))


def test_tokens_and_logits_are_those_of_the_oracle_and_of_llama_cpp(
    model: Any, llama: LlamaModel
) -> None:
    assert isinstance(model, TokenModel)
    assert isinstance(model, StreamingModel)
    assert model.vocab == llama.vocab
    tokens = model.tokenize(TEXT)
    assert tokens == llama.tokenize(TEXT)
    assert [model.token_bytes(t) for t in range(model.vocab)] == [
        llama.token_bytes(t) for t in range(llama.vocab)
    ]
    assert {t for t in range(model.vocab) if model.ends(t)} == {tiny_gguf.END}
    rows = model.session().feed(tokens)
    np.testing.assert_allclose(rows, tiny_gguf.forward(WEIGHTS[0], tokens), atol=1e-4)
    np.testing.assert_allclose(rows, llama.session().feed(tokens), atol=0.03)


def test_feeding_in_pieces_rewinding_and_forking_equal_a_fresh_feed(model: Any) -> None:
    tokens = model.tokenize("the cab is here and there")
    whole = model.session().feed(tokens)
    session = model.session()
    np.testing.assert_allclose(session.feed(tokens[:5], last=2), whole[3:5], atol=1e-4)
    fork = session.fork()
    session.feed([7, 8, 9])
    session.rewind(3)
    np.testing.assert_allclose(session.feed(tokens[3:]), whole[3:], atol=1e-4)
    np.testing.assert_allclose(fork.feed(tokens[5:]), whole[5:], atol=1e-4)
    session.rewind(0)
    np.testing.assert_allclose(session.feed(tokens), whole, atol=1e-4)
    assert session.feed([]).shape == (0, model.vocab)
    with pytest.raises(RequestRefused, match="rewind to 999"):
        session.rewind(999)
    with pytest.raises(RequestRefused, match="full"):
        session.feed([5] * 600)
    assert list(session.tokens) == tokens


def test_answers_are_llama_cpps(model: Any, llama: LlamaModel) -> None:
    for prompt in ("Hi", "the cab", "other", "Hi there"):
        assert ask(model, prompt).text == ask(llama, prompt).text
        assert ask(model, prompt, stop="a").text == ask(llama, prompt, stop="a").text

    async def pieces() -> list[str]:
        request = Request.of("the cab", max_tokens=16)
        return [chunk.text async for chunk in model.stream(request)]

    assert "".join(asyncio.run(pieces())) == ask(llama, "the cab").text
    assert ask(model, "the cab").usage.cached_tokens > 0


def test_prompts_begin_as_the_model_was_trained(
    folder: Path, llama: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tokenizers.processors import TemplateProcessing

    model: Any = load_model(f"transformers:{folder / 't0'}", Config(), threads=1)
    requests = [Request.of("the cab"), Request.of("")]
    assert model.opening == llama.opening == []
    bos = tiny_gguf.SPECIAL[tiny_gguf.BOS]
    model.tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{bos} $A", special_tokens=[(bos, tiny_gguf.BOS)]
    )
    monkeypatch.setattr(llama.weights, "adds_bos", True)
    assert model.opening == llama.opening == [tiny_gguf.BOS]
    for template in (tiny_gguf.CHATML, bos + tiny_gguf.CHATML, None):
        model.tokenizer.chat_template = template
        monkeypatch.setattr(llama.weights, "chat_template", template)
        for request in requests:
            tokens = model.prompt_tokens(request)
            assert tokens == llama.prompt_tokens(request)
            assert tokens[0] == tiny_gguf.BOS not in tokens[1:]
    model.close()


def test_backends_mix_under_one_rule(model: Any, folder: Path, llama: LlamaModel) -> None:
    amateurs = [
        load_model(f"transformers:{folder / 't1'}", Config(), threads=1),
        LlamaModel(folder / "t1.gguf", LlamaSettings(threads=1)),
    ]
    texts = set()
    for expert in (model, llama):
        for amateur in amateurs:
            steered = Steered([expert, amateur], contrast(), name="whole")  # type: ignore[list-item]
            texts.add(ask(steered, "the cab").text)
            steered.close()
    assert len(texts) == 1
    for amateur in amateurs:
        amateur.close()  # type: ignore[attr-defined]


def test_speculation_is_exact_here_too(model: Any, llama: LlamaModel) -> None:
    flat = CostCurve({1: 1.0, 16: 1.001})
    draft = ModelDraft(llama, model, same=True, cost=1e-6)
    for fast in (Speculative(model, curve=flat), Speculative(model, draft, curve=flat)):
        for prompt in ("the cab, the cab, the", "Hi"):
            assert ask(fast, prompt).text == ask(model, prompt).text
        fast.close()


def test_grammars_and_schemas_hold_steered_or_not(
    model: Any, folder: Path, llama: LlamaModel
) -> None:
    """What is written under a constraint is llama.cpp's own; the last token may be another end."""
    amateur = load_model(f"transformers:{folder / 't1'}", Config(), threads=1)
    steered = Steered([model, amateur], contrast(), name="whole")  # type: ignore[list-item]
    grammar = 'root ::= ("cab" | "the" [a-f]+) " " [0-9]{2,4}'
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    closed = {**schema, "additionalProperties": False}
    form = {"type": "json_schema", "json_schema": {"schema": closed}}
    for prompt in ("Hi", "the cab"):
        assert ask(model, prompt, grammar=grammar).text == ask(llama, prompt, grammar=grammar).text
        assert re.match("(cab|the[a-f]+)( |$)", ask(steered, prompt, grammar=grammar).text)
        for whole in (model, steered):
            for seed in range(3):
                answer = ask(
                    whole, prompt, response_format=form, max_tokens=400, temperature=0.7, seed=seed
                )
                assert answer.finish_reason == "stop"
                assert json.loads(answer.text)["a"] in ("x", "y")
    bad = {"type": "json_schema", "json_schema": {"schema": {"type": "objct"}}}
    with pytest.raises(RequestRefused, match="objct"):
        ask(model, "Hi", response_format=bad)
    steered.close()
    amateur.close()  # type: ignore[attr-defined]


def test_what_it_cannot_do_is_refused(model: Any, tmp_path: Path) -> None:
    with pytest.raises(RequestRefused, match="no rule 'x'"):
        ask(model, "Hi", grammar="root ::= x")
    with pytest.raises(ConfigError, match="cannot load"):
        load_model(f"transformers:{tmp_path}", Config())


@pytest.mark.pulled
def test_the_packaged_models_logits_agree_within_quantisation() -> None:
    """SmolLM2 by both backends from one file: dequantised to float32, and computed in llama.cpp's way."""
    from pilotfish.models.catalogue import locate

    path = locate("smollm2-135m", Config())
    ours = load_model(f"transformers:{path}", Config())
    its = LlamaModel(path, LlamaSettings())
    text = "The capital of France is Paris, and the capital of Italy is Rome. Water boils at 100 degrees."
    tokens = its.tokenize(text)
    assert ours.tokenize(text) == tokens  # type: ignore[attr-defined]
    mine = ours.session().feed(tokens)  # type: ignore[attr-defined]
    theirs = its.session().feed(tokens)
    assert (mine.argmax(1) == theirs.argmax(1)).mean() >= 0.9
    p, q = (x - np.logaddexp.reduce(x, axis=1, keepdims=True) for x in (mine, theirs))
    divergence = (np.exp(p) * (p - q)).sum(axis=1)
    assert divergence.mean() < 0.02
    for model in (ours, its):
        model.close()  # type: ignore[attr-defined]
