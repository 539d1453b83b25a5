"""HTTP as clients really speak it: limits, and an error object in answer to every malformed request.

uvicorn's protocol answers what is not HTTP in plain text, reads headers of any size for as long as
the client likes, and tells the application that a client has left only when it asks. Here each of
these is mended: what cannot be read gets OpenAI's error object with the right status, headers have
a size and a time, and a client that leaves cancels the work that is done for it at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import httptools
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from pilotfish.gateway.refusals import Refusal

MOST_HEAD = 1 << 16  # bytes of request line and headers
MOST_HEADERS = 100
HEADER_SECONDS = 10.0
LINGER_SECONDS = 2.0
MOST_GATHERED = 1 << 16  # bytes

CONNECTION = "pilotfish.connection"  # the scope's key for the connection itself


class GatewayProtocol(HttpToolsProtocol):
    """One connection of a client.

    Attributes:
        on_leave: Called when the client goes away, or sends what cannot be read, while it is answered.
        header_seconds: From the first byte of a request to the end of its headers.
    """

    header_seconds = HEADER_SECONDS

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_leave: Callable[[], None] | None = None
        self._head = 0
        self._headers = 0
        self._in_head = self._in_body = False
        self._over: Refusal | None = None
        self._next: Refusal | None = None  # goes out after the answers that are due before it
        self._deaf = False
        self._timer: asyncio.TimerHandle | None = None

    # Connection callbacks.

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client connected; it has ``header_seconds`` to begin."""
        super().connection_made(transport)
        self.transport = cast("asyncio.Transport", _Gathering(transport, self.loop))
        self._arm()

    def data_received(self, data: bytes) -> None:
        """Bytes came."""
        self._unset_keepalive_if_required()
        if self._deaf or self.transport.is_closing():
            return
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._go_on_without_upgrade(data[upgrade.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse(self._over or _malformed(error))
            return
        if self._in_head:
            self._head += len(data)
            if self._head > MOST_HEAD:
                self._refuse(_too_long(f"longer than {MOST_HEAD} bytes"))
            elif self._timer is None:
                self._arm()

    def eof_received(self) -> None:
        """The client will send no more, so a request that was begun is incomplete."""
        if self._in_head or self._in_body:
            self._refuse(_incomplete())

    def connection_lost(self, exc: Exception | None) -> None:
        """The client left."""
        self._disarm()
        super().connection_lost(exc)
        leave, self.on_leave = self.on_leave, None
        if leave is not None:
            leave()

    # Parser callbacks.

    def on_message_begin(self) -> None:
        """A request begins."""
        self._in_head, self._head, self._headers = True, 0, 0
        super().on_message_begin()
        self.scope[CONNECTION] = self  # type: ignore[literal-required]

    def on_url(self, url: bytes) -> None:
        """A piece of the request line."""
        super().on_url(url)
        self._count(len(self.url), 0)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header."""
        self._count(len(name) + len(value) + 4, 1)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._disarm()
        version = self.parser.get_http_version()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if version not in ("1.1", "1.0") or hosts > 1 or (hosts == 0 and version == "1.1"):
            self._over = _malformed(ValueError(f"version {version} with {hosts} host headers"))
            raise ValueError  # RFC 9112, 3.2
        self._in_head, self._in_body = False, True
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """The body is complete."""
        if self.parser.should_upgrade():
            return  # llhttp says so of every upgrade; its body is still to come
        self._in_body = False
        self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        """The answer is out. If the body is not in (413), read on for a while, unheeded.

        To close at once would reset the connection under a client that is still sending, and the answer
        would be lost with it.
        """
        last = not self.pipeline
        super().on_response_complete()
        if self._next is not None and last:
            self._end_with(self._next)
        elif self._in_body and not self.transport.is_closing():
            self._disarm()
            self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    # What is wrong.

    def _count(self, size: int, headers: int) -> None:
        self._head += size
        self._headers += headers
        if self._head > MOST_HEAD or self._headers > MOST_HEADERS:
            self._over = _too_long(f"more than {MOST_HEADERS} or longer than {MOST_HEAD} bytes")
            raise ValueError  # stops the parser, which reports it to data_received

    def _arm(self) -> None:
        self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if self._in_head:
            self._refuse(
                Refusal(
                    408, "request_timeout", f"No complete headers within {self.header_seconds:g} s."
                )
            )
        elif self.cycle is None:
            self.transport.close()  # it connected and said nothing

    def _refuse(self, refusal: Refusal) -> None:
        """Answer in place of the application, and close."""
        self._disarm()
        self._in_head = False
        cycle = self.cycle
        busy = cycle is not None and not cycle.response_complete
        if busy and self._in_body and self.pipeline and self.pipeline[0][0] is cycle:
            self.pipeline.popleft()  # its body is wrong, and its turn has not come
            self._in_body = False
        if busy and not self._in_body:
            # The next request is wrong; the answers to those before it go out first.
            self._next = self._next or refusal
            return
        if busy:
            started, cycle.disconnected = cycle.response_started, True
            leave, self.on_leave = self.on_leave, None
            cycle.message_event.set()
            if leave is not None:
                leave()
            if started:
                self.transport.close()
                return
        self._end_with(refusal)

    def _end_with(self, refusal: Refusal) -> None:
        """Say it, and that no more comes; hear out for a while what the client still sends.

        To close with bytes unread would reset the connection, and the answer would be lost with it.
        """
        if self._deaf or self.transport.is_closing():
            return
        self._disarm()
        self._deaf, self._in_head, self._in_body = True, False, False
        self.transport.write(plain_error(refusal, self.server_state.default_headers))
        self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_SECONDS, self.transport.close)

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Decline an upgrade (h2c, websocket) by answering in HTTP/1.1 (RFC 9110, 7.8).

        llhttp stops after the headers, so the body is read by a second parser, and then the
        connection ends.
        """
        cycle = self.cycle
        cycle.keep_alive = False
        framing = b""
        for name, value in self.headers:
            if name in (b"content-length", b"transfer-encoding"):
                framing += name + b": " + value + b"\r\n"
        self.parser = httptools.HttpRequestParser(_Body(self))
        self._in_body = True
        try:
            self.parser.feed_data(b"POST / HTTP/1.1\r\n" + framing + b"\r\n" + rest)
        except httptools.HttpParserError as error:
            self._refuse(_malformed(error))


class _Gathering:
    """A transport that writes once per turn of the loop what was written in it.

    An answer's head and body, or the events that came in one packet, then leave in one system call.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._parts: list[bytes] = []
        self._size = 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def is_closing(self) -> bool:
        """Whether it is closed, or about to be."""
        return self._transport.is_closing()

    def write(self, data: bytes) -> None:
        """Keep it until the turn ends, or until there is too much."""
        if not self._parts:
            self._loop.call_soon(self._flush)
        self._parts.append(data)
        self._size += len(data)
        if self._size > MOST_GATHERED:
            self._flush()

    def write_eof(self) -> None:
        """Write what is kept, then close the writing side."""
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        """Write what is kept, then close."""
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._parts:
            parts, self._parts, self._size = self._parts, [], 0
            self._transport.write(parts[0] if len(parts) == 1 else b"".join(parts))


class _Body:
    """Passes the body of a request on, whose head was read before."""

    def __init__(self, protocol: GatewayProtocol) -> None:
        self._protocol = protocol
        self._complete = False

    def on_body(self, body: bytes) -> None:
        """A piece of the body, unless the request is complete: then it is another's."""
        if not self._complete:
            HttpToolsProtocol.on_body(self._protocol, body)

    def on_message_complete(self) -> None:
        """The request is complete; said once."""
        if not self._complete:
            self._complete = True
            self._protocol.on_message_complete()


def plain_error(refusal: Refusal, headers: list[tuple[bytes, bytes]]) -> bytes:
    """A whole HTTP response with an error object, after which the connection is closed."""
    body = refusal.body()
    lines = [STATUS_LINE[refusal.status]]
    lines += [name + b": " + value + b"\r\n" for name, value in headers]
    lines.append(b"content-type: application/json\r\nconnection: close\r\n")
    lines.append(b"content-length: %d\r\n\r\n" % len(body))
    return b"".join((*lines, body))


def _malformed(error: Exception) -> Refusal:
    cause = error.__context__ if isinstance(error, httptools.HttpParserCallbackError) else None
    words = str(cause or error) or type(error).__name__
    return Refusal(400, "malformed_http", f"What came is not HTTP/1.1: {words[:200]}.")


def _incomplete() -> Refusal:
    return Refusal(400, "incomplete_request", "The connection ended before the request did.")


def _too_long(how: str) -> Refusal:
    return Refusal(431, "headers_too_large", f"The headers are {how}.")
