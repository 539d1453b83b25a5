"""Meters: what is granted in a period is never more than its limit, whoever asks."""

from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.store.keys import Limit
from tests.store.test_store import SAME_STORE

DAY = Limit(100, "day")


@pytest.fixture
def clock(store, monkeypatch):
    """The database's clock, set by hand."""

    class Clock:
        now = 1_790_000_000.0

    monkeypatch.setattr(
        store._database, "now", lambda connection: datetime.fromtimestamp(Clock.now, UTC)
    )
    return Clock


def test_leases(store, clock):
    first = store.meters.take("m", DAY, 60)
    assert first.granted == 60
    assert first.remains == pytest.approx(first.ends - clock.now)
    assert store.meters.take("m", DAY, 60).granted == 40
    assert store.meters.take("m", DAY, 1).granted == 0
    assert store.meters.take("other", DAY, 1).granted == 1
    store.meters.give_back("m", first.ends, 25)
    assert store.meters.used("m", DAY) == 75
    clock.now = first.ends - 0.001
    assert store.meters.take("m", DAY, 100).granted == 25
    clock.now = first.ends
    assert store.meters.used("m", DAY) == 0
    second = store.meters.take("m", DAY, 70)
    assert second.granted == 70
    store.meters.give_back("m", first.ends, 25)
    assert store.meters.used("m", DAY) == 70, "what was left of yesterday is void"
    clock.now -= 7200
    assert store.meters.take("m", DAY, 100).granted == 30, "a clock set back opens nothing again"


def test_what_is_owed_counts_even_beyond_the_limit(store):
    assert store.meters.take("m", DAY, 0, owed=90).granted == 0
    assert store.meters.take("m", DAY, 20, owed=5).granted == 5
    assert store.meters.take("m", DAY, 1, owed=50).granted == 0
    assert store.meters.used("m", DAY) == 150


@SAME_STORE
@given(
    limit=st.integers(1, 50),
    steps=st.lists(st.tuples(st.integers(0, 20), st.integers(0, 5)), max_size=30),
)
def test_the_books_are_right(store, limit, steps):
    name = f"m{id(steps)}{limit}{len(steps)}{hash(tuple(steps))}"
    cap = Limit(limit, "month")
    granted = owed_sum = 0.0
    for wanted, owed in steps:
        before = granted + owed_sum
        lease = store.meters.take(name, cap, wanted, owed=owed)
        owed_sum += owed
        assert lease.granted == min(wanted, max(0, limit - before - owed))
        granted += lease.granted
    assert store.meters.used(name, cap) == granted + owed_sum
    assert granted <= limit


TAKE = """
import sys
from pilotfish.store.keys import Limit
from pilotfish.store.store import open_store
with open_store(sys.argv[1]) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    got = 0
    while (lease := store.meters.take("m", Limit(301, "month"), int(sys.argv[2]))).granted:
        got += lease.granted
    print(int(got))
"""


def test_processes_share_a_limit(url):
    takers = [
        subprocess.Popen(
            [sys.executable, "-c", TAKE, url, block],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for block in ("1", "1", "7")
    ]
    for taker in takers:
        assert taker.stdout.readline() == "ready\n"
    for taker in takers:
        taker.stdin.write("go\n")
        taker.stdin.flush()
    got = [int(taker.communicate(timeout=60)[0]) for taker in takers]
    assert sum(got) == 301
