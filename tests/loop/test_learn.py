"""A version is learned from recorded answers, and the large model is asked only for what is missing."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.errors import InputError
from pilotfish.loop.artifact import OffloadedModel
from pilotfish.loop.learn import LearnSettings, Outcome, learn
from pilotfish.loop.lessons import Definition, lessons
from pilotfish.models.fake import FakeModel
from pilotfish.store.artifacts import load_artifact
from pilotfish.store.feedback import Check
from pilotfish.store.store import Store, open_store
from pilotfish.store.traffic import Recorded
from tests.loop import traffic
from tests.loop.traffic import large_answer, mixed, recorded

TEAMS = Definition("teams", traffic.TEAM_PROMPT.replace("{}", "{text}"), "", "large")
SETTINGS = LearnSettings(students=("tfidf-embedding-linear",), folder=Path("learned"))


def tickets(count: int, seed: int = 0) -> list[Recorded]:
    rows = mixed(count, shares=(0.9, 0.1, 0, 0), seed=seed)
    return [recorded(i, prompt, answer) for i, (prompt, answer) in enumerate(rows)]


def answered_small(row: Recorded) -> Recorded:
    assert row.completion is not None
    name = "teams@1"
    return dataclasses.replace(
        row, model=name, completion=dataclasses.replace(row.completion, model=name)
    )


def large() -> FakeModel:
    return FakeModel(lambda request: large_answer(request.prompt), name="large")


def run(store: Store, rows: list[Recorded], model: FakeModel, **options: object) -> Outcome:
    return learn(TEAMS, lessons(TEAMS, rows), store, model, SETTINGS, config=Config(), **options)  # type: ignore[arg-type]


def test_recorded_answers_are_enough() -> None:
    with open_store("sqlite:///s.db") as store:
        store.versions.keep_task("teams", {})
        model = large()
        outcome = run(store, tickets(1200), model)
        assert outcome.reason == "certified"
        assert outcome.version is not None
        assert (outcome.asked, outcome.cost) == (0, 0.0)
        assert outcome.coverage > 0.7
        small = OffloadedModel.load(outcome.version.artifact)
        fresh = mixed(400, shares=(1, 0, 0, 0), seed=9)
        inputs = [small.template.match(prompt) for prompt, _ in fresh]
        assert all(inputs)
        vectors = load_artifact(Path(outcome.version.artifact)).tensors("reference")["vectors"]
        assert vectors.shape[0] >= 400
        assert np.allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-3)
        assert ("teams", 1) in store.versions.learned_from([f"req_{0:032x}", f"req_{1:032x}"])


def test_only_what_is_missing_is_asked_for_and_paid_once() -> None:
    """A third of the rows were answered small: their answers are missing."""
    rows = [answered_small(row) if i % 3 == 0 else row for i, row in enumerate(tickets(1000))]
    missing = sum(row.model == "teams@1" for row in rows)
    with open_store("sqlite:///s.db") as store:
        store.versions.keep_task("teams", {})
        model = large()
        outcome = run(store, rows, model)
        assert outcome.version is not None
        assert 0 < outcome.asked <= missing
        assert len(model.requests) == outcome.asked
        again = run(store, rows, model)  # a second run, as after a kill: nothing is paid twice
        assert len(model.requests) == outcome.asked
        assert again.version == outcome.version


def test_checks_count_as_recorded_answers() -> None:
    rows = [answered_small(row) for row in tickets(300)]
    checks = {
        row.id: Check(row.id, "auto", "teams@1", "large", True, "", row.completion.text)
        for row in rows
        if row.completion is not None
    }
    known = lessons(TEAMS, rows, checks=checks)
    assert len(known.recorded) == len(known.population.inputs)


def test_a_version_that_is_no_better_is_not_made() -> None:
    with open_store("sqlite:///s.db") as store:
        store.versions.keep_task("teams", {})
        first = run(store, tickets(900), large()).version
        outcome = run(store, tickets(900, seed=1), large(), in_service=first)
        assert (outcome.reason, outcome.version) == ("no-better", None)
        assert len(store.versions.versions("teams")) == 1


def test_what_cannot_be_learned_is_said() -> None:
    with open_store("sqlite:///s.db") as store, pytest.raises(InputError, match="too few"):
        run(store, tickets(60), large())
    story = Definition("story", traffic.STORY_PROMPT.replace("{}", "{text}"), "", "large")
    rows = [recorded(i, p, a) for i, (p, a) in enumerate(mixed(200, shares=(0, 0, 0, 1)))]
    with pytest.raises(InputError, match="text, not labels"):
        lessons(story, rows)


def test_answers_that_mean_nothing_are_not_certified() -> None:
    """The labels are drawn at random: no threshold keeps a promise of 0.95."""
    rng = np.random.default_rng(0)
    rows = [
        dataclasses.replace(
            row, completion=dataclasses.replace(row.completion, text=rng.choice(["yes", "no"]))
        )
        for row in tickets(500)
        if row.completion is not None
    ]
    with open_store("sqlite:///s.db") as store:
        store.versions.keep_task("teams", {})
        outcome = run(store, rows, large())
        assert outcome.version is None
        assert outcome.reason in ("no-threshold", "too-little")
        assert outcome.coverage < 0.05
