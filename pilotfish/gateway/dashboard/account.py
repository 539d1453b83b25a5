"""The account of the recurring tasks, as the dashboard prints it: in all, and day by day.

It comes from the same books as ``pilotfish account`` and ``/metrics``. What has no known price is called
unknown; the calls that were avoided are known even then.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pilotfish import figures as say
from pilotfish.store.ledger import Day, total

DAYS = 30  # that are shown
MOST_ROWS = 200  # of the table day by day
_SECONDS = 86_400


@dataclass(frozen=True, slots=True)
class Line:
    """One line of the account, in words.

    Attributes:
        day: As a date; "" for a sum.
        task: Its name; "" for all together.
        requests: How many.
        small: Share that a small model answered.
        baseline: What always large would have cost.
        spent: What the answers cost.
        extra: What checks, lessons and judges cost.
        saving: Baseline less the two.
        level: ``"good"``, ``"bad"`` or "", by the saving.
        avoided: Calls of the large model, net.
        unknown: Requests of unknown cost, in no sum.
    """

    day: str
    task: str
    requests: str
    small: str
    baseline: str
    spent: str
    extra: str
    saving: str
    level: str
    avoided: str
    unknown: int


@dataclass(frozen=True, slots=True)
class Account:
    """The lines of both tables.

    Attributes:
        tasks: One for each task, the most saving first; and their sum, if there are several.
        days: One for each day and task, newest first.
        more: Lines that ``days`` leaves out.
        unpriced: Whether a price is missing somewhere.
    """

    tasks: Sequence[Line]
    days: Sequence[Line]
    more: int
    unpriced: bool


def first_day(now: float) -> int:
    """The first day that is shown, in days since 1970.

    >>> first_day(31 * 86_400.0)
    2
    """
    return int(now // _SECONDS) - DAYS + 1


def account_of(days: Sequence[Day]) -> Account:
    """The account of these days, oldest first."""
    by_task: defaultdict[str, list[Day]] = defaultdict(list)
    for day in days:
        by_task[day.task].append(day)
    sums = sorted(
        (total(rows) for rows in by_task.values()),
        key=lambda row: (-(row.saving or 0.0), -row.avoided, row.task),
    )
    tasks = [_line(row, "", row.task) for row in sums]
    if len(sums) > 1:
        tasks.append(_line(total(sums), "", ""))
    latest = sorted(days, key=lambda row: (-row.day, row.task))
    lines = [_line(row, _date(row.day), row.task) for row in latest[:MOST_ROWS]]
    unpriced = any(row.unknown or row.unpriced for row in days)
    return Account(tasks, lines, max(0, len(days) - MOST_ROWS), unpriced)


def _line(row: Day, day: str, task: str) -> Line:
    saving = row.saving
    return Line(
        day=day,
        task=task,
        requests=say.count(row.requests),
        small=say.percent(row.small / row.requests) if row.requests else "–",
        baseline=say.money(row.baseline if row.priced else None),
        spent=say.money(row.spent if row.priced else None),
        extra=say.money(row.extra),
        saving=say.money(saving),
        level="" if not saving else "good" if saving > 0 else "bad",
        avoided=say.count(row.avoided),
        unknown=row.unknown,
    )


def _date(day: int) -> str:
    return datetime.fromtimestamp(day * _SECONDS, UTC).strftime("%Y-%m-%d")
