"""Malformed requests, sent over real sockets and judged by h11, which had no part in the answers.

``malformed_http`` and ``malformed_json`` make the cases; a seed makes the same ones each time. A case
says what must come of it, so that an answer that is merely polite does not pass.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import h11

ERROR = "error"  # a 4xx with an error object
ANY = "error or answer"  # perhaps still a request that can be answered
CLOSE = "close"  # nothing was asked, so nothing is answered


@dataclass(frozen=True)
class Case:
    """What is sent, and what must come of it.

    Attributes:
        kind: For the report.
        pieces: The bytes, as they are written one after the other.
        must: ``ERROR``, ``ANY`` or ``CLOSE``, of the last answer.
        statuses: The only statuses that will do; empty: any 4xx.
        ends: The client sends no more after the pieces (half-close).
        answers: How many answers are due; all but the last are good ones.
        method: As the client believes it sent it: an answer to HEAD has no body.
        pause: Seconds between the pieces.
    """

    kind: str
    pieces: tuple[bytes, ...]
    must: str = ERROR
    statuses: frozenset[int] = frozenset()
    ends: bool = False
    answers: int = 1
    method: bytes = b"POST"
    pause: float = 0.0


Make = Callable[[random.Random], Case]


def drawn(makers: Iterable[Make], count: int, seed: int) -> Iterator[Case]:
    """So many cases, from each maker in turn."""
    rng = random.Random(seed)
    order = list(makers)
    for number in range(count):
        yield order[number % len(order)](rng)


@dataclass(frozen=True)
class Answer:
    """One HTTP answer: its status, its headers in lower case, its body."""

    status: int
    headers: dict[str, str]
    body: bytes


async def send(port: int, case: Case, limit: float) -> str:
    """Send a case; "" when what came of it is right, else what is wrong with it."""
    try:
        async with asyncio.timeout(limit):
            answers, wrong = await _exchange(port, case)
    except TimeoutError:
        return f"no answer within {limit:g} s"
    return wrong or judged(case, answers)


def judged(case: Case, answers: list[Answer]) -> str:
    """What is wrong with the answers to a case; "" for nothing."""
    if case.must == CLOSE:
        return f"answered {answers[0].status} to nothing" if answers else ""
    if len(answers) < case.answers:
        return f"{len(answers)} answers, but {case.answers} are due"
    for answer in answers[: case.answers - 1]:
        if answer.status != 200:
            return f"{answer.status} to a good request: {answer.body[:200]!r}"
    last = answers[case.answers - 1]
    if 200 <= last.status < 300 and case.must == ANY:
        return ""
    if not 400 <= last.status < 500:
        return f"status {last.status}: {last.body[:300]!r}"
    if case.statuses and last.status not in case.statuses:
        return f"status {last.status}, but expected {sorted(case.statuses)}: {last.body[:300]!r}"
    return "" if case.method == b"HEAD" else not_an_error_object(last)


def not_an_error_object(answer: Answer) -> str:
    """Why an answer's body is none of OpenAI's error objects; "" when it is one."""
    kind = answer.headers.get("content-type", "")
    if kind != "application/json":
        return f"content type {kind!r}"
    try:
        error = json.loads(answer.body)["error"]
    except (ValueError, KeyError, TypeError):
        return f"body {answer.body[:300]!r}"
    right = (
        set(error) == {"message", "type", "param", "code"}
        and isinstance(error["message"], str)
        and 0 < len(error["message"]) < 2000
        and isinstance(error["type"], str)
        and isinstance(error["code"], str)
        and isinstance(error["param"], str | None)
    )
    return "" if right else f"error object {error!r:.300}"


async def _exchange(port: int, case: Case) -> tuple[list[Answer], str]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        # The gateway may well have refused and closed before all of it is written.
        with contextlib.suppress(ConnectionError):
            for piece in case.pieces:
                writer.write(piece)
                await writer.drain()
                if case.pause:
                    await asyncio.sleep(case.pause)
            if case.ends:
                writer.write_eof()
        return await _answers(reader, case)
    finally:
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def _answers(reader: asyncio.StreamReader, case: Case) -> tuple[list[Answer], str]:
    answers: list[Answer] = []
    connection = _client(case.method)
    head: h11.Response | None = None
    body = b""
    try:
        while len(answers) < case.answers:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                try:
                    connection.receive_data(await reader.read(1 << 16))
                except ConnectionError:
                    return answers, "the connection was reset before the answer was read"
            elif isinstance(event, h11.Response):
                head = event
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage) and head is not None:
                fields = {k.decode(): v.decode("latin-1") for k, v in head.headers}
                answers.append(Answer(head.status_code, fields, body))
                rest, closed = connection.trailing_data
                connection, head, body = _client(case.method), None, b""
                if rest:
                    connection.receive_data(rest)
                if closed:
                    connection.receive_data(b"")
            elif isinstance(event, h11.ConnectionClosed):
                break
    except h11.RemoteProtocolError as error:
        # An end without an answer: h11 calls it an error, and whether it is one is the case's to say.
        if head is not None or connection.trailing_data[0]:
            return answers, f"not HTTP/1.1: {error}"
    return answers, ""


def _client(method: bytes) -> h11.Connection:
    connection = h11.Connection(h11.CLIENT)
    asked = method if method in (b"HEAD", b"GET") else b"POST"
    connection.send(h11.Request(method=asked, target="/", headers=[("host", "x")]))
    connection.send(h11.EndOfMessage())
    return connection


@dataclass(frozen=True)
class Report:
    """What came of many cases.

    Attributes:
        counts: Cases by kind.
        wrong: Kind, first bytes and fault of each that went wrong.
    """

    counts: Counter[str]
    wrong: list[tuple[str, bytes, str]]


async def send_all(
    port: int, cases: Iterable[Case], *, limit: float = 8.0, at_once: int = 16
) -> Report:
    """Send cases, some at a time."""
    counts: Counter[str] = Counter()
    wrong: list[tuple[str, bytes, str]] = []
    waiting = iter(cases)

    async def work() -> None:
        for case in waiting:
            counts[case.kind] += 1
            fault = await send(port, case, limit)
            if fault:
                wrong.append((case.kind, b"".join(case.pieces)[:400], fault))

    async with asyncio.TaskGroup() as group:
        for _ in range(at_once):
            group.create_task(work())
    return Report(counts, wrong)
