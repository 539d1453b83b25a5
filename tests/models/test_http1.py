"""The HTTP/1.1 client against bytes on a socket: ends of messages, the pool, timeouts, garbage."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import shutil
import ssl
import subprocess
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from pilotfish.models import http1
from pilotfish.models.http1 import MOST_HEAD, Pool
from pilotfish.models.transport import (
    Address,
    ConnectionFailed,
    Lost,
    NotConnected,
    NotHttp,
    Response,
    Silent,
    Undecodable,
)

OK = b"HTTP/1.1 200 OK\r\n"
TWO = OK + b"content-length: 2\r\n\r\nhi"
Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


class Endpoint:
    """Answers each request on a connection with the next bytes; None closes the connection."""

    def __init__(self, *answers: bytes | None) -> None:
        self.answers = list(answers)
        self.connections = 0
        self.requests: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        try:
            while self.answers:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                self.requests.append(head + await reader.readexactly(length))
                answer = self.answers.pop(0)
                if answer is None:
                    break
                writer.write(answer)
                await writer.drain()
                if b"until-end" in answer:
                    break
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def listening(handler: Handler, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A port behind which a handler answers; in the end every connection is really closed."""
    tasks: set[asyncio.Task[None]] = set()

    async def tracked(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            await handler(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass  # the client left
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async with await asyncio.start_server(tracked, "127.0.0.1", 0, ssl=tls) as server:
        yield server.sockets[0].getsockname()[1]
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=5)
            assert not late


@asynccontextmanager
async def pool(handler: Handler, *, read_timeout: float = 5.0) -> AsyncIterator[Pool]:
    async with listening(handler) as port:
        address = Address("127.0.0.1", port, f"127.0.0.1:{port}")
        made = Pool(address, connect_timeout=5.0, read_timeout=read_timeout)
        try:
            yield made
        finally:
            made.close()


async def post(client: Pool, body: bytes = b"{}") -> Response:
    return await client.post("/v1/x?y=1", {"x-key": "secret"}, body)


async def fetch(client: Pool, body: bytes = b"{}") -> bytes:
    return await (await post(client, body)).read()


async def test_what_is_sent() -> None:
    endpoint = Endpoint(TWO)
    async with pool(endpoint) as client:
        assert await fetch(client, b"body") == b"hi"
    [sent] = endpoint.requests
    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.split(b"\r\n")[0] == b"POST /v1/x?y=1 HTTP/1.1"
    assert b"x-key: secret" in head
    assert b"accept-encoding: identity" in head
    assert b"host: " + client.address.netloc.encode() in head
    assert body == b"body"


CHUNKED = OK + b"transfer-encoding: chunked\r\n\r\n1\r\nh\r\n1;x=y\r\ni\r\n0\r\ntrailer: t\r\n\r\n"
DEFLATED = zlib.compress(b"hi")


@pytest.mark.parametrize(
    "answer",
    [
        TWO,
        CHUNKED,
        OK + b"x: until-end\r\n\r\nhi",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n" + TWO,
        OK + b"content-encoding: gzip\r\nx: until-end\r\n\r\n" + gzip.compress(b"hi", mtime=0),
        OK + b"content-encoding: deflate\r\ncontent-length: %d\r\n\r\n" % len(DEFLATED) + DEFLATED,
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    ],
)
async def test_every_way_a_body_ends(answer: bytes) -> None:
    async with pool(Endpoint(answer, answer)) as client:
        assert await fetch(client) == b"hi"
        response = await post(client)
        assert response.status == 200
        assert "trailer" not in response.headers
        assert "link" not in response.headers
        pieces = []
        while (piece := await response.next()) is not None:
            pieces.append(piece)
        assert b"".join(pieces) == b"hi"


async def test_one_byte_at_a_time() -> None:
    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for i in range(len(CHUNKED)):
            writer.write(CHUNKED[i : i + 1])
            await writer.drain()
            await asyncio.sleep(0)
        writer.close()

    async with pool(drip) as client:
        assert await fetch(client) == b"hi"


async def test_connections_are_used_again() -> None:
    endpoint = Endpoint(*[TWO, CHUNKED] * 50)
    async with pool(endpoint) as client:
        for _ in range(100):
            assert await fetch(client) == b"hi"
    assert endpoint.connections == 1


async def test_as_many_connections_as_are_needed_at_once() -> None:
    endpoint = Endpoint(*[TWO] * 20)
    async with pool(endpoint) as client:
        assert await asyncio.gather(*(fetch(client) for _ in range(10))) == [b"hi"] * 10
        assert endpoint.connections == 10
        assert await asyncio.gather(*(fetch(client) for _ in range(10))) == [b"hi"] * 10
    assert endpoint.connections == 10


@pytest.mark.parametrize(
    "answer",
    [
        OK + b"connection: close\r\ncontent-length: 2\r\n\r\nhi",
        TWO + b"unasked",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nhi",
    ],
)
async def test_connections_that_cannot_be_used_again_are_not(answer: bytes) -> None:
    endpoint = Endpoint(answer, TWO)
    async with pool(endpoint) as client:
        assert await fetch(client) == b"hi"
        assert await fetch(client) == b"hi"
    assert endpoint.connections == 2


async def test_a_connection_that_died_in_the_pool_is_replaced_once() -> None:
    endpoint = Endpoint(TWO, None, TWO, None, None)
    async with pool(endpoint) as client:
        assert await fetch(client) == b"hi"
        # The endpoint closes on the next request, as one that had just decided to close would.
        assert await fetch(client) == b"hi"
        assert endpoint.connections == 2
        with pytest.raises(Lost):
            await fetch(client)
    assert len(endpoint.requests) == 5


async def test_idle_connections_are_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http1, "IDLE_SECONDS", 0.05)
    endpoint = Endpoint(TWO, TWO)
    async with pool(endpoint) as client:
        await fetch(client)
        await asyncio.sleep(0.15)
        assert not client._idle
        await fetch(client)
    assert endpoint.connections == 2


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (b"\x15\x03\x01\x00\x02", NotHttp),
        (b"HTTP/1.1 abc\r\n\r\n", NotHttp),
        (OK + b"transfer-encoding: chunked\r\n\r\nzz\r\n", NotHttp),
        (OK + b"x: " + b"y" * (MOST_HEAD + 10), NotHttp),
        (None, Lost),
        (OK, Lost),
        (OK + b"content-length: 5\r\nx: until-end\r\n\r\nhi", Lost),
        (OK + b"transfer-encoding: chunked\r\nx: until-end\r\n\r\n1\r\nh\r\n", Lost),
        (OK + b"content-encoding: gzip\r\ncontent-length: 2\r\n\r\nhi", Undecodable),
    ],
)
async def test_what_goes_wrong(answer: bytes | None, kind: type[ConnectionFailed]) -> None:
    async with pool(Endpoint(answer)) as client:
        with pytest.raises(kind):
            await fetch(client)
        # The body does not decompress, but it came whole: the connection is good.
        assert len(client._idle) == (kind is Undecodable)


@pytest.mark.parametrize("said", [b"", OK, OK + b"content-length: 5\r\n\r\nhi"])
async def test_silence_ends_at_the_read_timeout(said: bytes) -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        writer.write(said)
        await reader.read()
        writer.close()

    async with pool(hang, read_timeout=0.2) as client:
        began = asyncio.get_running_loop().time()
        with pytest.raises(Silent):
            await fetch(client)
        assert 0.19 <= asyncio.get_running_loop().time() - began < 1


async def test_pieces_within_the_read_timeout_are_waited_for() -> None:
    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        for piece in (OK, b"content-length: 3\r\n\r\n", b"a", b"b", b"c"):
            await asyncio.sleep(0.12)
            writer.write(piece)
        await reader.read()
        writer.close()

    async with pool(slow, read_timeout=0.3) as client:
        assert await fetch(client) == b"abc"


async def test_nobody_listens() -> None:
    client = Pool(Address("127.0.0.1", 1, "x"), connect_timeout=5, read_timeout=5)
    with pytest.raises(NotConnected, match=r"refused|Connect call failed"):
        await post(client)


async def test_cancelling_closes_the_connection() -> None:
    left = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"{}")
        with contextlib.suppress(ConnectionError):
            await reader.read()
        left.set()
        writer.close()

    async with pool(hang) as client:
        task = asyncio.create_task(fetch(client))
        await asyncio.sleep(0.05)
        task.cancel()
        await asyncio.wait_for(left.wait(), 2)


async def test_a_reader_that_waits_holds_the_endpoint_back() -> None:
    sent = 0

    async def flood(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal sent
        await reader.readuntil(b"{}")
        size = 64 << 20
        writer.write(OK + b"content-length: %d\r\n\r\n" % size)
        while sent < size:
            writer.write(b"x" * 65536)
            await writer.drain()
            sent += 65536
        await reader.read()
        writer.close()

    async with pool(flood) as client:
        response = await post(client)
        await asyncio.sleep(0.3)
        assert sent < 20 << 20
        assert len(await response.read()) == 64 << 20


async def test_an_answer_before_the_request_is_read() -> None:
    endpoint_saw = 0

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal endpoint_saw
        endpoint_saw += 1
        await reader.read(1000)
        writer.write(b"HTTP/1.1 413 Too Large\r\ncontent-length: 2\r\n\r\nno")
        await writer.drain()
        await asyncio.sleep(0.2)
        writer.close()

    async with pool(refuse) as client:
        response = await post(client, b"x" * (32 << 20))
        assert response.status == 413
        assert await response.read() == b"no"
        assert not client._idle


async def test_tls_and_a_certificate_that_is_not_trusted(tmp_path: Path) -> None:
    openssl = shutil.which("openssl")
    assert openssl, "openssl makes the certificate"
    key, certificate = tmp_path / "key.pem", tmp_path / "cert.pem"
    subprocess.run(
        [
            *(openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=localhost"),
            *("-addext", "subjectAltName=IP:127.0.0.1"),
        ],
        check=True,
        capture_output=True,
    )
    theirs = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    theirs.load_cert_chain(certificate, key)
    endpoint = Endpoint(TWO, TWO)
    async with listening(endpoint, theirs) as port:
        for trusted in (True, False):
            ours = ssl.create_default_context()
            if trusted:
                ours.load_verify_locations(certificate)
            address = Address("127.0.0.1", port, f"127.0.0.1:{port}", ours)
            client = Pool(address, connect_timeout=5, read_timeout=5)
            if trusted:
                assert [await fetch(client), await fetch(client)] == [b"hi", b"hi"]
                assert endpoint.connections == 1
            else:
                with pytest.raises(NotConnected, match="certificate"):
                    await fetch(client)
            client.close()
