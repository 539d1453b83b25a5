"""The figures of the traffic equal what the single requests say, on both databases, and stay quick."""

from __future__ import annotations

import math
import time
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from pilotfish.records import Completion, Request
from pilotfish.store import open_store
from pilotfish.store.feedback import Check, Feedback
from pilotfish.store.figures import Latency, Saving, Share
from pilotfish.store.gateway_schema import TRAFFIC_MINUTES
from pilotfish.store.latency import Histogram
from pilotfish.store.store import Store
from pilotfish.store.traffic_rows import Exchange
from tests.gateway.sample_traffic import sample_traffic

END = 1_790_000_040  # a whole minute
MINUTE = END // 60


def exchange(number: int, **changes: object) -> Exchange:
    answer = Completion("yes", "small", cost=0.25)
    values: dict[str, object] = {
        "id": f"req_{number}",
        "time": END - 30.0,
        "caller": "",
        "task": "",
        "asked": "tickets",
        "endpoint": "chat",
        "streamed": False,
        "status": 200,
        "error": "",
        "latency": 0.1,
        "first_byte": None,
        "request": Request.of("Urgent?"),
        "completion": answer,
        "baseline": 1.0,
    }
    return Exchange(**(values | changes))  # type: ignore[arg-type]


@given(st.integers(0, 3000), st.integers(1, 3000))
def test_intervals_are_those_of_scipy(hits: int, n: int) -> None:
    hits = min(hits, n)
    share = Share.of(hits, n)
    expected = binomtest(hits, n).proportion_ci(0.95, "wilson")
    assert share.low == pytest.approx(expected.low, abs=1e-9)
    assert share.high == pytest.approx(expected.high, abs=1e-9)
    assert share.low <= hits / n <= share.high


def test_without_traffic_everything_is_nothing(store: Store) -> None:
    figures = store.statistics.figures(MINUTE - 60, MINUTE, 1)
    assert (figures.requests, figures.errors, figures.answered, figures.failures) == (0, 0, (), ())
    assert figures.latency == Latency(None, None, None)
    assert figures.saving.net is None
    assert figures.saving.share is None
    assert [point.time for point in figures.points] == [END - 3600 + 60 * i for i in range(60)]
    assert figures.feedback.mean is None
    assert not store.statistics.any_traffic()
    assert store.statistics.first_minute() is None
    assert list(store.statistics.totals(MINUTE - 60, MINUTE)) == []


def test_figures_equal_what_the_requests_say(store: Store) -> None:
    exchanges = list(sample_traffic(END, 90))
    store.traffic.add(exchanges)
    figures = store.statistics.figures(MINUTE - 60, MINUTE, 7)
    seen = [x for x in exchanges if x.time >= END - 3600]
    assert len(seen) < len(exchanges)
    assert figures.requests == len(seen)
    assert figures.errors == sum(x.status >= 400 for x in seen)

    def answered_by(x: Exchange) -> str:
        return x.completion.model if x.completion else ""

    pairs = Counter((x.asked, answered_by(x)) for x in seen)
    assert {(row.asked, row.model): row.requests for row in figures.answered} == dict(pairs)
    assert [row.requests for row in figures.answered] == sorted(pairs.values(), reverse=True)
    for row in figures.answered:
        mine = [x for x in seen if (x.asked, answered_by(x)) == (row.asked, row.model)]
        times = [x.latency for x in mine if x.status < 400]
        if times:
            exact = np.quantile(times, [0.5, 0.95, 0.99], method="inverted_cdf")
            latency = (row.latency.p50, row.latency.p95, row.latency.p99)
            assert latency == pytest.approx(exact, rel=0.0201)
        else:
            assert row.latency == Latency()
        answers = [x.completion for x in mine if x.completion]
        assert row.prompt_tokens == sum(a.usage.prompt_tokens for a in answers)
        assert row.cost == pytest.approx(sum(a.cost or 0.0 for a in answers))
        assert row.unpriced == sum(a.cost is None for a in answers)
        assert row.escalated == (len(mine) if row.model == "gpt-4.1" else 0)

    assert len(figures.points) == 9  # 60 minutes in steps of 7, the last one shorter
    for number, point in enumerate(figures.points):
        assert point.time == END - 3600 + number * 420
        within = [x for x in seen if point.time <= x.time < point.time + 420]
        good = Counter(answered_by(x) for x in within if x.status < 400)
        assert point.answered == dict(good)
        assert point.errors == sum(x.status >= 400 for x in within)

    codes = Counter((x.status, x.error) for x in seen if x.error)
    assert {(f.status, f.code): f.requests for f in figures.failures} == dict(codes)
    known = [
        x for x in seen if x.baseline is not None and x.completion and x.completion.cost is not None
    ]
    assert figures.saving.counted == len(known)
    assert figures.saving.unknown == sum(x.asked == "code" for x in seen)
    expected = sum(x.baseline - x.completion.cost for x in known)  # type: ignore[operator, union-attr]
    assert figures.saving.net == pytest.approx(expected)
    assert sum(row.net or 0.0 for row in figures.savings) == pytest.approx(expected)


def test_saving_is_net_of_failures_and_checks_and_says_what_it_leaves_out(store: Store) -> None:
    store.traffic.add(
        [
            exchange(1),  # saved 0.75
            exchange(2, completion=Completion("", "small", cost=0.5), status=499, baseline=None),
            exchange(3, completion=Completion("", "small", cost=None)),  # cost unknown
            exchange(4, baseline=None),  # baseline unknown: its cost is left out, too
            exchange(5, status=503, error="x", completion=None, baseline=None),
            exchange(6, asked="dear", baseline=0.1),  # costs more than it saves
        ]
    )
    for number, cost in enumerate((0.05, 0.05, None)):
        check = Check(f"req_{number}", "tickets", "small", "large", number > 0, cost=cost)
        store.checks.add(replace(check, time=END - 10))
    figures = store.statistics.figures(MINUTE - 1, MINUTE, 1)
    tickets = next(row for row in figures.savings if row.asked == "tickets")
    assert tickets.baseline == pytest.approx(1.0)
    assert tickets.paid == pytest.approx(0.75)
    assert tickets.checks == pytest.approx(0.1)
    assert tickets.net == pytest.approx(0.15)
    assert (tickets.counted, tickets.unknown, tickets.unknown_checks) == (1, 2, 1)
    assert tickets.unknown_share == pytest.approx(2 / 3)
    dear = next(row for row in figures.savings if row.asked == "dear")
    assert dear.net == pytest.approx(-0.15)
    assert dear.share == pytest.approx(-1.5)
    assert figures.saving.net == pytest.approx(0.0)
    [row] = figures.disagreement
    assert (row.asked, row.small, row.large, row.share) == (
        "tickets",
        "small",
        "large",
        Share.of(1, 3),
    )


def test_nothing_known_saves_nothing_that_anyone_could_claim() -> None:
    assert Saving("m", 0.0, 0.5, 0.0, 0, 10).net is None
    assert Saving("m", 0.0, 0.0, 0.0, 3, 0).share is None


def test_feedback_counts_scores_and_labels(store: Store) -> None:
    store.traffic.add([exchange(1), exchange(2, completion=None), exchange(3)])
    entries = [
        Feedback("req_1", label=" YES "),
        Feedback("req_3", label="no"),
        Feedback("req_2", label="no"),  # nothing was answered
        Feedback("req_9", label="no"),  # of another store
        Feedback("req_1", score=0.2),
        Feedback("req_1", score=0.9),
        Feedback("req_1", score=1.0, comment="fine"),
    ]
    for entry in entries:
        store.feedback.add(replace(entry, time=END - 5))
    store.feedback.add(Feedback("req_1", score=0.0, time=END - 3600))
    feedback = store.statistics.figures(MINUTE - 1, MINUTE, 1).feedback
    assert feedback.count == 7
    assert feedback.mean == pytest.approx(0.7)
    assert feedback.poor == Share.of(1, 3)
    assert feedback.wrong == Share.of(1, 2)


def test_codes_of_errors_are_read_by_their_index(tmp_path) -> None:
    with open_store(f"sqlite:///{tmp_path}/p.db") as store:
        plans = []
        with store._database.read() as connection:
            import sqlalchemy as sa

            from pilotfish.store import statistics

            explain = sa.event.listens_for(connection, "before_cursor_execute")

            @explain
            def note(conn, cursor, statement, parameters, context, many) -> None:
                if "error" in statement and "pilotfish_traffic " in statement.replace("\n", " "):
                    cursor.execute("EXPLAIN QUERY PLAN " + statement, parameters)
                    plans.append(str(cursor.fetchall()))

            store.traffic.add([exchange(1, status=503, error="x", completion=None)])
            within = (statistics._M.minute >= 0,)
            [failure] = statistics._failures(connection, within, (0.0, 2e9))
    assert (failure.status, failure.code, failure.requests) == (503, "x", 1)
    assert len(plans) == 1
    assert "pilotfish_traffic_errors" in plans[0]


def test_totals_are_the_same_in_one_look_and_in_several(store: Store) -> None:
    store.traffic.add(list(sample_traffic(END, 50)))
    whole = {(t.asked, t.model, t.status): t for t in store.statistics.totals(MINUTE - 60, MINUTE)}
    parts = [
        *store.statistics.totals(MINUTE - 60, MINUTE - 20),
        *store.statistics.totals(MINUTE - 20, MINUTE),
    ]
    assert sum(total.requests for total in whole.values()) > 500
    assert {(t.asked, t.model, t.status) for t in parts} == set(whole)
    for key, total in whole.items():
        mine = [t for t in parts if (t.asked, t.model, t.status) == key]
        assert sum(t.requests for t in mine) == total.requests
        assert sum(len(t.latency) for t in mine) == len(total.latency) == total.requests
        assert math.fsum(t.seconds for t in mine) == pytest.approx(total.seconds)
        assert math.fsum(t.baseline for t in mine) == pytest.approx(total.baseline)


def test_a_week_of_a_busy_gateway_is_read_in_seconds(tmp_path) -> None:
    """A week of 6 million requests: 10,080 minutes of three models each, no single request at all."""
    with open_store(f"sqlite:///{tmp_path}/p.db") as store:
        draw = np.random.default_rng(1)
        blob = Histogram.of(draw.lognormal(-3, 1, 200).tolist()).pack()
        rows = [
            {
                "minute": MINUTE - 1 - minute,
                "asked": f"asked{model % 2}",
                "model": f"model{model}",
                "task": "",
                "status": 200 if model else 503,
                "latency_histogram": blob,
                **dict.fromkeys(("requests", "prompt_tokens", "compared"), 200),
                **dict.fromkeys(("errors",), 0 if model else 200),
                **dict.fromkeys(
                    ("escalated", "completion_tokens", "unpriced", "baseline_unknown"), 1
                ),
                **dict.fromkeys(("cost", "baseline", "compared_cost", "compared_baseline"), 0.5),
                "latency": 20.0,
            }
            for minute in range(10_080)
            for model in range(3)
        ]
        with store._database.write() as connection:
            connection.execute(TRAFFIC_MINUTES.insert(), rows)
        took = []
        for span, step in ((60, 1), (1440, 15), (10_080, 120)):
            started = time.process_time()
            figures = store.statistics.figures(MINUTE - span, MINUTE, step)
            took.append(time.process_time() - started)
            assert figures.requests == span * 3 * 200
            assert len(figures.points) == span // step
    assert took[0] < 0.2
    assert took[2] < 4.0, took
