"""Reading a piece: batches of usable rows with their numbers, and every other row with its reason.

Memory does not grow with the file: a batch is a block of about half a MB. What is wrong with a row costs
that row; what is wrong with a file (a cut-off archive, a Parquet file that is none) costs the rest of
that file, and is counted like a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from typing import BinaryIO

import msgspec
import numpy as np
import pyarrow as pa

from pilotfish.curate.formats.blocks import Block, blocks
from pilotfish.curate.formats.files import InputFile
from pilotfish.curate.formats.json_lines import JsonLines
from pilotfish.curate.formats.opening import file_errors, is_damage, open_binary, opening
from pilotfish.curate.formats.pieces import Piece, Segment, plan
from pilotfish.curate.formats.plain_text import parse_document, parse_lines
from pilotfish.curate.formats.rows import Parsed, Reject
from pilotfish.curate.formats.tables import TableRows
from pilotfish.curate.formats.unpacking import unpacked
from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.step import ROW, ROW_BITS, TEXT

MAX_ROW_BYTES = 16 << 20


@dataclass(frozen=True)
class ReadOptions:
    """How rows are read.

    Attributes:
        text: The user's column that holds the text.
        reads: Further columns to read, with their Arrow types.
        longest: A longer row is refused, in bytes.
        limit: Read no more than about this many rows of a piece; None for all.
    """

    text: str = "text"
    reads: Mapping[str, pa.DataType] = field(default_factory=dict)
    longest: int = MAX_ROW_BYTES
    limit: int | None = None


class FileReject(msgspec.Struct):
    """A row that cannot be used.

    Attributes:
        segment: The part of the piece that it is in, from 0.
        line: Line or row from 0, within the segment.
        reason: See :mod:`pilotfish.curate.formats.rows`.
        text: Its beginning.
    """

    segment: int
    line: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Chunk:
    """What was read at once.

    Attributes:
        batch: The usable rows; may have none.
        rejects: The others.
        segment: Where they are from.
        lines: Lines or rows that were looked at.
        position: Bytes of the segment, as stored, that were read so far.
    """

    batch: pa.RecordBatch
    rejects: list[FileReject]
    segment: int
    lines: int
    position: int


def read_piece(piece: Piece, options: ReadOptions) -> Iterator[Chunk]:
    """The rows of a piece.

    Raises:
        InputError: A file is gone or cannot be read; a damaged one is a reject.
    """
    first = piece.number << ROW_BITS
    read = 0
    for number, segment in enumerate(piece.segments):
        with closing(open_binary(segment.file.url, whole=segment.file.whole)) as handle:
            for parsed in _parsed(segment, handle, options):
                rows = np.uint64(first) + parsed.index.astype(np.uint64)
                columns = {ROW: to_arrow(rows), **parsed.columns}
                yield Chunk(
                    pa.RecordBatch.from_pydict(columns),
                    [FileReject(number, r.line, r.reason, r.text) for r in parsed.rejects],
                    number,
                    parsed.lines,
                    _position(handle, segment),
                )
                first += parsed.lines
                read += parsed.lines
                if options.limit is not None and read >= options.limit:
                    return


def read_texts(files: Sequence[InputFile], text: str) -> Iterator[list[str]]:
    """The texts of whole files, in batches; what cannot be read is left out.

    Raises:
        InputError: A file is gone.
    """
    for piece in plan(files):
        for chunk in read_piece(piece, ReadOptions(text)):
            yield chunk.batch.column(TEXT).to_pylist()


def _position(handle: BinaryIO, segment: Segment) -> int:
    start = segment.start if segment.file.format != "parquet" else 0
    return 0 if handle.closed else max(0, min(handle.tell() - start, segment.size))


def _parsed(segment: Segment, handle: BinaryIO, options: ReadOptions) -> Iterator[Parsed]:
    file = segment.file
    try:
        yield from _FORMATS[file.format](segment, handle, options)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, EOFError) as error:
        yield _damaged(file, str(error), options)
    except file_errors() as error:
        if not is_damage(error):
            with opening(file.url):
                raise
        yield _damaged(file, str(error), options)


def _damaged(file: InputFile, error: str, options: ReadOptions) -> Parsed:
    first = error.splitlines()[0] if error else "it ends too soon"
    empty = JsonLines(options.text, options.reads, options.longest).parse(b"\n")
    return Parsed(
        empty.columns, empty.index, [Reject(0, "damaged-file", f"{file.url}: {first}")], 1
    )


def _cut(segment: Segment, handle: BinaryIO, options: ReadOptions) -> Iterator[Block]:
    stream = unpacked(handle, segment.file.url) if segment.start == 0 else handle
    return blocks(stream, segment.start, segment.end, options.longest)


def _json_lines(segment: Segment, handle: BinaryIO, options: ReadOptions) -> Iterator[Parsed]:
    parser = JsonLines(options.text, options.reads, options.longest)
    empty = parser.parse(b"\n")
    for block in _cut(segment, handle, options):
        yield _too_long(block, empty) if block.too_long else parser.parse(block.data)


def _text(segment: Segment, handle: BinaryIO, options: ReadOptions) -> Iterator[Parsed]:
    empty = parse_lines(b"\n", options.longest)
    for block in _cut(segment, handle, options):
        if block.too_long:
            yield _too_long(block, empty)
        else:
            yield _with_nulls(parse_lines(block.data, options.longest), options)


def _documents(segment: Segment, handle: BinaryIO, options: ReadOptions) -> Iterator[Parsed]:
    stream = unpacked(handle, segment.file.url)
    data = b""
    while len(data) <= options.longest and (more := stream.read(1 << 20)):
        data += more
    yield _with_nulls(parse_document(data.removeprefix(b"\xef\xbb\xbf"), options.longest), options)


def _delimited(segment: Segment, handle: BinaryIO, options: ReadOptions) -> Iterator[Parsed]:
    rows = TableRows(options.text, options.reads, options.longest)
    source = _cut(segment, handle, options)
    yield from rows.delimited(source, segment.file.format == "tsv")


def _parquet(segment: Segment, handle: BinaryIO, options: ReadOptions) -> Iterator[Parsed]:
    rows = TableRows(options.text, options.reads, options.longest)
    yield from rows.parquet(handle, segment.start, segment.end)


def _too_long(block: Block, empty: Parsed) -> Parsed:
    text = block.data.decode("utf-8", "replace")[:200]
    return Parsed(empty.columns, empty.index, [Reject(0, "too-long", text)], 1)


def _with_nulls(parsed: Parsed, options: ReadOptions) -> Parsed:
    """Plain text has no further columns: those that steps read are null."""
    n = len(parsed.index)
    extra = {name: pa.nulls(n, kind) for name, kind in options.reads.items()}
    return Parsed({**parsed.columns, **extra}, parsed.index, parsed.rejects, parsed.lines)


_FORMATS = {
    "jsonl": _json_lines,
    "text": _text,
    "documents": _documents,
    "csv": _delimited,
    "tsv": _delimited,
    "parquet": _parquet,
}
