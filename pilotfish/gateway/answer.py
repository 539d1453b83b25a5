"""One request from its first byte to its record: what every endpoint that asks a model has in common.

The order is fixed: who asks, the body, a place among the active, the work, the record, the end of
the answer. Whatever happens on the way, the client gets an answer or an error object, with the same
headers, and exactly one record says what it was. In durable mode the record is on disk before the
end of the answer is sent.

A client that leaves cancels its request at once, and with it the call to the model; that is
recorded with the status 499 that nginx uses. A slow reader holds back the model's stream, not the
memory of this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from pilotfish.errors import PilotfishError, UnknownName
from pilotfish.gateway.cors import cors_headers
from pilotfish.gateway.headers import answer_headers
from pilotfish.gateway.pages import Receive, Scope, Send, header
from pilotfish.gateway.protocol import CONNECTION
from pilotfish.gateway.refusals import Refusal, refusal_of
from pilotfish.models.deadline import deadline
from pilotfish.records import Chunk, Completion, Request
from pilotfish.store.traffic import Exchange
from pilotfish.store.traffic_rows import new_request_id

if TYPE_CHECKING:
    from pilotfish.gateway.access import Caller
    from pilotfish.gateway.app import Gateway

LEFT = 499  # the client went away, in nginx's words
JSON = b"application/json"
EVENTS = b"text/event-stream; charset=utf-8"
GRACE = 1.0  # seconds after the deadline in which models end by themselves, with better words

Headers = list[tuple[bytes, bytes]]
Work = Callable[["Turn", bytes], Awaitable[None]]


class Turn:
    """One request and its answer.

    Args:
        gateway: What it is asked of.
        endpoint: ``"chat"``, ``"completions"``, ``"embeddings"`` or ``"responses"``.
        scope: The ASGI scope.
        receive: Gives the body.
        send: Takes the answer.

    Attributes:
        id: ``"req_"`` and 24 hexadecimal digits.
        asked: The served model's name, once it is known.
        request: What was asked, once it could be read.
        completion: What was answered.
        streamed: Whether as a stream.
        first: A stream's first piece, which tells what is known of the answer before its end.
    """

    def __init__(
        self, gateway: Gateway, endpoint: str, scope: Scope, receive: Receive, send: Send
    ) -> None:
        self.gateway = gateway
        self.endpoint = endpoint
        self.scope = scope
        self.began = time.time()
        self.id = new_request_id(self.began)
        self.asked = ""
        self.task = ""
        self.request: Request | None = None
        self.completion: Completion | None = None
        self.baseline: float | None = None
        self.streamed = False
        self.first: Chunk | None = None
        self.caller: Caller | None = None
        self._receive = receive
        self._send = send
        self._clock = time.perf_counter()
        self._first_byte: float | None = None
        self._admitted = self._started = self._ended = self._recorded = False
        self._stopped = ""
        self._job: asyncio.Task[Any] | None = None

    async def run(self, work: Work) -> None:
        """Do the work; answer, refuse and record."""
        self._job = asyncio.current_task()
        gateway, settings = self.gateway, self.gateway.settings
        connection = self.scope[CONNECTION]
        connection.on_leave = self._leave
        seconds = self._seconds(settings.total_timeout)
        timer = asyncio.get_running_loop().call_later(seconds + GRACE, self._expire)
        try:
            with deadline(seconds):
                authorization = header(self.scope, b"authorization")
                self.caller = await gateway.access.admit(authorization or None)
                body = await self._body(settings.max_body, settings.body_timeout)
                await gateway.access.charge(self.caller)
                await work(self, body)
        except PilotfishError as error:
            refusal = refusal_of(error)
            await self._refuse(refusal, closes=refusal.status == 408)
        except asyncio.CancelledError:
            await self._cancelled()
        except BaseException:
            # A fault of ours: the client gets an error object, the log gets the traceback.
            fault = Refusal(500, "internal_error", "The gateway failed; its log says why.")
            await self._refuse(fault, closes=True)
            raise
        finally:
            timer.cancel()
            connection.on_leave = None
            if self._admitted:
                gateway.admission.leave(self.asked)

    # What the endpoints call.

    async def ask_for(self, name: str) -> str:
        """Note the model that is asked for, that this caller may ask it, and wait for a place at it.

        Args:
            name: As the client wrote it; "" for the default.

        Returns:
            The served name.

        Raises:
            Refusal: Not this caller, no model is named where there are several, or too many are
                waiting already.
            UnknownName: Nothing is served under it.
        """
        served = self.gateway.served
        if not name and not served.default:
            raise Refusal(
                400,
                "model_required",
                "Got no model.",
                param="model",
                remedy="Name one of GET /v1/models.",
            )
        assert self.caller is not None
        try:
            resolved = str(served.resolve(name))
        except UnknownName:
            # A key that may ask some models learns nothing of the others.
            usable = [row.name for row in served.names() if self.caller.may_use(row.name)]
            raise UnknownName("model", name, usable) from None
        if not self.caller.may_use(resolved):
            raise Refusal(
                403,
                "model_not_allowed",
                f"The key may not use the model {resolved!r}.",
                param="model",
            )
        self.asked = resolved
        await self.gateway.admission.enter(resolved)
        self._admitted = True
        return resolved

    async def whole(self, body: bytes, kind: bytes = JSON) -> None:
        """Send a whole answer, after its record."""
        self._first_byte = time.perf_counter() - self._clock
        await self._record(200, "")
        head = answer_headers(self)
        head.append((b"content-type", kind))
        head.append((b"content-length", b"%d" % len(body)))
        await self._begin(200, head)
        await self._end(body)

    async def events(self, pieces: AsyncIterator[bytes]) -> None:
        """Send a stream of events as they come; its end goes out after the record.

        Args:
            pieces: Events, encoded. The first one decides: an error before it is an HTTP error.
                What comes once :attr:`completion` is set is the end.
        """
        self.streamed = True
        iterator = aiter(pieces)
        piece = await anext(iterator, None)
        self._first_byte = time.perf_counter() - self._clock
        self._compare()
        head = answer_headers(self)
        head += (
            (b"content-type", EVENTS),
            (b"cache-control", b"no-cache"),
            (b"x-accel-buffering", b"no"),
        )
        await self._begin(200, head)
        end: list[bytes] = []
        while piece is not None:
            if self.completion is None:
                await self._send({"type": "http.response.body", "body": piece, "more_body": True})
            else:
                end.append(piece)
            piece = await anext(iterator, None)
        await self._record(200, "")
        await self._end(b"".join(end))

    # Its own.

    async def _begin(self, status: int, head: Headers) -> None:
        if self.gateway.settings.cors:
            head += cors_headers(self.scope, self.gateway.settings.cors)
        self._started = True
        await self._send({"type": "http.response.start", "status": status, "headers": head})

    async def _end(self, body: bytes) -> None:
        self._ended = True
        await self._send({"type": "http.response.body", "body": body})

    def _seconds(self, most: float) -> float:
        asked = header(self.scope, b"x-request-timeout")
        try:
            seconds = float(asked) if asked else most
        except ValueError:
            return most
        return min(most, seconds) if seconds > 0 else most

    async def _body(self, most: int, patience: float) -> bytes:
        length = header(self.scope, b"content-length")
        if length and int(length) > most:
            raise _too_large(most)
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await self._part(patience)
            parts.append(message["body"])
            size += len(message["body"])
            more = message["more_body"]
            if size > most:
                raise _too_large(most)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def _part(self, patience: float) -> Mapping[str, Any]:
        message: Mapping[str, Any]
        if not self.scope[CONNECTION].cycle.more_body:
            message = await self._receive()  # it is all here already
        else:
            try:
                async with asyncio.timeout(patience):
                    message = await self._receive()
            except TimeoutError:
                raise Refusal(
                    408, "request_timeout", f"No further piece of the body within {patience:g} s."
                ) from None
        if message["type"] != "http.request":
            self._stopped = "left"
            raise asyncio.CancelledError
        return message

    def _leave(self) -> None:
        self._stop("left")

    def _expire(self) -> None:
        self._stop("expired")

    def _stop(self, why: str) -> None:
        if not self._stopped and self._job is not None:
            self._stopped = why
            self._job.cancel()

    async def _cancelled(self) -> None:
        if self._stopped == "left":
            await self._record(LEFT, "client_left")
        elif self._stopped == "expired":
            await self._refuse(
                Refusal(504, "deadline_exceeded", "No complete answer within the deadline.")
            )
        else:
            refusal = Refusal(
                503, "shutting_down", "The gateway is shutting down.", retry_after=1.0
            )
            await self._refuse(refusal)

    async def _refuse(self, refusal: Refusal, closes: bool = False) -> None:
        """Answer with an error, and say so if the server closes the connection after it."""
        try:
            await self._record(refusal.status, refusal.code)
        except PilotfishError as error:
            # The store failed in durable mode: what the client hears is that, since nothing was recorded.
            refusal = refusal_of(error)
        body = refusal.body()
        if self._started:
            # The status is out already; OpenAI's clients raise on an event with an error. A whole answer
            # that is cut off cannot say so, and loses its connection.
            if self.streamed and not self._ended:
                await self._end(b"data: " + body + b"\n\n")
            return
        head = answer_headers(self, refusal)
        head.append((b"content-type", JSON))
        head.append((b"content-length", b"%d" % len(body)))
        if closes:
            head.append((b"connection", b"close"))
        await self._begin(refusal.status, head)
        await self._end(body)

    def _compare(self) -> None:
        """Note what the large model would have cost, once there is an answer."""
        if self.completion is not None and self.baseline is None:
            served = self.gateway.served
            self.baseline = served.baseline(self.asked, self.completion, self.request)

    async def _record(self, status: int, error: str) -> None:
        """Record the exchange, once."""
        if self._recorded:
            return
        self._recorded = True
        if self.caller is None:
            return  # without a valid key nobody may fill the disk; access counts them
        gateway, completion = self.gateway, self.completion
        self._compare()
        if completion is not None and completion.cost:
            gateway.access.spent(self.caller, completion.cost)
        exchange = Exchange(
            id=self.id,
            time=self.began,
            caller=self.caller.id,
            task=self.task,
            asked=self.asked,
            endpoint=self.endpoint,
            streamed=self.streamed,
            status=status,
            error=error,
            latency=time.perf_counter() - self._clock,
            first_byte=self._first_byte,
            request=self.request,
            completion=completion,
            baseline=self.baseline,
        )
        recorder = gateway.recorder
        if gateway.settings.durable:
            await recorder.written(exchange)
        else:
            if recorder.full:
                await recorder.room()
            recorder.put(exchange)
        if completion is not None and self.request is not None and status == 200:
            gateway.checks.consider(self.id, self.asked, self.request, completion)


def _too_large(most: int) -> Refusal:
    return Refusal(
        413,
        "body_too_large",
        f"The body is larger than {most} bytes.",
        remedy="Send less, or raise max_body under [serve].",
    )
