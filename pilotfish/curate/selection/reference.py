"""Files that a step learns from, beside the data that it judges: good texts, labelled rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import pyarrow as pa

from pilotfish.curate.formats.files import InputFile, find_files
from pilotfish.curate.formats.pieces import plan
from pilotfish.curate.formats.reading import ReadOptions, read_piece
from pilotfish.curate.step import TEXT


def reference_files(patterns: str | Sequence[str]) -> list[InputFile]:
    """The files that a setting names.

    Args:
        patterns: A path, folder, glob or URL, or several.

    Raises:
        InputError: There is none.
    """
    return find_files([patterns] if isinstance(patterns, str) else list(patterns))


def read_reference(
    files: Sequence[InputFile], text: str = TEXT, reads: Mapping[str, pa.DataType] | None = None
) -> Iterator[pa.RecordBatch]:
    """Their usable rows, in batches with the columns ``row``, ``text`` and those of ``reads``.

    Raises:
        InputError: A file cannot be read.
    """
    options = ReadOptions(text=text, reads=dict(reads or {}))
    for piece in plan(files):
        for chunk in read_piece(piece, options):
            if chunk.batch.num_rows:
                yield chunk.batch
