"""The loop's books: how far traffic was read, what each task came to per day, and forgetting.

Whoever follows the traffic keeps a cursor and commits it together with everything that was concluded from
the rows before it: states, sums of the day, checks. So a process that is killed anywhere goes on from its
last commit and counts nothing twice.

On PostgreSQL several gateways write at once, and a row with a smaller number may become visible after one
with a larger. The cursor remembers the numbers that were missing and looks for them again for a minute;
SQLite has one writer, and no gaps.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa

from pilotfish.records import canonical_json
from pilotfish.store.database import Database
from pilotfish.store.encoding import pack_json, unpack_json
from pilotfish.store.feedback import Check
from pilotfish.store.gateway_schema import CHECKS, FEEDBACK, MAX_LABEL, TRAFFIC
from pilotfish.store.loop_schema import DAYS, EVENTS, LESSONS, STATES, TASKS
from pilotfish.store.schema import CALLS, RUNS
from pilotfish.store.traffic import Recorded, recorded

GAP_SECONDS = 60.0
MOST_GAPS = 1_000
_PAGE = 400  # parameters in a statement


@dataclass
class Cursor:
    """How far traffic was read.

    Attributes:
        last: The highest row number that was seen.
        gaps: Numbers below it that were missing, with the time when that was noticed.
    """

    last: int = 0
    gaps: dict[int, float] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {"last": self.last, "gaps": [[n, t] for n, t in self.gaps.items()]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any] | None) -> Cursor:
        """Inverse of :meth:`to_dict`; None is the beginning."""
        if not values:
            return cls()
        return cls(int(values["last"]), {int(n): float(t) for n, t in values["gaps"]})


@dataclass
class Day:
    """What one task came to on one day (UTC); also a change that is added to it.

    Attributes:
        task: Its name.
        day: Days since 1970.
        requests: Answered requests.
        small: Of these, answered small.
        spent: US dollars of the answers, where known.
        baseline: US dollars that the large model would have cost for the same requests.
        unknown: Requests for which one of the two is unknown; they are in neither sum.
        checks: Small answers that were also asked of the large model.
        disagreed: Of these, answered differently.
        checks_cost: US dollars of the checks.
        lessons: Answers that were bought to learn and to certify, on the day they were bought.
        lessons_cost: US dollars of these.
        judge_cost: US dollars of judges.
        unpriced: Checks, lessons and judges of unknown cost; they are in no sum.
    """

    task: str
    day: int
    requests: int = 0
    small: int = 0
    spent: float = 0.0
    baseline: float = 0.0
    unknown: int = 0
    checks: int = 0
    disagreed: int = 0
    checks_cost: float = 0.0
    lessons: int = 0
    lessons_cost: float = 0.0
    judge_cost: float = 0.0
    unpriced: int = 0

    @property
    def priced(self) -> bool:
        """Whether there is a request of known cost, or none at all."""
        return self.unknown < self.requests or not self.requests

    @property
    def extra(self) -> float | None:
        """US dollars of checks, lessons and judges; None when the price of one is unknown."""
        known = self.checks_cost + self.lessons_cost + self.judge_cost
        return None if self.unpriced else known

    @property
    def saving(self) -> float | None:
        """US dollars saved, net of checks, lessons and judges; over requests of known cost.

        None when no request has a known cost, or when the price of a check, lesson or judge is unknown.
        """
        extra = self.extra
        return self.baseline - self.spent - extra if self.priced and extra is not None else None

    @property
    def avoided(self) -> int:
        """Calls of the large model that were not made, less those for checks and lessons."""
        return self.small - self.checks - self.lessons

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values; what is unknown is null."""
        return asdict(self) | {"saving": self.saving, "avoided": self.avoided}


def total(days: Iterable[Day]) -> Day:
    """The sum of several days; its task and day are those of the first, "" and 0 without any.

    >>> total([Day("t", 5, small=3), Day("t", 6, small=1, unpriced=1)]).saving is None
    True
    """
    rows = list(days)
    sums = {name: sum(getattr(row, name) for row in rows) for name in (*_ADDED, *_BOUGHT)}
    return Day(rows[0].task if rows else "", rows[0].day if rows else 0, **sums)


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What was deleted, and what may still remember it.

    Attributes:
        requests: Rows of the traffic.
        calls: Stored answers to the same questions.
        remarks: Checks and feedback.
        versions: Task and version of what learned from the requests.
    """

    requests: int
    calls: int
    remarks: int
    versions: list[tuple[str, int]]


_BOUGHT = ("lessons", "lessons_cost")  # not stored: summed from the calls of the runs that learned
_KEPT = [f.name for f in fields(Day) if f.name not in _BOUGHT]
_ADDED = [name for name in _KEPT if name not in ("task", "day")]
LEARN = "learn"  # the kind of run that buys lessons
JUDGING = "judge"  # in place of a run: the calls of judges
ABOUT = "about"  # the tag of a stored call that names the requests whose texts it holds


class Ledger:
    """The books of one store; safe to share between threads."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def state(self, name: str) -> Any:
        """The JSON value that was committed under a name, or None."""
        query = sa.select(STATES.c.value).where(STATES.c.name == name)
        with self._database.read() as connection:
            blob = connection.execute(query).scalar()
        return None if blob is None else unpack_json(blob)

    def traffic_after(self, cursor: Cursor, limit: int = 500) -> tuple[list[Recorded], Cursor]:
        """The next requests in the order of their numbers, and the cursor behind them."""
        table = TRAFFIC.c
        columns = [table.id, *(column for column in table if column.name != "id")]
        new = sa.select(*columns).where(table.id > cursor.last).order_by(table.id).limit(limit)
        gaps = list(cursor.gaps)[:_PAGE]
        with self._database.read() as connection:
            rows = connection.execute(new).all()
            late: Sequence[sa.Row[Any]] = []
            if gaps:
                found = sa.select(*columns).where(table.id.in_(gaps)).order_by(table.id)
                late = connection.execute(found).all()
        now = time.time()
        kept = {n: t for n, t in cursor.gaps.items() if now - t < GAP_SECONDS}
        for row in late:
            kept.pop(row[0], None)
        last = rows[-1][0] if rows else cursor.last
        if not self._database.is_sqlite and cursor.last:
            missing = set(range(cursor.last + 1, last + 1)) - {row[0] for row in rows}
            kept.update(dict.fromkeys(sorted(missing)[-MOST_GAPS:], now))
        return [recorded(row[1:]) for row in (*late, *rows)], Cursor(last, kept)

    def traffic_since(
        self, moment: float, until: int | None = None, page: int = 1000
    ) -> Iterator[Recorded]:
        """Requests that came at or after a moment (seconds since 1970), in the order of their numbers.

        Args:
            moment: When it begins.
            until: The last number, as in :attr:`Cursor.last`; None for all.
            page: Requests that are read at once.
        """
        table = TRAFFIC.c
        columns = [table.id, *(column for column in table if column.name != "id")]
        first = sa.select(sa.func.min(table.id)).where(table.time >= moment)
        with self._database.read() as connection:
            last = (connection.execute(first).scalar() or 1) - 1
        while True:
            query = sa.select(*columns).where(table.id > last, table.time >= moment)
            if until is not None:
                query = query.where(table.id <= until)
            with self._database.read() as connection:
                rows = connection.execute(query.order_by(table.id).limit(page)).all()
            if not rows:
                return
            last = rows[-1][0]
            for row in rows:
                yield recorded(row[1:])

    def commit(
        self,
        states: Mapping[str, Any],
        days: Iterable[Day] = (),
        checks: Sequence[Check] = (),
        tasks: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        """Write states, add to days, append checks, add tasks: in one transaction.

        A request is checked once, and a task that is there stays as it is.
        """
        now = time.time()
        with self._database.write() as connection:
            for name, value in states.items():
                insert = self._database.insert(STATES).values(
                    name=name, time=now, value=pack_json(value)
                )
                changes = {"time": insert.excluded.time, "value": insert.excluded.value}
                connection.execute(
                    insert.on_conflict_do_update(index_elements=["name"], set_=changes)
                )
            for name, definition in (tasks or {}).items():
                new = {"name": name, "time": now, "definition": pack_json(dict(definition))}
                task = self._database.insert(TASKS).values(**new, marks=pack_json({}))
                connection.execute(task.on_conflict_do_nothing())
            for day in sorted(days, key=lambda d: (d.task, d.day)):
                kept = {name: getattr(day, name) for name in _KEPT}
                added = self._database.insert(DAYS).values(**kept)
                sums = {name: DAYS.c[name] + added.excluded[name] for name in _ADDED}
                connection.execute(
                    added.on_conflict_do_update(index_elements=["task", "day"], set_=sums)
                )
            for check in checks:
                known = sa.select(CHECKS.c.id).where(CHECKS.c.request_id == check.request_id)
                if connection.execute(known).first() is None:
                    row = dict(zip((f.name for f in fields(Check)), astuple(check), strict=True))
                    row |= {name: row[name][:MAX_LABEL] for name in ("asked", "small", "large")}
                    connection.execute(sa.insert(CHECKS).values(row))

    def checks_of(self, request_ids: Sequence[str]) -> dict[str, Check]:
        """The checks of these requests that are known, by request id."""
        columns = [CHECKS.c[f.name] for f in fields(Check)]
        found: dict[str, Check] = {}
        for start in range(0, len(request_ids), _PAGE):
            page = request_ids[start : start + _PAGE]
            query = sa.select(*columns).where(CHECKS.c.request_id.in_(page))
            with self._database.read() as connection:
                for row in connection.execute(query):
                    found.setdefault(row.request_id, Check(*row))
        return found

    def days(self, task: str | None = None, since: int = 0) -> list[Day]:
        """The account, oldest first.

        Args:
            task: Only this task's.
            since: First day, in days since 1970.
        """
        query = sa.select(*(DAYS.c[name] for name in _KEPT)).where(DAYS.c.day >= since)
        learning = CALLS.c.run.in_(sa.select(RUNS.c.id).where(RUNS.c.kind == LEARN))
        bought = sa.select(CALLS.c.task, CALLS.c.time, CALLS.c.cost, CALLS.c.run).where(
            sa.or_(learning, CALLS.c.run == JUDGING),
            ~CALLS.c.cached,
            CALLS.c.time >= datetime.fromtimestamp(since * 86_400, UTC),
        )
        if task is not None:
            query, bought = query.where(DAYS.c.task == task), bought.where(CALLS.c.task == task)
        found: dict[tuple[int, str], Day] = {}
        with self._database.read() as connection:
            for row in connection.execute(query):
                found[row.day, row.task] = Day(**row._asdict())
            for row in connection.execute(bought):
                number = int(row.time.timestamp() // 86_400)
                if number >= since:
                    day = found.setdefault((number, row.task), Day(row.task, number))
                    day.unpriced += row.cost is None
                    if row.run == JUDGING:
                        day.judge_cost += row.cost or 0.0
                        continue
                    day.lessons += 1
                    day.lessons_cost += row.cost or 0.0
        return [found[key] for key in sorted(found)]

    def latest(self, before: int, count: int) -> list[Recorded]:
        """The last requests with a number of at most ``before``, oldest first."""
        table = TRAFFIC.c
        columns = [column for column in table if column.name != "id"]
        query = sa.select(*columns).where(table.id <= before).order_by(table.id.desc())
        with self._database.read() as connection:
            rows = connection.execute(query.limit(count)).all()
        return [recorded(row) for row in reversed(rows)]

    def forget(
        self, *, user: str = "", request_id: str = "", before: float | None = None
    ) -> Forgotten:
        """Delete a user's requests, one request, or what is old, with all that was stored of them.

        The sums by minute and day stay: they hold numbers only. Artifacts are not changed; those that
        learned from the requests are named.

        Args:
            user: The ``user`` of the requests, or the id of the API key.
            request_id: One request.
            before: Seconds since 1970: what came in earlier, of everybody or of ``user``.
        """
        ids: list[str] = []
        asked: set[str] = set()
        table = TRAFFIC.c
        columns = [column for column in table if column.name != "id"]
        last = 0
        while True:
            query = sa.select(table.id, *columns).where(table.id > last).order_by(table.id)
            if request_id:
                query = query.where(table.request_id == request_id)
            if before is not None:
                query = query.where(table.time < before)
            with self._database.read() as connection:
                rows = connection.execute(query.limit(1000)).all()
            if not rows:
                break
            last = rows[-1][0]
            for row in (recorded(row[1:]) for row in rows):
                whose = {row.caller, row.request.user if row.request else ""}
                if user in whose if user else request_id or before is not None:
                    ids.append(row.id)
                    if row.request is not None:
                        asked.add(canonical_json(list(row.request.messages)))
        return self._delete(ids, asked)

    def _delete(self, ids: Sequence[str], asked: set[str]) -> Forgotten:
        calls = self._calls_about(asked, frozenset(ids))
        remarks = 0
        versions: set[tuple[str, int]] = set()
        with self._database.write() as connection:
            for start in range(0, len(ids), _PAGE):
                page = list(ids[start : start + _PAGE])
                lessons = sa.select(LESSONS.c.task, LESSONS.c.version).distinct()
                found = connection.execute(lessons.where(LESSONS.c.request_id.in_(page)))
                versions |= {(row.task, row.version) for row in found}
                for other in (CHECKS, FEEDBACK):
                    gone = connection.execute(sa.delete(other).where(other.c.request_id.in_(page)))
                    remarks += gone.rowcount
                for other in (LESSONS, TRAFFIC):
                    connection.execute(sa.delete(other).where(other.c.request_id.in_(page)))
            for start in range(0, len(calls), _PAGE):
                page_of_calls = calls[start : start + _PAGE]
                connection.execute(sa.delete(CALLS).where(CALLS.c.id.in_(page_of_calls)))
            for task, version in sorted(versions):
                connection.execute(
                    sa.insert(EVENTS).values(
                        time=time.time(), task=task, version=version, kind="forgotten",
                        evidence=pack_json({"requests": len(ids)}),
                    )
                )  # fmt: skip
        return Forgotten(len(ids), len(calls), remarks, sorted(versions))

    def _calls_about(self, asked: set[str], ids: frozenset[str]) -> list[int]:
        """Numbers of the stored calls with one of these lists of messages, or tagged with an id."""
        found: list[int] = []
        last = 0
        while asked:
            query = sa.select(CALLS.c.id, CALLS.c.request).where(CALLS.c.id > last)
            with self._database.read() as connection:
                rows = connection.execute(query.order_by(CALLS.c.id).limit(1000)).all()
            if not rows:
                break
            last = rows[-1][0]
            for row in rows:
                request = unpack_json(row.request)
                messages = canonical_json(list(request.get("messages", [])))
                if messages in asked or not ids.isdisjoint(request.get("tags", {}).get(ABOUT, ())):
                    found.append(row.id)
        return found
