"""Versions, pointers and the books, on both databases."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import pytest

from pilotfish.errors import StoreError, UnknownName
from pilotfish.records import Completion, Request
from pilotfish.store.feedback import Check, Feedback
from pilotfish.store.ledger import Cursor, Day
from pilotfish.store.store import Store, open_store
from pilotfish.store.traffic import Exchange
from pilotfish.store.versions import POLL_SECONDS, Pointer, Pointers

CERTIFICATE = {"threshold": 0.9}


def exchange(number: int, user: str = "", caller: str = "", text: str = "") -> Exchange:
    request = Request(({"role": "user", "content": text or f"text {number}"},), user=user)
    return Exchange(
        id=f"req_{number}", time=1e9 + number, caller=caller, task="", asked="auto", endpoint="chat",
        streamed=False, status=200, error="", latency=0.1, first_byte=None, request=request,
        completion=Completion("ok", "large", cost=0.01), baseline=0.01,
    )  # fmt: skip


def learned(store: Store, *keys: str) -> None:
    store.versions.keep_task("t", {"prompt": "{x}"})
    for key in keys:
        store.versions.add("t", key, f"/artifacts/{key}", CERTIFICATE, {}, lessons=[f"req_{key}"])


def test_a_version_is_added_once_for_each_key(store: Store) -> None:
    learned(store, "a", "b", "a")
    assert [v.version for v in store.versions.versions("t")] == [1, 2]
    assert store.versions.version("t", 2).name == "t@2"
    assert store.versions.version("t", 1).certificate == CERTIFICATE
    assert store.versions.learned_from(["req_a", "req_x"]) == [("t", 1)]
    with pytest.raises(StoreError, match="no version 3"):
        store.versions.version("t", 3)


def test_promotion_and_roll_back_are_one_row(store: Store) -> None:
    learned(store, "a", "b")
    assert store.versions.pointers() == {}
    assert store.versions.move("t", "promoted", version=1, evidence={}, serving=1)
    assert store.versions.move("t", "promoted", version=2, evidence={"n": 3}, serving=2, previous=1)
    assert store.versions.pointer("t") == Pointer("t", 2, serving=2, previous=1)
    back = store.versions.roll_back("t")
    assert (back.serving, back.previous, back.serial) == (1, None, 3)
    assert store.versions.roll_back("t").serving is None
    assert [(e.kind, e.version) for e in store.versions.events("t")] == [
        ("promoted", 1), ("promoted", 2), ("rolled-back", 2), ("rolled-back", 1),
    ]  # fmt: skip
    assert store.versions.events("t", kind="promoted")[1].evidence == {"n": 3}


def test_a_decision_on_an_old_pointer_changes_nothing(store: Store) -> None:
    learned(store, "a")
    store.versions.move("t", "shadow", version=1, evidence={}, shadow=1)
    assert not store.versions.move("t", "promoted", version=1, evidence={}, serial=0, serving=1)
    assert store.versions.pointer("t").serving is None
    assert len(store.versions.events("t")) == 1


def test_tasks_keep_their_definition_when_marks_change(store: Store) -> None:
    learned(store)
    store.versions.keep_task("t", marks={"local_only": True})
    task = store.versions.tasks()["t"]
    assert (task.definition, task.marks) == ({"prompt": "{x}"}, {"local_only": True})
    with pytest.raises(UnknownName, match="nobody"):
        store.versions.keep_task("nobody", marks={})


def test_every_worker_sees_a_change_within_a_second(tmp_path: Path) -> None:
    """Eight workers, each with a connection of its own to the file, poll while one promotes."""
    url = f"sqlite:///{tmp_path}/s.db"
    with open_store(url) as first:
        learned(first, "a")
        first.versions.move("t", "promoted", version=1, evidence={}, serving=1)
        workers = [open_store(url) for _ in range(8)]
        seen: list[float] = []

        def work(store: Store) -> None:
            pointers = Pointers(store.versions)
            while pointers.refresh()["t"].serving is not None:
                time.sleep(0.002)
            seen.append(time.monotonic())

        threads = [threading.Thread(target=work, args=(store,)) for store in workers]
        for thread in threads:
            thread.start()
        time.sleep(0.2)
        first.versions.roll_back("t")
        moved = time.monotonic()
        for thread in threads:
            thread.join(10)
        for store in workers:
            store.close()
    assert len(seen) == 8
    assert POLL_SECONDS < 1
    assert max(seen) - moved < 1.0


def test_traffic_is_read_once_and_in_order(store: Store) -> None:
    store.traffic.add([exchange(i) for i in range(5)])
    rows, cursor = store.ledger.traffic_after(Cursor(), limit=3)
    assert [row.id for row in rows] == ["req_0", "req_1", "req_2"]
    store.ledger.commit({"cursor": cursor.to_dict()})
    again = Cursor.from_dict(store.ledger.state("cursor"))
    rows, cursor = store.ledger.traffic_after(again, limit=3)
    assert [row.id for row in rows] == ["req_3", "req_4"]
    assert store.ledger.traffic_after(cursor)[0] == []
    assert store.ledger.state("unknown") is None


def test_rows_that_appear_late_are_still_read(store: Store) -> None:
    """As another gateway's transaction that took its number earlier and committed later."""
    store.traffic.add([exchange(i) for i in range(4)])
    rows, cursor = store.ledger.traffic_after(Cursor())
    cursor.gaps[2] = time.time()
    late, cursor = store.ledger.traffic_after(cursor)
    assert [row.id for row in late] == [rows[1].id]
    assert cursor.gaps == {}


def test_books_add_up_and_a_request_is_checked_once(store: Store) -> None:
    check = Check("req_1", "auto", "t@1", "large", False, cost=0.01)
    for _ in range(2):
        day = Day("t", 20_000, 10, 6, 0.04, 0.10, 0, 1, 1, 0.01)
        store.ledger.commit({"s": {"n": 1}}, [day], [check])
    (total,) = store.ledger.days("t")
    assert (total.requests, total.small) == (20, 12)
    assert total.saving == pytest.approx(0.2 - 0.08 - 0.02)
    assert len(store.checks.recent()) == 1
    assert store.ledger.checks_of(["req_1", "req_2"])["req_1"].agreed is False
    assert store.ledger.days(since=20_001) == []


def test_lessons_are_what_was_paid_for_them(store: Store) -> None:
    """Summed from the stored calls: a run that is killed and repeated counts each answer once."""
    run = store.run("learn", "t key", {})
    for number in (1, 1, 2):
        request = Request.of(f"text {number}")
        answer = Completion("ok", "large", cost=0.02)
        store.put([(request.key("large"), request, answer)], task="t", run=run.id)
    store.put([("other", Request.of("x"), Completion("ok", "large", cost=1.0))], task="t")
    run.finish()
    (day,) = store.ledger.days("t")
    assert (day.lessons, day.requests) == (2, 0)
    assert day.saving == pytest.approx(-0.04)
    assert store.ledger.days("u") == []


def test_tasks_come_with_what_was_counted_of_them(store: Store) -> None:
    store.ledger.commit({}, [Day("t", 1, requests=5)], tasks={"t": {"prompt": "{x}"}})
    store.ledger.commit({}, tasks={"t": {"prompt": "another"}})
    assert store.versions.tasks()["t"].definition == {"prompt": "{x}"}
    store.traffic.add([exchange(i) for i in range(4)])
    _, cursor = store.ledger.traffic_after(Cursor(), limit=3)
    assert [row.id for row in store.ledger.latest(cursor.last, 2)] == ["req_1", "req_2"]
    assert len(list(store.ledger.traffic_since(1e9 + 2))) == 2


def test_forgetting_a_user_leaves_nothing_and_names_what_learned(store: Store) -> None:
    rows = [exchange(0, user="ann"), exchange(1, user="bob"), exchange(2, caller="ann")]
    store.traffic.add(rows)
    for row in rows:
        assert row.request is not None
        store.put([(row.request.key("large"), row.request, Completion("ok", "large"))])
    store.ledger.commit({}, checks=[Check("req_0", "auto", "t@1", "large", True)])
    store.feedback.add(Feedback("req_2", label="x"))
    store.versions.keep_task("t", {})
    store.versions.add("t", "k", "/a", {}, {}, lessons=["req_0", "req_1"])
    store.versions.add("t", "l", "/b", {}, {}, lessons=["req_1"])
    gone = store.ledger.forget(user="ann")
    assert (gone.requests, gone.calls, gone.remarks, gone.versions) == (2, 2, 2, [("t", 1)])
    assert [row.id for row in store.traffic.recent()] == ["req_1"]
    assert store.count() == 1
    assert store.checks.recent() == []
    assert store.feedback.recent() == []
    assert [e.kind for e in store.versions.events("t")] == ["forgotten"]
    assert store.ledger.forget(request_id="req_1").versions == [("t", 1), ("t", 2)]
    assert store.ledger.forget(user="nobody").requests == 0


def test_forgetting_what_is_old(store: Store) -> None:
    store.traffic.add([exchange(i, user="ann" if i % 2 else "bob") for i in range(6)])
    day = exchange(4).time
    assert store.ledger.forget(user="ann", before=day).requests == 2  # the first and the third
    assert [row.id for row in store.traffic.recent()] == ["req_5", "req_4", "req_2", "req_0"]
    assert store.ledger.forget(before=day).requests == 2
    assert [row.id for row in store.traffic.recent()] == ["req_5", "req_4"]
    assert store.ledger.forget(before=0.0).requests == 0
