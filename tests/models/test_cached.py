"""The answer cache: durable before returned, asked once, and safe to kill."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pilotfish.config import Price
from pilotfish.errors import StoreError, Unavailable
from pilotfish.models.cached import CachedModel, Entry
from pilotfish.models.calls import complete_many
from pilotfish.models.fake import FakeModel
from pilotfish.models.fake_server import FakeServer, Fault
from pilotfish.models.openai import OpenAIModel
from pilotfish.models.protocols import StreamingModel
from pilotfish.records import Completion, Request
from pilotfish.store import Store, open_store

ASK = Request.of("2+2?")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with open_store(f"sqlite:///{tmp_path}/s.db") as opened:
        yield opened


class Watched:
    """The real store, with its calls counted, slowed down or broken."""

    def __init__(self, store: Store, *, delay: float = 0.0) -> None:
        self.store = store
        self.delay = delay
        self.gets: list[int] = []
        self.puts: list[int] = []
        self.poison = ""
        self.closed_to_writers = False

    def get(self, keys: Sequence[str]) -> dict[str, Completion]:
        self.gets.append(len(keys))
        return self.store.get(keys)

    def put(self, entries: Iterable[Entry], *, task: str = "", run: str = "") -> None:
        entries = list(entries)
        self.puts.append(len(entries))
        time.sleep(self.delay)
        if self.closed_to_writers:
            raise StoreError("The disk is full.")
        if any(request.prompt == self.poison for _, request, _ in entries):
            raise TypeError("cannot be written")
        self.store.put(entries, task=task, run=run)


async def test_asks_once_and_marks_what_was_paid_for(store: Store) -> None:
    model = FakeModel("4", price=Price(1.0, 1.0))
    cached = CachedModel(model, store, task="sums", run="r1")
    first, second = await cached.complete(ASK), await cached.complete(ASK)
    assert (first.text, first.cached, second.text, second.cached) == ("4", False, "4", True)
    assert second.cost == first.cost
    assert (cached.hits, cached.misses) == (1, 1)
    assert cached.spent == first.cost == pytest.approx(2e-6)
    assert len(model.requests) == 1
    assert store.count(task="sums", run="r1") == 1
    assert isinstance(cached, StreamingModel)
    again = CachedModel(FakeModel("never asked"), store)
    assert (await again.complete(ASK)).text == "4"
    assert (again.hits, again.spent) == (1, 0.0)


async def test_it_is_durable_before_it_is_returned(tmp_path: Path, store: Store) -> None:
    cached = CachedModel(FakeModel("4"), store)
    await cached.complete(ASK)
    code = (
        "import sys; from pilotfish.store import open_store; print(open_store(sys.argv[1]).count())"
    )
    command = [sys.executable, "-c", code, f"sqlite:///{tmp_path}/s.db"]
    assert subprocess.check_output(command, text=True).strip() == "1"


async def test_other_parameters_and_other_models_are_other_questions(store: Store) -> None:
    model = FakeModel(["a", "b", "c"])
    cached = CachedModel(model, store)
    assert (await cached.complete(ASK)).text == "a"
    assert (await cached.complete(Request.of("2+2?", temperature=1))).text == "b"
    assert (await CachedModel(FakeModel("z", name="other"), store).complete(ASK)).text == "z"
    assert (await cached.complete(Request(ASK.messages, tags={"x": 1}, user="u"))).text == "a"


async def test_changed_default_parameters_do_not_get_old_answers(store: Store) -> None:
    with FakeServer(["cold", "hot", "cold again"]) as server:
        texts = []
        for temperature in (0, 1, 0):
            params = {"temperature": temperature}
            async with OpenAIModel("m", name="big", base_url=server.base_url, params=params) as m:
                texts.append((await CachedModel(m, store).complete(ASK)).text)
    assert texts == ["cold", "hot", "cold"]


async def test_identical_requests_fly_together(store: Store) -> None:
    model = FakeModel("4", latency=0.05, price=Price(1.0, 1.0))
    cached = CachedModel(model, store)
    answers = await asyncio.gather(*(cached.complete(ASK) for _ in range(20)))
    assert len(model.requests) == 1
    assert [a.cached for a in answers].count(False) == 1
    assert (cached.hits, cached.misses) == (19, 1)
    assert sum(a.cost or 0 for a in answers if not a.cached) == cached.spent


async def test_answers_that_come_together_are_committed_together(store: Store) -> None:
    watched = Watched(store, delay=0.02)
    cached = CachedModel(FakeModel(lambda request: request.prompt), watched)
    requests = [Request.of(f"q{i}") for i in range(400)]
    answers = await asyncio.gather(*(cached.complete(r) for r in requests))
    assert [a.text for a in answers] == [f"q{i}" for i in range(400)]
    assert sum(watched.puts) == store.count() == 400
    assert len(watched.puts) <= 5
    assert len(watched.gets) <= 5


async def test_errors_are_not_kept(store: Store) -> None:
    model = FakeModel("4", faults=[Unavailable("gone")], latency=0.02)
    cached = CachedModel(model, store)
    outcomes = await asyncio.gather(
        *(cached.complete(ASK) for _ in range(3)), return_exceptions=True
    )
    assert all(isinstance(outcome, Unavailable) for outcome in outcomes)
    assert len(model.requests) == 1
    assert (await cached.complete(ASK)).text == "4"
    assert (cached.hits, cached.misses) == (0, 1)


async def test_one_bad_record_does_not_take_the_others_along(store: Store) -> None:
    watched = Watched(store, delay=0.02)
    watched.poison = "q7"
    cached = CachedModel(FakeModel("x"), watched)
    jobs = [cached.complete(Request.of(f"q{i}")) for i in range(20)]
    outcomes = await asyncio.gather(*jobs, return_exceptions=True)
    assert [i for i, o in enumerate(outcomes) if isinstance(o, TypeError)] == [7]
    assert store.count() == 19


async def test_an_answer_that_cannot_be_kept_is_not_returned(store: Store) -> None:
    watched = Watched(store)
    watched.closed_to_writers = True
    cached = CachedModel(FakeModel("x"), watched)
    with pytest.raises(StoreError, match="disk"):
        await cached.complete(ASK)
    chunks = cached.stream(Request.of("other"))
    assert (await anext(chunks)).text == "x"
    with pytest.raises(StoreError, match="disk"):
        await anext(chunks)
    watched.closed_to_writers = False
    assert not (await cached.complete(ASK)).cached
    assert cached.misses == 3


async def test_cancelling_one_caller_does_not_cancel_the_other(store: Store) -> None:
    model = FakeModel("4", latency=0.1)
    cached = CachedModel(model, store)
    first = asyncio.create_task(cached.complete(ASK))
    second = asyncio.create_task(cached.complete(ASK))
    await asyncio.sleep(0.05)
    first.cancel()
    assert (await second).text == "4"
    assert len(model.requests) == 1


async def test_cancelling_the_last_caller_cancels_the_call(store: Store) -> None:
    model = FakeModel("4", latency=5)
    cached = CachedModel(model, store)
    task = asyncio.create_task(cached.complete(ASK))
    while not model.active:
        await asyncio.sleep(0.01)
    task.cancel()
    # A new caller at this very moment must not be handed the cancelled call.
    model._latency = 0.0
    with pytest.raises(asyncio.CancelledError):
        await task
    assert (await cached.complete(ASK)).text == "4"
    assert model.active == 0
    assert len(model.requests) == 2


async def test_a_paid_answer_is_recorded_though_its_caller_left(store: Store) -> None:
    watched = Watched(store, delay=0.2)
    cached = CachedModel(FakeModel("4"), watched)
    task = asyncio.create_task(cached.complete(ASK))
    while not watched.puts:
        await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    again = await cached.complete(ASK)
    assert again.cached
    assert len(cached.model.requests) == 1  # type: ignore[attr-defined]


async def test_streams_are_recorded_and_replayed(store: Store) -> None:
    model = FakeModel("one two three")
    cached = CachedModel(model, store)
    first = [chunk async for chunk in cached.stream(ASK)]
    assert [chunk.text for chunk in first] == ["one", " two", " three", ""]
    [hit] = [chunk async for chunk in cached.stream(ASK)]
    assert hit.text == "one two three"
    assert hit.completion is not None
    assert hit.completion.cached
    assert (cached.hits, cached.misses, len(model.requests)) == (1, 1, 1)


async def test_a_stream_and_a_call_share_one_flight(store: Store) -> None:
    model = FakeModel("one two", latency=0.05)
    cached = CachedModel(model, store)

    async def streamed() -> list[str]:
        return [chunk.text async for chunk in cached.stream(ASK)]

    texts, whole, again = await asyncio.gather(streamed(), cached.complete(ASK), streamed())
    assert (texts, whole.text, again) == (["one", " two", ""], "one two", ["one two"])
    assert whole.cached
    assert len(model.requests) == 1


async def test_a_stream_that_is_left_is_not_recorded_and_blocks_nobody(store: Store) -> None:
    words = "word " * 50
    with FakeServer(words, faults=[Fault.SLOW_DRIP], drip_seconds=0.02) as server:
        async with OpenAIModel("m", base_url=server.base_url) as model:
            cached = CachedModel(model, store)
            chunks: Any = cached.stream(ASK)
            await anext(chunks)
            waiting = asyncio.create_task(cached.complete(ASK))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await chunks.aclose()
            assert (await waiting).text == words
            for _ in range(100):
                if server.abandoned:
                    break
                await asyncio.sleep(0.01)
    assert (server.count, server.abandoned) == (2, 1)
    assert (cached.misses, store.count()) == (1, 1)


def test_several_loops_and_threads_share_one_cache(store: Store) -> None:
    cached = CachedModel(FakeModel(lambda request: request.prompt), store)

    def work() -> None:
        async def ask_all() -> None:
            requests = [Request.of(f"q{i}") for i in range(50)]
            assert len([a async for a in complete_many(cached, requests)]) == 50

        asyncio.run(ask_all())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert cached.hits + cached.misses == 200
    assert store.count() == 50


RUN = """
import asyncio, sys
from pilotfish.models.cached import CachedModel
from pilotfish.models.calls import complete_many
from pilotfish.models.openai import OpenAIModel
from pilotfish.records import Request
from pilotfish.store import open_store

async def main(base_url, url, rows):
    with open_store(url) as store:
        async with OpenAIModel("m", base_url=base_url, concurrency=8) as model:
            cached = CachedModel(model, store)
            requests = (Request.of(f"item {i}") for i in range(rows))
            async for _, answer in complete_many(cached, requests, concurrency=8):
                print(answer.text, flush=True)

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
"""


def test_killed_in_mid_run_nothing_recorded_is_asked_twice(tmp_path: Path) -> None:
    """Kill -9 at several moments: only what was under way is asked again."""
    rows, in_flight, database = 100, 8, tmp_path / "s.db"
    command = [sys.executable, "-c", RUN]
    with FakeServer(lambda body: body["messages"][0]["content"], latency=0.02) as server:
        command += [server.base_url, f"sqlite:///{database}", str(rows)]
        printed: set[str] = set()
        for stop_after in (1, 40):
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
                assert process.stdout is not None
                fresh = 0
                for line in process.stdout:
                    fresh += line not in printed
                    printed.add(line)
                    if fresh >= stop_after:
                        os.kill(process.pid, signal.SIGKILL)
                        break
                printed |= set(process.stdout)
            assert process.returncode == -signal.SIGKILL
        recorded = _recorded(database)
        asked_before = server.count
        # What was returned was recorded: nothing that the caller saw is missing.
        assert {line.strip() for line in printed if line.endswith("\n")} <= recorded
        assert asked_before - len(recorded) <= 2 * in_flight
        output = subprocess.check_output(command, text=True).split("\n")
        assert len(set(output) - {""}) == rows
        assert server.count - asked_before == rows - len(recorded)
        # Once more: all is there, the server is not asked at all.
        asked = server.count
        subprocess.check_output(command)
        assert server.count == asked
    asked_twice = server.count - rows
    assert asked_twice <= 2 * in_flight


def _recorded(database: Path) -> set[str]:
    with open_store(f"sqlite:///{database}") as store:
        return {
            json.loads(text)["text"]
            for batch in store.calls()
            for text in batch.column("completion").to_pylist()
        }
