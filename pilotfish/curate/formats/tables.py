"""Parquet and delimited files to Arrow; a row's other columns travel with it as they are.

They stand in one struct column, so that a column of the user's file can have any name, and come out again
with their types. Values of delimited files stay text: what looks like a number to us may be an article
number to the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import BinaryIO

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilotfish.curate.formats.blocks import BLOCK_BYTES, Block
from pilotfish.curate.formats.json_values import json_line, python_values
from pilotfish.curate.formats.rows import SHOWN, Parsed, Reject, shown
from pilotfish.curate.rules.arrow import numbers, strings, to_arrow, truths
from pilotfish.curate.step import SOURCE, TEXT
from pilotfish.delimited import Delimited, Record
from pilotfish.sources import Line

PARQUET_ROWS = 16_384
CSV_ROWS = 16_384


class TableRows:
    """Makes rows of Arrow columns.

    Args:
        text: The column that holds the text.
        reads: Further columns to read, with their Arrow types.
        longest: Most bytes of a text.
    """

    def __init__(self, text: str, reads: Mapping[str, pa.DataType], longest: int) -> None:
        self._text = text
        self._reads = dict(reads)
        self._longest = longest

    def parquet(self, handle: BinaryIO, first: int, last: int) -> Iterator[Parsed]:
        """Rows of the row groups ``first`` to ``last`` (-1: all).

        Raises:
            pyarrow.ArrowInvalid: It is not Parquet, or is damaged.
        """
        import pyarrow.parquet as pq  # 10 MB, which readers of other formats do without

        file = pq.ParquetFile(handle, buffer_size=1 << 18, pre_buffer=False)
        groups = range(first, file.metadata.num_row_groups if last < 0 else last)
        for group in groups:
            facts = file.metadata.row_group(group)
            rows = max(1, facts.num_rows * BLOCK_BYTES // max(1, facts.total_byte_size))
            rows = min(rows, PARQUET_ROWS)
            for batch in file.iter_batches(rows, row_groups=[group], use_threads=False):
                names = _unique(batch.schema.names)
                yield self._rows(batch.rename_columns(names))

    def _rows(self, batch: pa.RecordBatch, index: np.ndarray | None = None) -> Parsed:
        n = batch.num_rows
        texts, reasons = self._texts(batch)
        columns = {TEXT: texts}
        for name, kind in self._reads.items():
            columns[name] = self._column(batch, name, kind, reasons)
        columns[SOURCE] = pa.StructArray.from_arrays(batch.columns, fields=list(batch.schema))
        if not reasons:
            return Parsed(columns, np.arange(n), [], n)
        kept = np.setdiff1d(np.arange(n), np.array(sorted(reasons)))
        rejects = []
        for i, reason in sorted(reasons.items()):
            row = batch.slice(i, 1)
            rejects.append(Reject(i, reason, shown(_as_json(row))))
        columns = {name: column.take(to_arrow(kept)) for name, column in columns.items()}
        return Parsed(columns, kept, rejects, n)

    def _texts(self, batch: pa.RecordBatch) -> tuple[pa.Array, dict[int, str]]:
        missing = f"missing-field:{self._text}"
        n = batch.num_rows
        if self._text not in batch.schema.names:
            return pa.nulls(n, pa.string()), dict.fromkeys(range(n), missing)
        column = batch.column(self._text)
        if pa.types.is_dictionary(column.type):
            column = column.dictionary_decode()
        kind = column.type
        if pa.types.is_null(kind):
            return pa.nulls(n, pa.string()), dict.fromkeys(range(n), missing)
        if not any(
            is_(kind)
            for is_ in (
                *(pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view),
                *(pa.types.is_binary, pa.types.is_large_binary),
            )
        ):
            return pa.nulls(n, pa.string()), dict.fromkeys(range(n), "not-text")
        raw = column.cast(pa.binary())
        null = truths(raw.is_null())
        reasons = dict.fromkeys(np.flatnonzero(null).tolist(), missing)
        long = numbers(pc.binary_length(raw)) >= self._longest
        reasons |= dict.fromkeys(np.flatnonzero(long & ~null).tolist(), "too-long")
        for i in np.flatnonzero(truths(pc.match_substring(raw, "\x00"))).tolist():
            reasons.setdefault(i, "not-text")
        try:
            return raw.cast(pa.string()), reasons
        except pa.ArrowInvalid:
            values = [_decoded(value) for value in raw.to_pylist()]
            for i, value in enumerate(values):
                if value is None:
                    reasons.setdefault(i, "bad-encoding")
            return pa.array(values, pa.string()), reasons

    def _column(
        self, batch: pa.RecordBatch, name: str, kind: pa.DataType, reasons: dict[int, str]
    ) -> pa.Array:
        if name not in batch.schema.names:
            return pa.nulls(batch.num_rows, kind)
        column = batch.column(name)
        try:
            return column.cast(kind)
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            cells = []
            for i in range(len(column)):
                cell = column.slice(i, 1)
                try:
                    cells.append(cell.cast(kind)[0].as_py())
                except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
                    cells.append(None)
                    empty = pa.types.is_string(column.type) and not cell[0].as_py()
                    if not empty:  # an empty cell of a CSV is a missing value
                        reasons.setdefault(i, f"wrong-type:{name}")
            return pa.array(cells, kind)

    def delimited(self, source: Iterator[Block], tabs: bool) -> Iterator[Parsed]:
        """Rows of a CSV or TSV file, whose first line names the columns."""
        lines = _Lines(source)
        records = Delimited(
            iter(lines),
            delimiter="\t" if tabs else None,
            fields=[self._text],
            max_bytes=self._longest,
        )
        names = _unique([name or f"column_{i}" for i, name in enumerate(records.header, 1)])
        iterator = iter(records)
        done = 0
        while taken := _block(iterator):
            good = [record for record in taken if not record.reason]
            cells = list(zip(*(record.cells for record in good), strict=True)) or [()] * len(names)
            batch = pa.record_batch([strings(c).cast(pa.string()) for c in cells], names=names)
            parsed = self._rows(batch) if good else None
            numbers = np.array([record.line - 1 - done for record in good], np.int64)
            rejects = [
                Reject(record.line - 1 - done, record.reason, shown(record.text))
                for record in taken
                if record.reason
            ]
            columns: dict[str, pa.Array] = {}
            index = numbers[:0]
            if parsed is not None:
                columns, index = parsed.columns, numbers[parsed.index]
                rejects += [Reject(int(numbers[r.line]), r.reason, r.text) for r in parsed.rejects]
            rejects.sort(key=lambda reject: reject.line)
            lines_here = taken[-1].line - done
            yield Parsed(columns, index, rejects, lines_here)
            done += lines_here


def _block(records: Iterator[Record]) -> list[Record]:
    """The next records, about as many as fill a block."""
    taken: list[Record] = []
    size = 0
    for record in records:
        taken.append(record)
        size += sum(map(len, record.cells))
        if size > BLOCK_BYTES or len(taken) == CSV_ROWS:
            break
    return taken


class _Lines:
    """Blocks as the lines that the reader of delimited files takes."""

    def __init__(self, source: Iterator[Block]) -> None:
        self._source = source

    def __iter__(self) -> Iterator[Line]:
        number = 0
        for block in self._source:
            if block.too_long:
                number += 1
                yield Line(number, block.data, True)
                continue
            for data in block.data.split(b"\n")[:-1]:
                number += 1
                yield Line(number, data.removesuffix(b"\r"), False)


def _unique(names: list[str]) -> list[str]:
    """Names of which none occurs twice: a second ``x`` becomes ``x_2``."""
    taken: dict[str, int] = {}
    unique = []
    for name in names:
        taken[name] = taken.get(name, 0) + 1
        unique.append(name if taken[name] == 1 else f"{name}_{taken[name]}")
    return unique


def _as_json(row: pa.RecordBatch) -> bytes:
    """One row for people, whatever its texts are."""
    cells = {}
    for name, column in zip(row.schema.names, row.columns, strict=True):
        (cell,) = python_values(column)
        if isinstance(cell, bytes):
            cell = cell.decode("utf-8", "replace")
        cells[name] = cell[:SHOWN] if isinstance(cell, str) else cell
    return json_line(cells)


def _decoded(value: bytes | None) -> str | None:
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return None
