"""Query-level uncertainty: both forms against their weighted sums, and a real network's layers."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.predictors.self_knowledge import (
    PROMPT,
    LayeredModel,
    SelfKnowledge,
    internal_confidence,
)


class YesMan:
    """A token model: tokens are bytes; says Yes by as much as the question has letters a."""

    name = "yes-man"
    vocab = 256

    def __init__(self, longest: int = 10**6) -> None:
        self.longest = longest

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        for said in (" Yes", " No"):  # one token
            if text.endswith(said):
                return [*text.removesuffix(said).encode(), ord(said[1])]
        return list(text.encode())

    def token_bytes(self, token: int) -> bytes:
        return bytes([token])

    def session(self) -> YesMan.Session:
        return YesMan.Session(self.longest)

    def ends(self, token: int) -> bool:
        raise NotImplementedError

    prompt_tokens = grammar = json_grammar = ends

    class Session:
        def __init__(self, longest: int) -> None:
            self.tokens: list[int] = []
            self.longest = longest

        def feed(self, tokens: Sequence[int], *, last: int | None = None) -> np.ndarray[Any, Any]:
            rows = []
            for token in tokens:
                self.tokens.append(token)
                if len(self.tokens) > self.longest:
                    raise RequestRefused("The context is full.")
                row = np.zeros(256, np.float32)
                row[ord("Y")] = self.tokens.count(ord("a")) + len(self.tokens) / 100
                rows.append(row)
            return np.stack(rows)[-last if last else 0 :]


class Layered(YesMan):
    """The same with two layers below, which say less and less."""

    def layer_logits(
        self, tokens: Sequence[int], of: Sequence[int], *, last: int = 1
    ) -> np.ndarray[Any, Any]:
        top = self.session().feed(tokens, last=last)[:, of]
        return np.stack([top * share for share in (0.0, 0.5, 1.0)])


def outcomes_of(texts: Sequence[str], quality: Any) -> Outcomes:
    return Outcomes(tuple(texts), ("a", "b"), np.array(quality, np.float32))


def logit(query: str, from_end: int) -> float:
    prompt = PROMPT.format(query=query)
    return prompt.count("a") + (len(prompt) - from_end) / 100


def p(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def test_the_last_layer_is_summed_over_tokens() -> None:
    said = internal_confidence("banana", YesMan(), window=1)
    assert said == pytest.approx(p(logit("banana", 0)), abs=1e-6)
    weights = [math.exp(-0.5 * d * d) for d in range(3)]
    by_hand = sum(w * p(logit("banana", d)) for d, w in enumerate(weights)) / sum(weights)
    assert internal_confidence("banana", YesMan(), 3, 0.5) == pytest.approx(by_hand, abs=1e-6)
    assert internal_confidence("banana", YesMan(longest=20)) == 0, "longer than its context"
    assert internal_confidence("banana", Layered(longest=20), form="internal") == 0


def test_tokenizers_that_write_spaces_and_openings_are_read_as_they_are() -> None:
    class Spaced(YesMan):
        opening = (7,)

        def tokenize(self, text: str, *, special: bool = False) -> list[int]:
            return list(f" {text}".encode())

    said = internal_confidence("banana", Spaced(), window=1)
    assert said == pytest.approx(p(logit("banana", -3)), abs=1e-6)  # with <bos> and two spaces


def test_internal_confidence_is_summed_over_layers_and_tokens() -> None:
    weights = [math.exp(-0.3 * d * d) for d in range(3)]
    total = sum(weights) ** 2
    by_hand = sum(
        w * v * p(share * logit("banana", n))
        for n, w in enumerate(weights)
        for share, v in zip((1.0, 0.5, 0.0), weights, strict=True)
    )
    said = internal_confidence("banana", Layered(), 3, 0.3, "internal")
    assert said == pytest.approx(by_hand / total, abs=1e-6)
    only = internal_confidence("banana", Layered(), 3, 0.3, "last-layer")
    assert only == internal_confidence("banana", YesMan(), 3, 0.3) != pytest.approx(said, abs=1e-3)


def test_the_form_is_what_the_model_gives() -> None:
    data = outcomes_of(["a", "b"], np.full((2, 2), np.nan))
    assert isinstance(Layered(), LayeredModel)
    assert SelfKnowledge.fit(data, None, 0, token_model=YesMan()).form == "last-layer"
    made = SelfKnowledge.fit(data, None, 0, token_model=Layered())
    assert made.form == "internal"
    by_hand = internal_confidence("aa", Layered(), form="internal")
    assert made.predict(["aa"]).mean[0, 0] == pytest.approx(by_hand)
    with pytest.raises(ConfigError, match="last layer only"):
        SelfKnowledge.fit(data, None, 0, token_model=YesMan(), form="internal")
    with pytest.raises(ConfigError, match="expected internal or last-layer"):
        SelfKnowledge.fit(data, None, 0, token_model=YesMan(), form="all")  # type: ignore[arg-type]


def test_confidence_is_mapped_to_quality() -> None:
    texts = ["a" * (i % 5) for i in range(50)]
    data = outcomes_of(texts, [[i % 5 / 4, 1] for i in range(50)])
    made = SelfKnowledge.fit(data, None, 0, token_model=YesMan(), local="a")
    said = made.predict(["", "aa", "aaaa"])
    assert said.mean[:, 0] == pytest.approx([0, 0.5, 1], abs=1e-3)
    assert said.mean[:, 1].tolist() == [1, 1, 1]
    unknown = outcomes_of(texts, np.full((50, 2), np.nan))
    plain = SelfKnowledge.fit(unknown, None, 0, token_model=YesMan(), local="b")
    assert plain.predict(["aa"]).mean[0, 1] == pytest.approx(internal_confidence("aa", YesMan()))
    with pytest.raises(ConfigError, match="without its spec"):
        made.state()
    with pytest.raises(ConfigError, match="neither a token model nor a spec"):
        SelfKnowledge.fit(data, None, 0)


def test_layers_of_a_network_are_read_and_stored(tmp_path: Path) -> None:
    pytest.importorskip("torch", reason='needs torch: pip install "pilotfish[torch]"')
    import torch

    from pilotfish.models.load import load_model
    from tests.models import tiny_gguf, tiny_llama

    folder = tiny_llama.write(tmp_path / "tiny", tiny_gguf.random_weights())
    spec = f"transformers:{folder}"
    model: Any = load_model(spec, Config(), threads=1)
    tokens, of = model.tokenize("the cab is here"), (5, 9, 11)
    found = model.layer_logits(tokens, of, last=2)
    assert found.shape == (tiny_gguf.LAYERS + 1, 2, 3)
    np.testing.assert_allclose(found[-1], model.session().feed(tokens)[-2:][:, of], atol=1e-4)
    # The first layer's states by a hook, and the embeddings themselves, through the output layer.
    seen: list[Any] = []
    hook = model.network.model.layers[0].register_forward_hook(
        lambda _, __, out: seen.append(out[0] if isinstance(out, tuple) else out)
    )
    with torch.inference_mode():
        inputs = torch.tensor([tokens])
        model.network(input_ids=inputs)
        head = model.network.lm_head
        first = head(seen[0].reshape(len(tokens), -1))[-2:, of]
        embedded = head(model.network.model.embed_tokens(inputs))[0, -2:][:, of]
    hook.remove()
    np.testing.assert_allclose(found[1], first.numpy(), atol=1e-4)
    np.testing.assert_allclose(found[0], embedded.numpy(), atol=1e-4)
    with pytest.raises(RequestRefused, match="context holds"):
        model.layer_logits([5] * 9999, of)
    made = SelfKnowledge.fit(outcomes_of(["x", "y"], [[1, 0], [0, 1]]), None, 0, spec=spec)
    assert made.form == "internal"
    settings, arrays = made.state()
    again = SelfKnowledge.restore({**settings, "models": ("a", "b")}, arrays, None)
    assert np.array_equal(again.predict(["the cab"]).mean, made.predict(["the cab"]).mean)
    for each in (model, made.token_model, again.token_model):
        each.close()
