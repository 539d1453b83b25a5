"""The router: who is chosen, that nobody else is asked, and how long choosing takes."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

import pilotfish as pf
from pilotfish.config import Config
from pilotfish.distill.student import fit_student, student_files
from pilotfish.errors import ArtifactError, ConfigError, Unavailable
from pilotfish.infer.router import ClassifierChooser, Router
from pilotfish.models.calls import stream
from pilotfish.models.load import load_encoder, load_model
from pilotfish.records import Inputs, Request
from pilotfish.store.artifacts import Card, save_artifact

NAMES = ("small", "middle", "large")


def router(**settings: Any) -> Router:
    models: dict[str, dict[str, Any]] = {
        name: {"backend": "fake", "model": f"from {name}"} for name in NAMES
    }
    models["r"] = {"kind": "router", "models": list(NAMES), **settings}
    built = load_model("r", Config(models=models))
    assert isinstance(built, Router)
    return built


RULES = [
    {"model": "large", "tools": True},
    {"model": "middle", "prompt": r"(?i)\btranslate\b", "min_prompt_characters": 12},
    {"model": "small", "max_prompt_characters": 20, "tags": {"tier": "free"}},
    {"model": "middle", "task": "summary"},
]


@pytest.mark.parametrize(
    ("request_", "chosen", "reason"),
    [
        (Request.of("Hi", tools=[{"type": "function"}]), "large", "rule-1"),
        (Request.of("Translate this please"), "middle", "rule-2"),
        (Request.of("translate"), "large", "no-rule"),
        (Request(({"role": "user", "content": "Hi"},), tags={"tier": "free"}), "small", "rule-3"),
        (Request(({"role": "user", "content": "H" * 21},), tags={"tier": "free"}), "large", ""),
        (Request(({"role": "user", "content": "Hi"},), tags={"tier": "paid"}), "large", ""),
        (Request.of("Hi", task="summary"), "middle", "rule-4"),
        (Request(()), "large", "no-rule"),
    ],
)
async def test_the_first_rule_that_holds(request_: Request, chosen: str, reason: str) -> None:
    built = router(by=RULES)
    answer = await built.complete(request_)
    decision = answer.decisions[-1]
    assert (answer.text, decision.by, decision.chose) == (f"from {chosen}", "r", chosen)
    assert decision.reason == (reason or "no-rule")
    assert set(decision.rejected) == set(NAMES) - {chosen}
    chunks = [chunk async for chunk in stream(built, request_)]
    assert "".join(chunk.text for chunk in chunks) == answer.text
    assert chunks[-1].completion == answer


async def test_the_default_can_be_named() -> None:
    built = router(by=RULES, default="small")
    assert (await built.complete(Request.of("Something else altogether"))).model == "small"


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"by": [{"model": "lage"}]}, "Did you mean 'large'"),
        ({"by": [], "default": "none"}, "member of the router"),
        ({"by": [{"model": "large", "prompt": "("}]}, "regular expression"),
        ({"by": [{"model": "large", "promt": "x"}]}, "promt"),
        ({"by": [{"prompt": "x"}]}, "model"),
        ({}, "by"),
    ],
)
def test_wrong_rules_are_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        router(**settings)


async def test_an_error_of_the_chosen_is_the_callers() -> None:
    class First:
        def choose(self, request: Request) -> Any:
            from pilotfish.infer.router import Choice

            return Choice(0, "always")

    bad = pf.FakeModel("x", name="bad", faults=[Unavailable("down")])
    with pytest.raises(Unavailable, match="down"):
        await Router([bad, pf.FakeModel("y")], First()).complete(Request.of("x"))


EASY, HARD = ("weather", "hello", "time", "thanks"), ("prove", "integral", "theorem", "lemma")


def lesson(seed: int, n: int = 300) -> tuple[list[str], np.ndarray[Any, Any]]:
    rng = np.random.default_rng(seed)
    targets = rng.integers(0, 2, n)
    texts = [
        " ".join([*rng.choice((EASY, HARD)[t], 2), *rng.choice(["the", "a", "please", "now"], 4)])
        for t in targets
    ]
    return texts, targets


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A student that learned which of two models is good enough."""
    texts, targets = lesson(0)
    encoder = load_encoder("static", Config())
    student = fit_student(
        "tfidf-embedding-linear",
        Inputs(texts),
        targets,
        classes=("small", "large"),
        encoder=encoder,
        seed=0,
    )
    card, arrays, files = student_files(student)
    folder = tmp_path_factory.mktemp("routes") / "easy-or-hard"
    save_artifact(
        folder,
        Card.new(name="easy-or-hard", kind="classifier"),
        tensors={"student": arrays},
        json_files={"student.json": card},
        files=files,
    )
    return str(folder)


async def test_a_trained_classifier_chooses(artifact: str) -> None:
    built = router(by=artifact)
    texts, targets = lesson(1)
    answers = [await built.complete(Request.of(text)) for text in texts]
    right = [a.model == ("small", "large")[t] for a, t in zip(answers, targets, strict=True)]
    assert np.mean(right) > 0.95
    decision = answers[0].decisions[-1]
    assert decision.reason == "most-probable"
    assert decision.score is not None
    assert 0.5 <= decision.score <= 1


def test_choosing_takes_less_than_a_millisecond(artifact: str) -> None:
    """By processor time, so that a busy machine makes no difference."""
    chooser = router(by=artifact).chooser
    requests = [Request.of(text * 5) for text in lesson(2)[0]]
    for request in requests[:20]:
        chooser.choose(request)
    began = time.process_time()
    for request in requests:
        chooser.choose(request)
    assert (time.process_time() - began) / len(requests) < 1e-3


class TwoClasses:
    classes: tuple[str, ...] = ("small", "other")

    def predict_proba(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.full((len(texts), 2), 0.5, np.float32)


def test_classes_must_be_members_and_artifacts_must_be_there() -> None:
    with pytest.raises(ConfigError, match="'other'"):
        ClassifierChooser(TwoClasses(), NAMES)
    with pytest.raises(ArtifactError):
        router(by="no/such/folder")
