"""Steps that learn what good and bad texts look like: quality, toxicity, grade."""

from __future__ import annotations

import itertools
import json
import random
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score

import pilotfish as pf
from pilotfish.curate.sampling import merge_samples, row_keys, row_uniforms, sample_state
from pilotfish.curate.scores.grade import CRITERION, PROMPT, Grade
from pilotfish.curate.scores.grading import estimate
from pilotfish.curate.scores.quality import Quality
from pilotfish.curate.scores.text_classifier import TextClassifier
from pilotfish.curate.scores.toxicity import Toxicity
from pilotfish.curate.step import ROW, TEXT
from pilotfish.errors import ConfigError, InputError, MissingExtra
from pilotfish.models import load as loading

GOOD = ["theorem", "river", "cell", "energy", "history", "measure", "explain", "because", "atom"]
BAD = ["click", "buy", "cheap", "offer", "subscribe", "casino", "now", "free", "winner", "prize"]
BOTH = ["the", "a", "of", "and", "is", "in", "this", "with", "for", "it"]


def texts(n: int, share: float, seed: int = 0) -> tuple[list[str], np.ndarray]:
    """Texts of which a share has words of good ones; which they are."""
    draw = random.Random(seed)
    good = np.array([draw.random() < share for _ in range(n)])
    found = [
        " ".join(
            draw.choices(BOTH, k=8)
            + draw.choices(GOOD if g else BAD, k=2)
            + draw.choices(GOOD + BAD)
        )
        for g in good
    ]
    return found, good


def batch(rows: list[str], first: int = 0) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(
        {
            ROW: pa.array(range(first, first + len(rows)), pa.uint64()),
            TEXT: pa.array(rows, pa.string()),
        }
    )


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_sample_does_not_depend_on_batches() -> None:
    rows = [f"text {i}" for i in range(500)]
    keys = row_keys(pa.array(range(500), pa.uint64()), seed=3)
    expected = [rows[i] for i in np.argsort(keys)[:40]]
    for cuts in ([0, 500], [0, 1, 30, 31, 400, 500]):
        states = [
            sample_state(batch(rows[a:b], a), 40, 3, 100) for a, b in itertools.pairwise(cuts)
        ]
        assert merge_samples(states[::-1], 40) == expected
    assert merge_samples([], 40) == []


def test_row_numbers_are_spread_evenly() -> None:
    found = np.sort(row_uniforms(pa.array(range(20_000), pa.uint64()), seed=0))
    assert (
        np.abs(found - (np.arange(20_000) + 0.5) / 20_000).max() < 0.015
    )  # Kolmogorov-Smirnov, 1e-4
    again = row_uniforms(pa.array(range(20_000), pa.uint64()), seed=1)
    first = row_uniforms(pa.array(range(20_000), pa.uint64()), seed=0)
    assert abs(np.corrcoef(first, again)[0, 1]) < 0.03


def test_the_classifier_ranks_like_scikit_learn() -> None:
    train, good = texts(600, 0.3, seed=1)
    test, truth = texts(600, 0.3, seed=2)
    found = TextClassifier.fit(train, good).score(test)
    vectors = TfidfVectorizer(ngram_range=(1, 2))
    reference = LogisticRegression(C=10, class_weight="balanced", max_iter=1000)
    reference.fit(vectors.fit_transform(train), good)
    expected = reference.predict_proba(vectors.transform(test))[:, 1]
    assert np.corrcoef(found, expected)[0, 1] > 0.97
    assert roc_auc_score(truth, found) == pytest.approx(roc_auc_score(truth, expected), abs=0.01)


def fitted(step: Any, rows: list[str], folder: Path) -> Any:
    return step.reduce([step.map(batch(rows))], folder)


def test_rows_are_kept_as_the_pareto_distribution_says(tmp_path: Path) -> None:
    good, _ = texts(400, 1.0, seed=3)
    rows, truth = texts(6000, 0.3, seed=4)
    step = Quality(write(tmp_path / "good.jsonl", [{"body": t} for t in good]), good_text="body")
    ready = fitted(step, rows, tmp_path)
    verdict = ready.apply(batch(rows))
    score = np.array(verdict.columns["quality"].to_pylist())
    kept = np.array([reason is None for reason in verdict.reasons.to_pylist()])
    assert score[truth].mean() > score[~truth].mean() + 0.3
    assert set(verdict.reasons.to_pylist()) == {None, "quality.low"}
    chance = (2 - score) ** -9.0  # P(numpy.random.pareto(9) > 1 - score), in closed form
    for low, high in ((0, 0.3), (0.3, 0.7), (0.7, 1)):
        at = (score >= low) & (score < high)
        if at.sum() > 100:
            deviation = np.sqrt((chance[at] * (1 - chance[at])).sum())
            assert abs(kept[at].sum() - chance[at].sum()) < 4 * deviation
    draws = np.random.default_rng(0).pareto(9, (200, len(score))) > 1 - score  # and as NumPy draws
    assert kept.mean() == pytest.approx(draws.mean(), abs=0.02)
    assert ready.apply(batch(rows)).reasons.to_pylist() == verdict.reasons.to_pylist()


def test_or_by_a_threshold(tmp_path: Path) -> None:
    good, _ = texts(200, 1.0, seed=3)
    rows, _ = texts(300, 0.5, seed=4)
    path = write(tmp_path / "good.jsonl", [{"text": t} for t in good])
    verdict = fitted(Quality(path, min_quality=0.4), rows, tmp_path).apply(batch(rows))
    score = verdict.columns["quality"].to_pylist()
    assert [reason is None for reason in verdict.reasons.to_pylist()] == [s >= 0.4 for s in score]
    assert 20 < verdict.reasons.null_count < 280
    assert fitted(Quality(path, tag=True), rows, tmp_path).apply(batch(rows)).reasons is None


def test_toxic_texts_are_dropped(tmp_path: Path) -> None:
    train, good = texts(500, 0.7, seed=5)
    rows, truth = texts(400, 0.7, seed=6)
    labelled = [{"text": t, "bad": 1 - float(g)} for t, g in zip(train, good, strict=True)]
    path = write(tmp_path / "labels.jsonl", [*labelled, {"text": "unlabelled", "bad": None}])
    verdict = Toxicity(path, label="bad").apply(batch(rows))
    score = np.array(verdict.columns["toxicity"].to_pylist())
    assert roc_auc_score(~truth, score) > 0.85
    dropped = [reason == "toxicity.too_high" for reason in verdict.reasons.to_pylist()]
    assert dropped == (score > 0.5).tolist()
    assert Toxicity(path, label="bad", tag=True).apply(batch(rows)).reasons is None


def test_without_labels_there_is_a_ready_classifier() -> None:
    try:
        step = Toxicity()
    except MissingExtra as missing:
        pytest.skip(str(missing).replace("\n", " "))
    import profanity_check

    rows = ["You are a damn idiot.", "The river is cold in spring.", ""]
    verdict = step.apply(batch(rows))
    assert verdict.reasons.to_pylist() == ["toxicity.too_high", None, None]
    expected = profanity_check.predict_prob(rows).tolist()
    assert verdict.columns["toxicity"].to_pylist() == pytest.approx(expected)


def test_labels_and_files_are_checked(tmp_path: Path) -> None:
    path = write(tmp_path / "one.jsonl", [{"text": "a b", "toxicity": 0.0}] * 5)
    with pytest.raises(InputError, match="0 toxic and 5 other"):
        Toxicity(path)
    with pytest.raises(InputError):
        Quality(str(tmp_path / "none.jsonl"))
    with pytest.raises(ConfigError, match="pareto"):
        Quality(path, pareto=0)
    step = Quality(path, good_text="body")
    with pytest.raises(InputError, match="good_text"):
        fitted(step, ["a"], tmp_path)


@pytest.fixture
def grader(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> pf.FakeModel:
    """A large model that counts good words, and a store of its own."""
    monkeypatch.setenv("PILOTFISH_STORE", f"sqlite:///{tmp_path}/answers.db")

    def rule(request: Any) -> str:
        text = request.prompt.split("Text:\n")[1]
        if "prize" in text:
            return "I will not grade this."
        return str(min(5, 2 * sum(word in GOOD for word in text.split())))

    model = pf.FakeModel(rule, name="large")
    real = loading.load_model

    def load(spec: str, *more: Any, **settings: Any) -> Any:
        return model if spec == "large" else real(spec, *more, **settings)

    for module in ("grade", "grading"):
        monkeypatch.setattr(f"pilotfish.curate.scores.{module}.load_model", load)
    return model


def test_grades_of_a_sample_teach_grades_of_all(tmp_path: Path, grader: pf.FakeModel) -> None:
    rows, good = texts(500, 0.5, seed=7)
    ready = fitted(Grade("large", sample=200), rows, tmp_path)
    assert len(grader.requests) == 200
    verdict = ready.apply(batch(rows))
    grade = np.array(verdict.columns["grade"].to_pylist())
    assert roc_auc_score(good, grade) > 0.85
    assert 0 <= grade.min() < grade.max() <= 5
    reasons = verdict.reasons.to_pylist()
    assert [reason == "grade.low" for reason in reasons] == (grade < 2.5).tolist()
    again = fitted(Grade("large", sample=200), rows, tmp_path)
    assert len(grader.requests) == 200, "nothing is paid twice"
    assert (again.weights == ready.weights).all()


def test_the_regression_is_that_of_the_normal_equations(
    tmp_path: Path, grader: pf.FakeModel
) -> None:
    from pilotfish.models.load import load_encoder

    rows, _ = texts(120, 0.5, seed=8)
    rows = [row.replace("prize", "winner") for row in rows]
    ready = fitted(Grade("large", sample=120), rows, tmp_path)
    x = load_encoder("static").encode(rows).astype(float)
    y = np.array([min(5, 2 * sum(word in GOOD for word in row.split())) for row in rows], float)
    centred = x - x.mean(axis=0)
    errors = []
    for penalty in np.logspace(-2, 3, 11):
        gram = centred.T @ centred + penalty * np.eye(x.shape[1])
        weights = np.linalg.solve(gram, centred.T @ (y - y.mean()))
        errors.append(np.abs(weights - ready.weights).max())
    assert min(errors) < 1e-6


def test_a_rehearsal_asks_only_when_it_is_told_to(
    tmp_path: Path, grader: pf.FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows, _ = texts(100, 0.5, seed=9)
    (tmp_path / "pilotfish.toml").write_text("[prices.large]\ninput = 1.0\noutput = 10.0\n")
    monkeypatch.setenv("PILOTFISH_CONFIG", str(tmp_path / "pilotfish.toml"))
    step = Grade("large", sample=300)
    # A fifth of the input was looked at: of the whole, the 300 rows of the sample will be there.
    ready, note = step.rehearse([step.map(batch(rows))], tmp_path, 0.2, ask=False)
    assert not grader.requests
    assert ready.apply(batch(rows)).reasons is None
    said = re.search(
        r"(\d+) requests to large, about ([\d,]+) tokens .* about \$(\d+\.\d+) .* most \$(\d+\.\d+)",
        note,
    )
    assert said is not None, note
    assert said[1] == "300"
    prompts = [PROMPT.format(criterion=CRITERION, text=row) for row in rows]
    tokens = 300 * np.mean([len(prompt) for prompt in prompts]) / 4
    assert int(said[2].replace(",", "")) == pytest.approx(tokens, rel=0.01)
    assert float(said[3]) == pytest.approx((tokens * 1 + 300 * 2 * 10) / 1e6, abs=0.005)
    assert float(said[4]) >= (4 * tokens + 300 * 2 * 10) / 1e6, "were each byte a token"

    path = tmp_path / "in.jsonl"
    path.write_text("".join(json.dumps({"text": row}) + "\n" for row in rows))
    pipeline = pf.curate.Pipeline([step])
    result = pipeline.sample(path)
    assert not grader.requests
    assert (result.rows_kept, len(result.notes)) == (100, 1)
    asked = pipeline.sample(path, ask=True)
    assert len(grader.requests) == 100
    assert asked.rows_kept < 100
    assert not asked.notes


def test_the_cost_of_other_scripts_is_bounded_too(
    tmp_path: Path, grader: pf.FakeModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tokenizer made for English takes a token or more for a character of Chinese or Hindi."""
    (tmp_path / "pilotfish.toml").write_text("[prices.large]\ninput = 1e4\noutput = 1e4\n")
    monkeypatch.setenv("PILOTFISH_CONFIG", str(tmp_path / "pilotfish.toml"))
    read = {}
    for text in (
        "river fish " * 100,
        "\u6cb3\u91cc\u6709\u9c7c" * 275,
        "\u0928\u0926\u0940 " * 275,
    ):
        said = estimate("large", 10, [text], 2)
        found = re.search(r"about ([\d,]+) tokens .* about \$([\d,.]+) .* most \$([\d,.]+)$", said)
        assert found is not None, said
        likely, low, high = (float(number.replace(",", "")) for number in found.groups())
        assert low == pytest.approx((likely + 20) / 100)
        assert high >= (10 * len(text.encode()) + 20) / 100
        read[text[:1]] = likely
    english, chinese, hindi = read.values()
    assert (english, chinese) == (2750, 11000)
    assert english < hindi < chinese


def test_a_model_that_gives_no_grades_is_an_error(tmp_path: Path, grader: pf.FakeModel) -> None:
    rows = [f"prize {i}" for i in range(50)]
    with pytest.raises(InputError, match="I will not grade this"):
        fitted(Grade("large", sample=30), rows, tmp_path)
    few = [f"a page, number {i}" for i in range(10)]
    with pytest.raises(InputError, match=r"10 of 10 texts got a grade.* expected at least 20\.\n"):
        fitted(Grade("large", sample=30), few, tmp_path)
    with pytest.raises(ConfigError, match="min_grade"):
        Grade("large", min_grade=6)
