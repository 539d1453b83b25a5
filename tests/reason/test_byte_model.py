"""Models read byte by byte against the sum over all tokenisations."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotfish.config import Config
from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.models.load import Models
from pilotfish.models.scoring import score
from pilotfish.reason.byte_model import CONTROL, END, VOCAB, ByteModel
from pilotfish.reason.byte_trie import ByteTrie
from pilotfish.reason.rules import Mix
from pilotfish.reason.steered import Steered
from pilotfish.records import Request
from tests.reason import tables
from tests.reason.tables import TableModel

WORDS = ("ab", "aba", "ba", "bb", "abb")
PAST = [tables.PROMPT]


def prefix_probability(model: TableModel, past: list[int], text: bytes) -> float:
    """That what comes after ``past`` begins with ``text``: the sum over all that cover it."""
    if not text:
        return 1.0
    total = 0.0
    for token, p in model.probabilities(past).items():
        raw = model.bytes[token]
        if raw and raw.startswith(text):
            total += p
        elif raw and text.startswith(raw):
            total += p * prefix_probability(model, [*past, token], text[len(raw) :])
    return total


def end_probability(model: TableModel, past: list[int], text: bytes) -> float:
    """That it is ``text``, and ends."""
    p = model.probabilities(past)
    total = 0.0 if text else p[tables.END]
    for token in model.said:
        raw = model.bytes[token]
        if raw and text.startswith(raw):
            total += p[token] * end_probability(model, [*past, token], text[len(raw) :])
    return total


def exact(model: TableModel, text: bytes) -> dict[int, float]:
    whole = prefix_probability(model, PAST, text)
    following = {b: prefix_probability(model, PAST, text + bytes([b])) / whole for b in b"ab"}
    return {**following, END: end_probability(model, PAST, text) / whole}


def started(model: ByteModel) -> Any:
    session = model.session()
    session.feed([CONTROL + token for token in PAST], last=0)
    return session


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.text("ab", min_size=1, max_size=7))
def test_next_bytes_are_the_sum_over_all_tokenisations(seed: int, text: str) -> None:
    model = TableModel(WORDS, seed=seed)
    raw = text.encode()
    session = started(ByteModel(model, least=0))
    rows = np.exp(session.feed(list(raw)).astype(float))
    assert rows.shape == (len(raw), VOCAB)
    for i, row in enumerate(rows):
        expected = exact(model, raw[: i + 1])
        for outcome, p in expected.items():
            assert row[outcome] == pytest.approx(p, abs=1e-6)
        assert row.sum() == pytest.approx(1)
    assert session.lost == 0


def test_the_end_and_the_first_byte_follow_the_prompt() -> None:
    model = TableModel(WORDS)
    session = ByteModel(model, least=0).session()
    row = np.exp(session.feed([CONTROL + tables.PROMPT])[0].astype(float))
    for outcome, p in exact(model, b"").items():
        assert row[outcome] == pytest.approx(p, abs=1e-6)


def test_few_coverings_are_nearly_exact_and_say_how_nearly() -> None:
    """With ``least`` the distribution is off by no more than what was lost; and fewer tokens are read."""
    model = TableModel(WORDS, seed=3, spread=3.0)
    texts = [b"abbabab", b"bbaabba", b"aaababb"]
    for least in (0.001, 0.02):
        some, every = ByteModel(model, least=least), ByteModel(model, least=0)
        for text in texts:
            few, all_ = started(some), started(every)
            p, q = (np.exp(s.feed(list(text)).astype(float)) for s in (few, all_))
            assert few.read < all_.read
            assert few.lost > 0
            distances = 0.5 * np.abs(p - q).sum(axis=1)
            assert distances.max() < 30 * least


def test_texts_written_with_few_coverings_follow_the_exact_distribution() -> None:
    """Total variation over all texts of three bytes, by enumeration, is at most the expected loss."""
    model = TableModel(WORDS, seed=5, spread=2.0)
    bytes_ = ByteModel(model, least=0.05)
    distance = expected_loss = 0.0

    def walk(text: bytes, p: float) -> None:
        nonlocal distance, expected_loss
        session = started(bytes_)
        if len(text) == 3:
            session.feed(list(text), last=0)
            distance += 0.5 * abs(p - prefix_probability(model, PAST, text))
            expected_loss += p * session.lost
            return
        session = bytes_.session()
        row = np.exp(
            session.feed([CONTROL + t for t in PAST] + list(text), last=1)[0].astype(float)
        )
        ended = float(row[END])
        distance_here = 0.5 * abs(p * ended - end_probability(model, PAST, text))
        distance += distance_here
        expected_loss += p * ended * session.lost
        for byte in b"ab":
            walk(text + bytes([byte]), p * float(row[byte]))

    walk(b"", 1.0)
    assert 0 < distance <= expected_loss


def test_rewinding_and_forking_change_nothing() -> None:
    bytes_ = ByteModel(TableModel(WORDS, seed=1))
    text = list(b"abbabba")
    whole = started(bytes_).feed(text)
    session = started(bytes_)
    session.feed(text[:4])
    fork = session.fork()
    session.feed(list(b"bab"))
    session.rewind(1 + 2)
    np.testing.assert_allclose(session.feed(text[2:]), whole[2:], atol=1e-6)
    np.testing.assert_allclose(fork.feed(text[4:], last=2), whole[-2:], atol=1e-6)
    assert list(session.tokens) == [CONTROL + tables.PROMPT, *text]
    assert session.feed([]).shape == (0, VOCAB)
    with pytest.raises(RequestRefused, match="rewind to 99"):
        session.rewind(99)


def test_a_byte_that_no_kept_covering_expects_is_taken_all_the_same() -> None:
    """A rule or a grammar may choose what the member finds impossible; it reads on from there."""
    model = TableModel(("abc",), letters="abc", seed=2, spread=4.0)
    session = started(ByteModel(model, least=0.2))
    for byte in b"cabcabccab":
        row = session.feed([byte])[0]
        assert np.isfinite(row[[97, 98, 99]]).all()
        assert np.exp(row.astype(float)).sum() == pytest.approx(1, abs=1e-5)
    session.feed(list("\u2603".encode()))  # it never says this, but its vocabulary can
    assert session.lost >= 1
    assert np.isfinite(session.feed(list(b"a"))[0][[97, 98, 99]]).all()


def test_a_run_that_can_be_cut_in_many_ways_costs_a_bounded_number_of_passes() -> None:
    model = TableModel([" " * n for n in range(2, 30)], letters=" ", seed=1, ends=-9.0)
    most = []
    for width in (2, 20):
        session = started(ByteModel(model, width=width))
        passes = []
        for _ in range(40):
            before = model.passes
            assert session.feed([32])[0].argmax() == 32
            passes.append(model.passes - before)
        most.append(max(passes))
    assert most[0] <= 4 < most[1]  # what is likely, and as many that a byte may have made likely


def test_a_vocabulary_without_all_bytes_is_refused() -> None:
    class Words(TableModel):
        def token_bytes(self, token: int) -> bytes:
            return b"" if self.bytes[token] == b"\xc3" else self.bytes[token]

    with pytest.raises(ConfigError, match=r"table cannot be read byte by byte: 1 bytes.*c3"):
        ByteModel(Words())


@given(st.lists(st.binary(min_size=1, max_size=4), min_size=1, max_size=40, unique=True))
def test_spans_of_the_trie_are_those_of_a_scan(tokens: list[bytes]) -> None:
    trie = ByteTrie(tokens, [])
    for prefix in {raw[:n] for raw in tokens for n in range(len(raw) + 1)} | {b"\x00\xff\x00"}:
        fits = [t for t in tokens if t.startswith(prefix)]
        span = trie.span(prefix)
        if span is None:
            assert not fits
            continue
        assert sorted(fits) == [trie.bytes_of(i) for i in range(span.low, span.high)]
        longer = [t for t in fits if t != prefix]
        assert span.high - span.longer == len(longer)
        assert span.following.tolist() == sorted({t[len(prefix)] for t in longer})


def test_what_no_token_begins_with_is_not_remembered() -> None:
    trie = ByteTrie([b"a", b"ab"], [])
    assert all(trie.span(b"ab" + bytes(rest)) is None for rest in range(1, 1000))
    assert trie.span(b"ab") is trie.span(b"ab") is not None
    assert len(trie._spans) == 1


def test_the_same_network_mixed_with_itself_writes_what_it_writes_alone() -> None:
    """A linear mix of equal members is the member, also read by bytes."""
    model = TableModel(WORDS, seed=4, ends=-1.0)
    pair = [ByteModel(model, least=0), ByteModel(model, least=0)]
    mixed = Steered(pair, Mix((0.3, 0.7), "linear"), name="mixed")
    session = mixed.session()
    session.feed([CONTROL + tables.PROMPT], last=0)
    rows = session.feed(list(b"abab"))
    alone = started(pair[0]).feed(list(b"abab"))
    np.testing.assert_allclose(rows, alone, atol=1e-5)


def test_members_of_two_vocabularies_are_mixed_by_their_texts() -> None:
    """Enumerated: the next byte of a linear mix is the mix of both sums over tokenisations."""
    first, second = TableModel(WORDS, seed=6), TableModel(("aa", "bab"), seed=7)
    mixed = Steered([ByteModel(m, least=0) for m in (first, second)], Mix((0.4, 0.6), "linear"))
    session = mixed.session()
    session.feed([CONTROL + tables.PROMPT], last=0)
    for i, row in enumerate(np.exp(session.feed(list(b"ababba")).astype(float))):
        p, q = (exact(m, b"ababba"[: i + 1]) for m in (first, second))
        for outcome in (97, 98, END):
            assert row[outcome] == pytest.approx(0.4 * p[outcome] + 0.6 * q[outcome], abs=1e-5)


def test_each_member_is_scored_after_its_own_opening() -> None:
    first, second = TableModel(WORDS, seed=6), TableModel(("aa", "bab"), seed=7)
    pair: list[Any] = [first, second]
    mixed = Steered([ByteModel(m, least=0) for m in pair], Mix((0.4, 0.6), "linear"))
    assert mixed.opening == []
    for model, opening in zip(pair, ([tables.PROMPT], [tables.PROMPT, tables.PROMPT]), strict=True):
        assert score(ByteModel(model, least=0), ["ab"])[0].scored == 1  # nothing before the first
        model.opening = opening
    p = prefix_probability(first, first.opening, b"ab")
    assert score(ByteModel(first, least=0), ["ab"])[0].log_likelihood == pytest.approx(np.log(p))
    for _ in range(300):  # more than are remembered
        assert len(mixed.opening) == 1
    a, b = (0.4 * prefix_probability(first, first.opening, t) for t in (b"a", b"ab"))
    c, d = (0.6 * prefix_probability(second, second.opening, t) for t in (b"a", b"ab"))
    expected = np.log(a + c) + np.log(0.4 * (b / a) + 0.6 * (d / c))
    assert score(mixed, ["ab"])[0].log_likelihood == pytest.approx(expected, abs=1e-5)


def test_what_is_in_use_is_not_forgotten() -> None:
    """A number stands for a prompt while it is asked for, whatever else is."""
    model = TableModel()
    views = [None, lambda request: Request.of(request.prompt + "b")]
    whole = Steered([model, model], Mix((0.5, 0.5), "log"), views=views)
    [number] = whole.prompt_tokens(Request.of("a"))
    for length in range(1, 300):
        whole.prompt_tokens(Request.of("b" * length))
        assert whole.prompt_tokens(Request.of("a")) == [number]
    assert whole.prompts(number)[0] == tuple(model.prompt_tokens(Request.of("a")))
    with pytest.raises(RequestRefused, match="Got token"):
        whole.prompts(number + 1)


@pytest.mark.pulled
def test_two_packaged_models_of_different_vocabularies_write_together() -> None:
    """SmolLM2 (49,152 tokens) and Gemma 3 (262,144): valid UTF-8, in pieces, as a schema asks."""
    tables_ = {
        "pair": {
            "kind": "mixed",
            "models": ["smollm2-135m", "gemma-3-270m"],
            "weights": [0.95, 0.05],
            "bridge": "bytes",
        },
        "apart": {"kind": "mixed", "models": ["smollm2-135m", "gemma-3-270m"]},
    }
    models = Models(Config(models=tables_))
    with pytest.raises(ConfigError, match='bridge = "bytes"'):
        models.load("apart")
    pair: Any = models.load("pair")
    request = Request.of("Name two colours.", max_tokens=12)

    async def pieces() -> list[Any]:
        return [chunk async for chunk in pair.stream(request)]

    chunks = asyncio.run(pieces())
    whole = chunks[-1].completion
    assert whole is not None
    assert "".join(chunk.text for chunk in chunks) == whole.text
    assert len(chunks) > 12
    assert "\ufffd" not in whole.text
    assert whole.usage.completion_tokens == 12
    form = {"type": "json_schema", "json_schema": {"schema": {"enum": ["Fr\u00fchling", "Herbst"]}}}
    chosen = asyncio.run(
        pair.complete(Request.of("Which season is it in May?", response_format=form))
    )
    assert json.loads(chosen.text) in ("Fr\u00fchling", "Herbst")
    for model in models.built().values():
        model.close()  # type: ignore[attr-defined]
