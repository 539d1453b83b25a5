"""A stream of bytes as blocks of whole lines, in memory that does not grow with the longest line.

A file of lines is read by several workers, each with a byte range: a line belongs to the range that holds
its first byte. Of a line that is too long only the beginning is ever held.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

# A block is held several times over: its bytes, its texts, what steps make of them, the lines to write.
BLOCK_BYTES = 1 << 19
SHOWN_BYTES = 1024
BOM = b"\xef\xbb\xbf"


class Block(NamedTuple):
    """Whole lines, each with its line end.

    Attributes:
        data: One or more lines; or the beginning of one that is too long.
        too_long: It is that.
    """

    data: bytes
    too_long: bool


def blocks(
    handle: BinaryIO,
    start: int,
    end: int,
    longest: int,
    size: int = BLOCK_BYTES,
) -> Iterator[Block]:
    """Blocks of the lines that begin in bytes ``start`` to ``end`` of a stream.

    Args:
        handle: Stands at its beginning; is sought only when ``start`` is not 0.
        start: First byte of the range.
        end: One past the last; -1 for all.
        longest: Most bytes of a line, its end included. Lines within a block may be longer by ``size``.
        size: Bytes that are read at once.
    """
    position = start
    rest = b""
    if start:
        position = handle.seek(start - 1)
        skipped, rest = _skip_line(handle, b"", size)
        position += skipped
    elif (head := handle.read(size))[:3] == BOM:
        rest, position = head[3:], 3
    else:
        rest = head
    # ``position`` is where ``rest`` begins in the stream.
    more = True
    while more or rest:
        if end >= 0 and position >= end:
            return
        if end >= 0 and (last := rest.find(b"\n", max(0, end - 1 - position))) >= 0:
            yield Block(rest[: last + 1], False)
            return
        cut = rest.rfind(b"\n") + 1
        if cut:
            yield Block(rest[:cut], False)
            position += cut
            rest = rest[cut:]
        elif len(rest) > longest:
            yield Block(rest[:SHOWN_BYTES], True)
            skipped, rest = _skip_line(handle, rest, size)
            position += skipped
        if more:
            data = handle.read(size)
            more = bool(data)
            rest += data
        elif rest:
            yield Block(rest + b"\n", False)
            return


def _skip_line(handle: BinaryIO, rest: bytes, size: int) -> tuple[int, bytes]:
    """Drop bytes up to and with the next line end: how many, and what follows it."""
    skipped = 0
    while (cut := rest.find(b"\n")) < 0:
        skipped += len(rest)
        rest = handle.read(size)
        if not rest:
            return skipped, b""
    return skipped + cut + 1, rest[cut + 1 :]


def line_starts(data: bytes) -> NDArray[np.int32]:
    """Where the lines of a block begin, and its length: ``[lines + 1]``."""
    ends = np.flatnonzero(np.frombuffer(data, np.uint8) == 10) + 1
    return np.concatenate([[0], ends]).astype(np.int32)
