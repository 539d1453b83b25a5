"""Plain text to Arrow: a line a row, or a file a row."""

from __future__ import annotations

import numpy as np
import pyarrow as pa

from pilotfish.curate.formats.rows import Parsed, Reject, shown
from pilotfish.curate.rules.arrow import strings
from pilotfish.curate.step import TEXT


def parse_lines(data: bytes, longest: int) -> Parsed:
    """Rows and rejects of a block of whole lines; empty ones are neither."""
    if b"\r\n" in data:
        data = data.replace(b"\r\n", b"\n")
    rows, index, rejects = [], [], []
    lines = data.split(b"\n")[:-1]
    for i, line in enumerate(lines):
        if not line or line.isspace():
            continue
        if reason := _trouble(line, longest):
            rejects.append(Reject(i, reason, shown(line)))
        else:
            rows.append(line)
            index.append(i)
    text = strings(rows).cast(pa.string())
    return Parsed({TEXT: text}, np.array(index, np.int64), rejects, len(lines))


def parse_document(data: bytes, longest: int) -> Parsed:
    """A whole file as one row; an empty one is none."""
    if not data or data.isspace():
        return Parsed({TEXT: strings([]).cast(pa.string())}, np.arange(0), [], 1)
    if reason := _trouble(data, longest):
        text = strings([]).cast(pa.string())
        return Parsed({TEXT: text}, np.arange(0), [Reject(0, reason, shown(data))], 1)
    return Parsed({TEXT: strings([data]).cast(pa.string())}, np.arange(1), [], 1)


def _trouble(data: bytes, longest: int) -> str:
    if len(data) >= longest:
        return "too-long"
    if b"\x00" in data:
        return "not-text"
    try:
        data.decode("utf-8")
    except UnicodeDecodeError:
        return "bad-encoding"
    return ""
