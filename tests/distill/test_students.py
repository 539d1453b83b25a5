"""Every text student: learns, calibrates, stores, and survives odd data."""

from __future__ import annotations

import json
import time
import warnings
from pathlib import Path

import numpy as np
import pytest

from pilotfish.distill import STUDENTS
from pilotfish.distill.calibrate import (
    expected_calibration_error,
    fit_temperature,
    log_loss,
    to_proba,
)
from pilotfish.distill.crossfit import (
    calibrate,
    crossfit,
    fit_scorer,
    fold_of,
    make_lesson,
    out_of_fold,
)
from pilotfish.distill.student import (
    fit_and_crossfit,
    fit_student,
    load_student,
    restore_student,
    student_files,
    unavailable,
)
from pilotfish.errors import ArtifactError, ConfigError, InputError, UnknownName
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Classifier, Encoder
from pilotfish.records import Inputs
from pilotfish.store.artifacts import Card, load_artifact, save_artifact
from tests.distill.conftest import make_task

TEXT = ["tfidf-linear", "embedding-linear", "tfidf-embedding-linear", "knn"]
TOPICS = ("weather", "money", "food")


@pytest.fixture(params=TEXT)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_learns_and_is_calibrated(name: str, encoder: Encoder) -> None:
    inputs, target = make_task(300)
    flipped = np.where(np.random.default_rng(1).random(300) < 0.2, (target + 1) % 3, target)
    student, oof = fit_and_crossfit(name, inputs, flipped, classes=TOPICS, encoder=encoder)
    fresh, answer = make_task(600, seed=9)
    proba = student.predict_proba(fresh)
    assert proba.dtype == oof.dtype == np.float32
    assert proba.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (proba.argmax(axis=1) == answer).mean() > 0.9
    noisy = np.where(np.random.default_rng(2).random(600) < 0.2, (answer + 1) % 3, answer)
    assert expected_calibration_error(proba.max(axis=1), proba.argmax(axis=1) == noisy) < 0.1
    assert log_loss(oof, flipped) == pytest.approx(log_loss(proba, noisy), abs=0.15)
    assert isinstance(student, Classifier)
    assert student.predict_proba(list(fresh.texts)) == pytest.approx(proba)


def test_same_seed_same_student_and_one_at_a_time_equals_batch(name: str, encoder: Encoder) -> None:
    inputs, target = make_task(60)
    a, b = (fit_student(name, inputs, target, classes=TOPICS, encoder=encoder) for _ in range(2))
    fresh, _ = make_task(20, seed=5)
    proba = a.predict_proba(fresh)
    assert (proba == b.predict_proba(fresh)).all()
    single = np.vstack([a.predict_proba(fresh.take([i])) for i in range(20)])
    assert single == pytest.approx(proba, abs=1e-5)
    assert a.predict_proba(Inputs([])).shape == (0, 3)


def test_goes_through_an_artifact_unchanged(name: str, encoder: Encoder, tmp_path: Path) -> None:
    inputs, target = make_task(60)
    student = fit_student(name, inputs, target, classes=TOPICS, encoder=encoder)
    settings, arrays, files = student_files(student)
    card = Card.new(
        name="t", kind="test", task={}, learned_from={}, quality={}, certificate={}, extra={}
    )
    save_artifact(
        tmp_path / "a", card, tensors={"student": arrays}, json_files={"student": settings},
        files=files,
    )  # fmt: skip
    back = load_student(load_artifact(tmp_path / "a"), load_encoder)
    assert (back.predict_proba(inputs) == student.predict_proba(inputs)).all()
    assert (back.name, back.classes, back.temperature) == (
        name,
        student.classes,
        student.temperature,
    )


def test_multilabel(name: str, encoder: Encoder) -> None:
    inputs, target = make_task(100)
    other, second = make_task(100, seed=3)
    texts = [f"{a} {b}" for a, b in zip(inputs.texts, other.texts, strict=True)]
    member = np.eye(4, dtype=bool)[target] | np.eye(4, dtype=bool)[second]  # column 3: never
    student, oof = fit_and_crossfit(
        name, Inputs(texts), member, classes=(*TOPICS, "none"), multilabel=True, encoder=encoder
    )
    assert ((oof > 0.5) == member)[:, :3].mean() > 0.85
    assert oof[:, 3].max() < 0.1
    assert student.predict_proba(["a recipe for soup with cheese"])[0].argmax() == 2


def test_one_class_is_answered_with_laplace(name: str, encoder: Encoder) -> None:
    inputs, _ = make_task(8)
    zeros = np.zeros(8, int)
    student, oof = fit_and_crossfit(name, inputs, zeros, classes=("a",), encoder=encoder)
    assert student.predict_proba(["x", ""]) == pytest.approx(9 / 10)
    assert oof == pytest.approx(9 / 10)
    many = fit_student(name, inputs, zeros, classes=("a", "b", "c"), encoder=encoder)
    assert many.predict_proba(["x"])[0] == pytest.approx([9 / 11, 1 / 11, 1 / 11])
    card, arrays, _ = student_files(many)
    back = restore_student(json.loads(json.dumps(card)), arrays, load_encoder)
    assert back.predict_proba(["x"]) == pytest.approx(many.predict_proba(["x"]))
    sets = np.array([[True, False]] * 8)
    fixed = fit_student(name, inputs, sets, classes=("a", "b"), multilabel=True, encoder=encoder)
    assert fixed.predict_proba(["x"])[0] == pytest.approx([0.9, 0.1])


ODD = {
    "one example of a class": (["red car"] * 3 + ["blue sky", "green tea"], [0, 0, 0, 1, 1]),
    "single against many": ([f"text {i}" for i in range(19)] + ["odd one"], [0] * 19 + [1]),
    "two rows": (["yes", "no"], [0, 1]),
    "all duplicates, two answers": (["same"] * 10, [0, 1] * 5),
    "empty texts": (["", " ", "\n", "a", "b", "c"], [0, 0, 0, 1, 1, 1]),
    "a megabyte": (["word " * 200_000, "x", "y", "z w"], [0, 1, 1, 0]),
    "scripts": (
        ["日本語のテキスト", "中文文本", "नमस्ते", "سلام", "héllo", "🙂🙃"],
        [0, 0, 1, 1, 2, 2],
    ),
    "lone surrogate": (["\ud800 broken", "fine", "also fine"], [0, 1, 1]),
}


@pytest.mark.parametrize("case", sorted(ODD))
def test_odd_data_gives_finite_probabilities(name: str, case: str, encoder: Encoder) -> None:
    texts, target = ODD[case]
    started = time.process_time()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        student, oof = fit_and_crossfit(
            name, Inputs(texts), np.array(target), classes=TOPICS, encoder=encoder
        )
        proba = student.predict_proba([*texts, "", "unseen", "y " * 10**6])
    assert time.process_time() - started < 5
    for p in (oof, proba):
        assert np.isfinite(p).all()
        assert p.sum(axis=1) == pytest.approx(1, abs=1e-4)


def test_many_classes_with_three_examples_each(name: str, encoder: Encoder) -> None:
    words = [f"{a}{b}" for a in "bcdfghjklm" for b in ["ab", "ec", "id", "of", "ug"]]
    texts = [f"the {w} number {i}" for w in words for i in range(3)]
    target = np.repeat(np.arange(50), 3)
    oof = crossfit(name, Inputs(texts), target, classes=tuple(words), encoder=encoder)
    assert oof.shape == (150, 50)
    assert log_loss(oof, target) < np.log(50)


def test_weights_count_like_copies(name: str, encoder: Encoder) -> None:
    texts = ["red one", "red two", "red three", "blue x", "blue y", "grey z"]
    gap = []
    for heavy in (1.0, 50.0):
        recipe, lesson = make_lesson(
            name,
            Inputs(texts),
            np.array([0, 1, 0, 1, 1, 0]),
            classes=("a", "b"),
            multilabel=False,
            weights=np.where(np.arange(6) == 1, heavy, 1.0),
            seed=0,
            encoder=encoder,
        )
        logits = fit_scorer(recipe, lesson).logits(Inputs(["red two"]))
        gap.append(float(logits[0, 1] - logits[0, 0]))
    assert gap[1] > gap[0]


def test_the_setting_with_the_least_loss_is_chosen_and_noise_asks_for_the_weakest() -> None:
    inputs, target = make_task(300)
    rng = np.random.default_rng(0)
    noisy = np.where(rng.random(300) < 0.35, rng.integers(3, size=300), target)
    recipe, lesson = make_lesson(
        "tfidf-linear",
        inputs,
        noisy,
        classes=TOPICS,
        multilabel=False,
        weights=None,
        seed=0,
        encoder=None,
    )
    best = calibrate(recipe, lesson)
    losses = []
    for logits in out_of_fold(recipe, lesson):
        temperature = fit_temperature(logits, noisy, multilabel=False)
        proba = to_proba(logits, multilabel=False, temperature=temperature)
        losses.append(log_loss(proba, noisy))
    assert log_loss(best.proba, noisy) == pytest.approx(min(losses))
    assert best.setting == recipe.settings[int(np.argmin(losses))] == min(recipe.settings)


def test_folds_keep_duplicates_together_and_spread_classes(encoder: Encoder) -> None:
    texts = [f"text {i // 2}" for i in range(60)]
    target = np.arange(60) // 20
    _, lesson = make_lesson(
        "tfidf-linear", Inputs(texts), target, classes=TOPICS, multilabel=False, weights=None,
        seed=3, encoder=None,
    )  # fmt: skip
    fold = fold_of(lesson, 5)
    assert (fold[::2] == fold[1::2]).all()
    table = np.zeros((3, 5), int)
    np.add.at(table, (target, fold), 1)
    assert (table == 4).all()


def test_out_of_fold_answers_do_not_know_their_own(name: str, encoder: Encoder) -> None:
    rng = np.random.default_rng(0)
    texts = [f"{rng.integers(10**9)} {rng.integers(10**9)}" for _ in range(150)]
    target = rng.integers(2, size=150)
    oof = crossfit(name, Inputs(texts), target, classes=("a", "b"), encoder=encoder)
    assert abs((oof.argmax(axis=1) == target).mean() - 0.5) < 0.15
    assert log_loss(oof, target) == pytest.approx(np.log(2), abs=0.06)


def test_wrong_arguments_are_named(encoder: Encoder) -> None:
    inputs = Inputs(["a", "b"])
    fit = fit_student
    with pytest.raises(UnknownName, match="tfidf-linear"):
        fit("tfidf-liner", inputs, np.array([0, 1]), classes=("a", "b"))
    with pytest.raises(ConfigError, match="no encoder"):
        fit("knn", inputs, np.array([0, 1]), classes=("a", "b"))
    with pytest.raises(InputError, match="shape"):
        fit("tfidf-linear", inputs, np.array([0]), classes=("a", "b"))
    with pytest.raises(InputError, match="at least one"):
        fit("tfidf-linear", Inputs([]), np.array([], int), classes=("a",))
    with pytest.raises(InputError, match=r"outside 0\.\.1"):
        fit("tfidf-linear", inputs, np.array([0, 2]), classes=("a", "b"))
    with pytest.raises(InputError, match="weights"):
        fit("tfidf-linear", inputs, np.array([0, 1]), classes=("a", "b"), weights=np.array([1, 0]))
    assert unavailable("knn", inputs, None) == "no encoder"
    assert unavailable("knn", inputs, encoder) == ""


def test_damaged_or_foreign_state_is_refused(encoder: Encoder) -> None:
    inputs, target = make_task(30)
    student = fit_student("tfidf-embedding-linear", inputs, target, classes=TOPICS, encoder=encoder)
    card, arrays, _ = student_files(student)
    with pytest.raises(ArtifactError, match="format 99"):
        restore_student({**card, "format": 99}, arrays, load_encoder)
    foreign = {**card, "encoder": {"name": "static", "fingerprint": "other"}}
    with pytest.raises(ArtifactError, match="fingerprint 'other'"):
        restore_student(foreign, arrays, load_encoder)
    del arrays["bias"]
    with pytest.raises(ArtifactError, match="bias"):
        restore_student(card, arrays, load_encoder)


def test_every_registered_student_loads() -> None:
    for student in STUDENTS:
        assert callable(STUDENTS.load(student).fit)
