"""Every registered step in one pipeline: the same rows and the same counts on every engine."""

from __future__ import annotations

import inspect
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pilotfish.curate import STEPS, Pipeline
from pilotfish.curate.result import CurateResult
from pilotfish.curate.step import FittedStep, Step, build_step
from pilotfish.errors import MissingExtra, MissingModel
from tests.contract_rows import STEPS as ROWS
from tests.curate.corpus import as_lines, documents
from tests.curate.runs import counted, on_ray, rows, shards

SHARD = 20_000
# Beside what the contract's table says: nobody drops all, and what asks a model does ask one.
MORE: dict[str, dict[str, Any]] = {
    "length": {"min_chars": 1, "max_chars": 100_000},
    "language": {"min_confidence": 0.0},
    "minhash": {"keep": "highest", "column": "stars"},
    "mods": {
        "answers_by": "fake:An answer.",
        "judge": "fake:1",
        "needed_rows": 10,
        "max_answer_score": 2.0,
        "ask_rows": 40,
    },
    "perplexity": {"by": "language"},
    "personal_data": {"action": "tag"},
}


def every_step() -> list[Step | FittedStep]:
    """One of each; those that can keep all rows and say so in a column do."""
    steps = []
    for name in STEPS:
        settings = ROWS[name]
        settings = settings() if callable(settings) else settings
        table = {"step": name, **settings, **MORE.get(name, {})}
        if "tag" in inspect.signature(STEPS.load(name)).parameters:
            table["tag"] = True
        steps.append(build_step(table))
    # Personal data last: it rewrites the texts that others look at; buckets would drop two thirds.
    steps.sort(
        key=lambda step: (step.name in ("buckets", "personal_data", "pseudonyms"), step.name)
    )
    return steps


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    wanted = documents(700, longest=80)
    for i, row in enumerate(wanted):
        if i % 7 == 0:
            row["text"] += f" Write to p{i % 5}@example.org."
        if i % 90 == 0:
            row["stars"] = None
    path.write_bytes(as_lines(wanted))
    return path


@pytest.fixture(scope="module", autouse=True)
def answers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PILOTFISH_STORE", f"sqlite:///{tmp_path_factory.mktemp('store')}/answers.db")
        yield


@pytest.fixture(scope="module")
def alone(corpus: Path) -> CurateResult:
    try:
        steps = every_step()
    except (MissingExtra, MissingModel) as missing:
        pytest.skip(str(missing).replace("\n", " "))
    return Pipeline(steps).run(corpus, corpus.parent / "local", shard_bytes=SHARD)


def test_every_step_sees_rows_and_says_something(alone: CurateResult) -> None:
    assert {step.name for step in alone.steps} == set(STEPS)
    assert all(step.rows_in > 100 for step in alone.steps)
    silent = {step.name for step in alone.steps if not (step.scores or step.tags or step.reasons)}
    assert silent <= {"pseudonyms"}, "which rewrites texts and says nothing"
    written = rows(Path(alone.output))
    assert sum("@pseudonym.invalid" in row["text"] for row in written) > 5
    assert len(alone.shards) >= 4


def test_worker_processes_keep_the_same_rows(
    corpus: Path, alone: CurateResult, tmp_path: Path
) -> None:
    steps = every_step()
    spread = Pipeline(steps).run(
        corpus, tmp_path / "out", engine="processes", workers=2, shard_bytes=SHARD
    )
    assert shards(tmp_path / "out") == shards(Path(alone.output))
    assert same(spread) == same(alone)


@pytest.mark.skipif(
    os.environ.get("PILOTFISH_TEST_RAY") != "every",
    reason="takes five minutes, for a pass over the data and its start on Ray for each fit; "
    "PILOTFISH_TEST_RAY=every runs it",
)
def test_ray_keeps_the_same_rows(corpus: Path, alone: CurateResult, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "pilotfish[scale]"')
    found = on_ray("tests.curate.test_every_step:every_step", corpus, tmp_path / "out", SHARD)
    assert shards(tmp_path / "out") == shards(Path(alone.output))
    for name in ("fingerprint", "pipeline"):
        del found[name]
    assert found == same(alone)


def same(result: CurateResult) -> dict[str, Any]:
    """What was counted, without the names of files that the steps read."""
    facts = counted(result)
    del facts["fingerprint"], facts["pipeline"]
    return facts
