"""Malformed requests by the thousand: a proper error object for each, no 500 from us, no hang.

``benchmarks/malformed.py`` sends ten thousand; a seed makes the same ones each time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from pilotfish.models.fake_server import FakeServer
from tests.gateway import malformed_http, malformed_json
from tests.gateway.malformed import ANY, CLOSE, ERROR, Answer, Case, Make, drawn, judged, send_all
from tests.gateway.serving import Running, remote, serving

BODY = b'{"error":{"message":"No.","type":"invalid_request_error","param":null,"code":"x"}}'


@pytest.fixture(scope="module")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("gateway"))
        with (
            FakeServer("ok", keep=False) as upstream,
            serving(
                {"fake": {"backend": "fake"}, "far": remote(upstream)},
                max_body=200_000,
                header_timeout=1.2,
                body_timeout=1.2,
            ) as running,
        ):
            yield running


@pytest.mark.parametrize(
    ("makers", "count", "seed"),
    [(malformed_http.MAKERS, 760, 1), (malformed_json.MAKERS, 840, 2)],
    ids=["http", "json"],
)
def test_every_malformed_request_gets_an_error_object(
    gateway: Running, makers: tuple[Make, ...], count: int, seed: int
) -> None:
    report = asyncio.run(send_all(gateway.port, drawn(makers, count, seed)))
    assert sum(report.counts.values()) == count
    assert report.wrong == []
    assert gateway.chat().status_code == 200
    assert gateway.gateway.recorder.lost == 0


def test_without_a_key_nothing_is_read() -> None:
    with serving({"fake": {"backend": "fake"}}, keys="required") as guarded:
        report = asyncio.run(send_all(guarded.port, drawn([malformed_json.no_key], 100, 3)))
    assert report.wrong == []


def _answer(status: int, body: bytes = BODY, kind: str = "application/json") -> list[Answer]:
    return [Answer(status, {"content-type": kind}, body)]


@pytest.mark.parametrize(
    ("case", "answers", "right"),
    [
        (Case("x", ()), _answer(400), True),
        (Case("x", ()), [], False),
        (Case("x", ()), _answer(200), False),
        (Case("x", ()), _answer(500), False),
        (Case("x", ()), _answer(400, b"Bad Request"), False),
        (Case("x", ()), _answer(400, b'{"detail": "no"}'), False),
        (Case("x", ()), _answer(400, kind="text/plain"), False),
        (Case("x", (), statuses=frozenset((404,))), _answer(400), False),
        (Case("x", (), ANY), _answer(200), True),
        (Case("x", (), ANY), _answer(502), False),
        (Case("x", (), CLOSE), [], True),
        (Case("x", (), CLOSE), _answer(400), False),
        (Case("x", (), ERROR, answers=2), _answer(200) + _answer(400), True),
        (Case("x", (), ERROR, answers=2), _answer(400), False),
    ],
)
def test_the_judge_tells_right_from_wrong(case: Case, answers: list[Answer], right: bool) -> None:
    assert (judged(case, answers) == "") is right
