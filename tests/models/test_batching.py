"""Several sessions in one call, or one session's several continuations; on both backends.

The oracle is feeding them one by one.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.config import Config
from pilotfish.errors import RequestRefused
from pilotfish.models.batching import feed_all
from pilotfish.models.llamacpp import LlamaModel, LlamaSettings
from pilotfish.models.load import load_model
from pilotfish.models.protocols import BatchedTokenModel, TreeSession
from pilotfish.reason.rules import contrast
from pilotfish.reason.steered import Steered
from tests.models import tiny_gguf

WEIGHTS = tiny_gguf.random_weights(0)
ATOL = {"llama.cpp": 0.03, "transformers": 1e-4}  # llama.cpp keeps keys and values in float16
BACKENDS: dict[str, Any] = {}


@pytest.fixture(scope="module", params=ATOL)
def backend(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("tiny")
    if request.param == "llama.cpp":
        path = tiny_gguf.write(folder / "tiny.gguf", WEIGHTS)
        model: Any = LlamaModel(path, LlamaSettings(threads=1))
    else:
        pytest.importorskip("torch", reason='needs torch: pip install "pilotfish[torch]"')
        from tests.models import tiny_llama

        path = tiny_llama.write(folder / "tiny", WEIGHTS)
        model = load_model(f"transformers:{path}", Config(), threads=1)
    BACKENDS[request.param] = model
    yield request.param
    BACKENDS.pop(request.param).close()


some_tokens = st.lists(st.integers(3, 250), max_size=12)


@given(st.lists(st.tuples(some_tokens, some_tokens), min_size=1, max_size=6), st.integers(0, 5))
def test_feeding_together_equals_feeding_one_by_one(
    backend: str, rows: list[tuple[list[int], list[int]]], last: int
) -> None:
    """Pasts and additions of any length, none included; once more afterwards, from what was kept."""
    model = BACKENDS[backend]
    assert isinstance(model, BatchedTokenModel)
    pasts, news = ([list(row[i]) for row in rows] for i in range(2))
    alone, together = ([model.session() for _ in rows] for _ in range(2))
    for sessions in (alone, together):
        for session, past in zip(sessions, pasts, strict=True):
            session.feed(past, last=0)
    for step in (news, news[::-1]):
        for want in (None, last):
            expected = [s.feed(new, last=want) for s, new in zip(alone, step, strict=True)]
            got = feed_all(model, together, step, last=want)
            for one, other in zip(got, expected, strict=True):
                assert one.shape == other.shape
                np.testing.assert_allclose(one, other, atol=ATOL[backend])
    assert [list(s.tokens) for s in together] == [list(s.tokens) for s in alone]


def test_more_than_one_call_holds(backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = BACKENDS[backend]
    if backend == "llama.cpp":
        monkeypatch.setattr(model._cache.context, "batch", 7)
    else:
        monkeypatch.setattr("pilotfish.models.torch_cache._AT_ONCE", 24)
    rng = np.random.default_rng(0)
    news = [rng.integers(3, 250, size=n).tolist() for n in (3, 11, 0, 30, 8, 8)]
    got = feed_all(model, [model.session() for _ in news], news)
    for rows, new in zip(got, news, strict=True):
        np.testing.assert_allclose(rows, model.session().feed(new), atol=ATOL[backend])


def test_forks_of_one_past_go_their_ways(backend: str) -> None:
    model = BACKENDS[backend]
    past, ways = model.tokenize("the cab is "), [model.tokenize(t) for t in ("here", "a", "there")]
    session = model.session()
    session.feed(past)
    forks = [session.fork() for _ in ways]
    for rows, way in zip(feed_all(model, forks, ways), ways, strict=True):
        expected = model.session().feed([*past, *way])[len(past) :]
        np.testing.assert_allclose(rows, expected, atol=ATOL[backend])
    forks[1].rewind(3)
    again = feed_all(model, [session, forks[1]], [ways[2], past[3:]], last=1)
    np.testing.assert_allclose(
        again[0][0], model.session().feed([*past, *ways[2]])[-1], atol=ATOL[backend]
    )
    np.testing.assert_allclose(again[1][0], model.session().feed(past)[-1], atol=ATOL[backend])


def test_what_does_not_fit_changes_nothing(backend: str) -> None:
    model = BACKENDS[backend]
    sessions = [model.session() for _ in range(2)]
    sessions[0].feed([70, 71])
    with pytest.raises(RequestRefused, match="full"):
        feed_all(model, sessions, [[72], [70] * 600])
    with pytest.raises(RequestRefused, match="session twice"):
        feed_all(model, [sessions[0], sessions[0]], [[72], [72]])
    assert [list(s.tokens) for s in sessions] == [[70, 71], []]
    expected = model.session().feed([70, 71, 72])[2:]
    np.testing.assert_allclose(sessions[0].feed([72]), expected, atol=ATOL[backend])


def test_a_model_that_cannot_is_fed_in_turn(backend: str) -> None:
    model = BACKENDS[backend]
    steered = Steered([model, model], contrast(), name="whole")
    assert not isinstance(steered, BatchedTokenModel)
    news = [[70, 71], [], [80]]
    got = feed_all(steered, [steered.session() for _ in news], news)
    for rows, new in zip(got, news, strict=True):
        np.testing.assert_allclose(rows, steered.session().feed(new), atol=1e-5)
    sessions = [steered.session() for _ in range(2)]
    with pytest.raises(RequestRefused, match="full"):
        feed_all(steered, sessions, [[70], [70] * 600])
    assert [list(s.tokens) for s in sessions] == [[], []]
    steered.close()


@st.composite
def trees(draw: st.DrawFn) -> tuple[list[int], list[int], list[int]]:
    """Tokens, their parents, and the path to one of them."""
    tokens = draw(st.lists(st.integers(3, 250), min_size=1, max_size=9))
    parents = [draw(st.integers(-1, i - 1)) for i in range(len(tokens))]
    path, node = [], draw(st.integers(-1, len(tokens) - 1))
    while node >= 0:
        path.append(node)
        node = parents[node]
    return tokens, parents, path[::-1]


@given(some_tokens, trees(), trees())
def test_a_tree_is_read_as_its_paths_are(backend: str, past: list[int], one: Any, two: Any) -> None:
    """Two trees after one another, of each of which one path is kept; then a plain feed."""
    model = BACKENDS[backend]
    session = model.session()
    assert isinstance(session, TreeSession)
    session.feed(past)
    for tokens, parents, kept in (one, two):
        rows = session.feed_tree(tokens, parents)
        for node in range(len(tokens)):
            path, at = [], node
            while at >= 0:
                path.append(tokens[at])
                at = parents[at]
            expected = model.session().feed([*past, *path[::-1]], last=1)[0]
            np.testing.assert_allclose(rows[node], expected, atol=ATOL[backend])
        session.keep(kept)
        past = [*past, *(tokens[node] for node in kept)]
        assert list(session.tokens) == past
    expected = model.session().feed([*past, 77], last=1)
    np.testing.assert_allclose(session.feed([77]), expected, atol=ATOL[backend])


def test_a_tree_that_is_not_kept_leaves_nothing(backend: str) -> None:
    model = BACKENDS[backend]
    session = model.session()
    session.feed([70, 71])
    for _ in range(300):  # more than there are sequences
        session.feed_tree([72, 73, 74], [-1, 0, 0])
        session.rewind(2)
    with pytest.raises(RequestRefused, match=r"full|holds"):
        session.feed_tree([72] * 600, [-1] * 600)
    expected = model.session().feed([70, 71, 72])[2:]
    np.testing.assert_allclose(session.feed([72]), expected, atol=ATOL[backend])


def test_transformers_windows_of_attention_hold_in_batches_and_trees(tmp_path: Path) -> None:
    """A network whose first layer sees four tokens back; the oracle is the whole text in one pass."""
    torch = pytest.importorskip("torch", reason='needs torch: pip install "pilotfish[torch]"')
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    from tests.models import tiny_llama

    tiny_llama.write(tmp_path, WEIGHTS)
    torch.manual_seed(0)
    config = Gemma3TextConfig(
        vocab_size=len(tiny_gguf.vocabulary()), hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=1, head_dim=16, sliding_window=4,
        layer_types=["sliding_attention", "full_attention"], max_position_embeddings=512,
        bos_token_id=0, eos_token_id=2, pad_token_id=0, initializer_range=0.5,
    )  # fmt: skip
    Gemma3ForCausalLM(config).save_pretrained(tmp_path)
    model: Any = load_model(f"transformers:{tmp_path}", Config(), threads=1)

    def whole(tokens: list[int]) -> np.ndarray:
        with torch.inference_mode():
            return model.network(torch.tensor([tokens]), use_cache=False).logits[0].numpy()

    rng = np.random.default_rng(0)
    past = rng.integers(3, 250, size=11).tolist()
    ways = [rng.integers(3, 250, size=n).tolist() for n in (3, 7, 1)]
    session = model.session()
    np.testing.assert_allclose(session.feed(past), whole(past), atol=1e-4)
    forks = [session.fork() for _ in ways]
    forks[0].rewind(5)
    expected = [whole([*past[:5], *ways[0]])[5:], *(whole([*past, *way])[11:] for way in ways[1:])]
    for rows, oracle in zip(feed_all(model, forks, ways), expected, strict=True):
        np.testing.assert_allclose(rows, oracle, atol=1e-4)
    tree = session.feed_tree([70, 71, 72, 73, 74, 75], [-1, 0, 1, 0, 3, 4])
    np.testing.assert_allclose(tree[[0, 1, 2]], whole([*past, 70, 71, 72])[11:], atol=1e-4)
    np.testing.assert_allclose(tree[[0, 3, 4, 5]], whole([*past, 70, 73, 74, 75])[11:], atol=1e-4)
    session.keep([0, 3, 4])
    np.testing.assert_allclose(session.feed([76])[0], whole([*past, 70, 73, 74, 76])[-1], atol=1e-4)
    model.close()
