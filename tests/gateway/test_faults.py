"""What a user meets when something behind the gateway fails: each fault on the wire, named.

The upstream is a fake server that misbehaves as it is told, the gateway is ``pilotfish serve`` in a
process of its own, and the client speaks plain HTTP.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from pilotfish.models.fake_server import FakeServer
from tests.gateway.running import Running, body, remote, serving, words_of, written

# What the client is told: HTTP status, code, and for streams the same, or an event where it had begun.
FAULTS = {
    "refuse": (503, "model_unavailable"),
    "reset": (503, "model_unavailable"),
    "disconnect": (503, "model_unavailable"),
    "hang": (503, "model_unavailable"),
    "rate-limited": (429, "rate_limited_by_model"),
    "server-error": (503, "model_unavailable"),
    "overloaded": (503, "model_unavailable"),
    "garbage": (502, "bad_answer_from_model"),
    "not-http": (502, "bad_answer_from_model"),
    "html": (502, "bad_answer_from_model"),
    "half": (503, "model_unavailable"),
    "unauthorized": (502, "gateway_not_authorised_by_model"),
}
IN_MID_STREAM = {"half", "garbage"}
WORDS = "one two three four five six"


def composite(name: str, kind: str, *models: str, **settings: Any) -> str:
    lines = [f"[models.{name}]", f'kind = "{kind}"', f"models = {json.dumps(models)}"]
    return "\n".join([*lines, *(f"{k} = {written(v)}" for k, v in settings.items())]) + "\n"


class World:
    """Upstreams by name, and one gateway before all of them."""

    def __init__(self) -> None:
        self.servers: dict[str, FakeServer] = {}
        self.toml = ""
        self.gateway: Running

    def chat(self, model: str, *, stream: bool = False, **options: Any) -> httpx.Response:
        headers = options.pop("headers", {})
        body = {"model": model, "messages": [{"role": "user", "content": "Hi"}], **options}
        body |= {"stream": True} if stream else {}
        return httpx.post(self.gateway.chat, json=body, headers=headers, timeout=30)


@pytest.fixture(scope="module")
def world() -> Iterator[World]:
    world = World()
    with contextlib.ExitStack() as stack:

        def server(name: str, *answer: Any, **options: Any) -> FakeServer:
            world.servers[name] = stack.enter_context(FakeServer(*answer, **options))
            return world.servers[name]

        good = server("good", WORDS)
        world.toml += remote("good", good, read_timeout=30.0)
        for fault in FAULTS:
            faults = [fault] if fault == "refuse" else itertools.repeat(fault)
            bad = server(fault, WORDS, faults=faults, refuse_seconds=3600, retry_after="7")
            world.toml += remote(fault, bad)
            world.toml += composite(f"safe-{fault}", "fallback", fault, "good", breaker="off")
        drip = server("slow-drip", WORDS, faults=itertools.repeat("slow-drip"), drip_seconds=0.1)
        world.toml += remote("slow-drip", drip)
        world.toml += composite("cascade", "cascade", "server-error", "good", thresholds=[0.5])
        broken = server("broken", faults=itertools.repeat("server-error"))
        world.toml += remote("broken", broken, breaker={"minimum": 3, "open_seconds": 60})
        stormy = server("stormy", faults=itertools.repeat("server-error"))
        world.toml += remote(
            "stormy", stormy, max_retries=5, first_delay=0.001, retry_share=0.2, retry_rate=0
        )
        patient = server("patient", WORDS, faults=["rate-limited"], retry_after="1")
        world.toml += remote("patient", patient, max_retries=2, first_delay=0.01)
        chained = server("chained", faults=itertools.repeat("server-error"))
        world.toml += remote("chained", chained)
        world.toml += composite(
            "chain", "fallback", "chained", "good", breaker={"minimum": 3, "open_seconds": 60}
        )
        lost = server("lost", WORDS, faults=itertools.repeat("hang"))
        world.toml += remote("lost", lost, read_timeout=60.0)
        dripping = server("dripping", WORDS, faults=itertools.repeat("slow-drip"), drip_seconds=0.2)
        world.toml += remote("dripping", dripping)
        thinking = server("thinking", WORDS, latency=0.8)
        world.toml += remote("hurried", thinking, first_byte_timeout=0.3, read_timeout=30.0)
        world.toml += remote("trusted", thinking, first_byte_timeout=30.0, read_timeout=0.3)
        stuck = server("stuck", WORDS, faults=itertools.repeat("hang"))
        world.toml += remote("stuck", stuck, read_timeout=60.0)
        head = "[serve]\nmax_active = 40\n"
        world.gateway = stack.enter_context(serving(head + world.toml))
        yield world


def events(response: httpx.Response) -> list[Any]:
    lines = [line[6:] for line in response.text.splitlines() if line.startswith("data: ")]
    return [line if line == "[DONE]" else json.loads(line) for line in lines]


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_told_in_the_form_that_clients_parse(world: World, fault: str) -> None:
    status, code = FAULTS[fault]
    began = time.monotonic()
    response = world.chat(fault)
    assert time.monotonic() - began < 10
    error = response.json()["error"]
    assert (response.status_code, error["code"]) == (status, code)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert response.headers["x-request-id"].startswith("req_")
    assert response.headers["x-pilotfish-model"] == fault
    assert response.headers["x-pilotfish-reason"] == code
    if fault == "rate-limited":
        assert response.headers["retry-after"] == "7"


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_stream_is_an_http_error_or_the_last_event(world: World, fault: str) -> None:
    status, code = FAULTS[fault]
    response = world.chat(fault, stream=True)
    if fault in IN_MID_STREAM:
        assert response.status_code == 200
        *pieces, last = events(response)
        assert words_of(pieces), "what came before the fault is not held back"
        assert last["error"]["code"] == code
    else:
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fallback_answers_instead(world: World, fault: str) -> None:
    response = world.chat(f"safe-{fault}")
    assert response.status_code == 200
    assert response.json()["choices"][0]["message"]["content"] == WORDS
    assert response.json()["model"] == "good"
    assert response.headers["x-pilotfish-model"] == "good"
    assert response.headers["x-pilotfish-reason"] == "failover"


@pytest.mark.parametrize("fault", sorted(set(FAULTS) - IN_MID_STREAM))
def test_a_fallback_streams_instead_before_the_first_word(world: World, fault: str) -> None:
    response = world.chat(f"safe-{fault}", stream=True)
    assert response.status_code == 200
    parts = events(response)
    assert words_of(parts) == WORDS
    assert parts[-1] == "[DONE]"


@pytest.mark.parametrize("fault", sorted(IN_MID_STREAM))
def test_a_fallback_never_goes_on_after_the_first_word(world: World, fault: str) -> None:
    *pieces, last = events(world.chat(f"safe-{fault}", stream=True))
    assert WORDS.startswith(words_of(pieces))
    assert words_of(pieces) != ""
    assert "error" in last


def test_a_cascade_goes_up_when_its_small_member_fails(world: World) -> None:
    response = world.chat("cascade")
    assert response.json()["model"] == "good"
    assert response.headers["x-pilotfish-reason"] == "unavailable"


def test_a_slow_drip_is_read_to_its_end(world: World) -> None:
    response = world.chat("slow-drip")  # 16 pieces of 0.1 s, with a read timeout of 1 s
    assert response.json()["choices"][0]["message"]["content"] == WORDS
    streamed = world.chat("slow-drip", stream=True)
    assert words_of(events(streamed)) == WORDS


@pytest.mark.parametrize("stream", [False, True])
def test_a_slow_drip_ends_at_the_clients_deadline(world: World, stream: bool) -> None:
    server = world.servers["slow-drip"]
    wait_for(lambda: not server.active)
    before = server.abandoned
    began = time.monotonic()
    response = world.chat("slow-drip", stream=stream, headers={"x-request-timeout": "0.5"})
    assert time.monotonic() - began < 5
    if stream:
        assert "error" in events(response)[-1]
    else:
        assert response.status_code in (503, 504)
    wait_for(lambda: server.abandoned == before + 1 and not server.active)


@pytest.mark.parametrize("stream", [False, True])
def test_the_first_byte_has_a_timeout_of_its_own(world: World, stream: bool) -> None:
    began = time.monotonic()
    assert world.chat("hurried", stream=stream).status_code == 503
    assert time.monotonic() - began < 5
    # The other way round: much patience until the first byte, little after it.
    assert world.chat("trusted", stream=stream).status_code == 200


@pytest.mark.parametrize("stream", [False, True])
def test_connecting_has_a_timeout_of_its_own(stream: bool) -> None:
    """A listener whose queue is full answers no further SYN, as a host behind a silent firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, contextlib.ExitStack() as stack:
        for _ in range(4):
            caller = stack.enter_context(socket.socket())
            caller.setblocking(False)
            caller.connect_ex(full.getsockname())
        address = f"http://127.0.0.1:{full.getsockname()[1]}/v1"
        toml = f'[models.far]\nbackend = "openai"\nbase_url = "{address}"\n'
        with serving(toml + "connect_timeout = 0.5\nmax_retries = 0\n") as gateway:
            began = time.monotonic()
            body = {"messages": [{"role": "user", "content": "Hi"}], "stream": stream}
            got = httpx.post(gateway.chat, json=body, timeout=30)
            assert (got.status_code, got.json()["error"]["code"]) == FAULTS["refuse"]
            assert 0.4 < time.monotonic() - began < 5


def test_the_deadline_is_passed_downstream(world: World) -> None:
    world.chat("good", headers={"x-request-timeout": "5"})
    passed = float(world.servers["good"].seen[-1].headers["x-request-timeout"])
    assert 0 < passed <= 5


def test_a_circuit_breaker_leaves_a_broken_upstream_alone(world: World) -> None:
    for _ in range(3):
        assert world.chat("broken").status_code == 503
    for _ in range(10):
        response = world.chat("broken")
        assert response.status_code == 503
        assert 1 <= int(response.headers["retry-after"]) <= 60
    assert world.servers["broken"].count == 3


def test_a_chain_passes_over_a_member_that_keeps_failing(world: World) -> None:
    for _ in range(10):
        assert world.chat("chain").json()["model"] == "good"
    assert world.servers["chained"].count == 3


def test_retries_stay_within_their_budget(world: World) -> None:
    for _ in range(50):
        assert world.chat("stormy").status_code == 503
    assert 50 < world.servers["stormy"].count <= 60


def test_retry_after_is_honoured(world: World) -> None:
    began = time.monotonic()
    assert world.chat("patient").status_code == 200
    assert 1 <= time.monotonic() - began < 5
    assert world.servers["patient"].count == 2


def wait_for(what: Any, seconds: float = 10) -> None:
    ends = time.monotonic() + seconds
    while not what():
        assert time.monotonic() < ends, "it did not happen"
        time.sleep(0.01)


def test_the_upstream_is_cancelled_when_the_client_leaves(world: World) -> None:
    server = world.servers["lost"]
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(world.gateway.chat, json=body("lost"), timeout=0.5)
    wait_for(lambda: server.abandoned == 1)
    assert server.active == 0


def test_a_streams_upstream_is_cancelled_when_the_client_leaves(world: World) -> None:
    server = world.servers["dripping"]
    asked = body("dripping", stream=True)
    with httpx.stream("POST", world.gateway.chat, json=asked, timeout=10) as response:
        next(response.iter_raw())
    wait_for(lambda: server.abandoned == 1)
    assert server.active == 0


async def test_one_bad_upstream_never_slows_another(world: World) -> None:
    """A hundred requests that hang, more than there are places, and a model beside them that works."""
    async with httpx.AsyncClient(timeout=30, limits=httpx.Limits(max_connections=200)) as client:

        async def ask(model: str) -> tuple[int, float]:
            began = time.monotonic()
            response = await client.post(world.gateway.chat, json=body(model))
            return response.status_code, time.monotonic() - began

        alone = sorted([(await ask("good"))[1] for _ in range(20)])
        hanging = [asyncio.create_task(ask("stuck")) for _ in range(100)]
        while world.servers["stuck"].active < 30:
            await asyncio.sleep(0.01)
        beside = [await ask("good") for _ in range(20)]
        assert {status for status, _ in beside} == {200}
        assert sorted(seconds for _, seconds in beside)[10] < 5 * alone[10] + 0.05
        for task in hanging:
            task.cancel()
        await asyncio.gather(*hanging, return_exceptions=True)
    wait_for(lambda: world.servers["stuck"].active == 0)
