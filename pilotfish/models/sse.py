r"""Server-sent events, read from bytes as they arrive.

Follows the event stream grammar of the WHATWG HTML standard (section "Server-sent events"): lines end
with LF, CR or CRLF; ``data`` lines of one event are joined by LF; lines that begin with a colon are
comments; an event that was not finished by an empty line is dropped at the end. Lines are split as
bytes and decoded whole, so a character cut in two by the network is never seen in halves.

Difference: only ``data`` is kept (endpoints with OpenAI's API put everything there), and a final
``[DONE]`` counts without the empty line after it, which several servers leave out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

DONE = "[DONE]"
_LINE_END = re.compile(rb"\r\n|\n|\r")


class EventParser:
    r"""Bytes in, the ``data`` of each complete event out.

    >>> parser = EventParser()
    >>> list(parser.feed(b": hello\ndata: 1\n\nda")), list(parser.feed(b"ta: 2\r\n\r\n"))
    (['1'], ['2'])
    """

    def __init__(self) -> None:
        self._partial: list[bytes] = []
        self._data: list[bytes] = []
        self._skip_newline = False
        self._started = False

    def feed(self, chunk: bytes) -> Iterator[str]:
        """Take the next bytes, in pieces of any size.

        Raises:
            UnicodeDecodeError: An event's data is not UTF-8.
        """
        if self._skip_newline and chunk:
            # The CR that ended the previous chunk may be the first half of a CRLF.
            chunk = chunk.removeprefix(b"\n")
            self._skip_newline = False
        if b"\n" not in chunk and b"\r" not in chunk:
            self._partial.append(chunk)
            return
        *lines, rest = _LINE_END.split(b"".join((*self._partial, chunk)))
        self._skip_newline = chunk.endswith(b"\r")
        self._partial = [rest]
        for line in lines:
            if not self._started:
                line = line.removeprefix(b"\xef\xbb\xbf")
                self._started = True
            if line:
                self._field(line)
            elif self._data:
                data = b"\n".join(self._data)
                self._data = []
                yield data.decode("utf-8")

    def close(self) -> Iterator[str]:
        """The stream ended: yield a ``[DONE]`` that lacks its empty line; drop anything else."""
        self._field(b"".join(self._partial))
        if self._data == [DONE.encode()]:
            yield DONE
        self._partial, self._data = [], []

    def _field(self, line: bytes) -> None:
        name, _, value = line.partition(b":")
        if name == b"data":
            self._data.append(value.removeprefix(b" "))
