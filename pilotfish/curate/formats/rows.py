"""What reading yields: batches of usable rows, and every other row with its line and a stable reason.

Reasons: ``not-json``, ``not-an-object``, ``missing-field:NAME``, ``not-text`` (a number, a list, a NUL),
``wrong-type:NAME``, ``bad-encoding``, ``too-long``, ``wrong-columns``, ``unclosed-quote`` and
``damaged-file`` (what could be read of it was).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec
import pyarrow as pa
from numpy.typing import NDArray

SHOWN = 200


class Reject(msgspec.Struct):
    """A row that cannot be used.

    Attributes:
        line: Its line or row, from 0, counted from where the reader began.
        reason: One of the module's stable reasons.
        text: The first 200 characters of what stood there.
    """

    line: int
    reason: str
    text: str


@dataclass(frozen=True, slots=True)
class Parsed:
    """A block, parsed.

    Attributes:
        columns: Arrays of ``n`` values.
        index: The line of each of the ``n`` rows, from 0, within the block.
        rejects: The other rows; empty lines are neither.
        lines: How many lines the block has.
    """

    columns: dict[str, pa.Array]
    index: NDArray[Any]
    rejects: list[Reject]
    lines: int


def shown(data: bytes | str) -> str:
    """The beginning of a row, for people."""
    if isinstance(data, bytes):
        data = data[: 4 * SHOWN].decode("utf-8", "replace")
    return data[:SHOWN]
