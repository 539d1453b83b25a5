"""CSV and TSV, record by record, so that one broken quote does not swallow the rest of the file.

Python's reader takes an unclosed quote as the start of a field that runs to the end of the file. Here a
record that never closes, or that grows beyond the limit, costs only the line that it began on: the
lines after it are read again on their own. In TSV a line with the right number of columns is a row,
whatever quotes it holds, because most tools write TSV without quoting.
"""

from __future__ import annotations

import csv
import sys
from collections import deque
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from pilotfish.sources import Line

DELIMITERS = ",;\t|"


class Record(NamedTuple):
    """One row of a delimited file.

    Attributes:
        line: 1-based number of the line that it begins on.
        cells: Its values, empty when it was refused.
        reason: "" or why it was refused.
        text: Its beginning, when it was refused.
    """

    line: int
    cells: list[str]
    reason: str = ""
    text: str = ""


class Delimited:
    """Iterates over the records after the header.

    Args:
        source: The file's lines.
        delimiter: What stands between cells; None to find out from the header.
        fields: Columns that must be there; decide between delimiters.
        max_bytes: A record longer than this is refused.

    Attributes:
        header: Column names, as written.
    """

    def __init__(
        self,
        source: Iterator[Line],
        *,
        delimiter: str | None,
        fields: Sequence[str],
        max_bytes: int,
    ) -> None:
        self._feed = _Feed(source, max_bytes)
        first = next((line for line in source if line.data.strip()), None)
        if first is not None:
            self._feed.push_back([first])
        if delimiter is None:
            text = first.data.decode("utf-8", "replace") if first else ""
            delimiter = _delimiter(text, fields)
        self._tabs = delimiter == "\t"
        self._delimiter = delimiter
        # The limit is the process's and only ever raised; the feed enforces ours, which is smaller.
        csv.field_size_limit(max(csv.field_size_limit(), 2 * max_bytes, 1 << 20))
        self._reader = csv.reader(self._feed, delimiter=delimiter)
        head = next(self._records(), None) if first is not None else None
        self.header = [] if head is None else [cell.strip() for cell in head.cells]

    @property
    def bad(self) -> bytes:
        """Bytes of lines that were not UTF-8, at most about 64 KB."""
        return bytes(self._feed.bad_bytes)

    def __iter__(self) -> Iterator[Record]:
        width = len(self.header)
        for record in self._records(width):
            if not record.reason and len(record.cells) != width:
                text = self._delimiter.join(record.cells)
                yield Record(record.line, [], "wrong-columns", text)
            else:
                yield record

    def _records(self, width: int = 0) -> Iterator[Record]:
        feed = self._feed
        while True:
            feed.begin()
            line = feed.peek()
            if line is None:
                return
            if not line.data.strip(b" \r") or line.too_long:
                feed.drop()
                if line.too_long:
                    yield Record(line.number, [], "too-long", _text(line.data))
                continue
            if self._tabs and (cells := _tab_cells(line, width)):
                feed.take()
                yield Record(line.number, cells, *feed.trouble(line))
                continue
            try:
                cells = next(self._reader)
            except _Unclosed:
                feed.push_back(feed.taken()[1:])
                yield Record(line.number, [], "unclosed-quote", _text(line.data))
            except csv.Error:
                yield Record(line.number, [], "wrong-columns", _text(line.data))
            else:
                yield Record(line.number, cells, *feed.trouble(line))


class _Unclosed(Exception):
    """The reader wants more lines for one record than there are, or than it may have."""


class _Feed:
    """Lines as text for :func:`csv.reader`, remembering those of the record under way."""

    def __init__(self, source: Iterator[Line], max_bytes: int) -> None:
        self._source = source
        self._max_bytes = max_bytes
        self._again: deque[Line] = deque()
        self._taken: list[Line] = []
        self._size = 0
        self._bad = False
        self.bad_bytes = bytearray()

    def begin(self) -> None:
        """A new record starts at the next line."""
        self._taken = []
        self._size = 0
        self._bad = False

    def peek(self) -> Line | None:
        """The next line, which stays; None at the end."""
        if not self._again:
            line = next(self._source, None)
            if line is None:
                return None
            self._again.append(line)
        return self._again[0]

    def drop(self) -> None:
        """Leave out the line that was peeked at."""
        self._again.popleft()

    def push_back(self, lines: list[Line]) -> None:
        """These lines come again, in this order."""
        self._again.extendleft(reversed(lines))

    def taken(self) -> list[Line]:
        """The lines of the record so far."""
        return self._taken

    def trouble(self, first: Line) -> tuple[str, str]:
        """Reason and text when the record's bytes were not UTF-8, else two empty strings."""
        return ("bad-encoding", _text(first.data)) if self._bad else ("", "")

    def take(self) -> str:
        """The next line as text, ending in a line feed."""
        return next(self)

    def __iter__(self) -> _Feed:
        return self

    def __next__(self) -> str:
        line = self.peek()
        if line is None or line.too_long or self._size > self._max_bytes:
            if self._taken:
                raise _Unclosed
            raise StopIteration
        self._again.popleft()
        self._taken.append(line)
        self._size += len(line.data) + 1
        try:
            return line.data.decode("utf-8") + "\n"
        except UnicodeDecodeError:
            self._bad = True
            if len(self.bad_bytes) < 1 << 16:
                self.bad_bytes += line.data + b"\n"
            return line.data.decode("utf-8", "replace") + "\n"


def _tab_cells(line: Line, width: int) -> list[str] | None:
    cells = line.data.decode("utf-8", "replace").split("\t")
    if width and len(cells) != width:
        return None
    return [_unquoted(cell) for cell in cells]


def _unquoted(cell: str) -> str:
    """A cell without its quotes when it is quoted properly, else as it is."""
    if len(cell) < 2 or cell[0] != '"' or cell[-1] != '"':
        return cell
    inner = cell[1:-1]
    return cell if '"' in inner.replace('""', "") else inner.replace('""', '"')


def _delimiter(header: str, fields: Sequence[str]) -> str:
    """The delimiter that finds all fields in the header, else the one that finds most columns."""

    def names(delimiter: str) -> list[str]:
        try:
            cells = next(csv.reader([header[: 1 << 16]], delimiter=delimiter), [])
        except csv.Error:
            return []
        return [cell.strip() for cell in cells]

    def merit(delimiter: str) -> tuple[bool, int]:
        found = names(delimiter)
        return (bool(fields) and set(fields) <= set(found), len(found))

    return max(DELIMITERS, key=merit)


def _text(data: bytes) -> str:
    return data[:1024].decode("utf-8", "replace")


def looks_like_data(name: str) -> bool:
    """Whether a header cell is more likely a value: a number, or long text.

    >>> looks_like_data("3.5"), looks_like_data("customer message")
    (True, False)
    """
    if len(name) > 100:
        return True
    try:
        return float(name) < sys.float_info.max
    except ValueError:
        return False
