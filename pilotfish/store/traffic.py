"""What was asked of the gateway, request by request and minute by minute.

Many exchanges are written at once, in one transaction with the minutes that sum them up. A statement
carries many rows: SQLite's driver gives up the interpreter's lock once a statement, and under a busy
event loop each return to it can cost milliseconds (5 ms is Python's switch interval).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import chain, islice
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pilotfish.errors import StoreError
from pilotfish.records import Completion, Request, from_dict
from pilotfish.store.database import Database
from pilotfish.store.encoding import json_text, unpack_json
from pilotfish.store.gateway_schema import MAX_LABEL, TRAFFIC, TRAFFIC_MINUTES
from pilotfish.store.latency import Histogram
from pilotfish.store.traffic_rows import ADDED, Exchange, Group, unpack

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["Exchange", "Minute", "Recorded", "Traffic"]

_ROWS_PER_INSERT = 40  # times 20 columns: older SQLite allows 999 parameters in a statement
_MINUTES_LOCK = 7091623849  # an advisory lock of PostgreSQL


@dataclass(frozen=True, slots=True)
class Recorded:
    """A request as the store has it.

    Attributes:
        id: Its id, ``"req_..."``.
        time: When it came in, seconds since 1970.
        model: Who answered, or "".
        decided: The outermost decision as ``by|chose|reason``, or "".
        request: What was asked, None where texts are not kept.
        completion: What was answered, None when nothing was; without texts where they are not kept.

    The others are those of :class:`~pilotfish.store.traffic_rows.Exchange` and
    :class:`~pilotfish.records.Usage`. Names longer than 128 characters are cut.
    """

    id: str
    time: float
    caller: str
    task: str
    asked: str
    endpoint: str
    model: str
    streamed: bool
    status: int
    error: str
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cost: float | None
    baseline: float | None
    latency: float
    first_byte: float | None
    decided: str
    request: Request | None
    completion: Completion | None


@dataclass(frozen=True, slots=True)
class Minute:
    """Sums over the requests of one minute (seconds since 1970, divided by 60), model, task and status.

    ``asked`` is "" for requests whose model is not served. The sums are those of
    :class:`~pilotfish.store.traffic_rows.Sums`.
    """

    minute: int
    asked: str
    model: str
    task: str
    status: int
    requests: int
    errors: int
    escalated: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    unpriced: int
    baseline: float
    baseline_unknown: int
    compared: int
    compared_cost: float
    compared_baseline: float
    latency: float
    histogram: Histogram


_COLUMNS = [column for column in TRAFFIC.c if column.name != "id"]
_KEY = tuple(column.name for column in TRAFFIC_MINUTES.primary_key)
_SUMMED = (*_KEY, *ADDED, "latency_histogram")


class Traffic:
    """The traffic in a store; ``Store.traffic`` is one."""

    def __init__(self, database: Database) -> None:
        self._database = database
        mark = "?" if database.is_sqlite else "%s"
        self._row = f"({', '.join([mark] * len(_COLUMNS))})"
        names = ", ".join(column.name for column in _COLUMNS)
        self._insert = f"INSERT INTO {TRAFFIC.name} ({names}) VALUES "
        table = TRAFFIC_MINUTES.name
        keys = " AND ".join(f"{name} = {mark}" for name in _KEY)
        self._find = f"SELECT latency_histogram FROM {table} WHERE {keys}"
        sums = ", ".join(f"{name} = {table}.{name} + excluded.{name}" for name in ADDED)
        self._upsert = (
            f"INSERT INTO {table} ({', '.join(_SUMMED)}) "
            f"VALUES ({', '.join([mark] * len(_SUMMED))}) "
            f"ON CONFLICT ({', '.join(_KEY)}) DO UPDATE SET {sums}, "
            "latency_histogram = excluded.latency_histogram"
        )

    def add(self, exchanges: Iterable[Exchange]) -> None:
        """Write exchanges and their minutes, all or none; durable on return.

        Raises:
            StoreError: They could not be written; none of them was. Also when one of them holds
                something that is no JSON value, or has the id of another.
        """
        group = Group(exchanges)
        for error in group.refused.values():
            raise error
        self.write(group)

    def write(self, group: Group, *, again: bool = False) -> None:
        """Write a group and its minutes, all or none; durable on return.

        Args:
            group: Some hundreds at once are fastest.
            again: They may be there already (a connection broke before the database could say that it
                had written); those that are, are left out.

        Raises:
            StoreError: They could not be written; none of them was.
        """
        if again:
            group = group.without(self.known(group.rows))
        if not group.rows:
            return
        remaining = iter(group.rows.values())
        with self._database.write() as connection:
            while rows := list(islice(remaining, _ROWS_PER_INSERT)):
                marks = ", ".join([self._row] * len(rows))
                values = tuple(chain.from_iterable(rows))
                connection.exec_driver_sql(self._insert + marks, values)
            self._sum_up(connection, group)

    def _sum_up(self, connection: sa.Connection, group: Group) -> None:
        if not self._database.is_sqlite:  # another gateway must not merge into the same histogram
            connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_MINUTES_LOCK})")
        rows = []
        for key, sums in group.minutes.items():
            histogram = Histogram(sums.histogram)
            before = connection.exec_driver_sql(self._find, key).scalar()
            if before is not None:
                histogram.merge(Histogram.unpack(before))
            rows.append((*key, *(getattr(sums, name) for name in ADDED), histogram.pack()))
        connection.exec_driver_sql(self._upsert, rows)

    def known(self, ids: Iterable[str]) -> set[str]:
        """Those of these request ids that are there."""
        found: set[str] = set()
        remaining = iter(ids)
        while page := list(islice(remaining, 500)):
            query = sa.select(TRAFFIC.c.request_id).where(TRAFFIC.c.request_id.in_(page))
            with self._database.read() as connection:
                found.update(connection.execute(query).scalars())
        return found

    def get(self, request_id: str) -> Recorded | None:
        """The request of that id, or None."""
        query = sa.select(*_COLUMNS).where(TRAFFIC.c.request_id == request_id)
        with self._database.read() as connection:
            row = connection.execute(query).one_or_none()
        return None if row is None else recorded(row)

    def recent(
        self, limit: int = 50, *, asked: str | None = None, failed: bool | None = None
    ) -> list[Recorded]:
        """The requests that were written last, newest first.

        Args:
            limit: At most so many.
            asked: Only those for this model.
            failed: Only those with an HTTP status of 400 and more, or below; None for both.
        """
        query = sa.select(*_COLUMNS).order_by(TRAFFIC.c.id.desc()).limit(limit)
        if asked is not None:
            query = query.where(TRAFFIC.c.asked == asked[:MAX_LABEL])
        if failed is not None:
            query = query.where(TRAFFIC.c.status >= 400 if failed else TRAFFIC.c.status < 400)
        with self._database.read() as connection:
            rows: list[Sequence[Any]] = list(connection.execute(query))
        return [recorded(row) for row in rows]

    def count(self) -> int:
        """How many requests there are."""
        with self._database.read() as connection:
            query = sa.select(sa.func.count()).select_from(TRAFFIC)
            return connection.execute(query).scalar_one()

    def read(
        self, *, since: datetime | None = None, task: str | None = None, batch: int = 1024
    ) -> Iterator[pa.RecordBatch]:
        """Stream requests in the order they were written, ``batch`` rows at a time, in flat memory.

        Columns: those of :class:`Recorded`, ``time`` as a UTC timestamp, ``request`` and ``completion``
        as JSON text or null (:func:`pilotfish.records.from_dict` reads them).

        Args:
            since: Only requests that came at or after this moment (with a time zone).
            task: Only this task's.
            batch: Rows per batch, at least 1.

        Raises:
            StoreError: No rows per batch, or a time without a zone.
        """
        if batch < 1:
            raise StoreError(f"Got batch={batch}, but expected at least 1 row.")
        where = []
        if task is not None:
            where.append(TRAFFIC.c.task == task[:MAX_LABEL])
            if task:
                where.append(TRAFFIC.c.task != "")  # lets SQLite use the index of named tasks
        if since is not None:
            if since.tzinfo is None:
                raise StoreError(
                    f"Got since={since.isoformat()} without a time zone.",
                    remedy="For example: datetime.now(UTC) - timedelta(hours=1)",
                )
            where.append(TRAFFIC.c.time >= since.timestamp())
        last = self._before(since)
        while True:
            query = sa.select(*_COLUMNS, TRAFFIC.c.id).where(TRAFFIC.c.id > last, *where)
            with self._database.read() as connection:
                found = connection.execute(query.order_by(TRAFFIC.c.id).limit(batch))
                rows: list[Sequence[Any]] = list(found)
            if not rows:
                return
            last = rows[-1][-1]
            yield _batch(rows)

    def _before(self, since: datetime | None) -> int:
        """The id before the first one since then, so that all older rows are passed over at once."""
        if since is None:
            return 0
        query = sa.select(sa.func.min(TRAFFIC.c.id)).where(TRAFFIC.c.time >= since.timestamp())
        with self._database.read() as connection:
            first: int | None = connection.execute(query).scalar()
        return 0 if first is None else first - 1

    def minutes(self, since: float, until: float) -> Iterator[Minute]:
        """The sums of the minutes that begin in ``[since, until)`` (seconds since 1970), oldest first."""
        table = TRAFFIC_MINUTES.c
        query = (
            sa.select(*(table[name] for name in _SUMMED))
            .where(table.minute >= -(-since // 60), table.minute < -(-until // 60))
            .order_by(*TRAFFIC_MINUTES.primary_key)
        )
        with self._database.read() as connection:
            for *values, histogram in connection.execute(query):
                yield Minute(*[*values, Histogram.unpack(histogram)])


def recorded(row: Sequence[Any]) -> Recorded:
    """A row of the table's columns without ``id``, as the store gives it."""
    *values, request, completion = row
    asked = None if request is None else from_dict(Request, _json(request))
    answered = None if completion is None else from_dict(Completion, _json(completion))
    return Recorded(*[*values, asked, answered])


def _json(blob: bytes) -> dict[str, Any]:
    values: dict[str, Any] = unpack_json(unpack(blob))
    return values


def _batch(rows: Sequence[Sequence[Any]]) -> pa.RecordBatch:
    import pyarrow as pa

    arrays, names = [], []
    for position, column in enumerate(_COLUMNS):
        values: list[Any] = [row[position] for row in rows]
        if column.name == "time":
            values = [round(value * 1e6) for value in values]
            kind = pa.timestamp("us", tz="UTC")
        elif isinstance(column.type, sa.LargeBinary):
            values = [None if value is None else json_text(unpack(value)) for value in values]
            kind = pa.string()
        elif isinstance(column.type, sa.Boolean):
            kind = pa.bool_()
        elif isinstance(column.type, sa.Integer):
            kind = pa.int64()
        elif isinstance(column.type, sa.Double):
            kind = pa.float64()
        else:
            values = [value.encode("utf-8", "replace").decode() for value in values]
            kind = pa.string()
        arrays.append(pa.array(values, kind))
        names.append("id" if column.name == "request_id" else column.name)
    return pa.RecordBatch.from_arrays(arrays, names)
