"""What :mod:`pilotfish.models.fake_server` sends: right answers, parts of them, and what is no HTTP."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Mapping

import h11


class Sender:
    """Writes one answer to one client."""

    def __init__(self, connection: h11.Connection, writer: asyncio.StreamWriter) -> None:
        self._connection = connection
        self._writer = writer

    async def whole(
        self, status: int, kind: str, body: bytes, headers: Mapping[str, str] | None = None
    ) -> None:
        """A whole answer of a content type in one write."""
        fields = [("content-type", kind), ("content-length", str(len(body)))]
        fields += [(name, value) for name, value in (headers or {}).items() if value]
        send = self._connection.send
        start = send(h11.Response(status_code=status, headers=fields)) or b""
        data = send(h11.Data(data=body)) or b""
        await self.raw(start + data + (send(h11.EndOfMessage()) or b""))

    async def begin(self, status: int, kind: str) -> None:
        """The head of an answer that comes in chunks."""
        fields = [("content-type", kind), ("transfer-encoding", "chunked")]
        head = h11.Response(status_code=status, headers=fields)
        await self.raw(self._connection.send(head) or b"")

    async def piece(self, data: bytes) -> None:
        """One chunk."""
        await self.raw(self._connection.send(h11.Data(data=data)) or b"")

    async def end(self) -> None:
        """The last chunk."""
        await self.raw(self._connection.send(h11.EndOfMessage()) or b"")

    async def raw(self, data: bytes) -> None:
        """Bytes as they are."""
        self._writer.write(data)
        await self._writer.drain()

    def reset(self) -> None:
        """Break the connection with a TCP reset."""
        sock = self._writer.get_extra_info("socket")
        # Lingering for zero seconds turns the close into a TCP reset.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()
