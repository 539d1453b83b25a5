"""One database behind the store: how it is opened, how transactions run, what its errors mean.

SQLite runs in WAL mode: readers never wait for the writer. A write takes the process's writer lock, then
``BEGIN IMMEDIATE``, so a transaction never starts as a reader and fails half-way; other processes wait
for up to ``timeout`` seconds. Durability is a choice: ``"process"`` (``synchronous=NORMAL``) keeps what
was written when the process is killed in any way; ``"full"`` (``synchronous=FULL``) also syncs the disk
at each commit and so survives a power cut. PostgreSQL keeps its server's setting unless ``"full"`` asks
for ``synchronous_commit=on``.
"""

from __future__ import annotations

import os
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal
from weakref import WeakValueDictionary

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.pool import StaticPool

from pilotfish.errors import MissingExtra, StoreError
from pilotfish.store import schema
from pilotfish.store.failures import explain

Durable = Literal["process", "full"]

_MEMORY = {None, "", ":memory:"}
_locks: WeakValueDictionary[str, threading.Lock] = WeakValueDictionary()
_locks_lock = threading.Lock()


def parse_url(url: str) -> sa.URL:
    """Read a store's URL.

    Raises:
        StoreError: It is no URL, or of a database that is not supported.
    """
    try:
        parsed = sa.make_url(url)
    except (sa.exc.ArgumentError, ValueError):  # ValueError: a port that is no number
        raise StoreError(
            f"Got {_without_password(url)!r} as the store, but expected a URL.",
            remedy="sqlite:///pilotfish.db, or postgresql://user@host/database",
        ) from None
    if parsed.drivername in {"postgresql", "postgres", "postgresql+psycopg"}:
        return parsed.set(drivername="postgresql+psycopg")
    if parsed.drivername == "sqlite":
        if parsed.database in _MEMORY:
            return parsed
        return parsed.set(database=os.path.abspath(os.path.expanduser(str(parsed.database))))
    raise StoreError(
        f"Got a store of kind {parsed.drivername!r}, but expected sqlite or postgresql.",
        remedy="sqlite:///pilotfish.db, or postgresql://user@host/database",
    )


def _without_password(url: str) -> str:
    return url if "@" not in url else f"...@{url.rpartition('@')[2]}"


def shown(url: sa.URL) -> str:
    """The URL without its password, wherever that was written."""
    secrets = {name: "***" for name in url.query if "password" in name}
    return url.update_query_dict(secrets).render_as_string(hide_password=True)


class Database:
    """An open database, brought up to date.

    Args:
        url: What :func:`parse_url` accepts.
        durable: ``"process"`` or ``"full"``; see the module's text.
        timeout: Seconds to wait for another process's write (SQLite) or a connection.
        create: Make a file that is not there; else that is an error.

    Raises:
        StoreError: It cannot be opened, is no database, or is newer than this Pilotfish.
        MissingExtra: PostgreSQL is asked for and its driver is not installed.
    """

    def __init__(
        self,
        url: str,
        *,
        durable: Durable = "process",
        timeout: float = 30.0,
        create: bool = True,
    ) -> None:
        parsed = parse_url(url)
        self.where = shown(parsed)
        self.is_sqlite = parsed.get_backend_name() == "sqlite"
        self._durable = durable
        self._timeout = timeout
        in_memory = self.is_sqlite and parsed.database in _MEMORY
        options: dict[str, Any] = {"hide_parameters": True}
        if in_memory:
            options |= {"poolclass": StaticPool, "connect_args": {"check_same_thread": False}}
        elif self.is_sqlite:
            file = Path(str(parsed.database))
            if not (create or file.exists()):
                raise StoreError(
                    f"There is no store at {str(file)!r}.",
                    remedy="The gateway and `pilotfish run` make one; name it as in pilotfish.toml.",
                )
            _create_private(file)
            options |= {"pool_timeout": timeout, "connect_args": {"timeout": timeout}}
        else:
            seconds = max(2, int(timeout))
            options |= {
                "pool_timeout": timeout,
                "pool_pre_ping": True,
                "connect_args": {"connect_timeout": seconds, "application_name": "pilotfish"},
            }
        try:
            self.engine = sa.create_engine(parsed, **options)
        except ModuleNotFoundError as error:
            raise MissingExtra("A store on PostgreSQL", "postgres") from error
        self._writer = self._lock_of(self.where) if self.is_sqlite else nullcontext()
        self._reader: AbstractContextManager[Any] = self._writer if in_memory else nullcontext()
        self._prepare()

    def _lock_of(self, name: str) -> AbstractContextManager[Any]:
        with _locks_lock:
            return _locks.setdefault(name, threading.Lock())

    def _prepare(self) -> None:
        sa.event.listen(self.engine, "connect", self._connected)
        if self.is_sqlite:
            sa.event.listen(self.engine, "begin", _begin)
        try:
            with self.read() as connection:
                current = schema.check_version(connection, self.where, schema.STEPS)
            if not current:
                with self.write() as connection:
                    schema.migrate(connection, self.where, schema.STEPS)
        except StoreError:
            self.engine.dispose()
            raise

    def _connected(self, connection: Any, _record: Any) -> None:
        cursor = connection.cursor()
        if self.is_sqlite:
            connection.isolation_level = None  # transactions are begun by _begin, not guessed
            mode = _use_wal(cursor, self._timeout)
            # Without WAL (some network disks), NORMAL could damage the file at a power cut.
            full = self._durable == "full" or mode != "wal"
            cursor.execute(f"PRAGMA synchronous = {'FULL' if full else 'NORMAL'}")
            cursor.execute("PRAGMA cache_size = -65536")  # 64 MiB: the key index of 1M calls
            # The WAL is folded back each 16 MiB, not 4: a fold syncs the disk, and costs as much.
            cursor.execute("PRAGMA wal_autocheckpoint = 4096")
        elif self._durable == "full":
            cursor.execute("SET synchronous_commit TO on")
            connection.commit()
        cursor.close()

    @contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection for reading; sees one state of the database."""
        with explain(self.where), self._reader, self.engine.connect() as connection:
            yield connection

    @contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction: committed, and durable, when the block ends; undone when it raises."""
        with explain(self.where), self._writer, self.engine.connect() as connection:
            writing = connection.execution_options(pilotfish_writes=True)
            with writing.begin():
                yield writing

    def insert(self, table: sa.Table) -> sqlite.Insert | postgresql.Insert:
        """An INSERT that knows ON CONFLICT, in this database's dialect."""
        return sqlite.insert(table) if self.is_sqlite else postgresql.insert(table)

    def now(self, connection: sa.Connection) -> datetime:
        """The database's clock: the one clock that all its hosts share."""
        if self.is_sqlite:
            return datetime.now(UTC)
        moment: datetime = connection.exec_driver_sql("SELECT clock_timestamp()").scalar_one()
        return moment.astimezone(UTC)

    def close(self) -> None:
        """Close every connection; the last one on a SQLite file folds its WAL back into it."""
        self.engine.dispose()


def _begin(connection: sa.Connection) -> None:
    writes = connection.get_execution_options().get("pilotfish_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _use_wal(cursor: sqlite3.Cursor, timeout: float) -> str:
    """Switch to WAL; SQLite does not wait by itself when two processes do so at once."""
    deadline = time.monotonic() + timeout
    while True:
        try:
            mode: str = cursor.execute("PRAGMA journal_mode = WAL").fetchone()[0]
            return mode
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
            if not busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _create_private(path: Path) -> None:
    """Create the file readable by its owner alone: it will hold prompts and answers."""
    try:
        os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_EXCL, 0o600))
    except FileExistsError:
        return
    except OSError as error:
        raise StoreError(
            f"Cannot create the store {path}: {error.strerror}.",
            remedy=f"mkdir -p {path.parent}, or set PILOTFISH_STORE=sqlite:///ANOTHER/FILE.db",
        ) from error
