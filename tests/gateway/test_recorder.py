"""The recorder: what is written when, what a failing store means, and what is never written."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from pilotfish.errors import StoreError
from pilotfish.gateway.recorder import INTERVAL, Recorder
from pilotfish.records import Completion, Request
from pilotfish.store.store import Store, open_store
from tests.store.test_traffic import exchange

URL = "sqlite:///records.db"


@asynccontextmanager
async def recording(store: Store, **options) -> AsyncIterator[Recorder]:
    recorder = Recorder(store, **{"durable": False, **options})
    recorder.start()
    try:
        yield recorder
    finally:
        await recorder.aclose()


@pytest.fixture
def store():
    with open_store(URL, timeout=0.2) as opened:
        yield opened


@pytest.fixture
def other():
    """Another process's view of the store."""
    connection = sqlite3.connect("records.db", isolation_level=None, timeout=0)
    yield connection
    connection.close()


async def until(condition, seconds: float = 10.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.01)


def stored(other: sqlite3.Connection) -> int:
    return other.execute("SELECT count(*) FROM pilotfish_traffic").fetchone()[0]


async def test_relaxed_records_are_there_within_a_second(store, other):
    async with recording(store) as recorder:
        for i in range(1500):
            recorder.put(exchange(i))
        began = time.monotonic()
        await until(lambda: stored(other) == 1500)
        assert time.monotonic() - began < 1.0
        await until(lambda: recorder.waiting == 0)
        assert not recorder.failing
    ids = [x.id for x in store.traffic.recent(2000)]
    assert ids == [f"req_{i:08x}" for i in reversed(range(1500))], "in the order they came"


async def test_durable_records_are_there_on_return(store, other):
    async with recording(store, durable=True) as recorder:
        for i in range(3):
            await recorder.written(exchange(i))
            assert stored(other) == i + 1

        async def client(first: int) -> None:
            for i in range(first, first + 20):
                await recorder.written(exchange(i))
                found = other.execute(
                    "SELECT 1 FROM pilotfish_traffic WHERE request_id = ?", (f"req_{i:08x}",)
                )
                assert found.fetchone() is not None

        await asyncio.gather(*(client(100 * k) for k in range(1, 17)))
    assert store.traffic.count() == 3 + 16 * 20


async def test_durable_records_share_their_commits(store):
    commits = []
    write = store.traffic.write
    store.traffic.write = lambda group, again: (commits.append(len(group.rows)), write(group))
    async with recording(store, durable=True) as recorder:
        await asyncio.gather(*(recorder.written(exchange(i)) for i in range(200)))
    assert sum(commits) == 200
    assert len(commits) <= 3


async def test_closing_writes_what_waits(store):
    async with recording(store) as recorder:
        for i in range(2000):
            recorder.put(exchange(i))
    assert store.traffic.count() == 2000
    assert (recorder.lost, recorder.waiting) == (0, 0)
    with pytest.raises(StoreError, match="closed"):
        recorder.put(exchange(9999))


async def test_a_store_that_fails_for_a_while_loses_nothing(store, other, caplog):
    async with recording(store) as recorder:
        other.execute("BEGIN IMMEDIATE")
        for i in range(50):
            recorder.put(exchange(i))
        await until(lambda: recorder.failing)
        assert recorder.waiting == 50
        recorder.put(exchange(50))
        await recorder.room()
        other.execute("ROLLBACK")
        await until(lambda: stored(other) == 51)
        await until(lambda: not recorder.failing)
        assert recorder.lost == 0
    assert [r.levelno for r in caplog.records] == [logging.ERROR, logging.WARNING]
    assert "another process is writing" in caplog.text


async def test_a_store_that_fails_for_long_costs_the_oldest_records(store, other, caplog):
    async with recording(store, max_waiting=10) as recorder:
        other.execute("BEGIN IMMEDIATE")
        recorder.put(exchange(0))
        await until(lambda: recorder.failing)
        for i in range(1, 100):
            await asyncio.wait_for(recorder.room(), 1)
            recorder.put(exchange(i))
        await until(lambda: recorder.waiting <= 10)
        assert recorder.lost + recorder.waiting == 100
        other.execute("ROLLBACK")
        await until(lambda: recorder.waiting == 0)
    kept = [x.id for x in store.traffic.recent(200)]
    assert len(kept) == 100 - recorder.lost
    assert kept[0] == f"req_{99:08x}", "the newest are kept"


async def test_closing_while_the_store_fails_ends_and_counts(store, other, caplog):
    async with recording(store) as recorder:
        other.execute("BEGIN IMMEDIATE")
        for i in range(5):
            recorder.put(exchange(i))
    assert recorder.lost == 5
    other.execute("ROLLBACK")
    assert stored(other) == 0


async def test_durable_callers_are_told_of_a_failure(store, other, caplog):
    async with recording(store, durable=True) as recorder:
        other.execute("BEGIN IMMEDIATE")
        answers = await asyncio.gather(
            *(recorder.written(exchange(i)) for i in range(5)), return_exceptions=True
        )
        assert all(isinstance(a, StoreError) and a.retryable for a in answers)
        assert recorder.failing
        other.execute("ROLLBACK")
        assert stored(other) == 0, "nothing was claimed, and nothing is there"
        await recorder.written(exchange(9))
        assert not recorder.failing
    assert (stored(other), recorder.lost) == (1, 0)


async def test_a_durable_recorder_finds_out_by_itself_that_the_store_is_back(store, other, caplog):
    """Readiness depends on it: without it no balancer would send the request that finds out."""
    async with recording(store, durable=True) as recorder:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(StoreError):
            await recorder.written(exchange(1))
        await asyncio.sleep(0.5)
        assert recorder.failing
        other.execute("ROLLBACK")
        await until(lambda: not recorder.failing)
        await recorder.written(exchange(2))
    assert stored(other) == 1


async def test_a_relaxed_group_collects_for_its_interval(store):
    groups = []
    write = store.traffic.write
    store.traffic.write = lambda group, again: (groups.append(len(group.rows)), write(group))
    async with recording(store) as recorder:
        began = time.monotonic()
        while (elapsed := time.monotonic() - began) < 1.0:
            recorder.put(exchange(int(elapsed * 1e6)))
            await asyncio.sleep(0.002)
    assert len(groups) <= elapsed / INTERVAL + 1, "one an interval, and the last one"
    assert max(groups) > 1


async def test_a_caller_that_leaves_does_not_disturb_the_others(store):
    async with recording(store, durable=True) as recorder:
        tasks = [asyncio.create_task(recorder.written(exchange(i))) for i in range(10)]
        await asyncio.sleep(0)
        tasks[3].cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [isinstance(a, asyncio.CancelledError) for a in answers] == [i == 3 for i in range(10)]
    assert store.traffic.count() == 10, "its request was answered, so it is recorded"


async def test_callers_wait_for_room_where_the_store_is_slow(store):
    most = 0
    async with recording(store, max_waiting=20) as recorder:
        for i in range(200):
            await recorder.room()
            recorder.put(exchange(i))
            most = max(most, recorder.waiting)
    assert most == 20
    assert (store.traffic.count(), recorder.lost) == (200, 0)


async def test_memory_is_bounded_by_size_too(store):
    image = {"type": "image_url", "image_url": {"url": "data:" + "x" * 200_000}}
    big = Request(({"role": "user", "content": [image]},))
    async with recording(store, max_bytes=1_000_000) as recorder:
        for i in range(5):
            assert not recorder.full
            recorder.put(exchange(i, request=big))
        assert recorder.full
        await recorder.room()
        assert not recorder.full
    assert recorder._bytes == 0
    assert store.traffic.count() == 5


@pytest.mark.parametrize("durable", [False, True])
async def test_one_impossible_record_costs_only_itself(store, durable, caplog):
    bad = exchange(2, completion=Completion("secret", "m", extra={"x": object()}))
    async with recording(store, durable=durable) as recorder:
        if durable:
            answers = await asyncio.gather(
                *(recorder.written(x) for x in (exchange(1), bad, exchange(3))),
                return_exceptions=True,
            )
            assert [type(a) for a in answers] == [type(None), StoreError, type(None)]
        else:
            for x in (exchange(1), bad, exchange(3)):
                recorder.put(x)
    assert store.traffic.count() == 2
    assert recorder.lost == (0 if durable else 1)
    assert "req_00000002" in caplog.text
    assert "secret" not in caplog.text


def _everything_on_disk() -> bytes:
    return b"".join(path.read_bytes() for path in Path().glob("records.db*"))


async def test_without_texts_nothing_of_them_reaches_the_disk(store):
    async with recording(store, texts=False) as recorder:
        for i in range(100):
            recorder.put(exchange(i, f"my secret question {i}"))
        assert recorder.text("secret") is None
    assert b"secret" not in _everything_on_disk()
    row = store.traffic.recent(1)[0]
    assert row.request is None
    assert row.completion.text == ""
    assert (row.model, row.cost, row.decided) == ("large", 0.25, "cascade|large|last")
    assert len(row.completion.decisions) == 2


async def test_redaction_comes_before_anything_is_written(store):
    text = (
        "mail jo@example.org, " + "padding " * 1000
    )  # compressed on disk, so it is looked up below
    async with recording(
        store, redact=lambda t: t.replace("jo@example.org", "[email]")
    ) as recorder:
        recorder.put(exchange(1, "short jo@example.org"))
        recorder.put(exchange(2, text))
        assert recorder.text("jo@example.org!") == "[email]!"
        assert recorder.text(None) is None
    assert b"jo@example.org" not in _everything_on_disk()
    for row in store.traffic.recent():
        assert "jo@example.org" not in repr(row)
        assert "[email]" in row.request.prompt
        assert "[email]" in row.completion.text


class Unheard(Exception):
    """What a user's function may raise."""


async def test_a_redactor_that_fails_withholds_the_texts(store, caplog):
    def fails(text: str) -> str:
        if "bad" in text:
            raise Unheard(text)
        return text

    async with recording(store, redact=fails) as recorder:
        recorder.put(exchange(1, "good"))
        recorder.put(exchange(2, "bad"))
        recorder.put(replace(exchange(3), request=Request.of("also bad")))
        assert recorder.text("bad") is None
        await until(lambda: recorder.waiting == 0)
        assert (recorder.withheld, recorder.lost, recorder.failing) == (3, 0, False)
    rows = {x.id: x for x in store.traffic.recent()}
    assert rows["req_00000001"].request.prompt == "good"
    for name in ("req_00000002", "req_00000003"):
        assert rows[name].request is None
        assert rows[name].completion.text == ""
    assert "Unheard" in caplog.text
    assert "bad" not in caplog.text


@pytest.mark.parametrize("durable", [False, True])
async def test_a_slow_store_does_not_hold_the_event_loop(store, durable):
    write = store.traffic.write

    def slowly(group, again):
        time.sleep(0.5)
        write(group, again=again)

    store.traffic.write = slowly
    async with recording(store, durable=durable) as recorder:
        if durable:
            writing = asyncio.create_task(recorder.written(exchange(1)))
        else:
            recorder.put(exchange(1))
        await asyncio.sleep(0)
        assert recorder.waiting == 1
        late = 0.0
        deadline = time.monotonic() + 10
        while recorder.waiting and time.monotonic() < deadline:
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            late = max(late, time.perf_counter() - began)
        if durable:
            await writing
    assert late < 0.25
    assert store.traffic.count() == 1
