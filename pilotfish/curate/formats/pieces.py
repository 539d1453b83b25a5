"""How files are cut into pieces of work.

A piece is what one worker does at a time and what one output shard is made of: a byte range of a large
file of lines, a run of small ones, some row groups of a Parquet file, or one file that cannot be cut
(packed, CSV). The cut depends on the names and sizes of the files alone, so a run that was killed makes
the same pieces again, on any number of workers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

from pilotfish.curate.formats.files import InputFile
from pilotfish.curate.formats.opening import open_binary, opening
from pilotfish.errors import ConfigError, InputError

MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
UTF16 = (b"\xff\xfe", b"\xfe\xff")
PIECE_BYTES = 64 << 20  # about a minute of the rule filters on one core: what a kill can cost
MAX_PIECES = 1 << 23  # the row number has 24 bits for the piece


class Segment(msgspec.Struct, frozen=True):
    """A part of a file.

    Attributes:
        file: What it is part of.
        start: First byte (lines) or first row group (Parquet).
        end: One past the last; -1 for all that follow.
        size: Bytes as stored.
    """

    file: InputFile
    start: int
    end: int
    size: int


class Piece(msgspec.Struct, frozen=True):
    """What one worker does at a time; ``number`` also names the output shard."""

    number: int
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """Bytes as stored."""
        return sum(segment.size for segment in self.segments)


def plan(files: Sequence[InputFile], piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """Cut files into pieces of about ``piece_bytes`` as stored.

    Raises:
        ConfigError: There would be too many pieces.
        InputError: A Parquet file's footer cannot be read.
    """
    pieces: list[Piece] = []
    run: list[Segment] = []

    def close() -> None:
        if run:
            pieces.append(Piece(len(pieces), tuple(run)))
            run.clear()

    for file in files:
        if file.size == 0:
            continue
        alone = file.format in ("csv", "tsv", "parquet")  # each has columns of its own
        segments = list(_cut(file, piece_bytes))
        full = sum(segment.size for segment in run) + file.size > piece_bytes
        if alone or len(segments) > 1 or full or (run and run[0].file.format != file.format):
            close()
        for segment in segments:
            run.append(segment)
            if alone or len(segments) > 1:
                close()
    close()
    if len(pieces) > MAX_PIECES:
        raise ConfigError(
            f"Got {len(pieces):,} pieces, but at most {MAX_PIECES:,} can be numbered.",
            remedy="Give a larger --shard-size",
        )
    return pieces


def _cut(file: InputFile, piece_bytes: int) -> Iterator[Segment]:
    if file.whole:
        yield Segment(file, 0, -1, file.size)
    elif file.size > piece_bytes and file.format == "parquet":
        yield from _row_groups(file, piece_bytes)
    elif file.size > piece_bytes and file.format in ("jsonl", "text") and _divisible(file):
        for start in range(0, file.size, piece_bytes):
            end = min(start + piece_bytes, file.size)
            yield Segment(file, start, end, end - start)
    else:
        yield Segment(file, 0, -1, file.size)


def _divisible(file: InputFile) -> bool:
    if file.packed:
        return False
    with open_binary(file.url) as handle, opening(file.url):
        head = handle.read(4)
    return not head.startswith((*MAGIC, *UTF16))


def _row_groups(file: InputFile, piece_bytes: int) -> Iterator[Segment]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_binary(file.url) as handle, opening(file.url):
            metadata = pq.ParquetFile(handle).metadata
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, InputError):
        yield Segment(file, 0, -1, file.size)  # reading it will say what is wrong
        return
    start = size = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        packed = [row_group.column(i).total_compressed_size for i in range(row_group.num_columns)]
        if size and size + sum(packed) > piece_bytes:
            yield Segment(file, start, group, size)
            start, size = group, 0
        size += sum(packed)
    yield Segment(file, start, metadata.num_row_groups, size)
