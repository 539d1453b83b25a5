"""Who may: keys, the models of a key, and limits over several workers."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime

import pytest

from pilotfish.errors import StoreError
from pilotfish.gateway import access as module
from pilotfish.gateway.access import Access, Caller, is_loopback
from pilotfish.gateway.refusals import Refusal
from pilotfish.store.keys import Limit
from pilotfish.store.store import open_store

URL = "sqlite:///keys.db"


@dataclass
class Settings:
    keys: str = "auto"
    host: str = "127.0.0.1"


@pytest.fixture
def store():
    with open_store(URL, timeout=1) as opened:
        yield opened


@pytest.fixture
def clock(monkeypatch):
    """The worker's monotonic clock, moved by hand."""

    class Clock:
        ahead = 0.0
        monotonic = staticmethod(lambda: time.monotonic() + Clock.ahead)

    monkeypatch.setattr(module, "time", Clock)
    return Clock


async def refused(awaitable) -> Refusal:
    with pytest.raises(Refusal) as caught:
        await awaitable
    return caught.value


async def test_a_key_is_its_caller(store):
    secret, key = store.keys.create("app", models=["small"], rate=Limit(60, "minute"))
    access = Access(store, Settings())
    for header in (f"Bearer {secret}", f"bearer  {secret} "):
        caller = await access.admit(header)
        assert (caller.id, caller.name, caller.admin) == (key.id, "app", False)
        assert caller.may_use("small")
        assert not caller.may_use("large")
    await access.aclose()


@pytest.mark.parametrize(
    ("header", "code"),
    [
        (None, "missing_api_key"),
        ("", "missing_api_key"),
        ("Bearer ", "missing_api_key"),
        ("Basic cGY6cGY=", "missing_api_key"),
        ("Bearer pf-wrong-S3cret", "invalid_api_key"),
        ("Bearer sk-some-S3cret", "invalid_api_key"),
        ("Bearer pf-\u00fc\udcff-S3cret", "invalid_api_key"),
    ],
)
async def test_whom_it_refuses(store, header, code, caplog):
    store.keys.create("app")
    access = Access(store, Settings())
    refusal = await refused(access.admit(header))
    assert (refusal.status, refusal.code) == (401, code)
    assert refusal.kind == "authentication_error"
    assert access.denied == 1
    assert "S3cret" not in f"{refusal} {refusal.body()} {refusal.__context__} {caplog.text}"
    await access.aclose()


async def test_when_keys_are_demanded(store):
    """``auto``: when any was ever made, or the gateway can be reached from elsewhere."""

    async def opens(mode: str, host: str) -> bool:
        access = Access(store, Settings(mode, host))
        try:
            return (await access.admit("Bearer sk-any")).id == ""
        except Refusal:
            return False
        finally:
            await access.aclose()

    cases = [(m, h) for m in ("auto", "required", "off") for h in ("127.0.0.1", "0.0.0.0")]
    assert [c for c in cases if await opens(*c)] == [
        ("auto", "127.0.0.1"),
        ("off", "127.0.0.1"),
        ("off", "0.0.0.0"),
    ]
    store.keys.create("app")
    assert [c for c in cases if await opens(*c)] == [("off", "127.0.0.1"), ("off", "0.0.0.0")]
    store.keys.revoke("app")
    assert not await opens("auto", "127.0.0.1"), "revoking the last key does not open the gateway"


async def test_administrators_and_callers_are_kept_apart(store):
    admin, _ = store.keys.create("boss", admin=True)
    app, _ = store.keys.create("app")
    access = Access(store, Settings())
    boss, user = await access.admit(f"Bearer {admin}"), await access.admit(f"Bearer {app}")
    assert (boss.admin, boss.may_use("any")) == (True, False)
    assert (user.admin, user.may_use("any")) == (False, True)
    await access.aclose()
    nobody = Caller(admin=True)
    assert nobody.may_use("any"), "without keys, this machine's user may all"


async def test_without_keys_strangers_are_no_administrators(store):
    for host, admin in (("127.0.0.1", True), ("0.0.0.0", False)):
        access = Access(store, Settings("off", host))
        assert (await access.admit(None)).admin is admin
        await access.aclose()
    secret, _ = store.keys.create("boss", admin=True)
    access = Access(store, Settings("off", "0.0.0.0"))
    assert (await access.admit(f"Bearer {secret}")).admin, "a valid key counts where none is needed"
    await access.aclose()


async def test_a_new_key_is_valid_at_once(store, clock):
    access = Access(store, Settings("required"))
    with pytest.raises(Refusal):
        await access.admit("Bearer pf-unknown")
    secret, _ = store.keys.create("app")
    clock.ahead += 2 * module.NEW
    assert (await access.admit(f"Bearer {secret}")).name == "app"
    await access.aclose()


async def test_a_revoked_key_is_refused_within_five_seconds(store, clock):
    secret, _ = store.keys.create("app")
    access = Access(store, Settings())
    assert (await access.admit(f"Bearer {secret}")).name == "app"
    store.keys.revoke("app")
    clock.ahead += 5.0
    assert (await refused(access.admit(f"Bearer {secret}"))).code == "invalid_api_key"
    await access.aclose()


async def test_under_load_keys_are_read_beside_the_requests(store, clock, monkeypatch):
    reads = []
    valid = store.keys.valid
    monkeypatch.setattr(store.keys, "valid", lambda: reads.append(1) or valid())
    secret, _ = store.keys.create("app")
    access = Access(store, Settings())
    for _ in range(200):
        await access.admit(f"Bearer {secret}")
    assert len(reads) == 1
    clock.ahead += module.FRESH
    for _ in range(200):
        await access.admit(f"Bearer {secret}")
    while access._reading:
        await asyncio.sleep(0)
    assert len(reads) == 2
    await asyncio.gather(
        *(access.admit(f"Bearer pf-{i}") for i in range(50)), return_exceptions=True
    )
    assert len(reads) <= 3, "guessing keys does not cost a query each"
    await access.aclose()


async def test_when_the_keys_cannot_be_read(store, clock, monkeypatch):
    secret, _ = store.keys.create("app")
    access, open_ = Access(store, Settings()), Access(store, Settings("off"))
    await access.admit(f"Bearer {secret}")
    await open_.admit(None)

    def fails():
        raise StoreError("The store failed.")

    monkeypatch.setattr(store.keys, "valid", fails)
    clock.ahead += 4.0
    assert (await access.admit(f"Bearer {secret}")).name == "app"
    clock.ahead += 4.0
    for _ in range(3):
        with pytest.raises(StoreError, match="keys cannot be read"):
            await access.admit(f"Bearer {secret}")
        assert (await open_.admit(None)).id == "", "who demands no keys needs none"
    monkeypatch.undo()
    while access._reading:
        await asyncio.sleep(0.01)
    await asyncio.sleep(module.NEW)
    assert (await access.admit(f"Bearer {secret}")).name == "app"
    await access.aclose()
    await open_.aclose()


async def test_a_small_rate_is_exact(store):
    caller = Caller("key_1", "app", rate=Limit(10, "day"))
    workers = [Access(store, Settings()) for _ in range(3)]
    answers = await asyncio.gather(
        *(workers[i % 3].charge(caller) for i in range(60)), return_exceptions=True
    )
    assert answers.count(None) == 10
    refusal = next(a for a in answers if a)
    assert (refusal.status, refusal.code, refusal.kind) == (
        429,
        "rate_limit_exceeded",
        "rate_limit_error",
    )
    assert 0 < refusal.retry_after <= 86_400
    assert "10 requests of this day" in str(refusal)
    for worker in workers:
        await worker.aclose()


async def test_a_refused_caller_costs_no_queries(store, monkeypatch):
    takes = []
    take = store.meters.take
    monkeypatch.setattr(store.meters, "take", lambda *a, **k: takes.append(1) or take(*a, **k))
    caller = Caller("key_1", "app", rate=Limit(1000, "day"))
    access = Access(store, Settings())
    answers = [
        a
        for _ in range(2000)
        for a in await asyncio.gather(access.charge(caller), return_exceptions=True)
    ]
    assert answers.count(None) == 1000
    assert len(takes) == 101, "a hundred leases, and one that says that there are no more"
    await access.aclose()


async def test_a_large_rate_is_never_exceeded_and_hardly_wasted(store):
    caller = Caller("key_1", "app", rate=Limit(1000, "day"))
    workers = [Access(store, Settings()) for _ in range(3)]
    admitted = 0
    for i in range(4000):
        try:
            await workers[i * i % 7 % 3].charge(caller)
            admitted += 1
        except Refusal:
            pass
    assert 1000 - 2 * 9 <= admitted <= 1000
    for worker in workers:
        await worker.aclose()


async def test_what_a_worker_did_not_use_is_given_back(store):
    caller = Caller("key_1", "app", rate=Limit(1000, "day"), spend=Limit(10, "day"))
    access = Access(store, Settings())
    await access.charge(caller)
    assert store.meters.used("key_1:rate", caller.rate) == 10
    await access.aclose()
    assert store.meters.used("key_1:rate", caller.rate) == 1
    assert store.meters.used("key_1:spend", caller.spend) == 0


async def test_a_new_period_begins_afresh(store, clock, monkeypatch):
    base = 1_790_000_000.0
    start = time.monotonic()

    def now(connection):
        return datetime.fromtimestamp(base + clock.monotonic() - start, UTC)

    monkeypatch.setattr(store._database, "now", now)
    caller = Caller("key_1", "app", rate=Limit(3, "minute"))
    access = Access(store, Settings())
    for _ in range(3):
        await access.charge(caller)
    refusal = await refused(access.charge(caller))
    clock.ahead += refusal.retry_after - 0.5
    assert (await refused(access.charge(caller))).retry_after <= 0.5
    clock.ahead += 0.6
    for _ in range(3):
        await access.charge(caller)
    await refused(access.charge(caller))
    await access.aclose()


async def test_spending_stops_at_the_limit(store):
    caller = Caller("key_1", "app", spend=Limit(1, "day"))
    workers = [Access(store, Settings()) for _ in range(2)]
    spent = 0.0
    refusals = []
    for i in range(400):
        access = workers[i % 2]
        try:
            await access.charge(caller)
        except Refusal as refusal:
            refusals.append(refusal)
            continue
        spent += 0.004
        access.spent(caller, 0.004)
        access.spent(caller, None)
        await asyncio.sleep(0)
    # One request at a time is under way, and a lease is 0.01.
    assert 1 - 0.02 <= spent <= 1 + 0.004 * 2
    assert (refusals[0].status, refusals[0].code) == (429, "insufficient_quota")
    assert refusals[0].kind == "insufficient_quota"
    assert refusals[0].retry_after > 0
    for worker in workers:
        await worker.aclose()
    assert store.meters.used("key_1:spend", caller.spend) == pytest.approx(spent)


async def test_an_answer_beyond_the_lease_counts_for_all_workers(store):
    caller = Caller("key_1", "app", spend=Limit(1, "day"))
    one, two = Access(store, Settings()), Access(store, Settings())
    await one.charge(caller)
    one.spent(caller, 5.0)  # far beyond: the lease was 0.01
    await asyncio.gather(*one._settling)
    assert (await refused(two.charge(caller))).code == "insufficient_quota"
    assert (await refused(one.charge(caller))).code == "insufficient_quota"
    assert store.meters.used("key_1:spend", caller.spend) == pytest.approx(5.0)
    await one.aclose()
    await two.aclose()


async def test_the_store_failing_refuses_only_those_with_limits(store, monkeypatch):
    def fails(*_, **__):
        raise StoreError("The store failed.")

    monkeypatch.setattr(store.meters, "take", fails)
    access = Access(store, Settings())
    await access.charge(Caller("key_1", "app"))
    with pytest.raises(StoreError):
        await access.charge(Caller("key_2", "app", rate=Limit(5, "day")))
    with pytest.raises(StoreError):
        await access.charge(Caller("key_2", "app", spend=Limit(5, "day")))
    await access.aclose()


WORKER = """
import asyncio, sys
from pilotfish.gateway.access import Access, Caller
from pilotfish.gateway.refusals import Refusal
from pilotfish.store.keys import Limit
from pilotfish.store.store import open_store

class Settings:
    keys, host = "auto", "127.0.0.1"

async def main():
    with open_store(sys.argv[1]) as store:
        access = Access(store, Settings())
        caller = Caller("key_1", "app", rate=Limit(77, "month"))
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        got = await asyncio.gather(*(access.charge(caller) for _ in range(100)),
                                   return_exceptions=True)
        assert all(a is None or isinstance(a, Refusal) for a in got), got
        print(got.count(None))
        await access.aclose()
asyncio.run(main())
"""


def test_processes_share_a_limit_exactly(store):
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", WORKER, store.url],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(2)
    ]
    for worker in workers:
        assert worker.stdout.readline() == "ready\n"
    for worker in workers:
        worker.stdin.write("go\n")
        worker.stdin.flush()
    assert sum(int(worker.communicate(timeout=60)[0]) for worker in workers) == 77


@pytest.mark.parametrize(
    ("host", "local"),
    [
        ("127.0.0.1", True),
        ("127.1.2.3", True),
        ("::1", True),
        ("[::1]", True),
        ("LOCALHOST", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.1.2", False),
        ("example.org", False),
        ("", False),
    ],
)
def test_loopback(host, local):
    assert is_loopback(host) is local
