"""A real OpenAI-compatible HTTP server on a loopback port, for tests: yours and ours.

It speaks over real sockets, so a test sees what a client does when a connection is refused, reset, cut
or silent, which no mock of a client library shows. It runs in a thread of its own and needs only what
httpx brings (h11).

>>> import httpx
>>> with FakeServer("Hello there") as server:
...     reply = httpx.post(f"{server.base_url}/chat/completions", json={"messages": []})
>>> reply.json()["choices"][0]["message"]["content"], server.count
('Hello there', 1)
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h11
import msgspec

from pilotfish.models.fake_replies import FAULT_STATUS, Fault, chat_reply, stream_events
from pilotfish.models.fake_sender import Sender

__all__ = ["Answer", "FakeServer", "Fault", "SeenRequest"]

Answer = str | Mapping[str, Any]
_JSON = "application/json"
_NOT_JSON = b'{"choices": [{"mess\xff\xfe{{{ \x00 garbage'
_HALVES = 16


@dataclass(frozen=True, slots=True)
class SeenRequest:
    """A request as it arrived: path, lower-case headers, decoded JSON body ({} without one)."""

    path: str
    headers: Mapping[str, str]
    body: Mapping[str, Any]


class FakeServer:
    """A context manager: it listens from ``__enter__`` to ``__exit__``.

    Args:
        answer: The text of every answer; or a list, one after the other and again from the start; or a
            function from the request's JSON body to a text or a whole message.
        faults: How each request in turn is treated: a :class:`Fault`, its name, or None for a good
            answer. After the last one all is well; ``itertools.cycle`` makes a pattern endless.
        latency: Seconds before each answer.
        retry_after: ``Retry-After`` of 429 and 503, as sent; "" for none.
        retry_after_ms: ``retry-after-ms``, likewise.
        refuse_seconds: How long :attr:`Fault.REFUSE` lasts.
        drip_seconds: Seconds between the pieces of :attr:`Fault.SLOW_DRIP`.
        models: What ``/v1/models`` lists.
        keep: Keep every request in ``seen``; switch it off for long runs.

    Attributes:
        count: Chat requests that arrived, faulty ones included.
        answered: Good answers sent to the end.
        active: Chat requests under way.
        max_active: The most that were ever under way at once.
        abandoned: Clients that went away before their answer was complete.
        seen: The chat requests.
        port: The loopback port.
    """

    def __init__(
        self,
        answer: Answer | Sequence[Answer] | Callable[[dict[str, Any]], Answer] = "ok",
        *,
        faults: Iterable[Fault | str | None] = (),
        latency: float = 0.0,
        retry_after: str = "",
        retry_after_ms: str = "",
        refuse_seconds: float = 0.2,
        drip_seconds: float = 0.05,
        models: Sequence[str] = ("fake",),
        keep: bool = True,
    ) -> None:
        self._answer = answer
        self._faults: Iterator[Fault | str | None] = iter(faults)
        self._next: Fault | str | None = None
        self._latency = latency
        self._patience = {"retry-after": retry_after, "retry-after-ms": retry_after_ms}
        self._refuse_seconds = refuse_seconds
        self._drip_seconds = drip_seconds
        self._models = models
        self._keep = keep
        self.count = self.answered = self.active = self.max_active = self.abandoned = 0
        self.seen: list[SeenRequest] = []
        self.port = 0
        self._handlers: set[asyncio.Task[None]] = set()
        self._listener: socket.socket | None = None
        self._arriving: set[asyncio.Task[None]] = set()

    @property
    def base_url(self) -> str:
        """What to give a client, ``/v1`` included."""
        return f"http://127.0.0.1:{self.port}/v1"

    def __enter__(self) -> FakeServer:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        ready = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._stopped = asyncio.Event()
        self._thread = threading.Thread(
            target=self._run, args=(ready,), name="fake-server", daemon=True
        )
        self._thread.start()
        ready.wait()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stopped.set)
        self._thread.join()

    def _run(self, ready: threading.Event) -> None:
        try:
            self._loop.run_until_complete(self._serve(ready))
        finally:
            ready.set()
            self._loop.close()

    async def _serve(self, ready: threading.Event) -> None:
        self._next = next(self._faults, None)
        if self._start_outage() is None:
            await self._listen()
        ready.set()
        await self._stopped.wait()
        self._stop_listening()
        await asyncio.gather(*self._arriving)
        handlers = list(self._handlers)
        for task in handlers:
            task.cancel()
        await asyncio.gather(*handlers, return_exceptions=True)
        # One more turn, so that the transports which the handlers closed are really gone.
        await asyncio.sleep(0)

    async def _listen(self) -> None:
        self._listener = listener = socket.create_server(("127.0.0.1", self.port), backlog=1024)
        listener.setblocking(False)
        self._loop.add_reader(listener, self._accept, listener)

    def _stop_listening(self) -> None:
        if self._listener is not None:
            self._loop.remove_reader(self._listener)
            self._listener.close()
            self._listener = None

    def _accept(self, listener: socket.socket) -> None:
        # Not asyncio.start_server: a connection that it has just accepted when it is closed is never
        # closed itself (until Python 3.12), so that an outage would look like a hang.
        with contextlib.suppress(BlockingIOError, ConnectionAbortedError):
            accepted, _ = listener.accept()
            accepted.setblocking(False)
            accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            task = asyncio.ensure_future(self._connect(accepted))
            self._arriving.add(task)
            task.add_done_callback(self._arriving.discard)

    async def _connect(self, accepted: socket.socket) -> None:
        protocol = asyncio.StreamReaderProtocol(asyncio.StreamReader(), self._connected)
        await self._loop.connect_accepted_socket(lambda: protocol, accepted)

    def _start_outage(self) -> asyncio.Task[None] | None:
        """Begin an outage when it is the turn of one."""
        if self._next != Fault.REFUSE:
            return None
        self._stop_listening()
        for other in self._handlers - {asyncio.current_task()}:
            other.cancel()
        self._next = next(self._faults, None)
        task = asyncio.ensure_future(self._come_back())
        self._handlers.add(task)
        task.add_done_callback(self._handlers.discard)
        return task

    async def _come_back(self) -> None:
        await asyncio.sleep(self._refuse_seconds)
        await self._listen()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._handlers.add(task)
        connection = h11.Connection(h11.SERVER)
        try:
            while (request := await _read_request(connection, reader)) is not None:
                if not await self._handle(request, connection, reader, writer):
                    break
                if connection.our_state is not h11.DONE or connection.their_state is not h11.DONE:
                    break
                connection.start_next_cycle()
        except (OSError, h11.RemoteProtocolError, asyncio.CancelledError):
            # The client went away or spoke no HTTP, or the server stops: nobody is left to tell.
            pass
        finally:
            self._handlers.discard(task)
            writer.close()

    async def _handle(
        self,
        seen: SeenRequest,
        connection: h11.Connection,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> bool:
        send = Sender(connection, writer)
        if not seen.path.endswith("/chat/completions"):
            await send.whole(*self._other(seen.path))
            return True
        fault, self._next = self._next, next(self._faults, None)
        self.count += 1
        if self._keep:
            self.seen.append(seen)
        self.active += 1
        self.max_active = max(self.max_active, self.active)
        watch = asyncio.create_task(reader.read(1))
        work = asyncio.create_task(self._reply(seen.body, Fault(fault) if fault else None, send))
        try:
            await asyncio.wait({watch, work}, return_when=asyncio.FIRST_COMPLETED)
            early = _bytes_of(watch)
            if early:
                # The first byte of the next request: it belongs to the parser, not to the watch.
                connection.receive_data(early)
                await asyncio.wait({work})
            answered = work.done() and work.exception() is None
            self.abandoned += not answered
            keep_alive = answered and work.result() and early != b""
            return self._start_outage() is None and keep_alive
        finally:
            self.active -= 1
            for task in (watch, work):
                task.cancel()
            await asyncio.gather(watch, work, return_exceptions=True)

    def _other(self, path: str) -> tuple[int, str, bytes]:
        if path.endswith("/models"):
            listed = [{"id": name, "object": "model", "created": 0} for name in self._models]
            return 200, _JSON, msgspec.json.encode({"object": "list", "data": listed})
        said = {"error": {"message": f"No such path: {path}", "code": "not_found"}}
        return 404, _JSON, msgspec.json.encode(said)

    async def _reply(self, body: Mapping[str, Any], fault: Fault | None, send: Sender) -> bool:
        """Answer; whether the connection may be used again."""
        if self._latency:
            await asyncio.sleep(self._latency)
        if fault is not None and fault in FAULT_STATUS:
            status, code = FAULT_STATUS[fault]
            message = f"The fake server was told to answer {fault}."
            said = {"error": {"message": message, "type": code, "code": code}}
            patience = self._patience if status in (429, 503) else {}
            await send.whole(status, _JSON, msgspec.json.encode(said), patience)
            return True
        match fault:
            case Fault.RESET:
                send.reset()
                return False
            case Fault.DISCONNECT:
                return False
            case Fault.HANG:
                await asyncio.Event().wait()
            case Fault.NOT_HTTP:
                await send.raw(b"\x15\x03\x01\x00\x02\x02\x16 hello\r\n\r\n")
                return False
            case Fault.HTML:
                await send.whole(200, "text/html", b"<html><body>Please log in</body></html>")
                return True
            case Fault.NO_CHOICES:
                await send.whole(200, _JSON, b'{"object":"chat.completion","choices":[]}')
                return True
            case Fault.ERROR_BODY:
                said = {"error": {"message": "upstream is down", "code": "502"}}
                await send.whole(200, _JSON, msgspec.json.encode(said))
                return True
            case _:
                pass
        reply = chat_reply(body, self._choose(body))
        if body.get("stream"):
            return await self._send_parts(
                send, "text/event-stream", self._stream(body, reply, fault), fault
            )
        data = _NOT_JSON if fault is Fault.GARBAGE else msgspec.json.encode(reply)
        if fault in (Fault.HALF, Fault.HALF_CLEAN, Fault.SLOW_DRIP):
            step = -(-len(data) // _HALVES)
            pieces = [data[start : start + step] for start in range(0, len(data), step)]
            return await self._send_parts(send, _JSON, pieces, fault)
        await send.whole(200, _JSON, data)
        self.answered += fault is None
        return True

    def _stream(
        self, body: Mapping[str, Any], reply: Mapping[str, Any], fault: Fault | None
    ) -> list[bytes]:
        events = list(stream_events(body, reply))
        if fault is Fault.GARBAGE:
            events[-2] = b"data: " + _NOT_JSON.replace(b"\xff\xfe", b"") + b"\n\n"
        return events

    async def _send_parts(
        self, send: Sender, kind: str, pieces: Sequence[bytes], fault: Fault | None
    ) -> bool:
        if fault in (Fault.HALF, Fault.HALF_CLEAN):
            pieces = pieces[: max(1, len(pieces) // 2)]
        await send.begin(200, kind)
        for piece in pieces:
            await send.piece(piece)
            if fault is Fault.SLOW_DRIP:
                await asyncio.sleep(self._drip_seconds)
        if fault is Fault.HALF:
            return False
        await send.end()
        self.answered += fault in (None, Fault.SLOW_DRIP)
        return True

    def _choose(self, body: Mapping[str, Any]) -> Answer:
        if callable(self._answer):
            return self._answer(dict(body))
        if isinstance(self._answer, (str, Mapping)):
            return self._answer
        return self._answer[(self.count - 1) % len(self._answer)]


def _bytes_of(watch: asyncio.Task[bytes]) -> bytes | None:
    """What a read gave: None when it still waits, b"" when the client is gone."""
    if not watch.done():
        return None
    return b"" if watch.exception() else watch.result()


async def _read_request(
    connection: h11.Connection, reader: asyncio.StreamReader
) -> SeenRequest | None:
    head: h11.Request | None = None
    body: list[bytes] = []
    while True:
        event = connection.next_event()
        if event is h11.NEED_DATA:
            connection.receive_data(await reader.read(1 << 16))
        elif isinstance(event, h11.Request):
            head = event
        elif isinstance(event, h11.Data):
            body.append(bytes(event.data))
        elif isinstance(event, h11.EndOfMessage) and head is not None:
            break
        else:
            return None
    data: Any = {}
    with contextlib.suppress(msgspec.DecodeError):
        data = msgspec.json.decode(b"".join(body))
    headers = {name.decode(): value.decode("latin-1") for name, value in head.headers}
    return SeenRequest(head.target.decode(), headers, data)
