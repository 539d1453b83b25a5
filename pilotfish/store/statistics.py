"""Reads the figures of :mod:`pilotfish.store.figures` from the store.

Everything comes from the minute roll-up, never from the single requests, so that a week of a busy gateway
is as quick to look at as an hour of an idle one: what is read grows with minutes and models, not with
requests. Two things the roll-up cannot say come from elsewhere, within bounds: the codes of the newest
errors (by an index that holds failures alone), and what was said and checked of answers (tables of their
own).
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import sqlalchemy as sa

from pilotfish.store.encoding import unpack_json
from pilotfish.store.figures import (
    Answered,
    Disagreement,
    Failure,
    Feedback,
    Figures,
    Latency,
    Point,
    Saving,
    Share,
)
from pilotfish.store.gateway_schema import CHECKS, FEEDBACK, TRAFFIC, TRAFFIC_MINUTES
from pilotfish.store.latency import Histogram
from pilotfish.store.traffic_rows import unpack

if TYPE_CHECKING:
    from pilotfish.store.database import Database

NEWEST_ERRORS = 10_000  # whose codes are counted; older ones are counted by status alone
NEWEST_LABELS = 1_000  # labels in feedback that are compared with their answers
PAGE_MINUTES = 1440  # of the roll-up that are read at once when all of it is summed

_M = TRAFFIC_MINUTES.c
_OK = _M.status < 400
_Where = Sequence[sa.ColumnElement[bool]]


@dataclass(frozen=True, slots=True)
class Total:
    """Sums since the beginning, of one name asked for, one model and one HTTP status.

    Attributes:
        asked: The served name.
        model: Who answered, "" when nobody did.
        status: HTTP status.
        requests: How many.
        escalated: Those for which a smaller model was not good enough.
        prompt_tokens: Sum.
        completion_tokens: Sum.
        cost: US dollars, where known.
        unpriced: Requests of unknown cost.
        baseline: What always large would have cost, where both sides are known.
        compared_cost: What was paid for those.
        compared: How many those are.
        seconds: Sum of the latencies.
        latency: Their histogram.
    """

    asked: str
    model: str
    status: int
    requests: int
    escalated: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    unpriced: int
    baseline: float
    compared_cost: float
    compared: int
    seconds: float
    latency: Histogram


@dataclass(frozen=True, slots=True)
class CheckTotal:
    """Checks of one pair of models under one served name; ``cost`` is the known part in US dollars."""

    asked: str
    small: str
    large: str
    checked: int
    differed: int
    cost: float
    unpriced: int


class Statistics:
    """What the traffic came to; :attr:`pilotfish.store.store.Store.statistics`."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def any_traffic(self) -> bool:
        """Whether anything was ever asked."""
        with self._database.read() as connection:
            return connection.execute(sa.select(_M.minute).limit(1)).first() is not None

    def figures(self, since: int, until: int, step: int) -> Figures:
        """Everything about a span of time.

        Args:
            since: First minute (epoch seconds // 60).
            until: The minute after the last one.
            step: Minutes in a :class:`~pilotfish.store.figures.Point`.
        """
        within = (_M.minute >= since, _M.minute < until)
        seconds = (since * 60.0, until * 60.0)
        with self._database.read() as connection:
            points = _points(connection, within, since, until, step)
            histograms = _histograms(connection, within)
            answered = _answered(connection, within, histograms)
            checks = _checks(connection, seconds)
            savings = _savings(connection, within, checks)
            failures = _failures(connection, within, seconds)
            feedback = _feedback(connection, seconds)
        together = Histogram()
        for one in histograms.values():
            together.merge(one)
        return Figures(
            since=since * 60,
            until=until * 60,
            step=step,
            requests=sum(row.requests for row in answered),
            errors=sum(row.errors for row in answered),
            latency=_quantiles(together),
            answered=answered,
            points=points,
            saving=_together(savings),
            savings=savings,
            failures=failures,
            disagreement=tuple(
                Disagreement(row.asked, row.small, row.large, Share.of(row.differed, row.checked))
                for row in checks
            ),
            feedback=feedback,
        )

    def first_minute(self) -> int | None:
        """The first minute with traffic; None without any."""
        with self._database.read() as connection:
            return connection.execute(sa.select(sa.func.min(_M.minute))).scalar()

    def totals(self, since: int, until: int) -> Iterator[Total]:
        """Sums over minutes, ``since <= minute < until``, some of each group at a time."""
        for start in range(since, until, PAGE_MINUTES):
            within = (_M.minute >= start, _M.minute < min(until, start + PAGE_MINUTES))
            yield from self._totals(within)

    def _totals(self, within: _Where) -> list[Total]:
        groups = (_M.asked, _M.model, _M.status)
        counts = (_M.requests, _M.escalated, _M.prompt_tokens, _M.completion_tokens)
        query = sa.select(
            *groups,
            *(_whole(column) for column in counts),
            _dollars(_M.cost),
            _whole(_M.unpriced),
            _dollars(_M.compared_baseline),
            _dollars(_M.compared_cost),
            _whole(_M.compared),
            _dollars(_M.latency),
        )
        with self._database.read() as connection:
            rows = connection.execute(query.where(*within).group_by(*groups)).all()
            histograms = _merged(connection, groups, within)
        return [Total(*row, histograms[row[0], row[1], row[2]]) for row in rows]  # type: ignore[call-arg,arg-type]

    def checks(self, since: float, until: float) -> tuple[CheckTotal, ...]:
        """Checks in a span of epoch seconds."""
        with self._database.read() as connection:
            return _checks(connection, (since, until))


def _whole(column: Any) -> Any:
    """A sum of counts; PostgreSQL would give a decimal."""
    return sa.cast(sa.func.coalesce(sa.func.sum(column), 0), sa.BigInteger)


def _dollars(column: Any) -> Any:
    return sa.func.coalesce(sa.func.sum(column), 0.0)


def _points(
    connection: sa.Connection, within: _Where, since: int, until: int, step: int
) -> tuple[Point, ...]:
    column = (_M.minute - since) // step
    query = sa.select(
        column.label("step"), _M.model, _OK.label("ok"), _whole(_M.requests)
    ).group_by("step", _M.model, "ok")
    steps = -(-(until - since) // step)
    answered: list[dict[str, int]] = [{} for _ in range(steps)]
    errors = [0] * steps
    for number, model, ok, requests in connection.execute(query.where(*within)):
        if ok:
            answered[number][model] = requests
        else:
            errors[number] += requests
    return tuple(
        Point((since + number * step) * 60, answered[number], errors[number])
        for number in range(steps)
    )


def _merged(
    connection: sa.Connection, groups: Sequence[Any], within: _Where
) -> dict[tuple[Any, ...], Histogram]:
    """The merged histogram of each group."""
    found: defaultdict[tuple[Any, ...], Histogram] = defaultdict(Histogram)
    query = sa.select(*groups, _M.latency_histogram).where(*within)
    for *group, blob in connection.execute(query):
        found[tuple(group)].merge(Histogram.unpack(blob))
    return found


def _histograms(connection: sa.Connection, within: _Where) -> dict[tuple[Any, ...], Histogram]:
    return _merged(connection, (_M.asked, _M.model), (*within, _OK))


def _quantiles(histogram: Histogram | None) -> Latency:
    if not histogram:
        return Latency()
    return Latency(*(histogram.quantile(share) for share in (0.5, 0.95, 0.99)))


def _answered(
    connection: sa.Connection, within: _Where, histograms: Mapping[tuple[Any, ...], Histogram]
) -> tuple[Answered, ...]:
    failed = sa.case((_OK, 0), else_=_M.requests)
    query = (
        sa.select(
            _M.asked,
            _M.model,
            _whole(_M.requests),
            _whole(failed),
            _whole(_M.escalated),
            _whole(_M.prompt_tokens),
            _whole(_M.completion_tokens),
            _dollars(_M.cost),
            _whole(_M.unpriced),
        )
        .where(*within)
        .group_by(_M.asked, _M.model)
    )
    rows = [
        Answered(*row, _quantiles(histograms.get((row[0], row[1]))))
        for row in connection.execute(query)
    ]
    return tuple(sorted(rows, key=lambda row: (-row.requests, row.asked, row.model)))


def _checks(connection: sa.Connection, seconds: tuple[float, float]) -> tuple[CheckTotal, ...]:
    c = CHECKS.c
    query = (
        sa.select(
            c.asked,
            c.small,
            c.large,
            sa.func.count(),
            _whole(sa.case((c.agreed, 0), else_=1)),
            _dollars(c.cost),
            sa.func.count() - sa.func.count(c.cost),
        )
        .where(c.time >= seconds[0], c.time < seconds[1])
        .group_by(c.asked, c.small, c.large)
        .order_by(c.asked, c.small, c.large)
    )
    return tuple(CheckTotal(*row) for row in connection.execute(query))


def _savings(
    connection: sa.Connection, within: _Where, checks: Sequence[CheckTotal]
) -> tuple[Saving, ...]:
    wasted = sa.case((_OK, 0.0), else_=_M.cost - _M.compared_cost)
    unknown = sa.case((_OK, _M.requests - _M.compared), else_=0)
    query = (
        sa.select(
            _M.asked,
            _dollars(_M.compared_baseline),
            _dollars(_M.compared_cost) + _dollars(wasted),
            _whole(_M.compared),
            _whole(unknown),
        )
        .where(*within)
        .group_by(_M.asked)
        .order_by(_M.asked)
    )
    rows = {asked: rest for asked, *rest in connection.execute(query)}
    paid: Counter[str] = Counter()
    unpriced: Counter[str] = Counter()
    for check in checks:
        paid[check.asked] += check.cost  # type: ignore[assignment]
        unpriced[check.asked] += check.unpriced
    found = []
    for asked in sorted({*rows, *paid}):
        baseline, cost, counted, left_out = rows.get(asked, (0.0, 0.0, 0, 0))
        if asked and (counted or left_out or paid[asked]):
            found.append(
                Saving(
                    asked, baseline, cost, float(paid[asked]), counted, left_out, unpriced[asked]
                )
            )
    return tuple(found)


def _together(savings: Sequence[Saving]) -> Saving:
    return Saving(
        "",
        sum(row.baseline for row in savings),
        sum(row.paid for row in savings),
        sum(row.checks for row in savings),
        sum(row.counted for row in savings),
        sum(row.unknown for row in savings),
        sum(row.unknown_checks for row in savings),
    )


def _failures(
    connection: sa.Connection, within: _Where, seconds: tuple[float, float]
) -> tuple[Failure, ...]:
    """By status from the roll-up; by code as far as the newest errors tell."""
    query = sa.select(_M.status, _whole(_M.requests)).where(*within, ~_OK).group_by(_M.status)
    left: dict[int, int] = {row[0]: row[1] for row in connection.execute(query)}
    if not left:
        return ()
    t = TRAFFIC.c
    newest = (
        sa.select(t.status, t.error)
        # A bound parameter would hide from SQLite that the index of failures serves this.
        .where(sa.text("error != ''"), t.time >= seconds[0], t.time < seconds[1])
        .order_by(t.time.desc())
        .limit(NEWEST_ERRORS)
        .subquery()
    )
    coded = sa.select(newest.c.status, newest.c.error, sa.func.count()).group_by(
        newest.c.status, newest.c.error
    )
    found = []
    for status, code, count in connection.execute(coded):
        found.append(Failure(status, code, count))
        left[status] = left.get(status, 0) - count
    found += [Failure(status, "", count) for status, count in left.items() if count > 0]
    return tuple(sorted(found, key=lambda row: (-row.requests, row.status, row.code)))


def _feedback(connection: sa.Connection, seconds: tuple[float, float]) -> Feedback:
    f = FEEDBACK.c
    within = (f.time >= seconds[0], f.time < seconds[1])
    query = sa.select(
        sa.func.count(),
        sa.func.count(f.score),
        _whole(sa.case((f.score < 0.5, 1), else_=0)),
        sa.func.avg(f.score),
    )
    count, scored, poor, mean = connection.execute(query.where(*within)).one()
    labelled = (
        sa.select(f.label, TRAFFIC.c.completion)
        .join(TRAFFIC, TRAFFIC.c.request_id == f.request_id)
        .where(*within, f.label != "", TRAFFIC.c.completion.is_not(None))
        .order_by(f.id.desc())
        .limit(NEWEST_LABELS)
    )
    wrong = total = 0
    for label, blob in connection.execute(labelled) if count else ():
        total += 1
        wrong += _plain(unpack_json(unpack(blob)).get("text", "")) != _plain(label)
    return Feedback(count, Share.of(poor, scored), mean, Share.of(wrong, total))


def _plain(text: str) -> str:
    return " ".join(text.split()).casefold()
