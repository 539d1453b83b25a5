"""What is wrong on the client's side: always a proper error object, never a 500 from us, never a hang."""

from __future__ import annotations

import json
import random
import socket
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pilotfish.models.fake_server import FakeServer, Fault
from pilotfish.store.store import open_store
from tests.gateway.serving import Running, remote, serving

HEAD = b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\n"
BODY = b'{"model": "fake", "messages": [{"role": "user", "content": "hi"}]}'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("gateway"))
        with (
            FakeServer("ok", keep=False) as upstream,
            serving(
                {"fake": remote(upstream), "large-model": remote(upstream)},
                max_body=100_000,
                header_timeout=0.5,
                body_timeout=0.5,
            ) as running,
        ):
            yield running


def first_of(answer: bytes) -> tuple[int, dict[str, str], bytes]:
    head, _, rest = answer.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    return int(first.split()[1]), dict(line.lower().split(": ", 1) for line in lines), rest


def parsed(answer: bytes) -> tuple[int, dict[str, str], Any]:
    status, headers, body = first_of(answer)
    assert len(body) == int(headers["content-length"])
    return status, headers, json.loads(body)


def is_error(body: Any) -> bool:
    error = body["error"]
    return set(error) == {"message", "type", "param", "code"} and bool(error["message"])


@pytest.mark.parametrize(
    ("body", "code", "param"),
    [
        ("", "invalid_json", None),
        ("{", "invalid_json", None),
        ("[]", "invalid_json", None),
        ("null", "invalid_json", None),
        ('"text"', "invalid_json", None),
        (b'{"model": "\xff"}', "invalid_json", None),
        ("[" * 100_000, "invalid_json", None),
        ("{}", "invalid_value", "messages"),
        ('{"model": 3, "messages": []}', "invalid_value", "model"),
        ('{"model": "fake", "messages": []}', "invalid_value", "messages"),
        ('{"model": "fake", "messages": "hi"}', "invalid_value", "messages"),
        ('{"model": "fake", "messages": [3]}', "invalid_value", "messages[0]"),
        ('{"model": "fake", "messages": [{}]}', "invalid_value", "messages[0].role"),
        (
            '{"model": "fake", "messages": [{"role": "user", "content": 1}]}',
            "invalid_value",
            "messages[0].content",
        ),
        (
            '{"model": "fake", "messages": [{"role": "user"}], "stream": "yes"}',
            "invalid_value",
            "stream",
        ),
        ('{"model": "fake", "messages": [{"role": "user"}], "n": 0}', "invalid_value", "n"),
        ('{"messages": [{"role": "user"}]}', "model_required", "model"),
    ],
)
def test_wrong_bodies(gateway: Running, body: str | bytes, code: str, param: str | None) -> None:
    got = gateway.client.post("/v1/chat/completions", content=body)
    assert got.status_code == 400
    error = got.json()["error"]
    assert (error["code"], error["type"]) == (code, "invalid_request_error")
    assert error["param"] == param
    assert got.headers["x-request-id"].startswith("req_")


def test_an_unknown_model_is_404_with_the_near_name(gateway: Running) -> None:
    got = gateway.chat(model="large-modell")
    assert got.status_code == 404
    error = got.json()["error"]
    assert error["code"] == "model_not_found"
    assert "Did you mean 'large-model'?" in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "status", "allow"),
    [
        ("GET", "/v1/chat/completions", 405, "POST"),
        ("DELETE", "/v1/models", 405, "GET, HEAD"),
        ("POST", "/v1/models/fake", 405, "GET, HEAD"),
        ("OPTIONS", "/v1/chat/completions", 405, "POST"),
        ("GET", "/nowhere", 404, None),
        ("POST", "/v1/chat/completions/", 404, None),
        ("GET", "/v1/models/none", 404, None),
    ],
)
def test_wrong_paths_and_methods(
    gateway: Running, method: str, path: str, status: int, allow: str | None
) -> None:
    got = gateway.client.request(method, path)
    assert got.status_code == status
    assert is_error(got.json())
    assert got.headers.get("allow") == allow


def test_models_are_listed(gateway: Running) -> None:
    listed = gateway.client.get("/v1/models").json()
    assert listed["object"] == "list"
    names = [row["id"] for row in listed["data"]]
    assert names[:2] == ["fake", "large-model"]
    assert "static" in names
    one = gateway.client.get("/v1/models/large-model").json()
    assert one in listed["data"]
    assert one["object"] == "model"
    assert gateway.client.head("/v1/models").text == ""


def test_feedback_reaches_the_store(gateway: Running) -> None:
    answered = gateway.chat().headers["x-request-id"]
    said = {"request_id": answered, "label": "spam", "score": 0.5, "comment": "no"}
    got = gateway.client.post("/v1/feedback", json=said)
    assert got.status_code == 200, got.text
    [entry] = gateway.gateway.store.feedback.about([answered])
    assert (entry.label, entry.score, entry.comment) == ("spam", 0.5, "no")
    for wrong in ({}, {"request_id": answered}, {"request_id": answered, "score": 2}):
        refused = gateway.client.post("/v1/feedback", json=wrong)
        assert refused.status_code == 400
        assert is_error(refused.json())


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"GARBAGE\r\n\r\n", 400, "malformed_http"),
        (b"\x16\x03\x01\x02\x00\x01\x00", 400, "malformed_http"),
        (b"GET / HTTP/9.9\r\n\r\n", 400, "malformed_http"),
        (b"GET /\xff HTTP/1.1\r\n\r\n", 400, "malformed_http"),
        (HEAD + b"no colon here\r\n\r\n", 400, "malformed_http"),
        (HEAD + b"content-length: x\r\n\r\n", 400, "malformed_http"),
        (HEAD + b"content-length: 5\r\ncontent-length: 6\r\n\r\nhello", 400, "malformed_http"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\nzz\r\n", 400, "malformed_http"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabcdef", 400, "malformed_http"),
        (HEAD + b"x: " + b"y" * 70_000 + b"\r\n\r\n", 431, "headers_too_large"),
        (HEAD + b"x: " + b"y" * 70_000, 431, "headers_too_large"),
        (HEAD + b"a: b\r\n" * 200 + b"\r\n", 431, "headers_too_large"),
        (b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n", 431, "headers_too_large"),
        (HEAD, 408, "request_timeout"),
        (HEAD + b"content-length: 50\r\n\r\nhalf", 408, "request_timeout"),
        (HEAD + b"transfer-encoding: chunked\r\n\r\n3\r\nabc\r\n", 408, "request_timeout"),
        (HEAD + b"content-length: 100001\r\n\r\n", 413, "body_too_large"),
        (
            HEAD + b"transfer-encoding: chunked\r\n\r\n186a1\r\n" + b"x" * 100_001,
            413,
            "body_too_large",
        ),
    ],
)
def test_what_is_not_http_gets_an_error_object(
    gateway: Running, data: bytes, status: int, code: str
) -> None:
    got, headers, body = parsed(gateway.raw(data))
    assert (got, body["error"]["code"]) == (status, code)
    assert is_error(body)
    assert (headers.get("connection") == "close") == (status != 413)
    assert gateway.chat().status_code == 200


@pytest.mark.parametrize("data", [HEAD[:30], HEAD, HEAD + b"content-length: 50\r\n\r\nhalf"])
def test_a_request_that_is_cut_off(gateway: Running, data: bytes) -> None:
    status, _, body = parsed(gateway.raw(data, half_close=True))
    assert (status, body["error"]["code"]) == (400, "incomplete_request")


def test_a_silent_connection_is_closed(gateway: Running) -> None:
    assert gateway.raw(b"") == b""


def test_a_body_that_is_too_large_is_refused_before_it_is_sent(gateway: Running) -> None:
    got = gateway.client.post("/v1/chat/completions", content=b"x" * (30 << 20))
    assert got.status_code == 413
    assert got.json()["error"]["code"] == "body_too_large"


def test_a_fault_of_ours_is_an_error_object_and_tells_nothing(
    gateway: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(name: str) -> None:
        raise ZeroDivisionError("a secret of ours")

    monkeypatch.setattr(gateway.gateway.served, "model", broken)
    got = gateway.chat()
    assert (got.status_code, got.json()["error"]["code"]) == (500, "internal_error")
    assert is_error(got.json())
    assert "secret" not in got.text
    assert got.headers["connection"] == "close"  # the server ends it
    monkeypatch.undo()
    assert gateway.chat().status_code == 200


def test_an_upgrade_is_declined_and_the_request_answered(gateway: Running) -> None:
    # As Java's client and curl --http2 send it to plain http.
    upgrade = b"connection: upgrade, http2-settings\r\nupgrade: h2c\r\nhttp2-settings: AA\r\n"
    for framing, body in [
        (b"content-length: %d\r\n\r\n" % len(BODY), BODY),
        (b"transfer-encoding: chunked\r\n\r\n", b"%x\r\n%s\r\n0\r\n\r\n" % (len(BODY), BODY)),
    ]:
        status, _, reply = parsed(gateway.raw(HEAD + upgrade + framing + body))
        assert status == 200
        assert reply["choices"][0]["message"]["content"] == "ok"


def test_a_declined_upgrade_waits_for_its_body(gateway: Running) -> None:
    head = HEAD + b"connection: upgrade\r\nupgrade: h2c\r\ncontent-length: %d\r\n\r\n" % len(BODY)
    with socket.create_connection(("127.0.0.1", gateway.port), 10) as connection:
        connection.sendall(head)
        threading.Event().wait(0.1)
        connection.sendall(BODY)
        assert connection.recv(12) == b"HTTP/1.1 200"


def test_requests_in_one_packet_are_answered_in_order(gateway: Running) -> None:
    one = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    last = one.replace(b"host: x", b"host: x\r\nconnection: close")
    answers = gateway.raw(one + one + last).split(b"HTTP/1.1 ")[1:]
    assert [answer[:3] for answer in answers] == [b"200"] * 3


def test_garbage_after_a_good_request_does_not_spoil_its_answer(gateway: Running) -> None:
    one = HEAD + b"content-length: %d\r\n\r\n" % len(BODY) + BODY
    answers = gateway.raw(one + b"GARBAGE\r\n\r\n").split(b"HTTP/1.1 ")[1:]
    assert answers[0][:3] == b"200"


def test_random_mutations_never_break_it(gateway: Running) -> None:
    """A good request with random bytes changed, cut out, doubled or put in."""
    rng = random.Random(7)
    good = HEAD + b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY
    seen: dict[int, int] = {}
    for _ in range(400):
        data = bytearray(good)
        for _ in range(rng.randint(1, 6)):
            at = rng.randrange(len(data))
            kind = rng.randrange(4)
            if kind == 0:
                data[at] = rng.randrange(256)
            elif kind == 1:
                del data[at : at + rng.randint(1, 20)]
            elif kind == 2:
                data[at:at] = rng.randbytes(rng.randint(1, 8))
            else:
                data[at:at] = data[at : at + rng.randint(1, 40)]
        answer = gateway.raw(bytes(data), half_close=True)
        if not answer:
            # A whole good request whose client left while it was answered, as half-closing says.
            continue
        status = int(answer.split(b" ", 2)[1])
        seen[status] = seen.get(status, 0) + 1
        assert status < 500, (bytes(data), answer)
        if status != 200:
            _, headers, rest = first_of(answer)
            assert is_error(json.loads(rest[: int(headers["content-length"])]))
    assert seen[400] > 100, seen
    assert gateway.chat().status_code == 200


def test_cors_is_off_by_default_and_named_origins_get_it() -> None:
    asked = {"origin": "https://app.example", "access-control-request-method": "POST"}
    with FakeServer() as upstream:
        with serving({"fake": remote(upstream)}) as gateway:
            off = gateway.client.options("/v1/chat/completions", headers=asked)
            assert off.status_code == 405
            assert "access-control-allow-origin" not in off.headers
        with serving({"fake": remote(upstream)}, cors=["https://app.example"]) as gateway:
            on = gateway.client.options("/v1/chat/completions", headers=asked)
            other = gateway.client.options(
                "/v1/chat/completions", headers={**asked, "origin": "https://evil.example"}
            )
            body = {"model": "fake", "messages": [{"role": "user", "content": "x"}]}
            answer = gateway.client.post("/v1/chat/completions", json=body, headers=asked)
            error = gateway.client.post("/v1/chat/completions", json={}, headers=asked)
            listed = gateway.client.get("/v1/models", headers=asked)
    assert on.status_code == 204
    assert on.headers["access-control-allow-methods"] == "POST"
    assert "access-control-allow-origin" not in other.headers
    for got in (on, answer, error, listed):
        assert got.headers["access-control-allow-origin"] == "https://app.example"


def test_a_slow_reader_holds_back_the_model_not_the_memory() -> None:
    """The model's stream is read only as fast as the client reads."""
    sent = 0

    def upstream_handler(listener: socket.socket) -> None:
        nonlocal sent
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n\r\n")
            delta = {"choices": [{"index": 0, "delta": {"content": "x" * 4000}}]}
            event = b"data: " + json.dumps(delta).encode() + b"\n\n"
            connection.settimeout(1.5)
            try:
                while sent < 200 << 20:
                    connection.sendall(event)
                    sent += len(event)
            except OSError:
                pass

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=upstream_handler, args=(listener,))
        thread.start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
        with serving({"fake": {"backend": "openai", "base_url": url}}) as gateway:
            body = BODY[:-1] + b', "stream": true}'
            with socket.create_connection(("127.0.0.1", gateway.port)) as client:
                client.sendall(HEAD + b"content-length: %d\r\n\r\n" % len(body) + body)
                thread.join()
    assert 0 < sent < 20 << 20


def test_stopping_finishes_streams() -> None:
    with FakeServer("word " * 20, faults=[Fault.SLOW_DRIP], drip_seconds=0.05) as upstream:
        got: list[Any] = []
        with serving({"fake": remote(upstream)}) as gateway:
            thread = threading.Thread(target=lambda: got.extend(gateway.events()))
            thread.start()
            while not upstream.active:
                threading.Event().wait(0.01)
        thread.join()
    assert got[-1] == "[DONE]"
    text = "".join(c["delta"].get("content") or "" for e in got[:-1] for c in e["choices"])
    assert text == "word " * 20


def test_a_key_learns_only_the_names_of_the_models_that_it_may_ask() -> None:
    models = {"open": {"backend": "fake"}, "hidden": {"backend": "fake"}}
    with serving(models, keys="required") as gateway:
        with open_store(gateway.store_url) as store:
            key, _ = store.keys.create("guest", models=("open",))
        gateway.client.headers["authorization"] = f"Bearer {key}"
        assert gateway.chat(model="open").status_code == 200
        unknown = gateway.chat(model="hiden")
        listed = gateway.client.get("/v1/models").json()["data"]
        forbidden = gateway.chat(model="hidden")
    assert unknown.status_code == 404
    assert "open" in unknown.text
    assert "hidden" not in unknown.text
    assert [row["id"] for row in listed] == ["open"]
    assert forbidden.status_code == 403
