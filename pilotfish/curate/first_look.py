"""A look at the inputs before the work begins: can they be used, and what will the output be?"""

from __future__ import annotations

import difflib
import json
from collections import Counter
from collections.abc import Iterator, Sequence

from pilotfish.curate.formats.files import InputFile
from pilotfish.curate.formats.pieces import Piece
from pilotfish.curate.formats.reading import Chunk, FileReject, ReadOptions, read_piece
from pilotfish.curate.formats.writing import FORMATS, PACKINGS, OutputOptions, field_types
from pilotfish.curate.step import SOURCE
from pilotfish.errors import InputError, UnknownName

OUTPUT = {"jsonl": "jsonl", "text": "jsonl", "documents": "jsonl", "csv": "csv", "tsv": "csv"}
SAMPLED_LINES = 2000
LOOKED_AT = 100  # lines of which none can be used, after which no more are looked at


def output_options(
    files: Sequence[InputFile],
    pieces: Sequence[Piece],
    read: ReadOptions,
    format: str | None,
    packing: str | None,
) -> OutputOptions:
    """How shards are written: as was asked for, else as the first file.

    Raises:
        UnknownName: An unknown format or packing.
        InputError: A file cannot be read.
    """
    if format is not None and format not in FORMATS:
        raise UnknownName("output format", format, FORMATS)
    if packing is not None and packing not in PACKINGS:
        raise UnknownName("compression", packing, PACKINGS)
    first = next((file for file in files if file.size), files[0])
    chosen = format or OUTPUT.get(first.format, first.format)
    packed = packing or ("none" if chosen == "parquet" else first.packed or "none")
    fields: dict[str, str] = {}
    if chosen in ("parquet", "csv"):
        lines = _json_lines(pieces, read)
        fields = field_types(lines) if lines else {}
    return OutputOptions(chosen, packed, read.text, fields)


def _json_lines(pieces: Sequence[Piece], read: ReadOptions) -> list[bytes]:
    for piece in pieces:
        if piece.segments[0].file.format == "jsonl":
            chunk = next(iter(read_piece(piece, read)), None)
            if chunk is not None and chunk.batch.num_rows:
                return list(chunk.batch.column(SOURCE)[:SAMPLED_LINES].to_pylist())
    return []


def refuse_unusable(pieces: Sequence[Piece], read: ReadOptions) -> None:
    """Refuse inputs of which the first, the middle and the last piece begin with no usable row.

    Raises:
        InputError: So it is; says what is wrong with them and which column may have been meant.
        ConfigError: Steps read a column with a type that the format does not have.
    """
    rejects: list[FileReject] = []
    for chunk in _beginnings(pieces, read):
        if chunk.batch.num_rows:
            return
        rejects += chunk.rejects
    if not rejects:
        return  # nothing but empty lines so far
    first = max(rejects, key=lambda reject: reject.reason.startswith("missing-field"))
    reasons = Counter(reject.reason for reject in rejects)
    counted = ", ".join(f"{reason} ({count:,})" for reason, count in reasons.most_common(5))
    raise InputError(
        f"The beginning of the input holds no usable row: {counted}. Line {first.line + 1}: "
        f"{first.text[:80]!r}.",
        remedy=_remedy(pieces[0].segments[0].file, first, read),
    )


def absent(pieces: Sequence[Piece], read: ReadOptions) -> list[str]:
    """The columns that steps read and no row has, where the first, the middle and the last piece begin.

    Steps may add them, or later rows may have them; else a name is most likely misspelt.
    """
    missing = list(read.reads)
    for chunk in _beginnings(pieces, read) if missing else ():
        batch = chunk.batch
        missing = [name for name in missing if batch.column(name).null_count == batch.num_rows]
    return missing


def _beginnings(pieces: Sequence[Piece], read: ReadOptions) -> Iterator[Chunk]:
    """What is read first of the first, the middle and the last piece.

    Up to the first rows that can be used, or some that cannot: one that is too long comes alone.
    """
    some = (*pieces[:1], *pieces[len(pieces) // 2 :][:1], *pieces[-1:])
    for piece in {piece.number: piece for piece in some}.values():
        looked = 0
        for chunk in read_piece(piece, read):
            yield chunk
            looked += chunk.lines
            if chunk.batch.num_rows or looked >= LOOKED_AT:
                break


def _remedy(file: InputFile, first: FileReject, read: ReadOptions) -> str:
    text = read.text
    wrong = first.reason.partition("wrong-type:")[2]
    if wrong in read.reads:
        kind = read.reads[wrong]
        return f"A step of the pipeline reads {wrong!r} as {kind}; name another column there."
    if first.text.lstrip()[:1] == "[" and file.format == "jsonl":
        return "A JSON array is made JSON lines by: jq -c '.[]' FILE > FILE.jsonl"
    if first.reason == f"missing-field:{text}":
        fields = _fields(first.text)
        near = difflib.get_close_matches(text, fields, n=1, cutoff=0.4)
        hint = f' Did you mean text = "{near[0]}"?' if near else ""
        known = f" Fields: {', '.join(fields)}." if fields else ""
        return f'No column {text!r}; text = "NAME" in the pipeline names another.{hint}{known}'
    return "Expected JSON lines, Parquet, CSV or plain text; --input-format says which it is."


def _fields(text: str) -> list[str]:
    """The fields of a JSON object, also of one that was cut off."""
    decoder = json.JSONDecoder()
    names = []
    at = text.find("{") + 1
    while 0 < at < len(text):
        try:
            name, end = decoder.raw_decode(text, at + len(text[at:]) - len(text[at:].lstrip(" ,")))
            if not isinstance(name, str) or text[end : end + 1] != ":":
                break
            names.append(name)
            _, at = decoder.raw_decode(text, end + 1 + text[end + 1 :].startswith(" "))
        except ValueError:
            break
    return names
