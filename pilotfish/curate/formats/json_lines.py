"""JSON lines to Arrow: only what steps read is decoded, the rest is kept as bytes.

A row stays what it was: its line travels as it stands and is written as it stands, so no number is
rounded, no date reinterpreted and no nested field lost on the way. A block of lines is decoded in one
call, at hundreds of megabytes a second; when a line of it is bad, its lines are decoded one by one, and
only the bad ones are looked at with care.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilotfish.curate.formats.blocks import line_starts
from pilotfish.curate.formats.rows import Parsed, Reject, shown
from pilotfish.curate.rules.arrow import strings, to_arrow, truths
from pilotfish.curate.step import SOURCE, TEXT
from pilotfish.errors import ConfigError


class JsonLines:
    """Parses blocks of JSON lines.

    Args:
        text: The field that holds the text.
        reads: Further fields to read, with their Arrow types.
        longest: Most bytes of a line.

    Raises:
        ConfigError: A type that no JSON value has, or another one than that of a text for the text.
    """

    def __init__(self, text: str, reads: Mapping[str, pa.DataType], longest: int) -> None:
        self._text = text
        self._reads = {name: kind for name, kind in reads.items() if name != text}
        self._again = reads.get(text)  # a step may read the text by its own name, too
        if self._again is not None and _python_type(text, self._again) is not str:
            raise ConfigError(f"A step reads {text!r} as {self._again}, but it holds the text.")
        self._longest = longest
        fields: list[Any] = [("text", str)]
        fields += [
            (f"f{i}", _python_type(name, kind) | None, None)
            for i, (name, kind) in enumerate(self._reads.items())
        ]
        names = {"text": text} | {f"f{i}": name for i, name in enumerate(self._reads)}
        self._attributes = [f"f{i}" for i in range(len(self._reads))]
        document = msgspec.defstruct("Document", fields, rename=names, gc=False)
        self._decoder: Any = msgspec.json.Decoder(document)

    def parse(self, data: bytes) -> Parsed:
        """Rows and rejects of a block of whole lines, each with its line end."""
        if b"\r\n" in data:
            data = data.replace(b"\r\n", b"\n")
        starts = line_starts(data)
        n = len(starts) - 1
        source = pa.Array.from_buffers(
            pa.binary(), n, [None, pa.py_buffer(starts), pa.py_buffer(data)]
        )
        documents: Sequence[Any] | None = None
        if b"\\u0000" not in data and int(np.diff(starts).max()) <= self._longest:
            try:
                source.view(pa.string()).validate(full=True)
                documents = self._decoder.decode_lines(data)
            except (pa.ArrowInvalid, ValueError, RecursionError):
                documents = None
        if documents is not None and len(documents) == n:
            return Parsed(self._columns(documents, source), np.arange(n), [], n)
        return self._one_by_one(data, starts, source)

    def _columns(self, documents: Sequence[Any], source: pa.Array) -> dict[str, pa.Array]:
        columns = {TEXT: strings([d.text for d in documents]).cast(pa.string())}
        for attribute, (name, kind) in zip(self._attributes, self._reads.items(), strict=True):
            columns[name] = pa.array([getattr(d, attribute) for d in documents], kind)
        if self._again is not None:
            columns[self._text] = columns[TEXT].cast(self._again)
        return columns | {SOURCE: source}

    def _one_by_one(self, data: bytes, starts: Any, source: pa.Array) -> Parsed:
        documents, index, rejects = [], [], []
        edges = starts.tolist()
        for i, (start, end) in enumerate(pairwise(edges)):
            line = data[start : end - 1]
            document, reason = self._decode(line)
            if document is not None:
                documents.append(document)
                index.append(i)
            elif reason:
                rejects.append(Reject(i, reason, shown(line)))
        kept = np.array(index, np.int64)
        return Parsed(
            self._columns(documents, source.take(to_arrow(kept))), kept, rejects, len(edges) - 1
        )

    def _decode(self, line: bytes) -> tuple[Any, str]:
        """The document of a line, or why there is none ("" for an empty line)."""
        if len(line) >= self._longest:
            return None, "too-long"
        try:
            line.decode("utf-8")  # fields that are not read are not checked by the decoder
            document = self._decoder.decode(line)
        except UnicodeDecodeError:
            return None, "bad-encoding"
        except (ValueError, RecursionError):
            document = None
        if document is None:
            return self._with_care(line)
        return (None, "not-text") if "\x00" in document.text else (document, "")

    def _with_care(self, line: bytes) -> tuple[Any, str]:
        """What the decoder refused: accepted after all (``NaN`` is), or the reason why not."""
        if not line.strip():
            return None, ""
        try:
            value = json.loads(line)
            json.dumps(value, ensure_ascii=False).encode("utf-8")
        except UnicodeError:  # half of a surrogate pair is no text
            return None, "bad-encoding"
        except (ValueError, RecursionError):
            return None, "not-json"
        if not isinstance(value, dict):
            return None, "not-an-object"
        text = value.get(self._text)
        if text is None:
            return None, f"missing-field:{self._text}"
        if not isinstance(text, str) or "\x00" in text:
            return None, "not-text"
        wanted = {name: value[name] for name in [self._text, *self._reads] if name in value}
        try:
            return msgspec.convert(wanted, self._decoder.type), ""
        except msgspec.ValidationError as error:
            name = str(error).partition(" - at `$.")[2].rstrip("`")
            return None, f"wrong-type:{name}"


def _python_type(name: str, kind: pa.DataType) -> Any:
    for matches, python in (
        (pa.types.is_string, str),
        (pa.types.is_large_string, str),
        (pa.types.is_boolean, bool),
        (pa.types.is_integer, int),
        (pa.types.is_floating, float),
    ):
        if matches(kind):
            return python
    raise ConfigError(
        f"A step reads {name!r} as {kind}.",
        remedy="Expected string, bool, an integer type or a floating-point type.",
    )


def merged(source: pa.Array, columns: Mapping[str, pa.Array]) -> bytes:
    """The lines as they were read, with columns added or replaced.

    Args:
        source: ``n`` lines.
        columns: Name to ``n`` values. A field that the line has already is replaced where it stands.
    """
    if not columns:
        offsets = np.frombuffer(source.buffers()[1], np.int32)[source.offset :][: len(source) + 1]
        return bytes(memoryview(source.buffers()[2])[offsets[0] : offsets[-1]])
    names = list(columns)
    present = [_contains(source, name) for name in names]
    replaces = np.logical_or.reduce(present)
    encode = msgspec.json.encode
    parts: list[bytes] = []
    values = [column.to_pylist() for column in columns.values()]
    for line, replace, cells in zip(source, replaces, zip(*values, strict=True), strict=True):
        added = encode(dict(zip(names, cells, strict=True)))
        if replace:
            parts.append(_replaced(line.as_py(), added))
        else:
            parts += (line.as_py().rstrip()[:-1], b",", added[1:], b"\n")
    return b"".join(parts)


def _contains(source: pa.Array, name: str) -> Any:
    found = pc.match_substring(source, msgspec.json.encode(name).decode())
    return truths(found)


def _replaced(line: bytes, added: bytes) -> bytes:
    fields = dict[str, msgspec.Raw]
    new = msgspec.json.decode(added, type=fields)
    try:
        old = msgspec.json.decode(line, type=fields)
    except ValueError:  # NaN, which only Python's own reader takes
        return (
            json.dumps(json.loads(line) | json.loads(added), ensure_ascii=False) + "\n"
        ).encode()
    return msgspec.json.encode(old | new) + b"\n"
