"""Steered decoding of two tiny networks, whose forward passes in NumPy are the oracle."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Config, Price
from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.models.llamacpp import LlamaModel, LlamaSettings
from pilotfish.models.load import Models
from pilotfish.models.protocols import StreamingModel, TokenModel
from pilotfish.reason.byte_model import ByteModel
from pilotfish.reason.kinds import Contrast
from pilotfish.reason.rules import Mix, contrast, proxy
from pilotfish.reason.steered import Steered
from pilotfish.records import Completion, Request, Usage
from tests.models import tiny_gguf
from tests.reason.tables import TableModel

WEIGHTS = [tiny_gguf.random_weights(seed) for seed in range(3)]
PROMPT = "the cab"


@pytest.fixture(scope="module")
def members(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[LlamaModel]]:
    folder = tmp_path_factory.mktemp("tiny")
    paths = [tiny_gguf.write(folder / f"m{i}.gguf", weights) for i, weights in enumerate(WEIGHTS)]
    models = [LlamaModel(path, LlamaSettings(threads=1)) for path in paths]
    yield models
    for model in models:
        model.close()


def chatml(prompt: str) -> str:
    return f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n"


def oracle(rule: Any, model: TokenModel, numbers: list[int], prompts: list[str], n: int) -> str:
    """Greedy decoding by the rule, each network read from the start for every token."""
    pasts = [model.tokenize(chatml(prompt), special=True) for prompt in prompts]
    said: list[int] = []
    for _ in range(n):
        rows = [
            tiny_gguf.forward(WEIGHTS[i], past + said)[-1]
            for i, past in zip(numbers, pasts, strict=True)
        ]
        best = int(rule(rows).argmax())
        if best in (tiny_gguf.BOS, tiny_gguf.END):
            break
        said.append(best)
    return b"".join(map(model.token_bytes, said)).decode("utf-8", "replace")


def ask(model: Any, prompt: str = PROMPT, **params: Any) -> Completion:
    return asyncio.run(model.complete(Request.of(prompt, max_tokens=12, **params)))


@pytest.mark.parametrize(
    ("rule", "count"),
    [
        (contrast(), 2),
        (contrast(0.5, form="reasoning"), 2),
        (proxy(), 3),
        (Mix((0.5, 0.5), "log"), 2),
    ],
)
def test_greedy_decoding_is_the_oracles(members: list[LlamaModel], rule: Any, count: int) -> None:
    steered = Steered(members[:count], rule, reason="r", name="whole")
    assert isinstance(steered, TokenModel)
    assert isinstance(steered, StreamingModel)
    for prompt in (PROMPT, "the cab is here", PROMPT):
        answer = ask(steered, prompt)
        assert answer.text == oracle(rule, members[0], list(range(count)), [prompt] * count, 12)
        assert answer.decisions[-1].reason == "r"
    steered.close()


def test_members_may_read_different_requests(members: list[LlamaModel]) -> None:
    """Source contrast: one network against itself before another text."""
    toml = {
        "one": {"backend": "llama.cpp", "model": str(members[0].weights.path), "threads": 1},
        "whole": {
            "kind": "contrast",
            "models": ["one"],
            "plausible": 0.2,
            "views": [{}, {"find": "c(a)b", "replace": r"\1 dog"}],
        },
    }
    models = Models(Config(models=toml))
    whole = models.load("whole")
    expected = oracle(contrast(1.0, 0.2), members[0], [0, 0], ["the cab", "the a dog"], 12)
    assert ask(whole).text == expected
    assert ask(whole).text != ask(models.load("one")).text
    parts = [{"type": "text", "text": text} for text in ("the c", "ab")]
    request = Request(({"role": "user", "content": parts},), {"max_tokens": 12})
    assert asyncio.run(whole.complete(request)).text == expected  # what parts hold is replaced, too
    for model in models.built().values():
        model.close()  # type: ignore[attr-defined]


def test_members_may_have_templates_of_their_own_also_nested(
    members: list[LlamaModel], tmp_path: Path
) -> None:
    """A whole within a whole reads what it would read alone; plain prompts stay plain tokens."""
    path = tiny_gguf.write(tmp_path / "plain.gguf", WEIGHTS[1], template=None)
    plain = LlamaModel(path, LlamaSettings(threads=1))
    inner = Steered([members[0], plain], contrast(), name="inner")
    outer = Steered([inner], lambda rows: rows[0], name="outer")
    for prompt in (PROMPT, "the cab is here", PROMPT):
        answer = ask(inner, prompt)
        assert ask(outer, prompt).text == answer.text
        assert ask(outer, prompt).usage.prompt_tokens == answer.usage.prompt_tokens
        assert answer.usage.prompt_tokens == len(members[0].prompt_tokens(Request.of(prompt)))
        number = inner.prompt_tokens(Request.of(prompt))
        assert inner.prompt_usage(number, 0) == Usage(answer.usage.prompt_tokens)
        session = inner.session()
        row = session.feed(number)
        session.feed(members[0].tokenize("cab"))
        session.rewind(1)
        np.testing.assert_allclose(session.fork().feed([5]), session.feed([5]), atol=1e-4)
        session.rewind(0)
        np.testing.assert_allclose(session.feed(number), row, atol=1e-4)
    same = Steered(members[:2], contrast(), name="same")
    request = Request.of(PROMPT)
    assert same.prompt_tokens(request) == members[0].prompt_tokens(request)
    with pytest.raises(RequestRefused, match="Got token"):
        inner.session().feed([inner.prompt_tokens(request)[0] + 999])
    for model in (outer, inner, same, plain):
        model.close()


def test_a_session_feeds_rewinds_and_forks_as_one(members: list[LlamaModel]) -> None:
    steered = Steered(members[:2], contrast(), name="whole")
    tokens = members[0].tokenize("the other cab")
    rows = steered.session().feed(tokens)
    expected = contrast()([tiny_gguf.forward(w, tokens) for w in WEIGHTS[:2]])
    top = expected.max(axis=-1, keepdims=True)
    both = (expected > top - 100) & (rows > top - 100)
    assert (
        both.sum() > 0.95 * (expected > top - 100).sum()
    )  # one at the very edge may fall either way
    np.testing.assert_allclose(rows[both], expected[both], atol=0.06)
    session = steered.session()
    session.feed(tokens[:4])
    other = session.fork()
    session.rewind(2)
    again = session.feed(tokens[2:], last=3)
    np.testing.assert_allclose(again, rows[-3:], atol=1e-4)
    np.testing.assert_allclose(other.feed(tokens[4:]), rows[4:], atol=1e-4)
    steered.close()


def test_a_full_member_leaves_every_member_as_it_was(members: list[LlamaModel]) -> None:
    small = LlamaModel(members[1].weights.path, LlamaSettings(threads=1, context=256))
    steered = Steered([members[0], small], contrast(), name="whole")
    session = steered.session()
    session.feed([5] * 100)
    with pytest.raises(RequestRefused, match="full"):
        session.feed([5] * 200)
    assert len(session.tokens) == 100
    assert session.room <= 156
    session.feed([6])
    steered.close()
    small.close()


def test_stops_schemas_sampling_and_streams_come_after_the_rule(members: list[LlamaModel]) -> None:
    steered = Steered(members[:2], contrast(), name="whole")
    schema = {"type": "object", "properties": {"a": {"enum": ["x", "y"]}}, "required": ["a"]}
    form = {
        "type": "json_schema",
        "json_schema": {"schema": {**schema, "additionalProperties": False}},
    }
    answer = asyncio.run(steered.complete(Request.of("Hi", response_format=form, max_tokens=90)))
    assert json.loads(answer.text)["a"] in ("x", "y")
    whole = ask(steered).text
    stop = whole[len(whole) // 2]
    assert ask(steered, stop=stop).text == whole.split(stop)[0]

    async def pieces() -> list[Any]:
        return [chunk async for chunk in steered.stream(Request.of(PROMPT, max_tokens=12))]

    chunks = asyncio.run(pieces())
    assert "".join(chunk.text for chunk in chunks) == whole
    assert chunks[0].decisions[-1].by == "whole"
    drawn = {ask(steered, temperature=1.0, seed=seed).text for seed in (1, 1, 2)}
    assert len(drawn) == 2
    steered.close()


def test_every_member_is_paid_for(members: list[LlamaModel]) -> None:
    dear = LlamaModel(members[0].weights.path, LlamaSettings(threads=1), price=Price(1.0, 10.0))
    cheap = LlamaModel(members[1].weights.path, LlamaSettings(threads=1), price=Price(0.5, 1.0))
    steered = Steered([dear, cheap], contrast(), name="whole")
    answer = ask(steered)
    usage = answer.usage
    assert answer.cost == pytest.approx(
        (1.5 * usage.prompt_tokens + 11 * usage.completion_tokens) / 1e6
    )
    for model in (steered, dear, cheap):
        model.close()


def test_steering_can_be_nested(members: list[LlamaModel]) -> None:
    inner = Steered(members[:2], Mix((0.5, 0.5), "log"), name="inner")
    outer = Steered([inner, members[2]], proxy_of_two, name="outer")

    def rule(rows: list[np.ndarray]) -> np.ndarray:
        return proxy_of_two([Mix((0.5, 0.5), "log")(rows[:2]), rows[2]])

    assert ask(outer).text == oracle(rule, members[0], [0, 1, 2], [PROMPT] * 3, 12)
    for model in (outer, inner):
        model.close()


def proxy_of_two(rows: Any) -> Any:
    return Mix((1.0, 0.5))(rows)


def test_an_answer_by_bytes_fills_the_context() -> None:
    """Eight letters are one token, so that more letters than tokens fit."""
    models = [TableModel(("abababab",), seed=seed, ends=-9.0, context=100) for seed in range(2)]
    whole = Steered([ByteModel(model) for model in models], Mix((0.5, 0.5), "linear"))
    request = Request.of("a", grammar='root ::= "abababab" root')
    answer = asyncio.run(whole.complete(request))
    assert answer.finish_reason == "length"
    assert len(answer.text) > 200
    assert answer.usage.prompt_tokens + answer.usage.completion_tokens <= 101
    for model in (whole, *models):
        model.close()


def test_a_view_keeps_nothing_of_other_instructions() -> None:
    settings = {"views": [{}, {"system": "public", "find": "secret", "replace": "it"}]}
    models: list[Any] = [TableModel()]
    whole = Contrast.from_members("whole", models, settings, Config())
    roles = ("system", "developer", "user")
    request = Request(tuple({"role": role, "content": f"secret of {role}"} for role in roles))
    view = whole._views[1]
    assert view is not None
    assert view(request).messages == (
        {"role": "system", "content": "public"},
        {"role": "user", "content": "it of user"},
    )
    whole.close()


def test_what_only_pads_a_vocabulary_is_cut_off() -> None:
    padded, plain = TableModel(), TableModel(seed=1)
    padded.bytes += [b""] * 40
    padded.vocab += 40
    for models in ([padded, plain], [plain, padded]):
        whole = Steered(models, contrast())
        assert whole.vocab == plain.vocab
        assert ask(whole, grammar='root ::= "ab" | "ba"').text in ("ab", "ba")
        whole.close()
    padded.ends = lambda token: token == padded.vocab - 1  # type: ignore[method-assign]
    with pytest.raises(ConfigError, match="has 298 tokens, another's only 258"):
        Steered([padded, plain], contrast())


def test_other_vocabularies_are_refused(members: list[LlamaModel], tmp_path: Path) -> None:
    class Other:
        name = "other"
        vocab = members[0].vocab

        def token_bytes(self, token: int) -> bytes:
            return b"?" if token == 100 else members[0].token_bytes(token)

    with pytest.raises(ConfigError, match="vocabularies of m0 and other differ: token 100"):
        Steered([members[0], Other()], contrast())  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="gives no logits"):
        Models(
            Config(
                models={
                    "a": {"backend": "fake"},
                    "whole": {"kind": "contrast", "models": ["a", "a"]},
                }
            )
        ).load("whole")
