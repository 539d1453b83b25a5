"""Exactness of speculation on tiny networks: greedy answers are the target's own, draws follow it."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from pilotfish.config import Config
from pilotfish.errors import ConfigError
from pilotfish.infer.speculate.cost import SIZES, CostCurve, measure, measured
from pilotfish.infer.speculate.drafts import Node
from pilotfish.infer.speculate.length import FIRST, Length
from pilotfish.infer.speculate.lookup import LookupDraft
from pilotfish.infer.speculate.model_draft import ModelDraft
from pilotfish.infer.speculate.speculative import Speculative
from pilotfish.models.llamacpp import LlamaModel, LlamaSettings
from pilotfish.models.load import Models
from pilotfish.reason.rules import contrast
from pilotfish.reason.steered import Steered
from pilotfish.records import Completion, Request
from tests.models import tiny_gguf

FLAT = CostCurve({1: 1.0, 16: 1.001})  # reading more costs nothing: as much as possible is guessed
STEEP = CostCurve({1: 1.0, 16: 16.0})
PROMPTS = ["the cab is there, the cab is here, the cab", "ab ab ab ab", "Hi", "other"]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LlamaModel]]:
    folder = tmp_path_factory.mktemp("tiny")
    target = tiny_gguf.random_weights(0)
    noise = np.random.default_rng(5)
    near = {
        k: w + 0.003 * noise.standard_normal(w.shape).astype(w.dtype) for k, w in target.items()
    }
    rows = [target, near, tiny_gguf.random_weights(7)]
    paths = [tiny_gguf.write(folder / f"m{i}.gguf", weights) for i, weights in enumerate(rows)]
    loaded = [LlamaModel(path, LlamaSettings(threads=1)) for path in paths]
    yield loaded
    for model in loaded:
        model.close()


class Wild:
    """Guesses at random, which a test of exactness needs most; as a tree where it may branch."""

    name = "wild"
    behind = 0

    def __init__(self, vocab: int, *, certain: bool) -> None:
        self.rng = np.random.default_rng(3)
        self.vocab = vocab
        self.certain = certain

    def cost(self, tokens: int) -> float:
        return 0.0

    def begin(self, request: Request, prompt: Sequence[int]) -> None: ...

    def extend(self, token: int) -> None: ...

    def propose(self, most: int, branches: int, worth: Any, check: Any) -> list[Node]:
        nodes: list[Node] = []
        level = [-1]
        for _ in range(most):
            following = []
            for parent in level:
                q = self.rng.dirichlet(np.full(self.vocab, 0.02))
                for rank in range(branches):
                    token = int(self.rng.choice(self.vocab, p=q))
                    nodes.append(Node(token, parent, None if self.certain else q, 0, rank))
                    following.append(len(nodes) - 1)
                    q = q * (np.arange(self.vocab) != token)
                    if not q.sum():
                        break
                    q /= q.sum()
            level = following[:4]
        return nodes


def drafts(models: list[LlamaModel]) -> dict[str, Any]:
    target, near, far = models
    return {
        "lookup": LookupDraft(),
        "near": ModelDraft(near, target, same=True, cost=1e-6),
        "far": ModelDraft(far, target, same=True, cost=1e-6),
        "other vocabulary": ModelDraft(near, target, same=False, cost=1e-6),
        "wild": Wild(target.vocab, certain=False),
        "wild and certain": Wild(target.vocab, certain=True),
    }


class Always(Length):
    """Never stops guessing."""

    def best(self, nodes: Sequence[Node], most: int, *, sunk: bool = False) -> list[int]:
        return list(range(len(nodes)))

    def may(self) -> bool:
        return True

    def begins(self, catch_up: float, left: float) -> bool:
        return True

    def worth(self, nodes: Sequence[Node]) -> bool:
        return len(nodes) < self.longest


def ask(model: Any, prompt: str, **params: Any) -> Completion:
    return asyncio.run(model.complete(Request.of(prompt, **{"max_tokens": 24, **params})))


@pytest.mark.parametrize("always", [False, True])
@pytest.mark.parametrize("name", ["lookup", "near", "far", "other vocabulary", "wild"])
def test_greedy_answers_are_the_targets_own(
    models: list[LlamaModel], name: str, always: bool
) -> None:
    model = Speculative(models[0], drafts(models)[name], curve=FLAT, name="fast")
    if always:
        model.length = Always(FLAT, 1e-6, 3)
    for rate in range(3):  # from the prior to what was learned
        for prompt in PROMPTS:
            expected = ask(models[0], prompt)
            got = ask(model, prompt)
            assert got.text == expected.text, (rate, prompt)
            assert got.finish_reason == expected.finish_reason
            assert got.usage.completion_tokens == expected.usage.completion_tokens
    figures = model.figures
    assert figures.steps <= figures.tokens
    if always and name != "other vocabulary":
        assert figures.trees
    if name == "near" and not always:
        assert figures.accepted > 0.5 * figures.guessed
        assert figures.steps < 0.6 * figures.tokens
    model.close()


def next_two(model: LlamaModel, prompt: str, temperature: float) -> dict[tuple[int, int], float]:
    """The exact joint distribution of the first two tokens, by two forward passes of the target."""
    tokens = model.prompt_tokens(Request.of(prompt))

    def after(past: list[int]) -> np.ndarray:
        logits = model.session().feed(past, last=1)[0].astype(float) / temperature
        p = np.exp(logits - logits.max())
        return p / p.sum()

    first = after(tokens)
    joint = {}
    for one in np.flatnonzero(first > 1e-4):
        for two, p in enumerate(after([*tokens, int(one)])):
            joint[int(one), two] = float(first[one] * p)
    return joint


@pytest.mark.parametrize("branches", [1, 3])
@pytest.mark.parametrize("name", ["near", "other vocabulary", "wild", "wild and certain"])
def test_draws_follow_the_targets_distribution(
    models: list[LlamaModel], name: str, branches: int
) -> None:
    """Chi-square of the first two tokens of 400 answers against the exact joint distribution."""
    draws, temperature, prompt = 400, 0.4, PROMPTS[0]
    target = models[0]
    draft = drafts(models)[name]
    model = Speculative(target, draft, curve=FLAT, longest=2, branches=branches, name="fast")
    model.length = Always(FLAT, 0.0, 2)  # also where the guesses are bad
    joint = next_two(target, prompt, temperature)
    seen: Counter[tuple[int, int]] = Counter()
    for seed in range(10_000, 10_000 + draws):
        answer = ask(model, prompt, max_tokens=3, temperature=temperature, seed=seed, logprobs=True)
        said = [bytes(entry["bytes"]) for entry in answer.logprobs or ()]
        if len(said) >= 2:
            seen[said[0], said[1]] += 1  # type: ignore[index]
    expected: Counter[tuple[bytes, bytes]] = Counter()
    for (one, two), p in joint.items():
        if not target.ends(one) and not target.ends(two):
            expected[target.token_bytes(one), target.token_bytes(two)] += p
    likely = [pair for pair, p in expected.items() if p * draws >= 6]
    counts = [seen[pair] for pair in likely]  # type: ignore[index]
    counts.append(draws - sum(counts))
    wanted = [expected[pair] * draws for pair in likely]
    wanted.append(draws - sum(wanted))
    assert len(likely) > 10
    # What the other vocabulary's draft says at random is seldom UTF-8, and then no guess.
    assert model.figures.guessed > draws / (5 if name == "other vocabulary" else 2)
    assert (model.figures.trees > draws / 2) == (branches > 1 and name != "other vocabulary")
    assert stats.chisquare(counts, wanted).pvalue > 1e-3
    model.close()


def test_grammar_and_stops_hold(models: list[LlamaModel]) -> None:
    model = Speculative(
        models[0], ModelDraft(models[1], models[0], same=True, cost=1e-6), curve=FLAT
    )
    form = {"type": "json_schema", "json_schema": {"schema": {"enum": ["yes", "no"]}}}
    for params in ({"response_format": form}, {"stop": ["a"]}, {"grammar": 'root ::= "ab" [0-9]+'}):
        assert ask(model, "Hi", **params).text == ask(models[0], "Hi", **params).text
    model.close()


def test_where_it_cannot_pay_nothing_is_guessed(models: list[LlamaModel]) -> None:
    for draft in (LookupDraft(), ModelDraft(models[2], models[0], same=True, cost=0.5)):
        model = Speculative(models[0], draft, curve=STEEP, name="fast")
        for prompt in PROMPTS:
            ask(model, prompt)
        assert model.figures.guessed <= FIRST  # a dear draft is tried once in a while
        assert model.figures.steps >= model.figures.tokens - FIRST
        model.close()


def test_a_stream_is_the_answer_and_a_full_context_ends_it(models: list[LlamaModel]) -> None:
    small = LlamaModel(models[0].weights.path, LlamaSettings(threads=1, context=256))
    model = Speculative(small, LookupDraft(), curve=FLAT, name="fast")

    async def pieces(prompt: str) -> list[Any]:
        return [chunk async for chunk in model.stream(Request.of(prompt, max_tokens=1000))]

    chunks = asyncio.run(pieces("ab " * 60))
    whole = chunks[-1].completion
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert whole.decisions[-1].reason == "speculative-lookup"
    assert whole.model == "fast"
    model.close()
    small.close()


def test_the_curve_is_measured_once(models: list[LlamaModel], tmp_path: Path) -> None:
    first = measured(models[0], tmp_path)
    assert list(first.seconds) == list(SIZES)
    assert min(first.seconds.values()) > 0
    assert measured(models[0], tmp_path) == first
    (kept,) = (tmp_path / "speculation").glob("*.json")
    kept.write_text("{half")
    assert measured(models[0], tmp_path).seconds.keys() == first.seconds.keys()


class _Short:
    """A model whose context holds a few tokens."""

    name, vocab = "short", 4

    def __init__(self, room: int) -> None:
        self.tokens, self.room = [], room

    def tokenize(self, text: str) -> list[int]:
        return [1, 2]

    def session(self) -> _Short:
        return self

    def feed(self, tokens: list[int], last: int) -> None:
        assert len(tokens) <= self.room
        self.tokens += tokens
        self.room -= len(tokens)

    def rewind(self, length: int) -> None:
        self.room += len(self.tokens) - length
        del self.tokens[length:]


@pytest.mark.parametrize("room", [2, 10, 20, 100])
def test_a_short_context_is_measured_as_far_as_it_goes(room: int) -> None:
    curve = measure(_Short(room))  # type: ignore[arg-type]
    assert list(curve.seconds) == [k for k in SIZES if k == 1 or k < room]


def test_a_disturbed_curve_is_measured_again_later(
    models: list[LlamaModel], tmp_path: Path
) -> None:
    measured(models[0], tmp_path)
    (kept,) = (tmp_path / "speculation").glob("*.json")
    for steady in (True, False):
        old = json.loads(kept.read_text()) | {"steady": steady, "seconds": {"1": 7.0, "2": 8.0}}
        kept.write_text(json.dumps(old))
        assert measured(models[0], tmp_path)(1) == 7.0
        os.utime(kept, (0, 0))
        assert (measured(models[0], tmp_path)(1) == 7.0) == steady


def test_two_files_of_one_name_have_two_curves(models: list[LlamaModel], tmp_path: Path) -> None:
    for i, settings in enumerate((LlamaSettings(threads=1), LlamaSettings(threads=2))):
        path = tmp_path / str(i // 2) / "same.gguf"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(models[0].weights.path.read_bytes())
        model = LlamaModel(path, settings)
        measured(model, tmp_path)
        model.close()
    other = tmp_path / "other" / "same.gguf"
    other.parent.mkdir()
    other.write_bytes(models[1].weights.path.read_bytes())
    model = LlamaModel(other, LlamaSettings(threads=1))
    measured(model, tmp_path)
    mixed = Steered([model, models[1]], contrast(), name="same")
    measured(mixed, tmp_path)
    assert len([*(tmp_path / "speculation").glob("*.json")]) == 4
    mixed.close()
    model.close()


def test_declared_in_a_file(models: list[LlamaModel], tmp_path: Path) -> None:
    tables: dict[str, Any] = {
        "big": {"backend": "llama.cpp", "model": str(models[0].weights.path), "threads": 1},
        "little": {"backend": "llama.cpp", "model": str(models[1].weights.path), "threads": 1},
        "fast": {"kind": "speculative", "models": ["big", "little"]},
        "remote": {"backend": "fake"},
        "wrong": {"kind": "speculative", "models": ["remote"]},
        "many": {"kind": "speculative", "models": ["big", "little", "big"]},
    }
    loaded = Models(Config(models=tables, cache_dir=tmp_path))
    fast = loaded.load("fast")
    assert ask(fast, "Hi").text == ask(models[0], "Hi").text
    for name, match in (("wrong", "gives no logits"), ("many", "has 3 models")):
        with pytest.raises(ConfigError, match=match):
            loaded.load(name)
    for model in loaded.built().values():
        if hasattr(model, "close"):
            model.close()
