"""Apply an artifact to a file: small answers where certified, the large model for the rest."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np

from pilotfish.config import Config, load_config
from pilotfish.errors import BudgetSpent
from pilotfish.loop.answers import Kind
from pilotfish.loop.artifact import OffloadedModel
from pilotfish.loop.extraction import ExtractionModel, asks_for
from pilotfish.loop.lessons import Parsed
from pilotfish.loop.population import Population, populate
from pilotfish.loop.rows import read_rows, write_rejects
from pilotfish.loop.teacher import Budget, Teacher, closed_label
from pilotfish.models.cached import CachedModel
from pilotfish.models.protocols import Model
from pilotfish.progress import Progress
from pilotfish.records import Request
from pilotfish.sources import writable, writing
from pilotfish.store.store import Store, open_store

ENDINGS = (".jsonl", ".csv", ".parquet")
BATCH = 10_000  # inputs scored at once: a few hundred MB at most


@dataclass(frozen=True)
class Applied:
    """What a run did.

    Attributes:
        rows: Rows answered or left open.
        rejected: Rows that could not be used.
        small: Rows answered by the small model.
        large: Rows answered by the large one.
        unanswered: Rows left open: no budget, no large model, or no parsable answer.
        calls: Different inputs sent to the large model.
        cached: Of those, how many had been paid for before.
        cost: US dollars for the large model, None when its price is unknown.
    """

    rows: int
    rejected: int
    small: int
    large: int
    unanswered: int
    calls: int
    cached: int
    cost: float | None


def score_all(
    model: OffloadedModel, population: Population, progress: Progress
) -> tuple[list[str], np.ndarray[Any, np.dtype[np.float32]], np.ndarray[Any, np.dtype[np.bool_]]]:
    """Small answers, scores and served flags of every unique input, in batches."""
    inputs = population.inputs
    answers: list[str] = []
    scores, served = np.zeros(len(inputs), np.float32), np.zeros(len(inputs), bool)
    with progress.stage("Answering small", len(inputs)) as stage:
        for start in range(0, len(inputs), BATCH):
            part = range(start, min(start + BATCH, len(inputs)))
            some, scores[part.start : part.stop], served[part.start : part.stop] = model.answer(
                inputs.take(part)
            )
            answers.extend(some)
            stage.advance(len(part))
    return answers, scores, served


def apply(
    artifact: str | Path | OffloadedModel,
    file: str | Path,
    *,
    out: str | Path | IO[str],
    large: str | None = None,
    use_large: bool = True,
    budget: str | Budget | None = None,
    rejects: str | Path | None = None,
    store: str | None = None,
    config: Config | None = None,
    progress: Progress | None = None,
) -> Applied:
    """Answer every row of a file and write one JSON line per row, in the file's order.

    Each line holds the row's columns and ``answer``, ``by`` (``"small"``, ``"large"`` or null) and
    ``score``. A killed run is repeated from the start, but nothing paid is paid again.

    Args:
        artifact: A folder made by :func:`pilotfish.offload`, or the loaded model.
        file: JSONL, CSV or Parquet with the columns that the prompt names.
        out: A path (``.jsonl``, ``.csv`` or ``.parquet``) or an open text file (JSONL).
        large: Another large model than the one in the artifact; the certificate is not about it.
        use_large: False leaves what the small model must not answer open.
        budget: Calls (``500``) or money (``"$5"``) for the large model.
        rejects: Where rows that cannot be used are written, with line and reason.
        store: URL of the store, default the configuration's.
        config: Default: what :func:`~pilotfish.config.load_config` finds.
        progress: Watches.

    Raises:
        InputError: The file lacks the prompt's columns or cannot be read, or a file cannot be written.
        ArtifactError: The artifact cannot be loaded.
    """
    if isinstance(out, str | Path):
        writable(out, ENDINGS)
    if rejects is not None:
        writable(rejects)
    config = config or load_config()
    watch = progress or Progress()
    if isinstance(artifact, OffloadedModel):
        model = artifact
    else:
        model = OffloadedModel.load(artifact, large=large, config=config)
    with watch.stage("Reading the file", None):
        rows = read_rows(Path(file), fields=model.template.fields)
        population = populate(rows, model.template, seed=0)
    if rejects is not None:
        write_rejects(rows, Path(rejects))
    small, scores, served = score_all(model, population, watch)
    answers: list[str | None] = [a if s else None for a, s in zip(small, served, strict=True)]
    open_ids = [int(i) for i in np.flatnonzero(~served)]
    calls, cached, cost = 0, 0, 0.0 if not open_ids or not use_large else None
    if use_large and open_ids:
        with open_store(store or config.store) as database:
            asked, request_of = _large_of(model, database)
            teacher = Teacher(
                asked,
                lambda i: request_of(population.row(i)),
                budget=Budget.parse(budget) if isinstance(budget, str) else budget,
            )
            with watch.stage("Asking the large model", len(open_ids)) as stage:
                try:
                    for start in range(0, len(open_ids), BATCH):
                        part = open_ids[start : start + BATCH]
                        part = part[: teacher.affordable(len(part))]
                        for i, answer in zip(part, teacher.ask(part, stage), strict=True):
                            answers[i] = answer
                except BudgetSpent as spent:
                    watch.say(str(spent))
            calls, cached, cost = len(teacher.answers), teacher.cached, teacher.cost
    _write(out, _lines(population, answers, served, scores))
    by_row = served[population.unique_of]
    empty = np.array([answer is None for answer in answers], bool)[population.unique_of]
    return Applied(
        rows=len(rows),
        rejected=len(rows.rejects),
        small=int(by_row.sum()),
        large=int((~by_row & ~empty).sum()),
        unanswered=int(empty.sum()),
        calls=calls,
        cached=cached,
        cost=cost,
    )


def _large_of(
    model: OffloadedModel, database: Store
) -> tuple[Model, Callable[[Mapping[str, Any]], Request]]:
    """The large model, paid for once, and how a row is asked."""
    large, task = model.teacher.model, model.task
    if not isinstance(model.small, ExtractionModel):
        return closed_label(large, database), task.request
    form = asks_for(model.small.student.asked)

    def request_of(row: Mapping[str, Any]) -> Request:
        asked = task.request(row, open_ended=True)
        return replace(asked, params={**asked.params, **form})

    return Parsed(CachedModel(large, database), Kind(task.kind)), request_of


def _lines(
    population: Population,
    answers: list[str | None],
    served: np.ndarray[Any, np.dtype[np.bool_]],
    scores: np.ndarray[Any, np.dtype[np.float32]],
) -> Iterator[dict[str, Any]]:
    columns = population.rows.columns
    for row, unique in enumerate(population.unique_of):
        answer = answers[unique]
        by = None if answer is None else "small" if served[unique] else "large"
        values = {name: column[row] for name, column in columns.items()}
        yield values | {"answer": answer, "by": by, "score": round(float(scores[unique]), 4)}


def _write(out: str | Path | IO[str], lines: Iterator[dict[str, Any]]) -> None:
    if not isinstance(out, str | Path):
        out.writelines(json.dumps(line, ensure_ascii=False, default=str) + "\n" for line in lines)
        return
    path = Path(out)
    part = path.with_name(path.name + ".part")
    with writing(path):
        if path.suffix == ".jsonl":
            with part.open("w", encoding="utf-8") as file:
                _write(file, lines)
        else:
            import pyarrow as pa
            from pyarrow.csv import write_csv
            from pyarrow.parquet import write_table

            table = pa.Table.from_pylist(list(lines))
            (write_csv if path.suffix == ".csv" else write_table)(table, part)
        part.replace(path)
