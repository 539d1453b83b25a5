"""Runs: the resume point of long work.

A run is identified by its kind and a key (a hash of settings and input), and keeps small named JSON
states. Who starts the same work again gets the same run and goes on where it was.

Only one process may work on a run at a time: two would choose and pay independently. The holder has a
lease: a row naming its host and process, with a heartbeat. A second process is refused while the holder
lives. On the same machine the process itself is looked at, so work that was killed can be restarted at
once, and work that is merely suspended (a closed laptop) is not taken away. Across machines, which share
only the database, a heartbeat older than :data:`LEASE_SECONDS` counts as death; it is measured by the
database's clock, so clocks need not agree. Every write checks the lease in its own transaction: a holder
that was wrongly given up learns so before it changes anything. A file lock would need no heartbeat, but
does not work across hosts, on PostgreSQL, or on every network disk.
"""

from __future__ import annotations

import hashlib
import threading
import uuid
from collections.abc import Mapping
from datetime import datetime
from typing import Any, NoReturn, Self
from weakref import WeakSet, WeakValueDictionary

import sqlalchemy as sa

from pilotfish.errors import StoreError
from pilotfish.store.database import Database
from pilotfish.store.encoding import pack_json, unpack_json
from pilotfish.store.owner import Owner, this_process
from pilotfish.store.schema import RUNS, STATES, check_names

LEASE_SECONDS = 60.0
BEAT_SECONDS = 15.0  # three beats may be missed, e.g. while the database restarts

_held: WeakValueDictionary[str, Run] = WeakValueDictionary()  # by token: this process's leases


class Run:
    """One piece of long work, open in this process. Also a context manager: leaving it closes it.

    Attributes:
        id: Stable name, the same on every resumption; tag calls with it.
        kind: What work it is, e.g. ``"offload"``.
        key: What identifies it among its kind.
        settings: What the first opener passed.
        resumed: True when it had been opened before.
    """

    def __init__(
        self,
        database: Database,
        kind: str,
        key: str,
        settings: Mapping[str, Any],
        *,
        resumed: bool,
        token: str,
    ) -> None:
        self.id = run_id(kind, key)
        self.kind = kind
        self.key = key
        self.settings = settings
        self.resumed = resumed
        self._database = database
        self._token = token
        _held[token] = self

    @property
    def status(self) -> str:
        """``"running"`` (also when it was killed), or ``"finished"``."""
        return str(self._row().status)

    @property
    def summary(self) -> Any:
        """What :meth:`finish` was given, or None."""
        blob = self._row().summary
        return None if blob is None else unpack_json(blob)

    def _row(self) -> sa.Row[Any]:
        with self._database.read() as connection:
            return connection.execute(sa.select(RUNS).where(RUNS.c.id == self.id)).one()

    def get(self, name: str) -> Any:
        """The JSON state of that name, or None when it was never set."""
        query = sa.select(STATES.c.value).where(STATES.c.run == self.id, STATES.c.name == name)
        with self._database.read() as connection:
            blob = connection.execute(query).scalar()
        return None if blob is None else unpack_json(blob)

    def set(self, name: str, value: Any) -> None:
        """Keep a small JSON state: durable on return, whole or not at all. A finished run is reopened.

        Raises:
            StoreError: Another process has taken the run over, it was closed here, or the name is long.
        """
        check_names(state=name)
        with self._database.write() as connection:
            now = self._renew(connection, status="running")
            insert = self._database.insert(STATES).values(
                run=self.id, name=name, time=now, value=pack_json(value)
            )
            connection.execute(
                insert.on_conflict_do_update(
                    index_elements=["run", "name"],
                    set_={"time": insert.excluded.time, "value": insert.excluded.value},
                )
            )

    def finish(self, summary: Any = None) -> None:
        """Mark the run finished, keep its summary (JSON), and let go of it."""
        with self._database.write() as connection:
            self._renew(connection, status="finished", summary=pack_json(summary))
        self.close()

    def close(self) -> None:
        """Let go of the run without finishing it; another process may then go on with it."""
        if _held.pop(self._token, None) is None:
            return
        with self._database.write() as connection:
            connection.execute(
                sa.update(RUNS)
                .where(RUNS.c.id == self.id, RUNS.c.token == self._token)
                .values(owner=None, token=None, beat=None)
            )

    def _renew(self, connection: sa.Connection, **values: Any) -> datetime:
        now = self._database.now(connection)
        renewed = connection.execute(
            sa.update(RUNS)
            .where(RUNS.c.id == self.id, RUNS.c.token == self._token)
            .values(beat=now, **values)
        )
        if renewed.rowcount == 0:
            row = connection.execute(sa.select(RUNS.c.owner).where(RUNS.c.id == self.id)).one()
            _refuse_write(self.id, row.owner)
        return now

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def run_id(kind: str, key: str) -> str:
    """The stable name of a run.

    >>> run_id("offload", "abc")
    'offload-fbbe47a664e90e58'
    """
    return f"{kind[:40]}-{hashlib.sha256(pack_json([kind, key])).hexdigest()[:16]}"


def open_run(database: Database, kind: str, key: str, settings: Mapping[str, Any]) -> Run:
    """Open or resume a run and take its lease.

    Raises:
        StoreError: A living process holds it; names its host and process id.
    """
    check_names(kind=kind, key=key)
    token = uuid.uuid4().hex
    name = run_id(kind, key)
    lease = {"owner": pack_json(this_process().to_json()).decode("utf-8"), "token": token}
    with database.write() as connection:
        now = database.now(connection)
        connection.execute(
            database.insert(RUNS)
            .values(
                id=name,
                kind=kind,
                key=key,
                settings=pack_json(settings),
                status="running",
                started=now,
                beat=now,
                **lease,
            )
            .on_conflict_do_nothing()
        )
        query = sa.select(RUNS).where(RUNS.c.id == name).with_for_update()
        row = connection.execute(query).one()
        resumed = row.token != token
        if resumed:
            if row.owner is not None and _lives(row, now):
                _refuse(name, row.owner)
            connection.execute(sa.update(RUNS).where(RUNS.c.id == name).values(beat=now, **lease))
    kept = unpack_json(row.settings)
    return Run(database, kind, key, kept, resumed=resumed, token=token)


def _lives(row: sa.Row[Any], now: datetime) -> bool:
    owner = _owner(row.owner)
    if owner == this_process():
        return row.token in _held  # a run that this process dropped without closing is free
    alive = owner.is_alive()
    if alive is None:
        return bool((now - row.beat).total_seconds() < LEASE_SECONDS)
    return alive


def _owner(text: str) -> Owner:
    return Owner.from_json(unpack_json(text.encode("utf-8")))


def _refuse(name: str, text: str) -> NoReturn:
    owner = _owner(text)
    if owner == this_process():
        raise StoreError(
            f"The run {name} is already open in this process.", remedy="Close it first: run.close()"
        )
    remedy = f"Wait for it, or stop it: kill {owner.pid}"
    if owner.is_alive() is None:
        remedy += f" (on {owner.host}). If it died, its lease ends {LEASE_SECONDS:.0f} s later."
    raise StoreError(
        f"The run {name} is being worked on by process {owner.pid} on {owner.host}.", remedy=remedy
    )


def _refuse_write(name: str, text: str | None) -> NoReturn:
    if text is None:
        raise StoreError(
            f"The run {name} is closed.", remedy="Open it again: store.run(kind, key, settings)"
        )
    owner = _owner(text)
    raise StoreError(
        f"The run {name} was taken over by process {owner.pid} on {owner.host}, after this process "
        f"gave no sign of life for {LEASE_SECONDS:.0f} s.",
        remedy="Nothing was changed; let the other process go on.",
    )


class Heart:
    """Keeps the leases of one store's open runs alive, from one thread that ends with them."""

    def __init__(self) -> None:
        self._runs: WeakSet[Run] = WeakSet()
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def add(self, run: Run) -> None:
        """Beat for this run until it is closed or forgotten."""
        with self._lock:
            self._runs.add(run)
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._beat, name="pilotfish-heartbeat", daemon=True
                )
                self._thread.start()

    def _beat(self) -> None:
        while not self._stop.wait(BEAT_SECONDS):
            with self._lock:
                runs = [run for run in self._runs if run._token in _held]
                if not runs:
                    self._thread = None
                    return
            for run in runs:
                try:
                    with run._database.write() as connection:
                        run._renew(connection)
                except StoreError:
                    # One missed beat costs nothing, and the run's next set() says what is wrong.
                    continue
            del runs

    def close(self) -> None:
        """Stop, and let go of every run."""
        self._stop.set()
        thread = self._thread
        if thread is not None:
            thread.join()
        for run in list(self._runs):
            run.close()
