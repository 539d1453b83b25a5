"""An answer of :mod:`pilotfish.models.http1` under way, between the parser and whoever reads it.

The parser pushes, the reader pulls. When the reader is slow, 1 MiB waits for it; then the connection
stops reading, so an endpoint that streams faster than its reader cannot fill the memory.
"""

from __future__ import annotations

import asyncio
import zlib
from typing import TYPE_CHECKING

from pilotfish.models.transport import ConnectionFailed, Lost, Undecodable

if TYPE_CHECKING:
    from pilotfish.models.http1 import Connection

MOST_WAITING = 1 << 20  # bytes of an answer that wait to be taken before the endpoint is held back


class Answer:
    """A response under way: llhttp's callbacks on one side, a :class:`Response` on the other."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.status = 0
        self.headers: dict[str, str] = {}
        self.begun = self.complete = self.keep_alive = False
        self._failure: ConnectionFailed | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._pieces: list[bytes] = []
        self._waiting = 0
        self._held = False
        self._inflate: zlib._Decompress | None = None

    # llhttp's side; names are httptools'.

    def on_header(self, name: bytes, value: bytes) -> None:
        """One header; the values of a repeated one are joined (RFC 9110, 5.2)."""
        if not self.begun:  # else it is a trailer
            key = name.decode("latin-1").lower()
            text = value.decode("latin-1")
            self.headers[key] = f"{self.headers[key]}, {text}" if key in self.headers else text

    def on_headers_complete(self) -> None:
        """The head is whole, or that of an interim answer (1xx)."""
        parser = self._connection.parser
        assert parser is not None
        self.status = parser.get_status_code()
        self.begun = self.status >= 200 or self.status == 101
        if self.headers.get("content-encoding", "").lower() in ("gzip", "x-gzip", "deflate"):
            self._inflate = zlib.decompressobj(zlib.MAX_WBITS | 32)

    def on_body(self, data: bytes) -> None:
        """A piece of the body."""
        self._pieces.append(data)
        self._waiting += len(data)
        if self._waiting > MOST_WAITING and not self._held:
            self._held = True
            self._connection.hold(back=True)

    def on_message_complete(self) -> None:
        """All of it is here."""
        if self.begun:
            self.complete = True
            parser = self._connection.parser
            self.keep_alive = parser is not None and parser.should_keep_alive()
        else:
            self.headers.clear()  # 100 Continue and the like; the answer follows

    # The connection's side.

    def fail(self, failure: ConnectionFailed) -> None:
        """It comes to nothing; the first reason counts."""
        if self._failure is None and not self.complete:
            self._failure = failure
        self.wake()

    def ended(self, error: Exception | None) -> None:
        """The connection was closed: the end of a body without a length, else a loss."""
        framed = "content-length" in self.headers or "transfer-encoding" in self.headers
        if self.begun and not framed and error is None:
            self.complete = True
            self.wake()
        else:
            self.fail(Lost(str(error or "") or "the connection was closed"))

    def release(self) -> None:
        """Let the endpoint go on."""
        if self._held:
            self._held = False
            self._connection.hold(back=False)

    def wake(self) -> None:
        """Let the reader look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    # The reader's side.

    async def more(self) -> None:
        """Wait until something changes.

        Raises:
            ConnectionFailed: It came to nothing.
        """
        if self._failure is not None:
            raise self._failure
        self._waiter = self._connection.loop.create_future()
        self._connection.watch()
        try:
            await self._waiter
        finally:
            self._waiter = None

    @property
    def waiting(self) -> bool:
        """Whether a reader waits."""
        return self._waiter is not None

    async def next(self) -> bytes | None:
        """See :meth:`~pilotfish.models.transport.Response.next`."""
        while not self._pieces:
            if self.complete:
                return None
            await self.more()
        return self._taken()

    async def read(self) -> bytes:
        """See :meth:`~pilotfish.models.transport.Response.read`."""
        read: list[bytes] = []
        while not self.complete:
            if self._pieces:
                read.append(self._taken())
            await self.more()
        if self._pieces:
            read.append(self._taken())
        return read[0] if len(read) == 1 else b"".join(read)

    def _taken(self) -> bytes:
        data = self._pieces[0] if len(self._pieces) == 1 else b"".join(self._pieces)
        self._pieces, self._waiting = [], 0
        self.release()
        if self._inflate is None:
            return data
        try:
            return self._inflate.decompress(data)
        except zlib.error as error:
            raise Undecodable(str(error)) from None

    async def aclose(self) -> None:
        """See :meth:`~pilotfish.models.transport.Response.aclose`."""
        if not self.complete:
            self._connection.abort()
