"""The store: answer cache, resume point and log in one database.

Answers are paid for, so :meth:`Store.put` returns only when they are durable, and the first answer under
a key stays: asking the same again, from any process, finds what was paid for. Reading a million calls
takes the memory of one batch: pages are fetched by id, each in a short transaction of its own, so a long
read neither holds back the database's clean-up nor keeps rows in memory.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

import sqlalchemy as sa

from pilotfish.errors import StoreError
from pilotfish.records import Completion, Decision, Request, from_dict
from pilotfish.store.database import Database, Durable
from pilotfish.store.encoding import json_text, pack_json, pack_record, unpack_json
from pilotfish.store.feedback import CheckLog, FeedbackLog
from pilotfish.store.keys import Keys
from pilotfish.store.ledger import Ledger
from pilotfish.store.meters import Meters
from pilotfish.store.runs import Heart, Run, open_run
from pilotfish.store.schema import CALLS, DECISIONS, check_names
from pilotfish.store.spending import Spending
from pilotfish.store.statistics import Statistics
from pilotfish.store.traffic import Traffic
from pilotfish.store.versions import Versions

if TYPE_CHECKING:
    import pyarrow as pa

_KEYS_PER_QUERY = 500  # older SQLite allows 999 parameters in a statement
_ROWS_PER_INSERT = 1000


def open_store(
    url: str, *, durable: Durable = "process", timeout: float = 30.0, create: bool = True
) -> Store:
    """Open a store, creating it or bringing it up to date first.

    Args:
        url: ``sqlite:///FILE`` (relative to the working folder), ``sqlite:////absolute/FILE``,
            ``sqlite://`` (in memory, for tests), ``postgresql://user:password@host:port/database``.
        durable: ``"process"``: what was put survives any kill of the process; ``"full"``: also a power
            cut, at one disk sync a transaction.
        timeout: Seconds to wait for another process that writes.
        create: Make a SQLite file that is not there; else that is an error.

    Raises:
        StoreError: It cannot be opened, is not there, is no database, or is a newer Pilotfish's.
        MissingExtra: PostgreSQL without its driver.

    >>> with open_store("sqlite://") as store:
    ...     question = Request.of("2+2?")
    ...     store.put([(question.key("m"), question, Completion("4", "m"))])
    ...     store.get([question.key("m")])[question.key("m")].text
    '4'
    """
    return Store(Database(url, durable=durable, timeout=timeout, create=create))


class Store:
    """Everything that was asked, answered and decided. Safe to share between threads.

    Use :func:`open_store` to get one; it is also a context manager.

    Attributes:
        traffic: What was asked of the gateway.
        feedback: What callers said about its answers.
        checks: Where a small model's answer was held against the large one's.
        keys: Who may use the gateway.
        meters: How much each key has used.
        versions: Learned tasks, their versions, and who answers.
        ledger: The books of the loop: cursor, days, forgetting.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._heart = Heart()
        self.traffic = Traffic(database)
        self.feedback = FeedbackLog(database)
        self.checks = CheckLog(database)
        self.keys = Keys(database)
        self.meters = Meters(database)
        self.statistics = Statistics(database)
        self.versions = Versions(database)
        self.ledger = Ledger(database)

    @property
    def url(self) -> str:
        """Where it is, without the password."""
        return self._database.where

    def __repr__(self) -> str:
        return f"Store({self.url!r})"

    def get(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The answers that are known, by key, exactly as they were put; unknown keys are left out."""
        found: dict[str, Completion] = {}
        remaining = iter(dict.fromkeys(keys))
        while page := list(islice(remaining, _KEYS_PER_QUERY)):
            query = sa.select(CALLS.c.key, CALLS.c.completion).where(CALLS.c.key.in_(page))
            with self._database.read() as connection:
                for key, blob in connection.execute(query):
                    found[key] = from_dict(Completion, unpack_json(blob))
        return found

    def put(
        self,
        entries: Iterable[tuple[str, Request, Completion]],
        *,
        task: str = "",
        run: str = "",
    ) -> None:
        """Keep answers: all of them or none, durable on return; a key that is known keeps its answer.

        Args:
            entries: Key (see :meth:`pilotfish.records.Request.key`), request, completion.
            task: Overrides the requests' own task.
            run: The run that paid, see :attr:`pilotfish.store.runs.Run.id`.

        Raises:
            StoreError: They could not be written; none of them was.
        """
        now = datetime.now(UTC)
        first: dict[str, dict[str, Any]] = {}
        for key, request, completion in entries:
            if key not in first:
                check_names(key=key, task=task or request.task, run=run)
                first[key] = _call(key, request, completion, task or request.task, run, now)
        if not first:
            return
        # In one order everywhere, or two writers of the same keys could deadlock on PostgreSQL.
        order = first if self._database.is_sqlite else sorted(first)
        rows = [first[key] for key in order]
        statement = self._database.insert(CALLS).on_conflict_do_nothing(index_elements=["key"])
        with self._database.write() as connection:
            for start in range(0, len(rows), _ROWS_PER_INSERT):
                connection.execute(statement, rows[start : start + _ROWS_PER_INSERT])

    def calls(
        self,
        *,
        task: str | None = None,
        run: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
        batch: int = 1024,
    ) -> Iterator[pa.RecordBatch]:
        """Stream calls, earliest put first, ``batch`` rows at a time, in flat memory.

        Columns: ``key, time, task, run, model, prompt_tokens, completion_tokens, cached_tokens, cost,
        latency, cached``, and ``request`` and ``completion`` as JSON text
        (:func:`pilotfish.records.from_dict` reads them).

        Args:
            task: Only this task's; None for all, and so on.
            run: Only calls that this run paid for.
            model: Only this model's.
            since: Only calls put at or after this moment (with a time zone).
            batch: Rows per batch, at least 1.
        """
        import pyarrow as pa

        whole = pa.int64()
        schema = pa.schema(
            [
                ("key", pa.string()),
                ("time", pa.timestamp("us", tz="UTC")),
                *((name, pa.string()) for name in ("task", "run", "model")),
                *((f"{name}_tokens", whole) for name in ("prompt", "completion", "cached")),
                *((name, pa.float64()) for name in ("cost", "latency")),
                ("cached", pa.bool_()),
                *((name, pa.string()) for name in ("request", "completion")),
            ]
        )
        where = _filters(CALLS, task=task, run=run, model=model, since=since)
        yield from self._pages(CALLS, schema, where, batch)

    def log(
        self, decisions: Iterable[tuple[str, Decision]], *, task: str = "", run: str = ""
    ) -> None:
        """Append decisions, each with its request's key, in one durable transaction."""
        check_names(task=task, run=run)
        now = datetime.now(UTC)
        rows = [
            {
                "time": now,
                "task": task,
                "run": run,
                "key": key,
                "by": decision.by,
                "chose": decision.chose,
                "reason": decision.reason,
                "score": decision.score,
                "threshold": decision.threshold,
                "rejected": pack_json(list(decision.rejected)),
            }
            for key, decision in decisions
        ]
        if not rows:
            return
        with self._database.write() as connection:
            for start in range(0, len(rows), _ROWS_PER_INSERT):
                connection.execute(sa.insert(DECISIONS), rows[start : start + _ROWS_PER_INSERT])

    def decisions(
        self,
        *,
        task: str | None = None,
        run: str | None = None,
        since: datetime | None = None,
        batch: int = 1024,
    ) -> Iterator[pa.RecordBatch]:
        """Stream what was logged, as :meth:`calls` does.

        Columns: ``time, task, run, key, by, chose, reason, score, threshold``, and ``rejected`` as a
        JSON list.
        """
        import pyarrow as pa

        names = ("task", "run", "key", "by", "chose", "reason")
        schema = pa.schema(
            [
                ("time", pa.timestamp("us", tz="UTC")),
                *((name, pa.string()) for name in names),
                *((name, pa.float64()) for name in ("score", "threshold")),
                ("rejected", pa.string()),
            ]
        )
        where = _filters(DECISIONS, task=task, run=run, since=since)
        yield from self._pages(DECISIONS, schema, where, batch)

    def _pages(
        self, table: sa.Table, schema: pa.Schema, where: list[sa.ColumnElement[bool]], batch: int
    ) -> Iterator[pa.RecordBatch]:
        import pyarrow as pa

        if batch < 1:
            raise StoreError(f"Got batch={batch}, but expected at least 1 row.")
        columns = [table.c[name] for name in schema.names]
        blobs = {c.name for c in columns if isinstance(c.type, sa.LargeBinary)}
        texts = {c.name for c in columns if not isinstance(c.type, sa.LargeBinary)} & {
            f.name for f in schema if pa.types.is_string(f.type)
        }
        last = 0
        while True:
            query = sa.select(table.c.id, *columns).where(table.c.id > last, *where)
            with self._database.read() as connection:
                rows = connection.execute(query.order_by(table.c.id).limit(batch)).all()
            if not rows:
                return
            last = rows[-1][0]
            arrays = []
            for position, item in enumerate(schema, 1):
                values: list[Any] = [row[position] for row in rows]
                if item.name in blobs:
                    values = [json_text(value) for value in values]
                elif item.name in texts:
                    values = [value.encode("utf-8", "replace").decode() for value in values]
                arrays.append(pa.array(values, item.type))
            yield pa.RecordBatch.from_arrays(arrays, schema=schema)

    def count(
        self,
        *,
        task: str | None = None,
        run: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
    ) -> int:
        """How many calls there are; filters as in :meth:`calls`."""
        where = _filters(CALLS, task=task, run=run, model=model, since=since)
        with self._database.read() as connection:
            query = sa.select(sa.func.count()).select_from(CALLS).where(*where)
            return connection.execute(query).scalar_one()

    def spending(
        self,
        *,
        task: str | None = None,
        run: str | None = None,
        model: str | None = None,
        since: datetime | None = None,
    ) -> list[Spending]:
        """Calls, tokens and cost of each model, in the order of their names; filters as in ``calls``."""
        where = _filters(CALLS, task=task, run=run, model=model, since=since)
        tokens = ("prompt_tokens", "completion_tokens", "cached_tokens")
        query = (
            sa.select(
                CALLS.c.model,
                sa.func.count(),
                *(sa.cast(sa.func.sum(CALLS.c[name]), sa.BigInteger) for name in tokens),
                sa.func.coalesce(sa.func.sum(CALLS.c.cost), 0.0),
                sa.func.count() - sa.func.count(CALLS.c.cost),
            )
            .where(~CALLS.c.cached, *where)
            .group_by(CALLS.c.model)
        )
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [Spending(*row) for row in sorted(rows, key=lambda row: str(row[0]))]

    def run(self, kind: str, key: str, settings: Mapping[str, Any]) -> Run:
        """Open or resume the run of this kind and key, for this process alone.

        Args:
            kind: What work it is, e.g. ``"offload"``.
            key: Identifies it among its kind: a hash of its settings and input.
            settings: Kept for people to read; the first opener's stay.

        Raises:
            StoreError: Another living process works on it; names its host and process id.
        """
        run = open_run(self._database, kind, key, settings)
        self._heart.add(run)
        return run

    def check(self) -> None:
        """See that it can be written now.

        Raises:
            StoreError: It cannot.
        """
        with self._database.write():
            pass

    def close(self) -> None:
        """Let go of open runs and close every connection."""
        self._heart.close()
        self._database.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        self.close()


def _call(
    key: str, request: Request, completion: Completion, task: str, run: str, now: datetime
) -> dict[str, Any]:
    return {
        "key": key,
        "time": now,
        "task": task,
        "run": run,
        "model": completion.model,
        "prompt_tokens": completion.usage.prompt_tokens,
        "completion_tokens": completion.usage.completion_tokens,
        "cached_tokens": completion.usage.cached_tokens,
        "cost": completion.cost,
        "latency": completion.latency,
        "cached": completion.cached,
        "request": pack_record(request),
        "completion": pack_record(completion),
    }


def _filters(
    table: sa.Table, *, since: datetime | None = None, **equal: str | None
) -> list[sa.ColumnElement[bool]]:
    where = [table.c[name] == value for name, value in equal.items() if value is not None]
    if since is not None:
        if since.tzinfo is None:
            raise StoreError(
                f"Got since={since.isoformat()} without a time zone.",
                remedy="For example: datetime.now(UTC) - timedelta(hours=1)",
            )
        where.append(table.c.time >= since)
    return where
