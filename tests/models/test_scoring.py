"""Scoring against a forward pass in NumPy, transformers' own loss, and one text at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax

from pilotfish.config import Config
from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.models import prefix_tree
from pilotfish.models.llamacpp import LlamaModel, LlamaSettings
from pilotfish.models.load import load_model
from pilotfish.models.prefix_tree import log_probabilities
from pilotfish.models.protocols import BatchedTokenModel, Floats
from pilotfish.models.scoring import Scored, score, token_model, total_perplexity
from pilotfish.reason.rules import Mix
from pilotfish.reason.steered import Steered
from pilotfish.records import Request
from tests.models import tiny_gguf

WEIGHTS = tiny_gguf.random_weights()
TEXTS = ["the other water", "", "a", "ab" * 30, "the other cab", "the other water", "größe 日本"]
CLOSE = {"atol": 0.03, "rtol": 0.0, "equal_nan": True}  # see test_llamacpp.py


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LlamaModel]:
    path = tiny_gguf.write(tmp_path_factory.mktemp("gguf") / "tiny.gguf", WEIGHTS)
    model = LlamaModel(path, LlamaSettings(threads=1))
    yield model
    model.close()


def oracle(tokens: Sequence[int]) -> np.ndarray:
    """Surprisal of every token by the network in NumPy; nan for the first."""
    if not tokens:
        return np.zeros(0)
    logs = log_softmax(tiny_gguf.forward(WEIGHTS, list(tokens)), axis=1)
    return np.array([np.nan, *(-logs[i, token] for i, token in enumerate(tokens[1:]))])


class Table:
    """A token model without a network: the logits are a function of the last two tokens.

    It counts what it is fed, and refuses more tokens over all living sessions than it has cells.
    """

    def __init__(self, vocab: int = 6, cells: int = 60) -> None:
        self.name, self.vocab, self.cells = "table", vocab, cells
        self.fed: list[tuple[int, ...]] = []
        self.widest = self.given = 0
        self.rng = np.random.default_rng(0).normal(size=(vocab + 1, vocab + 1, vocab))

    def row(self, past: Sequence[int]) -> np.ndarray:
        two = [-1, -1, *past][-2:]
        return self.rng[two[0], two[1]].astype(np.float32)

    def session(self) -> Any:
        return _TableSession(self, [])

    def __getattr__(self, name: str) -> Any:  # what scoring never needs
        if name in {"tokenize", "token_bytes", "ends", "prompt_tokens", "grammar", "json_grammar"}:
            return lambda *_, **__: None
        raise AttributeError(name)


class _TableSession:
    def __init__(self, model: Table, tokens: list[int]) -> None:
        self.model, self.tokens = model, tokens

    @property
    def room(self) -> int:
        return self.model.cells - len(self.tokens)

    def feed(self, tokens: Sequence[int], *, last: int | None = None) -> Floats:
        rows = []
        for token in tokens:
            self.tokens.append(token)
            self.model.fed.append(tuple(self.tokens))
            rows.append(self.model.row(self.tokens))
        rows = rows[len(rows) - len(tokens if last is None else tokens[len(tokens) - last :]) :]
        self.model.widest = max(self.model.widest, len(rows))
        self.model.given += len(rows)
        return np.array(rows, np.float32).reshape(-1, self.model.vocab)

    def fork(self) -> _TableSession:
        return _TableSession(self.model, list(self.tokens))

    def rewind(self, length: int) -> None:
        del self.tokens[length:]


def test_each_token_has_the_networks_surprisal_after_each_context(model: LlamaModel) -> None:
    for before in ("", "the ot", "x y "):
        for text, found in zip(TEXTS, score(model, TEXTS, given=before), strict=True):
            tokens = model.tokenize(before + text)
            count = len(found.tokens)
            assert list(found.tokens) == tokens[len(tokens) - count :]
            np.testing.assert_allclose(
                found.surprisal, oracle(tokens)[len(tokens) - count :], **CLOSE
            )
            assert found.size == len(text.encode())


def test_sums_perplexity_and_bits(model: LlamaModel) -> None:
    [found] = score(model, ["the other water"])
    known = oracle(model.tokenize("the other water"))[1:]
    assert found.scored == len(known)
    assert found.log_likelihood == pytest.approx(-known.sum(), abs=0.1)
    assert found.perplexity == pytest.approx(np.exp(known.mean()), rel=0.02)
    assert found.offsets[:3].tolist() == [0, 2, 3]  # "th", "e", " "
    assert found.bits_per_byte == pytest.approx(known.sum() / np.log(2) / 13, abs=0.01)
    both = score(model, ["the other water", "ab"])
    assert total_perplexity(both) == pytest.approx(
        np.exp(-sum(t.log_likelihood for t in both) / sum(t.scored for t in both))
    )
    empty, one = score(model, ["", "a"])
    assert (empty.scored, one.scored) == (0, 0)
    assert np.isnan([empty.perplexity, one.perplexity, one.bits_per_byte]).all()
    assert np.isnan(total_perplexity([empty, one]))
    sure = Scored(
        (1,), np.zeros(1, np.int64), np.array([1000.0]), 1
    )  # what a steering rule forbids
    assert sure.perplexity == np.inf


def test_a_token_over_the_boundary_counts_to_the_text(model: LlamaModel) -> None:
    [found] = score(model, ["he cab"], given="t")
    assert found.offsets.tolist()[:2] == [-1, 1]  # "th" begins in the context
    np.testing.assert_allclose(found.surprisal, oracle(model.tokenize("the cab")), **CLOSE)


def test_contexts_are_texts_requests_or_tokens_one_or_one_each(model: LlamaModel) -> None:
    request = Request.of("the cab")
    prompt = model.prompt_tokens(request)
    wanted = oracle(prompt + model.tokenize("other"))[len(prompt) :]
    for before in (request, prompt, np.array(prompt), [request], [prompt]):
        [found] = score(model, ["other"], given=before)
        np.testing.assert_allclose(found.surprisal, wanted, **CLOSE)
        assert found.offsets.tolist() == [0, 1, 3, 4][: len(found.tokens)]
    mixed = score(model, ["other"] * 3, given=["", request, "the "])
    np.testing.assert_allclose(mixed[1].surprisal, wanted, **CLOSE)
    np.testing.assert_allclose(mixed[0].surprisal, oracle(model.tokenize("other")), **CLOSE)
    with pytest.raises(RequestRefused, match="2 contexts for 3 texts"):
        score(model, TEXTS[:3], given=["a", "b"])


def test_long_texts_are_read_in_windows_that_overlap_by_half(model: LlamaModel) -> None:
    text = "ab the other water " * 4
    tokens = model.tokenize(text)
    [found] = score(model, [text], window=20)
    wanted = oracle(tokens[:20])
    while len(wanted) < len(tokens):
        begin = len(wanted) - 10
        wanted = np.concatenate([wanted, oracle(tokens[begin : begin + 20])[10:]])
    np.testing.assert_allclose(found.surprisal, wanted, **CLOSE)
    [after] = score(model, [text[30:]], given=text[:30], window=20)
    assert not np.isnan(after.surprisal).any()
    more = text * 20  # longer than the whole context
    assert len(model.tokenize(more)) > 512
    [found] = score(model, [more])
    assert found.scored == len(model.tokenize(more)) - 1


def test_only_the_first_tokens_are_read(model: LlamaModel) -> None:
    whole, part = score(model, [TEXTS[0]])[0], score(model, [TEXTS[0]], max_tokens=4)[0]
    assert part.tokens == whole.tokens[:4]
    np.testing.assert_allclose(part.surprisal, whole.surprisal[:4], **CLOSE)
    assert part.size == len(b"the o")
    after = score(model, [TEXTS[0]], given="ab ", max_tokens=4)[0]
    assert len(after.tokens) == 4


def test_what_a_model_was_trained_to_begin_with_comes_first(
    model: LlamaModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert model.opening == []
    monkeypatch.setattr(model.weights, "adds_bos", True)
    assert model.opening == [tiny_gguf.BOS]
    for before in ("", "the "):
        tokens = [tiny_gguf.BOS, *model.tokenize(before + "other cab")]
        [found] = score(model, ["other cab"], given=before)
        count = len(found.tokens)
        np.testing.assert_allclose(found.surprisal, oracle(tokens)[-count:], **CLOSE)
    text = "ab the other water " * 4
    tokens = model.tokenize(text)
    [found] = score(model, [text], window=21)
    wanted = oracle([tiny_gguf.BOS, *tokens[10:30]])[11:]
    np.testing.assert_allclose(found.surprisal[20:30], wanted, **CLOSE)


def test_a_steered_model_is_scored_like_any_other(model: LlamaModel) -> None:
    twice = Steered([model, model], Mix((0.5, 0.5), "log"), name="twice")
    text, before = "the other cab and more", "ab "
    [found], [own] = score(twice, [text], given=before), score(model, [text], given=before)
    np.testing.assert_allclose(found.surprisal, own.surprisal, **CLOSE)
    assert twice.opening == model.opening
    twice.close()


def test_wrong_numbers_and_models_are_refused(model: LlamaModel) -> None:
    for wrong in ({"max_tokens": 0}, {"window": 1}):
        with pytest.raises(ConfigError, match="expected at least"):
            score(model, ["a"], **wrong)
    with pytest.raises(ConfigError, match="no logits"):
        token_model("fake:x")
    held = model.session()
    held.feed([5] * (held.room - 1))
    assert score(model, ["the other"])[0].scored  # what nobody uses is read again later
    held.feed([5])
    fork = held.fork()  # what is shared is not
    with pytest.raises(RequestRefused, match="room for 0"):
        score(model, ["the other"])
    del held, fork
    assert score(model, ["the other"])[0].scored


def test_a_shared_beginning_is_fed_once_and_the_last_token_never() -> None:
    table = Table()
    texts = [[1, 2, 3, 4], [1, 2, 3, 5], [1, 2], [1, 2, 3, 4], [2, 1]]
    log_probabilities(table, texts, [0] * 5)  # type: ignore[arg-type]
    assert sorted(table.fed) == [(1,), (1, 2), (1, 2, 3), (2,)]
    assert table.given == 4
    # Of a context no logits are asked for but those after its last token; and all cells are given back.
    reader = prefix_tree._Reader(table, prefix_tree.grow([[1, 2, 3, 4, 5, 1, 2]] * 2, [5, 6]))  # type: ignore[arg-type]
    reader.read()
    assert table.given == 4 + 2
    assert reader.held == 0


sequences = st.lists(st.lists(st.integers(0, 3), max_size=12), max_size=14)


@settings(max_examples=200)
@given(sequences, st.data())
def test_any_tree_gives_what_each_sequence_alone_gives(
    texts: list[list[int]], data: st.DataObject
) -> None:
    first = [data.draw(st.integers(0, len(text) + 1)) for text in texts]
    cells = data.draw(st.integers(12, 40))
    most = data.draw(st.sampled_from([1, 2, 5, 512]))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(prefix_tree, "AT_ONCE", most)
        table = Table(cells=cells)
        held = _Held(table)
        found = log_probabilities(held, texts, first)  # type: ignore[arg-type]
    for text, start, logs in zip(texts, first, found, strict=True):
        want = [
            np.nan
            if i < max(start, 1)
            else float(log_softmax(table.row(text[:i]).astype(float))[text[i]])
            for i in range(len(text))
        ]
        np.testing.assert_allclose(logs, want, atol=1e-6)
    assert len(set(table.fed)) == len(table.fed), "a beginning was fed twice"
    assert held.most <= cells
    assert table.widest <= most


class _Held(Table):
    """A table that counts the cells of its living sessions as llama.cpp does: shared ones once."""

    def __init__(self, table: Table) -> None:
        import weakref

        self.__dict__ = table.__dict__ | {"alive": weakref.WeakSet(), "most": 0}
        self.table = table

    def feed_all(self, sessions: Any, tokens: Any, *, last: int | None = None) -> list[Floats]:
        rows = [s.feed(t, last=last) for s, t in zip(sessions, tokens, strict=True)]
        self.table.widest = max(self.table.widest, sum(map(len, rows)))
        return rows

    def session(self) -> Any:
        return _Living(self, [])


class _Living(_TableSession):
    def __init__(self, model: Any, tokens: list[int]) -> None:
        super().__init__(model, tokens)
        model.alive.add(self)

    def feed(self, tokens: Sequence[int], *, last: int | None = None) -> Floats:
        rows = super().feed(tokens, last=last)
        cells = {tuple(s.tokens[: i + 1]) for s in self.model.alive for i in range(len(s.tokens))}
        self.model.most = max(self.model.most, len(cells))
        return rows

    def fork(self) -> Any:
        return _Living(self.model, list(self.tokens))


def test_a_table_that_feeds_all_at_once_is_one() -> None:
    assert isinstance(_Held(Table()), BatchedTokenModel)


def test_transformers_own_loss(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch", reason='needs torch: pip install "pilotfish[torch]"')
    from tests.models import tiny_llama

    loaded: Any = load_model(
        f"transformers:{tiny_llama.write(tmp_path / 't', WEIGHTS)}", Config(), threads=1
    )
    for text, found in zip(TEXTS, score(loaded, TEXTS), strict=True):
        tokens = loaded.tokenize(text)
        if len(tokens) < 2:
            assert not found.scored
            continue
        ids = torch.tensor([tokens])
        with torch.inference_mode():
            loss = float(loaded.network(input_ids=ids, labels=ids).loss)
        assert -found.log_likelihood / found.scored == pytest.approx(loss, rel=1e-5)
    loaded.close()


@pytest.mark.pulled
def test_transformers_and_llama_cpp_are_as_surprised_by_a_packaged_model() -> None:
    """SmolLM2 from one file: dequantised by transformers, and computed in llama.cpp's way."""
    pytest.importorskip("torch", reason='needs torch: pip install "pilotfish[torch]"')
    pytest.importorskip("transformers", reason='needs transformers: pip install "pilotfish[torch]"')
    from pilotfish.models.catalogue import locate

    path = locate("smollm2-135m", Config())
    texts = [
        "The capital of France is Paris, and the capital of Italy is Rome.",
        "Water boils at a hundred degrees and freezes at zero.",
        "Colorless green ideas sleep furiously.",
    ]
    found = []
    for spec in (f"transformers:{path}", f"llama.cpp:{path}"):
        model: Any = load_model(spec, Config())
        found.append(score(model, texts, given="Some sentences. "))
        model.close()
    for one, other in zip(*found, strict=True):
        assert one.tokens == other.tokens
        assert one.perplexity == pytest.approx(other.perplexity, rel=0.1)
        assert np.abs(one.surprisal - other.surprisal).mean() < 0.2
    assert total_perplexity(found[0]) == pytest.approx(total_perplexity(found[1]), rel=0.05)
