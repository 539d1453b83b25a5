"""Reading the user's file: every usable row, and for every other one its line and a stable reason.

One bad row never costs another one. Reasons are stable strings: ``not-json``, ``not-an-object``,
``missing-field:NAME``, ``empty-text``, ``not-text``, ``bad-encoding``, ``too-long``,
``wrong-columns`` and ``unclosed-quote``. Only a file that cannot be used at all is an error: it is
missing, empty, binary, in another encoding, or no row has the column that the prompt asks for.

JSON lines take the fast path (msgspec); only those it refuses are looked at again with care, to tell
the reasons apart and to accept the ``NaN`` that Python's own writer produces. CSV values stay text:
what looks like a number to us may be an article number to the user.
"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from pilotfish.delimited import Delimited, looks_like_data
from pilotfish.errors import InputError
from pilotfish.loop.template import Template, as_text
from pilotfish.sources import (
    FORMATS,
    Line,
    detect,
    encoding_remedy,
    lines,
    open_text,
    reading,
    writing,
)

__all__ = ["FORMATS", "Reject", "Rows", "Template", "as_text", "read_rows", "write_rejects"]

MAX_ROW_BYTES = 1_000_000  # far beyond any prompt; a longer row is a damaged file
SHOWN = 200
BLAMED = 1 << 16


@dataclass(frozen=True, slots=True)
class Reject:
    """A row that cannot be used.

    Attributes:
        line: 1-based line (text formats) or row (Parquet, JSON array).
        reason: One of the module's stable reasons.
        text: The first 200 characters of what stood there.
    """

    line: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Rows:
    """The usable rows of a file, column by column.

    Attributes:
        columns: Name to ``n`` values; None where a row lacks it.
        line: ``n`` line or row numbers, 1-based.
        rejects: The rows that were refused, in file order.
        read: How many rows were looked at: ``n + len(rejects)``.
    """

    columns: dict[str, list[Any]]
    line: list[int]
    rejects: list[Reject] = field(default_factory=list)
    read: int = 0

    def __len__(self) -> int:
        return len(self.line)

    def row(self, i: int) -> dict[str, Any]:
        """The values of row ``i``, counted from 0."""
        return {name: column[i] for name, column in self.columns.items()}

    @property
    def reasons(self) -> dict[str, int]:
        """How many rows were refused for each reason, the most frequent first."""
        return dict(Counter(reject.reason for reject in self.rejects).most_common())


def read_rows(
    path: str | Path,
    *,
    fields: Sequence[str] | None = None,
    limit: int | None = None,
    format: str | None = None,
    keep: Collection[str] | None = None,
    max_bytes: int = MAX_ROW_BYTES,
) -> Rows:
    """Read JSONL, JSON (an array of objects), CSV, TSV (also ``.gz``) or Parquet.

    Args:
        path: The file.
        fields: Columns that the prompt uses; each must be a filled scalar in every row.
        limit: Look at no more than this many rows.
        format: One of :data:`FORMATS`; default by the file's suffix.
        keep: Further columns to hold; default all.
        max_bytes: Longest row, in bytes.

    Raises:
        InputError: The file cannot be used at all; the message says why and what helps.
    """
    path = Path(path)
    found = detect(path, format)
    build = _Builder(path, tuple(fields or ()), limit, keep, max_bytes)
    with reading(path):
        if found == "parquet":
            _read_parquet(build)
        else:
            with closing(open_text(path)) as handle:
                _read_text(build, handle, found)
    return build.finish(found)


def write_rejects(rows: Rows | Iterable[Reject], path: str | Path) -> None:
    """Write refused rows as JSON lines with ``line``, ``reason`` and ``text``.

    Raises:
        InputError: The file cannot be written.
    """
    rejects = rows.rejects if isinstance(rows, Rows) else rows
    with writing(Path(path)), Path(path).open("wb") as out:
        for reject in rejects:
            out.write(msgspec.json.encode(reject) + b"\n")


class _Builder:
    """Collects accepted and refused rows, and knows what to say when nothing was accepted."""

    def __init__(
        self,
        path: Path,
        fields: tuple[str, ...],
        limit: int | None,
        keep: Collection[str] | None,
        max_bytes: int,
    ) -> None:
        self.path = path
        self.fields = fields
        self.limit = limit
        self.keep = None if keep is None else {*fields, *keep}
        self.max_bytes = max_bytes
        self.columns: dict[str, list[Any]] = {}
        self.line: list[int] = []
        self.rejects: list[Reject] = []
        self.bad = bytearray()
        self._left_out: set[str] = set()

    @property
    def full(self) -> bool:
        """Whether as many rows were read as were wanted."""
        return self.limit is not None and len(self.line) + len(self.rejects) >= self.limit

    def reject(self, line: int, reason: str, text: str | bytes) -> None:
        """Refuse one row, keeping the beginning of its text."""
        if isinstance(text, bytes):
            if reason == "bad-encoding" and len(self.bad) < BLAMED:
                self.bad += text[:BLAMED] + b"\n"
            text = text[: 4 * SHOWN].decode("utf-8", "replace")
        self.rejects.append(Reject(line, reason, text[:SHOWN]))

    def add(self, line: int, values: Mapping[str, Any]) -> None:
        """Take one row, or refuse it."""
        if reason := _problem(values, self.fields, self.max_bytes):
            shown = json.dumps(_clipped(values), ensure_ascii=False, default=str)
            self.reject(line, reason, shown)
            self._left_out.update(values.keys() - self.columns.keys())
            return
        columns = self.columns
        if values.keys() - columns.keys():
            for name in values:  # not the difference: a set has another order on every run
                if name not in columns and (self.keep is None or name in self.keep):
                    columns[name] = [None] * len(self.line)
        for name, column in columns.items():
            column.append(values.get(name))
        self.line.append(line)

    def require(self, names: Iterable[str], remedy: str = "") -> None:
        """Refuse the file when a column that is asked for, as by a prompt, is in no row."""
        known = sorted(names)
        missing = [name for name in self.fields if name not in known]
        if not missing:
            return
        folded = {name.casefold(): name for name in known}
        close = difflib.get_close_matches(missing[0].casefold(), folded, n=1, cutoff=0.5)
        hint = f" Did you mean {folded[close[0]]!r}?" if close else ""
        shown = ", ".join(name[:60] for name in known[:50]) or "none"
        raise InputError(
            f"No row of {str(self.path)!r} has the column {missing[0]!r}.{hint}",
            remedy=f"Its columns: {shown}{remedy}",
        )

    def finish(self, found: str) -> Rows:
        """The rows; a file without one that can be used is refused. ``found``: the format."""
        rows = Rows(self.columns, self.line, self.rejects, len(self.line) + len(self.rejects))
        if not rows.read:
            raise InputError(f"The file {str(self.path)!r} holds no rows.")
        wrong = rows.reasons.get("bad-encoding", 0)
        if wrong * 2 > rows.read and self.bad:
            raise InputError(
                f"{wrong} of {rows.read} rows of {str(self.path)!r} are not UTF-8.",
                remedy=encoding_remedy(self.path, bytes(self.bad)),
            )
        if not rows.line:
            counted = ", ".join(f"{reason} ({n})" for reason, n in rows.reasons.items())
            if self._left_out:
                self.require(self._left_out)
            raise InputError(
                f"None of the {rows.read} rows of {str(self.path)!r} can be used: {counted}. "
                f"Line {self.rejects[0].line}: {self.rejects[0].text[:80]!r}.",
                remedy=f"It was read as {found}; --format reads it as one of {', '.join(FORMATS)}",
            )
        return rows


def _problem(values: Mapping[str, Any], fields: tuple[str, ...], max_bytes: int) -> str:
    """Why a row cannot be used, or ""."""
    filled = not fields
    for name in fields:
        value = values.get(name)
        if type(value) is str:
            if "\x00" in value:  # PostgreSQL and C runtimes cannot hold it
                return "not-text"
            if len(value) * 4 > max_bytes and len(value.encode()) > max_bytes:
                return "too-long"
            filled = filled or not (value == "" or value.isspace())
        elif value is None or value != value:
            return f"missing-field:{name}"
        elif isinstance(value, (int, float)):
            filled = True
        else:
            return "bad-encoding" if isinstance(value, bytes) else "not-text"
    return "" if filled else "empty-text"


def _clipped(values: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name[:SHOWN]: value[:SHOWN] if isinstance(value, (str, bytes, list)) else value
        for name, value in list(values.items())[:SHOWN]
    }


def _read_text(build: _Builder, handle: BinaryIO, found: str) -> None:
    if found == "json" and handle.peek(4096).lstrip()[:1] == b"[":  # type: ignore[attr-defined]
        return _read_array(build, handle.read())
    source = lines(handle, build.max_bytes)
    if found in ("csv", "tsv"):
        return _read_delimited(build, source, "\t" if found == "tsv" else None)
    for number, data, too_long in source:
        if build.full:
            return None
        if too_long:
            build.reject(number, "too-long", data)
        elif data and not data.isspace():
            _take_json(build, number, data)
    return None


def _take_json(build: _Builder, number: int, data: bytes) -> None:
    try:
        value = msgspec.json.decode(data)
    except (ValueError, RecursionError):
        value, reason = _careful(data)
        if reason:
            return build.reject(number, reason, data)
    if type(value) is not dict:
        return build.reject(number, "not-an-object", data)
    return build.add(number, value)


def _careful(data: bytes) -> tuple[Any, str]:
    """What the fast path refused, once more: the value, or the reason why there is none."""
    try:
        value = json.loads(data.decode("utf-8"))
        json.dumps(value, ensure_ascii=False).encode("utf-8")  # half of a surrogate pair is no text
    except UnicodeError:
        return None, "bad-encoding"
    except (ValueError, RecursionError):
        return None, "not-json"
    return value, ""


def _read_array(build: _Builder, data: bytes) -> None:
    try:
        items = msgspec.json.decode(data, type=list[msgspec.Raw])
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{str(build.path)!r} is not a JSON array: {error}.",
            remedy="Expected [{...}, {...}], or one object a line with --format jsonl",
        ) from error
    for number, item in enumerate(items, 1):
        if build.full:
            return
        raw = bytes(item)
        if len(raw) > build.max_bytes:
            build.reject(number, "too-long", raw)
        else:
            _take_json(build, number, raw)


def _read_delimited(build: _Builder, source: Iterator[Line], delimiter: str | None) -> None:
    records = Delimited(source, delimiter=delimiter, fields=build.fields, max_bytes=build.max_bytes)
    header = _header(build, records)
    for record in records:
        if build.full:
            break
        if record.reason:
            build.reject(record.line, record.reason, record.text)
        else:
            build.add(record.line, dict(zip(header, record.cells, strict=True)))
    build.bad += records.bad


def _header(build: _Builder, records: Delimited) -> list[str]:
    header = [name or f"column_{i}" for i, name in enumerate(records.header, 1)]
    if records.bad:
        raise InputError(
            f"The first line of {str(build.path)!r} is not UTF-8.",
            remedy=encoding_remedy(build.path, records.bad),
        )
    twice = [name for name, count in Counter(header).items() if count > 1]
    if twice:
        raise InputError(
            f"The header of {str(build.path)!r} names a column twice: {', '.join(twice)[:200]}.",
            remedy="Rename one of them in the first line; without a header, add one.",
        )
    if header:
        build.require(header, "\n  The first line of the file must name the columns.")
    if not build.fields and any(looks_like_data(name) for name in header):
        raise InputError(
            f"The first line of {str(build.path)!r} looks like data: {header[0][:80]!r}.",
            remedy="The first line must name the columns, for example: text,label",
        )
    return header


def _read_parquet(build: _Builder) -> None:
    from pilotfish.loop.parquet import batches

    for start, names, columns in batches(build.path, build.fields, build.keep, build.require):
        for number, cells in enumerate(zip(*columns, strict=True), start):
            if build.full:
                return
            build.add(number, dict(zip(names, cells, strict=True)))
