"""Tags: where they come from, and what their scores are."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.errors import ConfigError, ModelError
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.predictors.tagging import (
    ModelTagger,
    merge_alike,
    nearest_centres,
    parse_tags,
    words_of,
)
from pilotfish.infer.predictors.tags import Tags
from pilotfish.models.fake import FakeModel
from pilotfish.models.load import load_encoder
from pilotfish.records import Completion, Request


class Letters:
    """Texts are points: how many letters a, b and c they have, as unit rows."""

    name = "letters"
    dim = 3

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        rows = np.array([[t.count(c) for c in "abc"] for t in texts], np.float32).reshape(-1, 3)
        return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1)


class Blind:
    """Sees nothing in any text, so nothing means the same."""

    name = "blind"
    dim = 3

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.zeros((len(texts), 3), np.float32)


class Librarian:
    """A model that writes tags, counts how often it is asked, and fails when it is told to."""

    name = "librarian"

    def __init__(self) -> None:
        self.asked: list[Request] = []
        self.broken = False

    async def complete(self, request: Request) -> Completion:
        self.asked.append(request)
        if self.broken:
            raise ModelError("out for lunch")
        text = request.prompt.partition("Request: ")[2].partition("\n\nTags:")[0]
        said = "1. Calculus, 2. proof" if "integral" in text else '- Poem\n- "creative writing"'
        return Completion(text=said, model=self.name)


def outcomes_of(texts: Sequence[str], quality: Any) -> Outcomes:
    table = np.array(quality, np.float32)
    return Outcomes(tuple(texts), tuple("ab"[: table.shape[1]]), table)


POEMS = outcomes_of(["solve integral"] * 6 + ["write poem"] * 6, [[1, 0]] * 6 + [[0, 1]] * 6)


def test_tags_are_scored_by_who_wins_on_them() -> None:
    made = Tags.fit(POEMS, Letters(), 0, source="words", max_share=0.6, prior=6)
    assert made.tags == ["integral", "poem", "solve", "write"]
    # 6 questions, each 0.5 above the mean, shrunk by 6 more without a difference.
    assert made.scores[0] == pytest.approx([0.25, -0.25])
    assert made.predict(["Solve this"]).mean[0] == pytest.approx([0.75, 0.25])
    assert made.predict(["nothing known"]).mean[0] == pytest.approx([0.5, 0.5])
    assert Tags.fit(POEMS, Letters(), 0, source="words", max_share=0.4).tags == []
    assert words_of("Two 22 tigers, 7 TIGERS") == ["two", "0", "tigers"]


def test_clusters_are_tags_whatever_the_words() -> None:
    """Two kinds of question without a word in common, told apart by where they lie."""
    rng = np.random.default_rng(0)
    kind = rng.integers(2, size=120)
    texts = ["".join(rng.permutation(list("aab" if k else "bcc"))) for k in kind]
    data = outcomes_of(texts, np.stack([kind, 1 - kind], axis=1))
    made = Tags.fit(data, Letters(), 0, source="clusters", prior=0)
    assert made.tags_of(["aba"]) == made.tags_of(["baa"]) != made.tags_of(["cbc"])
    assert all("/" in tag for tag in made.tags)
    assert made.predict(["baaaba", "ccbccb"]).mean == pytest.approx(np.eye(2), abs=1e-6)
    with pytest.raises(ConfigError, match="words, clusters"):
        Tags.fit(data, Letters(), 0, source="stars")  # type: ignore[arg-type]


def test_the_nearest_centre_is_the_tag() -> None:
    few, one = np.array([[0, 0], [1, 1]], np.float32), np.array([[2, 2]], np.float32)
    rows = np.array([[0.4, 0.4], [0.6, 0.6]], np.float32)
    found = nearest_centres(rows, [few, one, few[::-1]])
    assert found == [["8/0", "32/0", "128/1"], ["8/1", "32/0", "128/0"]]


def test_a_model_writes_tags_once_for_each_question() -> None:
    librarian = Librarian()
    made = Tags.fit(POEMS, Blind(), 0, tagger=librarian, max_share=0.6, prior=6)
    assert made.source == "model"
    assert made.waits
    assert made.tags == ["calculus", "creative writing", "poem", "proof"]
    assert made.scores[0] == pytest.approx([0.25, -0.25])
    assert len(librarian.asked) == 2, "each different question once"
    assert made.predict(["solve integral", "an integral"]).mean == pytest.approx(
        np.array([[0.75, 0.25]] * 2)
    )
    assert len(librarian.asked) == 3
    librarian.broken = True
    assert made.predict(["integral again"]).mean[0] == pytest.approx([0.5, 0.5]), "no tags"
    with pytest.raises(ModelError, match="lunch"):
        Tags.fit(POEMS, Blind(), 0, tagger=librarian)
    librarian.broken = False
    assert made.predict(["integral again"]).mean[0] == pytest.approx([0.75, 0.25]), "not kept"
    with pytest.raises(ConfigError, match="without its spec"):
        made.state()
    with pytest.raises(ConfigError, match="neither a model nor a spec"):
        Tags.fit(POEMS, Blind(), 0, source="model")


def test_a_models_answer_becomes_tags() -> None:
    assert parse_tags("Math, Linear  Algebra, math") == ["math", "linear algebra"]
    assert parse_tags('1) `Law`\n2) "contract law".\n* #Torts') == ["law", "contract law", "torts"]
    assert parse_tags("Tags: history; far too many words to be a tag") == ["history"]
    assert parse_tags("") == []
    assert len(parse_tags(", ".join(map(str, range(50))))) == 8


def test_tags_that_mean_the_same_become_the_more_frequent_one() -> None:
    found = [["aab"], ["aab", "c"], ["aaabb"], ["zzz"], ["yyy"]]
    merged = merge_alike(found, Letters())
    assert merged == {"aab": "aab", "aaabb": "aab", "c": "c", "zzz": "zzz", "yyy": "yyy"}
    same = merge_alike(
        [["biology"], ["Biology questions"], ["poem"]], load_encoder("static", Config())
    )
    assert same["biology"] == "biology"
    assert same["poem"] == "poem"


def test_what_a_tagger_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pilotfish.infer.predictors.tagging.REMEMBERED", 3)
    librarian = Librarian()
    tagger = ModelTagger(librarian)
    tagger.tags([f"text {i}" for i in range(5)])
    tagger.tags(["text 4"])
    assert len(librarian.asked) == 5
    tagger.tags(["text 0"])
    assert len(librarian.asked) == 6


def test_a_stored_table_loads_its_model_again(monkeypatch: pytest.MonkeyPatch) -> None:
    specs: list[str] = []

    def load(spec: str) -> FakeModel:
        specs.append(spec)
        return FakeModel("calculus")

    monkeypatch.setattr("pilotfish.infer.predictors.tags._load", load)
    made = Tags.fit(POEMS, Letters(), 0, spec="some:model", max_share=1.0)
    settings, arrays = made.state()
    again = Tags.restore({**settings, "models": ("a", "b")}, arrays, Letters())
    assert specs == ["some:model"] * 2
    assert again.tags == ["calculus"]
    assert np.array_equal(again.predict(["x"]).mean, made.predict(["x"]).mean)
