"""Rows of a Parquet file as Python values, a batch at a time.

Decimals, dates and times become text, since rows must be JSON values later on. A text column with
broken UTF-8 is read again as bytes, so that only the broken rows are refused.
"""

from __future__ import annotations

import datetime
import decimal
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pilotfish.errors import InputError

BATCH = 16_384
AS_TEXT = (datetime.date, datetime.time, datetime.timedelta, decimal.Decimal)


def batches(
    path: Path,
    fields: Sequence[str],
    keep: Collection[str] | None,
    require: Callable[[Iterable[str]], None],
) -> Iterator[tuple[int, list[str], list[list[Any]]]]:
    """Yield the first row's number (1-based), the column names and the columns of each batch.

    Args:
        path: The file.
        fields: Columns that must be there.
        keep: The columns to read; None for all.
        require: Called with all column names; raises when one of ``fields`` is missing.

    Raises:
        InputError: It is not Parquet, or is damaged.
    """
    try:
        with pq.ParquetFile(path) as file:
            require(file.schema_arrow.names)
            names = [n for n in file.schema_arrow.names if keep is None or n in keep]
            start = 1
            for batch in file.iter_batches(BATCH, columns=names):
                yield start, batch.schema.names, [_values(column) for column in batch.columns]
                start += batch.num_rows
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"{str(path)!r} cannot be read as Parquet: {first}",
            remedy="For a text format give --format jsonl, json, csv or tsv",
        ) from error


def _values(column: pa.Array) -> list[Any]:
    if isinstance(column, pa.DictionaryArray):
        column = column.dictionary_decode()
    if pa.types.is_large_binary(column.type) or pa.types.is_binary(column.type):
        return [_decoded(value) for value in column.to_pylist()]
    try:
        values: list[Any] = column.to_pylist()
    except UnicodeDecodeError:
        return [_decoded(value) for value in column.cast(pa.binary()).to_pylist()]
    if pa.types.is_temporal(column.type) or pa.types.is_decimal(column.type):
        return [str(value) if isinstance(value, AS_TEXT) else value for value in values]
    return values


def _decoded(value: bytes | None) -> str | bytes | None:
    """Text where the bytes are UTF-8, else the bytes, which the reader refuses."""
    try:
        return None if value is None else value.decode("utf-8")
    except UnicodeDecodeError:
        return value
