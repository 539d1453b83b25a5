"""Perplexity of texts under n-gram models of the data or of a target, group by group."""

from __future__ import annotations

import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilotfish.curate.pipeline import Pipeline
from pilotfish.curate.rules.hashing import mix
from pilotfish.curate.scores.buckets import Buckets
from pilotfish.curate.scores.kneser_ney import KneserNey
from pilotfish.curate.scores.perplexity import Perplexity, numbered, perplexities
from pilotfish.curate.step import ROW, TEXT
from pilotfish.errors import ConfigError, InputError
from tests.curate.scores.test_kneser_ney import reference


def batch(texts: list[str], **columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {ROW: pa.array(range(len(texts)), pa.uint64()), TEXT: pa.array(texts, pa.string())}
        | columns
    )


WORDS = ("the", "a", "small", "old", "fish", "boat", "swims", "sails", "over", "cold", "1999")


def sentences(n: int, seed: int = 0) -> list[str]:
    draw = random.Random(seed)
    return [" ".join(draw.choices(WORDS, k=draw.randint(1, 15))) + "." for _ in range(n)]


def fit(step: Perplexity, rows: pa.RecordBatch, folder: Path):
    folder.mkdir(exist_ok=True)
    return step.reduce([step.map(rows)], folder)


def scores(step: Any, rows: pa.RecordBatch) -> list[float | None]:
    return step.apply(rows).columns["perplexity"].to_pylist()


def expected(train: list[str], test: list[str], order: int) -> list[float]:
    numbers: dict[str, int] = {}

    def words(text: str) -> list[int]:
        found = re.findall(r"\w+", re.sub(r"\d", "0", text.lower()))
        return [numbers.setdefault(word, len(numbers) + 1) for word in found]

    probability, _ = reference([words(text) for text in train], order)
    found = []
    for text in test:
        known = [0] * (order - 1) + words(text)
        logs = [
            np.log(probability(known[i + order - 1], tuple(known[i : i + order - 1])))
            for i in range(len(known) - order + 1)
        ]
        found.append(float(np.exp(-np.mean(logs))))
    return found


def test_with_a_target_it_is_the_perplexity_of_the_textbook(tmp_path: Path) -> None:
    good = sentences(80, seed=1)
    (tmp_path / "good.jsonl").write_text("".join(json.dumps({"body": t}) + "\n" for t in good))
    texts = [*sentences(20, seed=2), "The OLD Boat, in 2024!", "words never seen before"]
    step = Perplexity(order=3, target=str(tmp_path / "good.jsonl"), target_text="body")
    ready = fit(step, batch(texts), tmp_path / "fit")
    assert scores(ready, batch(texts)) == pytest.approx(expected(good, texts, 3), rel=1e-9)


def test_without_one_each_half_is_scored_by_the_other(tmp_path: Path) -> None:
    texts = sentences(120)
    ready = fit(Perplexity(order=2), batch(texts), tmp_path / "fit")
    found = scores(ready, batch(texts))
    halves = (mix(np.arange(120, dtype=np.uint64)) & np.uint64(1)).tolist()
    for half in (0, 1):
        others = [text for text, h in zip(texts, halves, strict=True) if h != half]
        mine = [text for text, h in zip(texts, halves, strict=True) if h == half]
        given = [score for score, h in zip(found, halves, strict=True) if h == half]
        assert given == pytest.approx(expected(others, mine, 2), rel=1e-9)


def test_groups_have_models_of_their_own(tmp_path: Path) -> None:
    texts = sentences(60)
    mixed = [*texts, *(text.replace("a", "å") for text in texts)]
    by = pa.array(["en"] * 60 + [None] * 60, pa.string()).dictionary_encode()
    step = Perplexity(order=2, by="language")
    together = batch(mixed, language=by)
    found = scores(fit(step, together, tmp_path / "both"), together)
    alone = batch(texts, language=by.slice(0, 60))
    assert scores(fit(step, alone, tmp_path / "one"), alone) == found[:60]


def test_the_sample_is_a_share_of_the_rows(tmp_path: Path) -> None:
    texts = [f"word{i}x".translate(str.maketrans("0123456789", "abcdefghij")) for i in range(2000)]
    state = Perplexity(order=1, sample=0.25).map(batch(texts))
    assert 420 < len(state) < 580
    assert Perplexity(order=1).map(batch(texts)).num_rows == 2000


@pytest.mark.parametrize("most", [100, 400, 900])
def test_more_n_grams_than_may_be_held_halve_the_texts(most: int, tmp_path: Path) -> None:
    """As often as it takes and no more, whatever the batches and their order; then as with ``sample``."""
    rows = batch(sentences(600, seed=3))
    step = Perplexity(order=2, max_ngrams=most)
    whole = fit(step, rows, tmp_path / "whole")
    states = [step.map(rows.slice(i, 37)) for i in range(0, 600, 37)]
    random.Random(0).shuffle(states)
    (tmp_path / "parts").mkdir()
    found = scores(step.reduce(states, tmp_path / "parts"), rows)
    assert found == scores(whole, rows)
    halvings = next(
        k for k in range(20) if Perplexity(order=2, sample=2.0**-k).map(rows).num_rows <= most
    )
    assert halvings >= 1
    (share,) = re.findall(r"Fitted to 1 in (\d+) of the texts", whole.note)
    assert int(share) == 2**halvings
    sampled = fit(Perplexity(order=2, sample=2.0**-halvings), rows, tmp_path / "sampled")
    assert found == scores(sampled, rows)
    assert not sampled.note


def test_the_report_says_that_the_texts_were_halved(tmp_path: Path) -> None:
    lines = [json.dumps({"text": text}) for text in sentences(300)]
    (tmp_path / "in.jsonl").write_text("\n".join(lines))
    pipeline = Pipeline([Perplexity(order=2, max_ngrams=300)])
    result = pipeline.run(tmp_path / "in.jsonl", tmp_path / "out")
    assert re.fullmatch(r"perplexity: Fitted to 1 in \d+ of the texts, .*", result.notes[0])
    assert result.notes[0] in (tmp_path / "out/_report.html").read_text()


def test_characters_are_units_where_words_have_no_spaces() -> None:
    words, offsets = next(numbered(pa.array(["日本 語", "", "aß1"]), "character"))
    assert [chr(c) for c in words] == ["日", "本", "語", "a", "ß", "0"]
    assert offsets.tolist() == [0, 3, 3, 6]


def test_texts_without_words_have_no_score(tmp_path: Path) -> None:
    texts = ["", "...", "the old boat", "the old boat", "the cold boat", "a boat"]
    ready = fit(Perplexity(order=2), batch(texts), tmp_path / "fit")
    found = scores(ready, batch(texts))
    assert found[:2] == [None, None]
    assert all(score is None or score >= 1 for score in found)


def test_perplexity_of_a_uniform_model_is_the_number_of_words() -> None:
    columns = [np.arange(1, 11, dtype=np.uint32)]
    model = KneserNey.fit(columns, np.full(10, 3))
    found = perplexities(model, columns[0], np.array([0, 4, 4, 10]))
    assert found[[0, 2]] == pytest.approx(30 / (3 - 1.5 + 15 / 11), rel=1e-12)
    assert np.isnan(found[1])


def test_settings_and_targets_are_checked(tmp_path: Path) -> None:
    for wrong in ({"order": 6}, {"sample": 0.0}, {"unit": "byte"}, {"max_ngrams": 0}):
        with pytest.raises(ConfigError, match=str(next(iter(wrong)))):
            Perplexity(**wrong)
    with pytest.raises(InputError):
        Perplexity(target=str(tmp_path / "nothing.jsonl"))
    (tmp_path / "empty.jsonl").write_text('{"text": "..."}\n')
    step = Perplexity(target=str(tmp_path / "empty.jsonl"))
    with pytest.raises(InputError, match="no words"):
        step.reduce([step.map(batch(["a"]))], tmp_path)


def test_a_pipeline_scores_and_keeps_the_middle_of_each_language(tmp_path: Path) -> None:
    texts = sentences(300)
    rows = [{"text": t, "language": "en" if i % 3 else "de"} for i, t in enumerate(texts)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    steps = [
        Perplexity(order=2, by="language"),
        Buckets(keep=("middle",), by="language", quantiles=(0.25, 0.75)),
    ]
    result = Pipeline(steps).run(tmp_path / "in.jsonl", tmp_path / "out")
    shard = tmp_path / "out" / "part-00000.jsonl"
    kept = [json.loads(line) for line in shard.read_text().splitlines()]
    assert result.rows_kept == len(kept)
    assert set(result.reasons) == {"buckets.head", "buckets.tail"}
    for language, total in (("de", 100), ("en", 200)):
        mine = [row["perplexity"] for row in kept if row["language"] == language]
        assert len(mine) == pytest.approx(total / 2, abs=3)
    assert {row["perplexity_bucket"] for row in kept} == {"middle"}
