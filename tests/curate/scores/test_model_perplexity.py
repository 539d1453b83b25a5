"""Perplexity under a language model against the same network in NumPy."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from scipy.special import log_softmax

from pilotfish.curate.scores.model_perplexity import ModelPerplexity
from pilotfish.curate.step import ROW, TEXT
from pilotfish.errors import ConfigError
from pilotfish.models.load import load_model
from tests.models import tiny_gguf

TEXTS = ["the other water", "", "a", "ab" * 100, "größe 日本語", "x\x00y" + "z" * 20]


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> str:
    path = tmp_path_factory.mktemp("model") / "tiny.gguf"
    return f"llama.cpp:{tiny_gguf.write(path, tiny_gguf.random_weights())}"


def batch(texts: list[str]) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {ROW: pa.array(range(len(texts)), pa.uint64()), TEXT: pa.array(texts)}
    )


@pytest.mark.parametrize("together", [False, True])
def test_it_is_the_perplexity_of_the_network(spec: str, together: bool) -> None:
    step = ModelPerplexity(spec, max_tokens=150, together=together)
    found = step.apply(batch(TEXTS)).columns["perplexity"].to_pylist()
    model = load_model(spec)
    weights = tiny_gguf.random_weights()
    for text, score in zip(TEXTS, found, strict=True):
        tokens = model.tokenize(text)[:150]
        if len(tokens) < 2:
            assert score is None
            continue
        logs = log_softmax(tiny_gguf.forward(weights, tokens[:-1]), axis=1)
        mean = -np.mean([logs[i, token] for i, token in enumerate(tokens[1:])])
        assert score == pytest.approx(np.exp(mean), rel=1e-3)
    model.close()


def test_settings_are_checked(spec: str) -> None:
    with pytest.raises(ConfigError, match="max_tokens"):
        ModelPerplexity(spec, max_tokens=1)
    with pytest.raises(ConfigError, match="no logits"):
        ModelPerplexity("fake:x")
