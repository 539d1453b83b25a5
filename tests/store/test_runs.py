"""Runs: resumed where they were, held by one living process at a time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import sqlalchemy as sa

from pilotfish.errors import StoreError
from pilotfish.store import runs
from pilotfish.store.encoding import pack_json
from pilotfish.store.owner import Owner, this_process
from pilotfish.store.schema import RUNS
from pilotfish.store.store import open_store

HOLD = """
import sys, time
from pilotfish.store.store import open_store
store = open_store(sys.argv[1])
run = store.run("offload", "key", {"a": 1})
run.set("stage", [1, 2])
print("held", flush=True)
time.sleep(60)
"""


@pytest.fixture
def holder(url):
    """Another process that holds the run."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, url], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "held\n"
    yield process
    process.kill()
    process.wait()
    process.stdout.close()


def test_a_run_is_resumed_where_it_was(url):
    with open_store(url) as store, store.run("offload", "key", {"a": 1}) as run:
        assert (run.status, run.resumed, run.summary) == ("running", False, None)
        assert run.get("stage") is None
        run.set("stage", {"done": [1, 2]})
        run.set("stage", {"done": [1, 2, 3]})
        first = run.id
    with open_store(url) as store, store.run("offload", "key", {"a": 2}) as run:
        assert (run.id, run.resumed, run.status) == (first, True, "running")
        assert run.settings == {"a": 1}
        assert run.get("stage") == {"done": [1, 2, 3]}
        run.finish({"saved": 0.5})
    with open_store(url) as store:
        run = store.run("offload", "key", {})
        assert (run.status, run.summary) == ("finished", {"saved": 0.5})
        run.set("stage", None)
        assert run.status == "running"


def test_kinds_and_keys_are_apart(store):
    one, two, three = store.run("a", "k", {}), store.run("b", "k", {}), store.run("a", "l", {})
    one.set("x", 1)
    assert (two.get("x"), three.get("x")) == (None, None)
    assert len({one.id, two.id, three.id}) == 3


def test_a_state_that_is_no_json_changes_nothing(store):
    run = store.run("a", "k", {})
    run.set("x", 1)
    with pytest.raises(TypeError):
        run.set("x", object())
    assert run.get("x") == 1


def test_one_process_at_a_time(url, holder):
    with open_store(url) as store:
        with pytest.raises(StoreError) as caught:
            store.run("offload", "key", {"a": 1})
        assert str(holder.pid) in str(caught.value)
        assert this_process().host in str(caught.value)
        assert f"kill {holder.pid}" in caught.value.remedy
        assert store.run("offload", "another key", {}).resumed is False


def test_a_killed_run_goes_on_at_once(url, holder):
    holder.kill()
    holder.wait()
    with open_store(url) as store, store.run("offload", "key", {}) as run:
        assert run.resumed
        assert run.get("stage") == [1, 2]


def test_a_suspended_process_keeps_its_run(url, holder):
    holder.send_signal(signal.SIGSTOP)
    with open_store(url) as store:
        with store._database.write() as connection:
            connection.execute(sa.update(RUNS).values(beat=datetime.now(UTC) - timedelta(hours=1)))
        with pytest.raises(StoreError, match=str(holder.pid)):
            store.run("offload", "key", {})
    holder.send_signal(signal.SIGCONT)


def _give_to_another_host(store, *, seconds_ago):
    owner = Owner("elsewhere", 4711, "another kernel", "1")
    beat = datetime.now(UTC) - timedelta(seconds=seconds_ago)
    with store._database.write() as connection:
        connection.execute(
            sa.update(RUNS).values(
                owner=pack_json(owner.to_json()).decode(), token="theirs", beat=beat
            )
        )


def test_another_host_is_judged_by_its_heartbeat(store):
    store.run("a", "k", {}).close()
    _give_to_another_host(store, seconds_ago=runs.LEASE_SECONDS / 2)
    with pytest.raises(StoreError, match=r"4711 on elsewhere.*\n.*on elsewhere\)"):
        store.run("a", "k", {})
    _give_to_another_host(store, seconds_ago=runs.LEASE_SECONDS * 2)
    assert store.run("a", "k", {}).resumed


def test_who_lost_the_lease_changes_nothing(store):
    run = store.run("a", "k", {})
    run.set("x", 1)
    _give_to_another_host(store, seconds_ago=0)
    with pytest.raises(StoreError, match="taken over by process 4711 on elsewhere"):
        run.set("x", 2)
    with pytest.raises(StoreError, match="taken over"):
        run.finish()
    assert (run.get("x"), run.status) == (1, "running")
    run.close()
    with pytest.raises(StoreError, match="4711"):  # closing did not end the other's lease
        store.run("a", "k", {})


def test_twice_in_one_process(store):
    run = store.run("a", "k", {})
    with pytest.raises(StoreError, match="already open in this process"):
        store.run("a", "k", {})
    run.close()
    run.close()
    with pytest.raises(StoreError, match="is closed"):
        run.set("x", 1)
    again = store.run("a", "k", {})
    del again  # dropped without closing, e.g. by an error in a notebook
    assert store.run("a", "k", {}).resumed


def test_the_heart_beats_while_a_run_is_open(store, monkeypatch):
    monkeypatch.setattr(runs, "BEAT_SECONDS", 0.02)
    run = store.run("a", "k", {})
    old = datetime.now(UTC) - timedelta(hours=1)
    with store._database.write() as connection:
        connection.execute(sa.update(RUNS).values(beat=old))
    thread = store._heart._thread

    def beat():
        with store._database.read() as connection:
            return connection.execute(sa.select(RUNS.c.beat)).scalar()

    for _ in range(500):
        if beat() > old:
            break
        threading.Event().wait(0.01)
    assert datetime.now(UTC) - beat() < timedelta(minutes=1)
    run.close()
    thread.join(5)
    assert not thread.is_alive(), "the thread ends with the last run"
    assert beat() is None
    store.run("b", "k", {})
    assert store._heart._thread.is_alive()


def test_only_one_of_many_wins(url):
    code = """
import sys
from pilotfish.errors import StoreError
from pilotfish.store.store import open_store
with open_store(sys.argv[1]) as store:
    try:
        run = store.run("offload", "key", {})
        print("won", flush=True)
        sys.stdin.read()
    except StoreError as error:
        print("lost", error, flush=True)
"""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code, url], **pipes) for _ in range(3)]
    first = [process.stdout.readline().split()[0] for process in processes]
    for process in processes:
        process.communicate("")
    assert sorted(first) == ["lost", "lost", "won"]


def test_liveness():
    me = this_process()
    assert me.is_alive() is True
    assert Owner(me.host, me.pid, me.space, "another start").is_alive() is (not me.started)
    assert Owner(me.host, me.pid, "elsewhere", me.started).is_alive() is None
    child = subprocess.Popen([sys.executable, "-c", "pass"])
    while Path(f"/proc/{child.pid}/stat").read_text().split()[2] != "Z":
        pass
    assert Owner(me.host, child.pid, me.space, "").is_alive() is False, "a zombie does nothing"
    child.wait()
    assert Owner(me.host, child.pid, me.space, "").is_alive() is False
    assert Owner.from_json(me.to_json()) == me
    assert os.getpid() == me.pid
