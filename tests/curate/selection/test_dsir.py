"""DSIR against a slow reference that follows the authors' code word by word."""

from __future__ import annotations

import hashlib
import json
import random
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pilotfish.curate import Pipeline
from pilotfish.curate.selection.dsir import DSIR, kl_divergence
from pilotfish.curate.selection.hashed_ngrams import hashed_ngrams
from pilotfish.curate.step import ROW, TEXT
from pilotfish.errors import ConfigError, InputError

SEA = ["river", "fish", "swims", "under", "cold", "water", "wave", "boat", "deep", "salt"]
LAW = ["court", "judge", "rules", "that", "the", "party", "must", "pay", "costs", "before"]


def text(draw: random.Random, words: list[str], n: int) -> str:
    marks = [draw.choice(["", "", "", ",", ".", "!?", "'s", "é", "e\u0301"]) for _ in range(n)]
    return " ".join(draw.choice(words).title() + mark for mark in marks)


def mixed(n: int, seed: int, sea: float) -> list[str]:
    draw = random.Random(seed)
    return [text(draw, SEA if draw.random() < sea else LAW, draw.randint(0, 60)) for _ in range(n)]


RAW = [*mixed(300, 1, 0.3), "", "one", "日本語 の テキスト。", "a" * 3000, "हिन्दी x² \x1c\u2003y"]
TARGET = mixed(60, 2, 1.0)


@pytest.fixture
def target(tmp_path: Path) -> str:
    path = tmp_path / "target.jsonl"
    path.write_text("".join(json.dumps({"text": t}) + "\n" for t in TARGET))
    return str(path)


def reference_words(line: str) -> list[str]:
    """What NLTK's WordPunctTokenizer gives, a character at a time."""
    found: list[str] = []
    before = None
    for c in line.lower():
        category = unicodedata.category(c)
        kind = "word" if category[0] in "LM" or category in ("Nd", "Nl", "Pc") else "mark"
        if c in " \t\n\r\x0b\x0c\u2003":
            kind = "space"
        elif kind == before:
            found[-1] += c
        else:
            found.append(c)
        before = kind
    return found


def reference_counts(line: str, n: int, buckets: int) -> np.ndarray:
    words = reference_words(line)
    counts = np.zeros(buckets, int)
    for size in range(1, n + 1):
        for i in range(len(words) - size + 1):
            ngram = " ".join(words[i : i + size])
            counts[int(hashlib.sha256(ngram.encode()).hexdigest(), 16) % buckets] += 1
    return counts


def reference(
    k: int, seed: int, n: int, buckets: int, min_words: int
) -> tuple[np.ndarray, set[int]]:
    """Log-weights of all rows, and which are kept."""
    raw = np.array([reference_counts(t, n, buckets) for t in RAW])
    goal = np.array([reference_counts(t, n, buckets) for t in TARGET]).sum(axis=0)
    ratio = np.log(goal / goal.sum() + 1e-8) - np.log(raw.sum(axis=0) / raw.sum() + 1e-8)
    weights = raw @ ratio
    length = (raw.sum(axis=1) + n * (n - 1) / 2) // n
    long = np.flatnonzero(length >= min_words)
    np.random.seed(seed)
    keys = weights[long] + np.random.gumbel(size=len(long))
    return weights, set(long[np.argpartition(-keys, k)[:k]].tolist())


def batch(texts: list[str], first: int = 0) -> pa.RecordBatch:
    rows = pa.array(range(first, first + len(texts)), pa.uint64())
    return pa.RecordBatch.from_pydict({ROW: rows, TEXT: pa.array(texts, pa.string())})


@pytest.mark.parametrize(("n", "buckets"), [(1, 50), (2, 10_000), (3, 997)])
def test_ngrams_are_hashed_as_by_the_authors(n: int, buckets: int) -> None:
    found, offsets, words = hashed_ngrams(RAW, n, buckets)
    for i, line in enumerate(RAW):
        mine = np.bincount(found[offsets[i] : offsets[i + 1]], minlength=buckets)
        assert (mine == reference_counts(line, n, buckets)).all()
        assert words[i] == len(reference_words(line))


@pytest.mark.parametrize(("n", "min_words", "seed"), [(2, 20, 3), (1, 0, 4)])
def test_weights_and_rows_equal_the_references(
    target: str, tmp_path: Path, n: int, min_words: int, seed: int
) -> None:
    step = DSIR(target, rows=40, min_words=min_words, ngrams=n, seed=seed, scores=True)
    states = [step.map(batch(RAW[i : i + 97], i)) for i in range(0, len(RAW), 97)]
    (tmp_path / "fit").mkdir()
    verdict = step.reduce(states[::-1], tmp_path / "fit").apply(batch(RAW))
    weights, kept = reference(40, seed, n, 10_000, min_words)
    np.testing.assert_allclose(verdict.columns["dsir.log_weight"].to_numpy(), weights, atol=1e-9)
    reasons = verdict.reasons.to_pylist()
    assert {i for i, reason in enumerate(reasons) if reason is None} == kept
    short = [i for i, t in enumerate(RAW) if len(reference_words(t)) < min_words]
    assert [i for i, reason in enumerate(reasons) if reason == "dsir.too_short"] == short


def test_a_run_brings_the_data_closer_to_the_target(target: str, tmp_path: Path) -> None:
    lines = [json.dumps({"text": t, "id": i}) for i, t in enumerate(RAW)]
    (tmp_path / "raw.jsonl").write_text("\n".join(lines))
    step = DSIR(target, share=0.25, min_words=5)
    result = Pipeline([step]).run(tmp_path / "raw.jsonl", tmp_path / "out")
    kept = [
        json.loads(line)["text"]
        for path in (tmp_path / "out").glob("part-*")
        for line in path.read_text().splitlines()
    ]
    long = result.rows_read - result.reasons["dsir.too_short"]
    assert len(kept) == result.rows_kept == round(0.25 * long)
    counted = {
        name: np.bincount(hashed_ngrams(texts, 2, 10_000)[0], minlength=10_000)
        for name, texts in {"raw": RAW, "kept": kept, "target": TARGET}.items()
    }
    before = kl_divergence(counted["target"], counted["raw"])
    assert kl_divergence(counted["target"], counted["kept"]) < 0.5 * before


def test_settings_that_make_no_sense_are_refused(target: str, tmp_path: Path) -> None:
    for settings in ({}, {"rows": 1, "share": 0.1}, {"share": 1.5}, {"rows": 0}):
        with pytest.raises(ConfigError, match="dsir"):
            DSIR(target, **settings)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="buckets"):
        DSIR(target, rows=1, buckets=1)
    with pytest.raises(InputError, match="No file matches"):
        DSIR(str(tmp_path / "none.jsonl"), rows=1)
    step = DSIR(target, rows=1, target_text="body")
    with pytest.raises(InputError, match="target_text"):
        step.reduce([step.map(batch(RAW))], tmp_path)
