"""Outcomes as files: Parquet, JSON Lines or CSV, one row an answer (long) or one row a question (wide).

Long files have the columns ``prompt``, ``model`` and ``quality``, and may have ``cost``, ``latency``,
``answer`` and ``group``; every other number is a signal, named by its column. Wide files have ``prompt``
and one column for each kind and model, ``quality:NAME``, ``cost:NAME``, ``latency:NAME``, ``answer:NAME``
and ``SIGNAL:NAME``, and may have ``group``. Files that name their columns otherwise are read with
``columns``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Floats, Outcomes

PROMPT_COLUMNS = ("prompt", "question", "text")
GROUP_COLUMNS = ("group", "category", "domain")
_KINDS = ("quality", "cost", "latency", "answer")


def read_outcomes(
    path: str | Path,
    *,
    models: Sequence[str] = (),
    prompt: str = "",
    group: str = "",
    columns: Mapping[str, str] | None = None,
) -> Outcomes:
    """Read a file of outcomes.

    Args:
        path: ``.parquet``, ``.jsonl`` (or ``.ndjson``) or ``.csv``.
        models: The models to read, in this order; default all in the order of the file. Files whose
            columns are named by ``columns`` must say them.
        prompt: Column of the question; default the first there is of :data:`PROMPT_COLUMNS`.
        group: Column of the category; default the first there is of :data:`GROUP_COLUMNS`.
        columns: For wide files with other names: kind to column, where ``{}`` stands for the model, e.g.
            ``{"quality": "{}", "answer": "{}_answer"}``. Kinds are quality, cost, latency, answer, and
            any other word for a signal.

    Raises:
        InputError: The file is none of these, a column is missing, or a value cannot be used.
    """
    path = Path(path)
    table = _read(path)
    names = table.column_names
    asked = prompt or next((name for name in PROMPT_COLUMNS if name in names), "prompt")
    _require(path, names, [asked, *([group] if group else [])])
    grouped = group or next((name for name in GROUP_COLUMNS if name in names), "")
    if "model" in names and columns is None:
        return _from_long(path, table, models, asked, grouped)
    return _from_wide(path, table, models, asked, grouped, columns)


def write_outcomes(outcomes: Outcomes, path: str | Path) -> None:
    """Write the wide form as Parquet; :func:`read_outcomes` gives the same back."""
    import pyarrow.parquet as pq

    table: dict[str, Any] = {"prompt": list(outcomes.texts)}
    if outcomes.groups is not None:
        table["group"] = list(outcomes.groups)
    parts: dict[str, Any] = {"quality": outcomes.quality, "cost": outcomes.cost}
    parts |= {"latency": outcomes.latency, "answer": outcomes.answers, **outcomes.signals}
    for kind, values in parts.items():
        if values is None:
            continue
        for j, name in enumerate(outcomes.models):
            column = values[:, j]
            table[f"{kind}:{name}"] = (
                pa.array(column.tolist(), pa.large_string())
                if kind == "answer"
                else pa.array(column, pa.float32(), from_pandas=True)
            )
    pq.write_table(pa.table(table), Path(path))


def _read(path: Path) -> pa.Table:
    try:
        match path.suffix.lower():
            case ".parquet":
                import pyarrow.parquet as pq

                return pq.read_table(path)
            case ".jsonl" | ".ndjson":
                import pyarrow.json

                return pyarrow.json.read_json(path)
            case ".csv":
                import pyarrow.csv

                return pyarrow.csv.read_csv(path)
    except FileNotFoundError as error:
        raise InputError(f"There is no file {str(path)!r}.") from error
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        first = str(error).splitlines()[0]
        raise InputError(f"{str(path)!r} cannot be read: {first}") from error
    raise InputError(
        f"Got {path.name!r}, but expected a file that ends in .parquet, .jsonl or .csv."
    )


def _require(path: Path, names: Iterable[str], wanted: Iterable[str]) -> None:
    names = list(names)
    if missing := [name for name in wanted if name not in names]:
        raise InputError(
            f"{str(path)!r} has no column {', '.join(map(repr, missing))}.",
            remedy=f"Its columns: {', '.join(names)}",
        )


def _numbers(path: Path, name: str, column: pa.ChunkedArray) -> Floats:
    try:
        cast = column.cast(pa.float32(), safe=False)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise InputError(
            f"{str(path)!r}: the column {name!r} is {column.type}, but expected numbers."
        ) from error
    filled: Floats = cast.to_numpy(zero_copy_only=False).astype(np.float32)
    return filled


def _texts(path: Path, name: str, column: pa.ChunkedArray) -> list[str]:
    values: list[str] = column.to_pylist()
    for i, value in enumerate(values):
        if not isinstance(value, str):
            raise InputError(
                f"{str(path)!r}, row {i + 1}: the column {name!r} is {value!r}, but expected a text."
            )
    return values


def _from_long(
    path: Path, table: pa.Table, models: Sequence[str], asked: str, grouped: str
) -> Outcomes:
    _require(path, table.column_names, ["quality"])
    said = _texts(path, "model", table["model"])
    prompts = _texts(path, asked, table[asked])
    present = list(dict.fromkeys(said))
    chosen = list(models) or present
    _require_models(path, present, chosen)
    # A prompt that occurs twice for one model is two questions: rows count as often as they come.
    seen: dict[tuple[str, str], int] = {}
    row_of: dict[tuple[str, int], int] = {}
    rows = np.empty(len(said), int)
    for i, (text, model) in enumerate(zip(prompts, said, strict=True)):
        seen[text, model] = seen.get((text, model), -1) + 1
        rows[i] = row_of.setdefault((text, seen[text, model]), len(row_of))
    shape = (len(row_of), len(chosen))
    keep = np.array([name in chosen for name in said], bool)
    at = (rows[keep], np.array([chosen.index(name) for name in said if name in chosen], int))

    def spread(name: str) -> Floats:
        out = np.full(shape, np.nan, np.float32)
        out[at] = _numbers(path, name, table[name])[keep]
        return out

    names = table.column_names
    answers = None
    if "answer" in names:
        answers = np.full(shape, None, object)
        answers[at] = np.array(table["answer"].to_pylist(), object)[keep]
    signals = {
        name: spread(name)
        for name in names
        if name not in (*_KINDS, "model", asked, grouped) and _is_number(table[name].type)
    }
    groups = None
    if grouped:
        values = table[grouped].to_pylist()
        by_row = dict(zip(rows[::-1].tolist(), values[::-1], strict=True))
        groups = tuple(str(by_row[i]) for i in range(shape[0]))
    return Outcomes(
        texts=tuple(text for text, _ in row_of),
        models=tuple(chosen),
        quality=spread("quality"),
        cost=spread("cost") if "cost" in names else np.full(shape, np.nan, np.float32),
        latency=spread("latency") if "latency" in names else None,
        answers=answers,
        signals=signals,
        groups=groups,
    )


def _is_number(kind: pa.DataType) -> bool:
    return bool(
        pa.types.is_floating(kind) or pa.types.is_integer(kind) or pa.types.is_boolean(kind)
    )


def _require_models(path: Path, present: Sequence[str], chosen: Sequence[str]) -> None:
    if missing := [name for name in chosen if name not in present]:
        raise InputError(
            f"{str(path)!r} has no outcomes of {', '.join(missing)}.",
            remedy=f"Its models: {', '.join(present) or 'none'}",
        )


def _from_wide(
    path: Path,
    table: pa.Table,
    models: Sequence[str],
    asked: str,
    grouped: str,
    columns: Mapping[str, str] | None,
) -> Outcomes:
    names = table.column_names
    if columns is None:
        present = [name.partition(":")[2] for name in names if name.startswith("quality:")]
        if not present:
            raise InputError(
                f"{str(path)!r} has neither a column 'model' nor columns 'quality:NAME'.",
                remedy="Rename the columns, or say how they are named, where {} is the model: on the "
                "command line --models small,large --column 'quality={}_quality', in Python "
                'models=["small", "large"], columns={"quality": "{}_quality"}.',
            )
        chosen = list(models) or present
        _require_models(path, present, chosen)
        kinds = dict.fromkeys(name.partition(":")[0] for name in names if ":" in name)
        columns = {
            kind: f"{kind}:{{}}" for kind in kinds if any(f"{kind}:{m}" in names for m in chosen)
        }
    else:
        chosen = list(models)
        if not chosen or "quality" not in columns:
            raise InputError(
                "Got columns without models or without 'quality'.",
                remedy="For example --models small,large --column 'quality={}' on the command line, or "
                'models=["small", "large"], columns={"quality": "{}"} in Python.',
            )
        _require(path, names, [columns["quality"].replace("{}", name) for name in chosen])
    n = table.num_rows
    parts: dict[str, Any] = {}
    for kind, pattern in columns.items():
        filled: list[Any] = []
        for name in chosen:
            column = pattern.replace("{}", name)
            if kind == "answer":
                filled.append(table[column].to_pylist() if column in names else [None] * n)
            else:
                nothing = np.full(n, np.nan, np.float32)
                filled.append(_numbers(path, column, table[column]) if column in names else nothing)
        part = np.empty((n, len(chosen)), object if kind == "answer" else np.float32)
        for j, values in enumerate(filled):
            part[:, j] = values
        parts[kind] = part
    groups = tuple(str(value) for value in table[grouped].to_pylist()) if grouped else None
    return Outcomes(
        texts=tuple(_texts(path, asked, table[asked])),
        models=tuple(chosen),
        quality=parts.pop("quality"),
        cost=parts.pop("cost", np.full((n, len(chosen)), np.nan, np.float32)),
        latency=parts.pop("latency", None),
        answers=parts.pop("answer", None),
        signals=parts,
        groups=groups,
    )
