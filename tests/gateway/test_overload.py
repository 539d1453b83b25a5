"""More than can be served, and the end: the queue is bounded, waiting ends, a stop finishes streams."""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import time

import httpx
import pytest

from pilotfish.models.fake_server import FakeServer
from tests.gateway.running import body, remote, serving, words_of

WORDS = "one two three four five six"


async def test_a_full_queue_is_refused_with_a_time_to_come_back() -> None:
    with (
        FakeServer(WORDS, latency=1.0) as server,
        serving(
            "[serve]\nmax_active = 2\nmax_waiting = 2\n" + remote("m", server, read_timeout=30.0)
        ) as gateway,
    ):
        async with httpx.AsyncClient(timeout=30) as client:
            began = time.monotonic()
            tasks = [
                asyncio.create_task(client.post(gateway.chat, json=body("m"))) for _ in range(10)
            ]
            responses = await asyncio.gather(*tasks)
        refused = [r for r in responses if r.status_code == 503]
        assert [r.status_code for r in responses].count(200) == 4
        assert len(refused) == 6
        for response in refused:
            assert response.json()["error"]["code"] == "overloaded"
            assert int(response.headers["retry-after"]) >= 1
            assert response.elapsed.total_seconds() < 1
        assert server.max_active == 2
        assert time.monotonic() - began < 20


async def test_waiting_for_a_place_has_an_end() -> None:
    with (
        FakeServer(WORDS, faults=itertools.repeat("hang")) as server,
        serving(
            "[serve]\nmax_active = 1\nwait_seconds = 0.2\n" + remote("m", server, read_timeout=30.0)
        ) as gateway,
    ):
        async with httpx.AsyncClient(timeout=30) as client:
            first = asyncio.create_task(client.post(gateway.chat, json=body("m")))
            while not server.active:
                await asyncio.sleep(0.01)
            response = await client.post(gateway.chat, json=body("m"))
            assert (response.status_code, response.json()["error"]["code"]) == (503, "overloaded")
            first.cancel()
            await asyncio.gather(first, return_exceptions=True)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_stop_lets_streams_end_and_takes_nothing_new(number: signal.Signals) -> None:
    with (
        FakeServer(WORDS, faults=itertools.repeat("slow-drip"), drip_seconds=0.15) as server,
        serving(remote("m", server, read_timeout=30.0)) as gateway,
    ):
        async with httpx.AsyncClient(timeout=30) as client:
            asked = body("m", stream=True)
            async with client.stream("POST", gateway.chat, json=asked) as response:
                lines = response.aiter_lines()
                seen = [await anext(lines)]
                gateway.process.send_signal(number)
                await asyncio.sleep(0.3)
                with pytest.raises(httpx.ConnectError):
                    httpx.post(gateway.chat, json=asked, timeout=10)
                seen += [line async for line in lines]
        parts = [line[6:] for line in seen if line.startswith("data: ")]
        assert parts[-1] == "[DONE]"
        assert words_of([json.loads(part) for part in parts[:-1]]) == WORDS
        assert await asyncio.to_thread(gateway.process.wait, 20) == 0


async def test_a_stop_ends_what_would_go_on_for_too_long() -> None:
    with (
        FakeServer(WORDS, faults=itertools.repeat("hang")) as server,
        serving(
            "[serve]\nshutdown_timeout = 0.5\n" + remote("m", server, read_timeout=60.0)
        ) as gateway,
    ):
        async with httpx.AsyncClient(timeout=30) as client:
            task = asyncio.create_task(client.post(gateway.chat, json=body("m")))
            while not server.active:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            gateway.process.send_signal(signal.SIGTERM)
            assert await asyncio.to_thread(gateway.process.wait, 20) == 0
            assert time.monotonic() - began < 10
            (result,) = await asyncio.gather(task, return_exceptions=True)
        if isinstance(result, httpx.Response):
            assert result.status_code == 503
        else:
            assert isinstance(result, httpx.HTTPError)
