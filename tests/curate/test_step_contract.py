"""What every registered step promises: the same verdict on the same row, wherever it stands."""

from __future__ import annotations

import contextlib
import inspect
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from pilotfish.curate import STEPS
from pilotfish.curate.scores.judging import judge
from pilotfish.curate.step import ROW, TEXT, FittedStep, Step, build_step, read_columns
from pilotfish.errors import ConfigError, InputError, MissingExtra, MissingModel, UnknownName
from tests.contract_rows import STEPS as ROWS
from tests.curate.corpus import documents

ODD = [
    *(
        "",
        " ",
        "\n\n",
        "a",
        "x" * 5000,
        "# # # ...",
        "日本語 のテキスト。",
        "a\u0301 👩‍👩‍👧 \u200b",
        "{ lorem ipsum }",
    ),
    "Call me: +1 (555) 010-9999 or write to jane.doe@example.com.\nBorn 1970-01-01.",
    "The river swims under the light. " * 30,
]
CORPUS = [*ODD, *(row["text"] for row in documents(120, longest=200)), *ODD[-2:]]


def batch(texts: list[str], first: int = 0, reads: dict[str, Any] | None = None) -> pa.RecordBatch:
    columns = {
        ROW: pa.array(range(first, first + len(texts)), pa.uint64()),
        TEXT: pa.array(texts, pa.string()),
    }
    for name, kind in (reads or {}).items():
        columns[name] = pa.nulls(len(texts), kind)
    return pa.RecordBatch.from_pydict(columns)


KINDS = {name: STEPS.load(name) for name in STEPS}
FITTED = [name for name, kind in KINDS.items() if hasattr(kind, "reduce")]
SEEDED = [name for name, kind in KINDS.items() if "seed" in inspect.signature(kind).parameters]


@pytest.fixture(params=list(STEPS))
def step(request: pytest.FixtureRequest) -> Step | FittedStep:
    settings = ROWS[request.param]
    settings = settings() if callable(settings) else settings
    try:
        return build_step({"step": request.param, **settings})
    except (MissingExtra, MissingModel) as missing:
        pytest.skip(str(missing).replace("\n", " "))


def cut(reads: dict[str, Any], sizes: list[int]) -> list[pa.RecordBatch]:
    parts, start = [], 0
    for size in sizes:
        parts.append(batch(CORPUS[start : start + size], start, reads))
        start += size
    return [part for part in parts if part.num_rows]


WHOLE = [len(CORPUS)]
CUTS = [WHOLE, [1] * 20 + [len(CORPUS) - 20], [50, 3, len(CORPUS) - 53]]


def fitted(step: Step | FittedStep, sizes: list[int], folder: Path, shuffle: int = 0) -> Step:
    if not isinstance(step, FittedStep):
        return step
    states = [step.map(part) for part in cut(read_columns([step]), sizes)]
    assert all(isinstance(state, pa.RecordBatch) for state in states)
    assert len({state.schema for state in states}) == 1, "states of one step have one schema"
    random.Random(shuffle).shuffle(states)
    folder.mkdir()
    return step.reduce(states, folder)


def verdicts(step: Step, reads: dict[str, Any], sizes: list[int]) -> list[dict[str, Any]]:
    """For every row: why it was dropped, and what the step says of it, as rounded values."""
    found = []
    for part in cut(reads, sizes):
        verdict, after = judge(step, part)
        reasons = verdict.reasons.to_pylist() if verdict.reasons is not None else [None] * len(part)
        assert after.num_rows == reasons.count(None)
        columns = {name: column.to_pylist() for name, column in verdict.columns.items()}
        for i, reason in enumerate(reasons):
            assert reason is None or reason.startswith(step.name), reason
            found.append({"reason": reason} | {name: _near(c[i]) for name, c in columns.items()})
    return found


def _near(value: Any) -> Any:
    return float(np.float32(round(value, 4))) if isinstance(value, float) else value


def test_a_verdict_does_not_depend_on_the_neighbours(
    step: Step | FittedStep, tmp_path: Path
) -> None:
    reads = read_columns([step])
    found = [
        verdicts(fitted(step, sizes, tmp_path / str(i), shuffle=i), reads, sizes)
        for i, sizes in enumerate(CUTS)
    ]
    assert found[1] == found[0]
    assert found[2] == found[0]


def test_a_step_survives_the_way_to_a_worker(step: Step | FittedStep, tmp_path: Path) -> None:
    reads = read_columns([step])
    ready = fitted(step, WHOLE, tmp_path / "fit")
    before = verdicts(ready, reads, WHOLE)  # also after it was used, when it may hold a model
    assert verdicts(pickle.loads(pickle.dumps(ready)), reads, WHOLE) == before
    again = pickle.loads(pickle.dumps(step))
    assert verdicts(fitted(again, WHOLE, tmp_path / "again"), reads, WHOLE) == before


def test_a_batch_may_be_a_slice(step: Step | FittedStep, tmp_path: Path) -> None:
    """Arrow slices share buffers and begin at an offset; a step that forgets it judges other rows."""
    reads = read_columns([step])
    ready = fitted(step, WHOLE, tmp_path / "fit")
    whole = verdicts(ready, reads, WHOLE)
    part = batch(CORPUS, 0, reads).slice(5, 40)
    verdict = ready.apply(part)
    if verdict.reasons is not None:
        assert verdict.reasons.to_pylist() == [row["reason"] for row in whole[5:45]]


def name_of(step: Step | FittedStep) -> str:
    return next(name for name in STEPS if STEPS[name].endswith(f":{type(step).__name__}"))


def test_it_has_a_name_and_knows_its_settings(step: Step | FittedStep) -> None:
    name = name_of(step)
    assert step.name
    with pytest.raises(UnknownName, match="no_such_setting"):
        build_step({"step": name, "no_such_setting": 1})


@pytest.mark.parametrize("step", FITTED, indirect=True)
def test_steps_before_may_leave_no_row(step: FittedStep, tmp_path: Path) -> None:
    with contextlib.suppress(InputError):  # what says that it needs more rows
        assert isinstance(step.reduce([], tmp_path), Step)


@pytest.mark.parametrize("step", SEEDED, indirect=True)
def test_seeds_that_cannot_be_are_refused_before_data_are_read(step: FittedStep) -> None:
    name = name_of(step)
    settings = ROWS[name]
    settings = settings() if callable(settings) else settings
    for seed in (-1, 2**32):
        with pytest.raises(ConfigError, match=f"seed = {seed}"):
            build_step({"step": name, **settings, "seed": seed})


def test_columns_that_steps_read_must_agree() -> None:
    class Reads:
        name = "reads"

        def __init__(self, **reads: str) -> None:
            self.reads = reads

        def apply(self, batch: pa.RecordBatch) -> Any: ...

    assert read_columns([Reads(a="double"), Reads(a="double", b="string")]) == {
        "a": pa.float64(),
        "b": pa.string(),
    }
    for steps, words in (
        ([Reads(a="double"), Reads(a="string")], "earlier step reads"),
        ([Reads(row="uint64")], "reserved"),
        ([Reads(a="dubble")], "no Arrow type"),
    ):
        with pytest.raises(ConfigError, match=words):
            read_columns(steps)
