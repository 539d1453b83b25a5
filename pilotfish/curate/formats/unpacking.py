"""Reading packed files: gzip, Zstandard, and UTF-16, by what a file holds rather than by its name.

Of a damaged archive all that can be unpacked is given before the error.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO, cast

from pilotfish.curate.formats.opening import is_damage, opening
from pilotfish.curate.formats.pieces import MAGIC, UTF16


def unpacked(handle: BinaryIO, url: str) -> BinaryIO:
    """The stream of a file's own bytes: unpacked, whatever its name says, and recoded from UTF-16.

    Args:
        handle: As :func:`open_binary` gave it.
        url: For messages.
    """
    from pilotfish.sources import Utf16

    with opening(url):
        head = handle.read(4)
        handle.seek(0)
    packed = next((kind for magic, kind in MAGIC.items() if head.startswith(magic)), "")
    if packed:
        return cast(BinaryIO, _Salvage(handle, packed))
    if head.startswith(UTF16):
        return io.BufferedReader(Utf16(handle), 1 << 20)
    return handle


class _Salvage:
    """An unpacked stream that gives all that can be unpacked before it says what is wrong.

    The unpacker gives nothing of a read that meets the damage. So the stream is then read once more to
    where it was, and from there in small bites.
    """

    def __init__(self, handle: BinaryIO, packed: str) -> None:
        self._handle = handle
        self._packed = packed
        self._stream = self._open()
        self._first: Any = None
        self._bite = 1 << 16
        self._given = 0
        self._error: OSError | None = None

    def _open(self) -> Any:
        import pyarrow as pa

        self._handle.seek(0)
        return pa.CompressedInputStream(pa.PythonFile(self._handle, "r"), self._packed)

    def read(self, size: int) -> bytes:
        parts: list[bytes] = []
        missing = size
        while missing and self._error is None:
            try:
                data = self._stream.read(min(missing, self._bite))
            except OSError as error:
                if not is_damage(error):
                    raise
                if self._bite == 1:
                    self._error = error
                else:
                    self._again()
                continue
            if not data:
                break
            parts.append(data)
            missing -= len(data)
            self._given += len(data)
        if self._error is not None and not parts:
            raise self._error
        return b"".join(parts)

    def _again(self) -> None:
        self._first = self._stream  # dropping it would close the file
        self._stream = self._open()
        skip = self._given
        while skip:
            skip -= len(self._stream.read(min(skip, self._bite)))
        self._bite = 1
