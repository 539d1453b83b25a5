"""Requests that are wrong as HTTP: method, version, target, headers, framing, timing."""

from __future__ import annotations

import json
import random
from collections.abc import Callable

from tests.gateway.malformed import ANY, CLOSE, Case

PATH = b"/v1/chat/completions"
GOOD = json.dumps({"model": "fake", "messages": [{"role": "user", "content": "hi"}]}).encode()
HEX = b"0123456789abcdef"
NOT_TOKEN = b'()<>@,;\\"/[]?={} \t\x00\x01\x7f\x80\xff'


def request(
    body: bytes = GOOD,
    *,
    line: bytes = b"POST " + PATH + b" HTTP/1.1",
    fields: tuple[bytes, ...] = (),
    length: bytes | None = None,
    host: bytes = b"host: 127.0.0.1",
) -> bytes:
    """A request; well formed but for what is given."""
    framing = length if length is not None else b"content-length: %d" % len(body)
    lines = [line, host, b"content-type: application/json", *fields, framing]
    return b"\r\n".join([line for line in lines if line]) + b"\r\n\r\n" + body


def noise(rng: random.Random, least: int, most: int) -> bytes:
    """Random bytes."""
    return rng.randbytes(rng.randint(least, most))


def letters(rng: random.Random, count: int) -> bytes:
    """Random letters."""
    return bytes(rng.choices(range(97, 123), k=count))


def method(rng: random.Random) -> Case:
    """No method of HTTP, or one that no path has."""
    said = rng.choice(
        [
            letters(rng, rng.randint(1, 12)),
            letters(rng, 9).upper(),
            b"post",
            b"P OST",
            b"POST\x00",
            b"",
            b" POST",
            b"\xff" + letters(rng, 3),
            b"PUT",
            b"DELETE",
            b"PATCH",
            b"TRACE",
            b"PROPFIND",
            b"A" * rng.randint(20, 70_000),
        ]
    )
    return Case("method", (request(line=said + b" " + PATH + b" HTTP/1.1"),))


def version(rng: random.Random) -> Case:
    """No version of HTTP that is spoken here."""
    said = rng.choice(
        [
            b"HTTP/9.9",
            b"HTTP/1.7",
            b"HTTP/2.0",
            b"HTTP/3",
            b"HTP/1.1",
            b"http/1.1",
            b"HTTP/1.1 x",
            b"HTTP/",
            b"HTTP/1.",
            b"HTTP/11",
            b"HTTP/1.1\x00",
            b"HTTP/-1.1",
            b"HTTP/%d.%d" % (rng.randint(2, 9), rng.randint(1, 9)),
        ]
    )
    return Case("version", (request(line=b"POST " + PATH + b" " + said),))


def target(rng: random.Random) -> Case:
    """A target that there is not, or that is none."""
    said = rng.choice(
        [
            b"/" + letters(rng, rng.randint(1, 40)),
            b"*",
            b"v1/chat/completions",
            b"//v1/models",
            PATH + b"/",
            PATH.upper(),
            b"/v1/models/../../etc/passwd",
            b"/v1/models/%zz%00%ff",
            b"/v1/chat/completions\x00",
            b"/\xff\xfe",
            b"/v1/chat completions",
            b"",
            b"/" + b"a" * rng.randint(60000, 80000),
            b"/?" + noise(rng, 1, 40).hex().encode(),
            b"http://",
            b"http://[::1",
            b"/%",
            b"/v1/feedback/%2e%2e",
            b"/dashboard/data/../../x",
        ]
    )
    return Case("target", (request(line=b"POST " + said + b" HTTP/1.1"),))


def pages(rng: random.Random) -> Case:
    """Pages that are only looked at, with what is not there, or by a wrong method."""
    how, path = rng.choice(
        [
            (b"GET", b"/v1/models/" + letters(rng, rng.randint(1, 300))),
            (b"GET", b"/v1/models/" + bytes(f"%{b:02X}" for b in []) + b"%C3%28%00"),
            (b"GET", b"/dashboard/" + letters(rng, 5)),
            (b"GET", PATH),
            (b"POST", b"/v1/models"),
            (b"DELETE", b"/v1/models/fake"),
            (b"POST", b"/metrics"),
            (b"POST", b"/healthz"),
            (b"HEAD", PATH),
            (b"OPTIONS", PATH),
        ]
    )
    said = request(b"", line=how + b" " + path + b" HTTP/1.1")
    return Case("pages", (said,), statuses=frozenset((404, 405)), method=how)


def field(rng: random.Random) -> Case:
    """A header line that is none."""
    name = letters(rng, rng.randint(1, 8))
    said = rng.choice(
        [
            name,
            b": " + name,
            name + b" : x",
            b" " + name + b": x",
            name + b": a\x00b",
            name + bytes([rng.choice(NOT_TOKEN)]) + b"y: x",
            name + b": x\n" + name,
            b"\x00: \x00",
            name + b": x\ry",
            name + b": a\r\n b",
            name + b": \x01\x02\x7f",
            b"\xc3\xa9: x",
        ]
    )
    return Case("header", (request(fields=(said,)),))


def host(rng: random.Random) -> Case:
    """No host, or two (RFC 9112, 3.2: to be answered with 400)."""
    said = rng.choice([b"", b"host: a\r\nhost: b", b"host: a\r\nx: y\r\nHost: " + letters(rng, 4)])
    return Case("host", (request(host=said),), statuses=frozenset((400,)))


def large_head(rng: random.Random) -> Case:
    """A head that is too large, in pieces or not."""
    said = rng.choice(
        [
            request(fields=(b"x-large: " + b"a" * rng.randint(70_000, 200_000),)),
            request(fields=(letters(rng, 70_000) + b": x",)),
            request(fields=tuple(b"x-%d: y" % i for i in range(rng.randint(101, 3000)))),
            request(fields=tuple(b"x: " + b"y" * 900 for _ in range(80))),
        ]
    )
    if rng.random() < 0.5:
        return Case("large head", (said,), statuses=frozenset((431,)))
    step = rng.choice([1000, 8192, 65_536])
    pieces = tuple(said[start : start + step] for start in range(0, len(said), step))
    return Case("large head", pieces, statuses=frozenset((431,)))


def length(rng: random.Random) -> Case:
    """A content length that is none, or two."""
    real = len(GOOD)
    said = rng.choice(
        [
            b"-1",
            b"+%d" % real,
            b"0x%x" % real,
            b"%d, %d" % (real, real + 1),
            b"1e2",
            b"",
            b"%d.0" % real,
            b"9" * rng.randint(20, 400),
            b"abc",
            b"%d;" % real,
            b"\x00",
            b"1 2",
            b"\xd9\xa1\xd9\xa2",
            b"%d\r\ncontent-length: %d" % (real, real + 1),
        ]
    )
    return Case(
        "length", (request(length=b"content-length: " + said),), statuses=frozenset((400, 431))
    )


def too_large(rng: random.Random) -> Case:
    """A body over the limit, by its length or as it comes."""
    if rng.random() < 0.5:
        size = rng.choice([200_001, 10**9, 10**15, 2**63 - 1])
        said = request(b"", length=b"content-length: %d" % size)
        return Case("too large", (said,), statuses=frozenset((413,)))
    head = request(b"", length=b"transfer-encoding: chunked")
    chunk = b"%x\r\n" % 30_000 + b" " * 30_000 + b"\r\n"
    return Case("too large", (head, *[chunk] * 8), statuses=frozenset((413,)))


def chunked(rng: random.Random) -> Case:
    """Chunks that are wrong."""
    size = b"%x" % len(GOOD)
    said = rng.choice(
        [
            b"zz\r\n" + GOOD + b"\r\n0\r\n\r\n",
            b"-5\r\n" + GOOD + b"\r\n0\r\n\r\n",
            b"f" * rng.randint(17, 60) + b"\r\n" + GOOD,
            size + GOOD + b"\r\n0\r\n\r\n",
            size + b"\r\n" + GOOD + b"XX0\r\n\r\n",
            b"5\r\n" + GOOD + b"\r\n0\r\n\r\n",
            b"\r\n\r\n" + GOOD,
            b"0x" + size + b"\r\n" + GOOD + b"\r\n0\r\n\r\n",
            size + b"\n" + GOOD + b"\n0\n\n",
            b" " + size + b"\r\n" + GOOD + b"\r\n0\r\n\r\n",
            size + b"\r\n" + GOOD + b"\r\n0\r\nbad trailer\x00\r\n\r\n",
        ]
    )
    return Case("chunked", (request(b"", length=b"transfer-encoding: chunked") + said,), ends=True)


def cut(rng: random.Random) -> Case:
    """A good request that ends too soon."""
    if rng.random() < 0.5:
        said = request()
    else:
        half = len(GOOD) // 2
        parts = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (
            half,
            GOOD[:half],
            len(GOOD) - half,
            GOOD[half:],
        )
        said = request(b"", length=b"transfer-encoding: chunked") + parts
    end = rng.randint(1, len(said) - 1)
    return Case("cut off", (said[:end],), ends=True, statuses=frozenset((400,)))


def smuggled(rng: random.Random) -> Case:
    """Framing that two servers could read differently (RFC 9112, 6.3)."""
    inner = request(line=b"POST /smuggled HTTP/1.1")
    real = b"content-length: %d" % len(GOOD)
    said = rng.choice(
        [
            real + b"\r\ntransfer-encoding: chunked",
            b"transfer-encoding: chunked\r\n" + real,
            b"transfer-encoding: chunked, identity",
            b"transfer-encoding: x" + letters(rng, 4),
            b"transfer-encoding: chunked\r\ntransfer-encoding: " + letters(rng, 3),
            b"transfer-encoding : chunked",
            b"transfer-encoding:\x0bchunked",
            b"content-length : %d" % len(GOOD),
            b"transfer-encoding: chunked\r\n chunked",
        ]
    )
    return Case("smuggled", (request(length=said) + inner,), ends=True, statuses=frozenset((400,)))


def slow(rng: random.Random) -> Case:
    """A request that does not go on: in the head, in the body, or in drops."""
    said = request()
    head = said.index(b"\r\n\r\n")
    end = rng.choice([rng.randint(1, head), rng.randint(head + 4, len(said) - 1)])
    if rng.random() < 0.5 or end < 20:
        return Case("slow", (said[:end],), statuses=frozenset((408,)))
    drops = (said[: end - 12], *(said[end - 12 + i : end - 11 + i] for i in range(12)))
    return Case("slow", drops, statuses=frozenset((408,)), pause=0.01)


def silent(rng: random.Random) -> Case:
    """Nothing, or nothing but blank lines."""
    return Case(
        "silent",
        (rng.choice([b"", b"\r\n", b"\n", b"\r\n" * rng.randint(2, 9)]),),
        CLOSE,
        ends=True,
    )


def garbage(rng: random.Random) -> Case:
    """What is no HTTP at all."""
    said = rng.choice(
        [
            b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + noise(rng, 32, 200),
            b"\xff" + noise(rng, 8, 3000),
            b"{" + GOOD,
            b"SSH-2.0-OpenSSH_9.2\r\n",
            b"GET /\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
            letters(rng, 200) + b"\r\n\r\n",
            b"\x00" * 100,
            b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n",
            b"<?xml version='1.0'?>\r\n\r\n",
        ]
    )
    return Case("garbage", (said,), ends=True)


def pipelined(rng: random.Random) -> Case:
    """Good requests in the packet of a wrong one: each is answered, in order."""
    good = rng.randint(1, 3)
    bad_chunk = request(b"", length=b"transfer-encoding: chunked") + b"zz\r\n"
    wrong = rng.choice(
        [b"\x00\x01\x02\r\n\r\n", b"NONSENSE\r\n\r\n", request(b"[]"), request(b"{"), bad_chunk]
    )
    return Case("pipelined", (request() * good + wrong,), answers=good + 1)


def upgrade(rng: random.Random) -> Case:
    """An upgrade that is not to be had, of a request that is wrong."""
    to = rng.choice([b"h2c", b"websocket", b"TLS/1.3", letters(rng, 5)])
    body = rng.choice([b"[]", b"{", b'{"messages": 1}', b"\xff"])
    fields = (b"connection: upgrade", b"upgrade: " + to)
    return Case("upgrade", (request(body, fields=fields),), statuses=frozenset((400,)))


def expect(rng: random.Random) -> Case:
    """An expectation, and then a wrong body."""
    said = rng.choice([b"100-continue", letters(rng, 5)])
    body = rng.choice([b"null", b"{]", b'{"messages": []}', b'"' + letters(rng, 9)])
    return Case(
        "expect", (request(body, fields=(b"expect: " + said,)),), statuses=frozenset((400, 417))
    )


def mutated(rng: random.Random) -> Case:
    """A good request with some bytes changed, left out or put in; it may still be one."""
    said = bytearray(request(fields=(b"connection: close",)))
    for _ in range(rng.randint(1, 6)):
        place = rng.randrange(len(said))
        match rng.randrange(4):
            case 0:
                said[place] = rng.randrange(256)
            case 1:
                del said[place : place + rng.randint(1, 8)]
            case 2:
                said[place:place] = noise(rng, 1, 8)
            case _:
                said[place] ^= 1 << rng.randrange(8)
    return Case("mutated", (bytes(said),), ANY)


MAKERS: tuple[Callable[[random.Random], Case], ...] = (
    method, version, target, pages, field, host, large_head, length, too_large, chunked, cut, smuggled,
    slow, silent, garbage, pipelined, upgrade, expect, mutated,
)  # fmt: skip
