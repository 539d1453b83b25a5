"""Arrow values as Python values that JSON can hold: what a Parquet row is as a JSON line.

Python's times end at microseconds and at the year 9999, and pandas writes nanoseconds. Times that fit
become Python's own; where one of a batch does not, those of its column become text, to the last digit. A
text that is no UTF-8, which Parquet does not check, gets U+FFFD where it is none.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import pyarrow as pa

Turn = Callable[[pa.DataType], pa.DataType]


def python_values(values: pa.Array) -> list[Any]:
    """``n`` values, each of a kind that :func:`json_line` takes.

    Raises:
        UnicodeDecodeError: A text within a list or structure is no UTF-8.

    >>> python_values(pa.array([1_000, 2_000], pa.time64("ns")))
    [datetime.time(0, 0, 0, 1), datetime.time(0, 0, 0, 2)]
    >>> python_values(pa.array([1], pa.timestamp("ns")))
    ['1970-01-01T00:00:00.000000001']
    """
    try:
        return _values(values)
    except UnicodeDecodeError:
        if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
            raise
        raw = values.cast(pa.binary()).to_pylist()
        return [None if value is None else value.decode("utf-8", "replace") for value in raw]


def python_rows(rows: pa.StructArray) -> list[dict[str, Any]]:
    """``n`` rows of columns, each with its own name, as :func:`python_values` has them.

    Raises:
        UnicodeDecodeError: As of :func:`python_values`.

    >>> python_rows(pa.array([{"n": 1, "s": "a"}]))
    [{'n': 1, 's': 'a'}]
    """
    if _turned(rows.type, _micro) == rows.type:
        try:
            found: list[dict[str, Any]] = rows.to_pylist()
        except (ValueError, OverflowError):
            pass  # column by column, each in its own way
        else:
            return found
    names = [field.name for field in rows.type]
    table = zip(*map(python_values, rows.flatten()), strict=True)
    return [dict(zip(names, cells, strict=True)) for cells in table]


def json_line(row: dict[str, Any]) -> bytes:
    """A row as JSON, without a line end; what JSON has no form for becomes text."""
    return msgspec.json.encode(row, enc_hook=str)


def _values(values: pa.Array) -> list[Any]:
    try:
        found: list[Any] = _cast(values, _micro).to_pylist()
    except UnicodeDecodeError:
        raise
    except (ValueError, OverflowError):  # Arrow's errors are ValueErrors, too
        found = _cast(values, _text).to_pylist()
        if pa.types.is_timestamp(values.type):
            found = [None if text is None else text.replace(" ", "T", 1) for text in found]
        elif pa.types.is_duration(values.type):
            found = [None if text is None else f"{text} {values.type.unit}" for text in found]
    return found


def _cast(values: pa.Array, turn: Turn) -> pa.Array:
    kind = _turned(values.type, turn)
    return values if kind == values.type else values.cast(kind)


def _turned(kind: pa.DataType, turn: Turn) -> pa.DataType:
    """The type with its times turned into others, however deep they stand."""
    if pa.types.is_struct(kind):
        return pa.struct([field.with_type(_turned(field.type, turn)) for field in kind])
    if pa.types.is_map(kind):
        return pa.map_(_turned(kind.key_type, turn), _turned(kind.item_type, turn))
    for is_list, made in (
        (pa.types.is_list, pa.list_),
        (pa.types.is_large_list, pa.large_list),
        (pa.types.is_fixed_size_list, lambda field: pa.list_(field, kind.list_size)),
    ):
        if is_list(kind):
            return made(kind.value_field.with_type(_turned(kind.value_type, turn)))
    return turn(kind) if pa.types.is_temporal(kind) else kind


def _micro(kind: pa.DataType) -> pa.DataType:
    if pa.types.is_timestamp(kind) and kind.unit == "ns":
        return pa.timestamp("us", kind.tz)
    if pa.types.is_duration(kind) and kind.unit == "ns":
        return pa.duration("us")
    return pa.time64("us") if kind == pa.time64("ns") else kind


def _text(kind: pa.DataType) -> pa.DataType:
    return pa.string()
