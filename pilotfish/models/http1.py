"""A small HTTP/1.1 client on asyncio: what a model's endpoint needs, and nothing else.

Why not a general client: the gateway makes one call per request that it serves, so the client's
cost is the gateway's. Measured per call of 1 KB there and 300 bytes back (uvloop, loopback, time of
the client's thread): httpx 810 us, this 45 us; aiohttp took 145 us in an earlier run. Parsing is
llhttp's, through ``httptools``; what is here is the pool, the timeouts and the ends of messages
(RFC 9112): by length, by chunks, by the end of the connection.

Not here: proxies (:mod:`pilotfish.models.http_proxy` has them), redirects, cookies, HTTP/2, request
bodies in pieces. Compressed answers are not asked for, but read when they come (gzip, deflate).

A connection goes back to the pool the moment its answer is complete. One that the endpoint closes
while it is idle is dropped at once; one that dies just as it is used again shows as :class:`Lost`
before the first byte and is replaced by a new one, once, since such an endpoint has not begun to
work.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Mapping
from typing import cast

import httptools

from pilotfish.models.http1_answer import Answer
from pilotfish.models.transport import Address, Lost, NotConnected, NotHttp, Response, Silent

# uvicorn and node close after 5 s, nginx after 75 s, large providers after minutes
IDLE_SECONDS = 15.0
# a connection closed meanwhile answers the first write with a reset within a round trip
STALE_SECONDS = 1.0
MOST_HEAD = 1 << 18  # bytes of status line and headers


class Pool:
    """Keep-alive connections to one address; a :class:`Client`.

    Args:
        address: Where to connect.
        connect_timeout: Seconds until connected, TLS included.
        read_timeout: Seconds between two pieces of an answer.
        first_byte_timeout: Seconds until the first byte; default as between two pieces.
    """

    def __init__(
        self,
        address: Address,
        *,
        connect_timeout: float,
        read_timeout: float,
        first_byte_timeout: float | None = None,
    ) -> None:
        self.address = address
        self.connect_timeout = connect_timeout
        self.read_timeout = read_timeout
        self.first_byte_timeout = first_byte_timeout or read_timeout
        self.closed = False
        self._idle: deque[Connection] = deque()
        self._sweep: asyncio.TimerHandle | None = None

    async def post(self, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        """See :meth:`Client.post`."""
        lines = [f"POST {target} HTTP/1.1\r\nhost: {self.address.netloc}\r\n"]
        lines += [f"{name}: {value}\r\n" for name, value in headers.items()]
        lines.append(f"accept-encoding: identity\r\ncontent-length: {len(body)}\r\n\r\n")
        head = "".join(lines).encode("latin-1")
        connection = self._take()
        if connection is not None:
            began = connection.loop.time()
            try:
                return await connection.ask(head, body)
            except Lost:
                # A body that dies later, or after a while, may have been worked on: that is the
                # caller's to judge.
                if connection.heard or connection.loop.time() - began > STALE_SECONDS:
                    raise
        return await (await self._connect()).ask(head, body)

    def close(self) -> None:
        """Close the idle connections; those under way are closed when their answer is complete."""
        self.closed = True
        if self._sweep is not None:
            self._sweep.cancel()
        while self._idle:
            self._idle.pop().abort()

    def give(self, connection: Connection) -> None:
        """Take back a connection whose answer is complete."""
        if self.closed:
            connection.abort()
            return
        connection.idle_since = connection.loop.time()
        self._idle.append(connection)
        if self._sweep is None:
            self._sweep = connection.loop.call_later(IDLE_SECONDS, self._drop_old)

    def forget(self, connection: Connection) -> None:
        """Drop a connection that was closed while it was idle."""
        if connection in self._idle:
            self._idle.remove(connection)

    def _take(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if connection.usable() and not connection.older_than(IDLE_SECONDS):
                return connection
            connection.abort()
        return None

    def _drop_old(self) -> None:
        self._sweep = None
        while self._idle and self._idle[0].older_than(IDLE_SECONDS):
            self._idle.popleft().abort()
        if self._idle:
            self._sweep = self._idle[0].loop.call_later(IDLE_SECONDS, self._drop_old)

    async def _connect(self) -> Connection:
        loop = asyncio.get_running_loop()
        address = self.address
        try:
            async with asyncio.timeout(self.connect_timeout):
                _, connection = await loop.create_connection(
                    lambda: Connection(self, loop),
                    address.host,
                    address.port,
                    ssl=address.tls,
                    server_hostname=address.host if address.tls else None,
                )
        except TimeoutError:
            raise NotConnected(f"not within {self.connect_timeout:g} s") from None
        except (OSError, UnicodeError) as error:
            raise NotConnected(str(error) or type(error).__name__) from None
        return connection


class Connection(asyncio.Protocol):
    """One connection; at most one exchange at a time."""

    def __init__(self, pool: Pool, loop: asyncio.AbstractEventLoop) -> None:
        self.pool = pool
        self.loop = loop
        self.heard = False
        self.idle_since = 0.0
        self._transport: asyncio.Transport | None = None
        self._answer: Answer | None = None
        self.parser: httptools.HttpResponseParser | None = None
        self._head = 0
        self._timer: asyncio.TimerHandle | None = None
        self._quiet_since = 0.0

    async def ask(self, head: bytes, body: bytes) -> Answer:
        """Send a request; returns when the head of its answer has come."""
        assert self._transport is not None
        answer = self._answer = Answer(self)
        self.parser = httptools.HttpResponseParser(answer)
        self.heard, self._head = False, 0
        self._transport.writelines((head, body))
        try:
            while not answer.begun:
                await answer.more()
        except BaseException:
            # Cancelled, too: what would come later must not be taken for the next answer.
            self.abort()
            raise
        return answer

    def usable(self) -> bool:
        """Whether a request can still be written."""
        return self._transport is not None and not self._transport.is_closing()

    def older_than(self, seconds: float) -> bool:
        """Whether it has been idle for longer than that."""
        return self.loop.time() - self.idle_since > seconds

    def abort(self) -> None:
        """Close at once; whatever comes is nobody's."""
        self._answer = None
        if self._transport is not None:
            self._transport.abort()

    def watch(self) -> None:
        """From now on, silence for too long ends the exchange.

        One timer serves many requests: it is moved on only when it fires, at no cost per request. It
        fires at least as often as the shorter of the two limits says, since the next wait may be
        for the other.
        """
        self._quiet_since = self.loop.time()
        if self._timer is None:
            self._arm(self.pool.read_timeout)

    def _arm(self, seconds: float) -> None:
        shortest = min(seconds, self.pool.read_timeout, self.pool.first_byte_timeout)
        self._timer = self.loop.call_later(shortest, self._check)

    def _check(self) -> None:
        self._timer = None
        answer = self._answer
        if answer is None or not answer.waiting:
            return
        limit = self.pool.read_timeout if self.heard else self.pool.first_byte_timeout
        left = self._quiet_since + limit - self.loop.time()
        if left > 0:
            self._arm(left)
            return
        answer.fail(Silent(f"nothing came for {limit:g} s"))
        self.abort()

    def hold(self, back: bool) -> None:
        """Stop reading, or go on: the endpoint is held back by TCP."""
        if self._transport is not None and not self._transport.is_closing():
            (self._transport.pause_reading if back else self._transport.resume_reading)()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Connected, TLS included."""
        self._transport = cast("asyncio.Transport", transport)  # uvloop's derives from nothing

    def data_received(self, data: bytes) -> None:
        """Parse what came and wake the reader."""
        answer = self._answer
        if answer is None or self.parser is None:
            self.abort()  # bytes that nobody asked for
            self.pool.forget(self)
            return
        self.heard = True
        if not answer.begun:
            self._head += len(data)
        try:
            self.parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            # Bytes after a complete answer spoil the connection, not the answer.
            if not answer.complete:
                answer.fail(NotHttp(str(error) or type(error).__name__))
            self.abort()
        if not answer.begun and self._head > MOST_HEAD:
            answer.fail(NotHttp(f"its headers are longer than {MOST_HEAD} bytes"))
            self.abort()
        if answer.complete and self._answer is not None:
            self._finish(answer)
        answer.wake()

    def connection_lost(self, error: Exception | None) -> None:
        """Closed, by whichever side; an answer without a length ends here."""
        self.pool.forget(self)
        if self._timer is not None:
            self._timer.cancel()
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.ended(error)

    def _finish(self, answer: Answer) -> None:
        answer.release()
        self._answer = self.parser = None
        assert self._transport is not None
        # An endpoint may answer (413) before it has read the request; the rest would be taken for
        # the next one.
        if answer.keep_alive and self.usable() and not self._transport.get_write_buffer_size():
            self.pool.give(self)
        else:
            self._transport.abort()
