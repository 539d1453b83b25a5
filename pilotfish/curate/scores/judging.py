"""Applying a step's verdict to a batch, and holding it to what a step promises."""

from __future__ import annotations

from types import TracebackType

import pyarrow as pa

from pilotfish.curate.step import RESERVED, ROW, TEXT, Step, Verdict
from pilotfish.errors import ConfigError


def judge(step: Step, batch: pa.RecordBatch) -> tuple[Verdict, pa.RecordBatch]:
    """The step's verdict on a batch, and the batch after it: columns added, rows dropped.

    Raises:
        ConfigError: The verdict does not fit the batch; the step is at fault.
    """
    with _Told(step.name, batch):
        verdict = step.apply(batch)
    n = batch.num_rows
    after = batch
    for name, column in verdict.columns.items():
        if name in RESERVED:
            raise ConfigError(
                f"The step {step.name!r} writes the column {name!r}, which is reserved."
            )
        _check_length(step, f"column {name!r}", column, n)
        if isinstance(column, pa.ChunkedArray):
            column = column.combine_chunks()
        if name == TEXT and not (pa.types.is_string(column.type) and not column.null_count):
            raise ConfigError(
                f"The step {step.name!r} writes texts of type {column.type}, but expected strings, "
                "none of them null."
            )
        at = after.schema.get_field_index(name)
        after = after.append_column(name, column) if at < 0 else after.set_column(at, name, column)
    if verdict.margin is not None:
        _check_length(step, "margin", verdict.margin, n)
    if verdict.reasons is not None:
        _check_length(step, "reasons", verdict.reasons, n)
        if verdict.reasons.null_count < n:
            after = after.filter(verdict.reasons.is_null())
    return verdict, after


def _check_length(step: Step, what: str, values: pa.Array, n: int) -> None:
    if len(values) != n:
        raise ConfigError(f"The step {step.name!r} gave {len(values)} {what} values for {n} rows.")


class _Told:
    """Adds to an error which step failed, and on which rows."""

    def __init__(self, step: str, batch: pa.RecordBatch) -> None:
        self._step = step
        self._batch = batch

    def __enter__(self) -> None:
        pass

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is not None:
            rows = self._batch.column(ROW)
            error.add_note(
                f"In the step {self._step!r}, on {len(rows)} rows from {rows[0]} to {rows[-1]}."
            )
