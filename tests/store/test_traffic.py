"""The gateway's traffic: what is written comes back, and the minutes are the sums of the requests."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import assume, given
from hypothesis import strategies as st

from pilotfish.errors import InputError, StoreError
from pilotfish.records import Completion, Decision, Request, Usage, from_dict
from pilotfish.store.encoding import pack_record
from pilotfish.store.feedback import Check, Feedback
from pilotfish.store.latency import Histogram
from pilotfish.store.store import open_store
from pilotfish.store.traffic import Exchange, Traffic
from pilotfish.store.traffic_rows import COMPRESS_ABOVE, Group, pack, unpack
from tests.store.test_store import AWKWARD, SAME_STORE, completions, requests

NOON = 1_790_000_040.0  # a whole minute, less 0 seconds
ESCALATED = (
    Decision("cascade", "", "score<threshold", 0.4, 0.9, ("small",)),
    Decision("cascade", "large", "last"),
)


def exchange(i: int, text: str = "", **values) -> Exchange:
    standard = Exchange(
        id=f"req_{i:08x}",
        time=NOON + i,
        caller="key_1",
        task="",
        asked="both",
        endpoint="chat",
        streamed=bool(i % 2),
        status=200,
        error="",
        latency=0.25,
        first_byte=0.1,
        request=Request.of(text or f"question {i}", temperature=0),
        completion=Completion(
            text or f"answer {i}", "large", Usage(10, 5, 2), 0.25, decisions=ESCALATED
        ),
        baseline=0.5,
    )
    return replace(standard, **values)


def test_an_exchange_comes_back(store):
    store.traffic.add([exchange(1), exchange(2, completion=None, status=503, error="overloaded")])
    one = store.traffic.get("req_00000001")
    given_ = exchange(1)
    for name in (
        "id",
        "time",
        "caller",
        "task",
        "asked",
        "endpoint",
        "streamed",
        "status",
        "error",
    ):
        assert getattr(one, name) == getattr(given_, name), name
    for name in ("latency", "first_byte", "request", "completion", "baseline"):
        assert getattr(one, name) == getattr(given_, name), name
    assert (one.model, one.cost, one.decided) == ("large", 0.25, "cascade|large|last")
    assert (one.prompt_tokens, one.completion_tokens, one.cached_tokens) == (10, 5, 2)
    two = store.traffic.get("req_00000002")
    assert (two.completion, two.model, two.cost, two.status) == (None, "", None, 503)
    assert [x.id for x in store.traffic.recent()] == ["req_00000002", "req_00000001"]
    assert [x.id for x in store.traffic.recent(failed=True)] == ["req_00000002"]
    assert [x.id for x in store.traffic.recent(1, failed=False)] == ["req_00000001"]
    assert store.traffic.recent(asked="other") == []
    assert store.traffic.get("req_3") is None
    assert store.traffic.count() == 2


@given(requests, completions)
def test_records_come_back_from_their_bytes(request_, completion):
    for record in (request_, completion):
        assume(b"Infinity" not in pack_record(record))  # no JSON: a client cannot send it
        again = json.loads(unpack(pack(record)).decode("utf-8", "surrogatepass"))
        assert from_dict(type(record), again) == record


@given(st.floats(allow_nan=False))
def test_log_probabilities_keep_what_json_has_no_number_for(value):
    completion = Completion("a", "m", logprobs=({"token": "a", "logprob": value},))
    again = json.loads(unpack(pack(completion)))
    assert again["logprobs"][0]["logprob"] == value


def test_large_records_are_compressed():
    text = "the same words again and again " * 1000
    assert len(pack(Request.of(text))) < 1000
    assert len(pack(Request.of("x"))) < COMPRESS_ABOVE
    assert json.loads(unpack(pack(Request.of(text))))["messages"][0]["content"] == text


@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_awkward_texts_and_names(store, text):
    given_ = exchange(
        1, text, asked=text, task=text, caller=text, request=Request.of(text, stop=[text])
    )
    store.traffic.add([given_])
    found = store.traffic.get(given_.id)
    assert (found.request, found.completion) == (given_.request, given_.completion)
    assert found.asked == found.task == found.caller == text[:128]
    assert [x.id for x in store.traffic.recent(asked=text)] == [given_.id]
    assert sum(b.num_rows for b in store.traffic.read(task=text)) == 1
    assert [m.asked for m in store.traffic.minutes(NOON, NOON + 60)] == [text[:128]]


def test_awkward_numbers(store):
    absurd = Completion("a", "m", Usage(10**30, -5, 3), math.inf, latency=1.0)
    store.traffic.add(
        [
            exchange(1, completion=absurd, baseline=math.nan, latency=math.nan),
            exchange(2, request=Request.of("x", seed=10**40)),
        ]
    )
    found = store.traffic.get("req_00000001")
    assert (found.prompt_tokens, found.completion_tokens, found.cost) == (2**53, 0, None)
    assert (found.baseline, found.latency) == (None, 0.0)
    assert store.traffic.get("req_00000002").request.params["seed"] == 10**40
    (minute, _) = store.traffic.minutes(NOON, NOON + 60)
    assert minute.cost + minute.latency < 10


def test_what_is_no_json_is_refused_with_all_the_group(store):
    bad = exchange(2, completion=Completion("secret text", "m", extra={"x": object()}))
    with pytest.raises(StoreError, match="req_00000002") as caught:
        store.traffic.add([exchange(1), bad])
    assert "secret" not in str(caught.value)
    assert store.traffic.count() == 0
    store.traffic.add([exchange(1)])
    with pytest.raises(StoreError):
        store.traffic.add([exchange(3), exchange(1)])
    assert store.traffic.count() == 1, "an id is used once; nothing of the group was written"
    assert [m.requests for m in store.traffic.minutes(0, 2e9)] == [1]


def test_an_id_twice_in_a_group_counts_once(store):
    store.traffic.add([exchange(1), exchange(2), exchange(1)])
    assert store.traffic.count() == sum(m.requests for m in store.traffic.minutes(0, 2e9)) == 2


def test_adding_again_adds_what_is_missing(store):
    store.traffic.add([exchange(i) for i in range(3)])
    for _ in range(2):
        store.traffic.write(Group([exchange(i) for i in range(1200)]), again=True)
    store.traffic.add([])
    assert store.traffic.count() == 1200
    assert sum(m.requests for m in store.traffic.minutes(0, 2e9)) == 1200


EXCHANGES = st.lists(
    st.builds(
        lambda minute, asked, model, task, status, latency, cost, baseline, failed, escalated: (
            exchange(
                0,
                time=NOON + 60 * minute,
                asked=asked,
                task=task,
                status=status,
                latency=latency,
                baseline=baseline,
                completion=None
                if failed
                else Completion("a", model, Usage(3, 2), cost, decisions=ESCALATED * escalated),
            )
        ),
        st.integers(0, 2),
        st.sampled_from("ab"),
        st.sampled_from(["small", "large"]),
        st.sampled_from(["", "t"]),
        st.sampled_from([200, 200, 429, 500]),
        st.floats(0, 100),
        st.none() | st.floats(0, 1),
        st.none() | st.floats(0, 1),
        st.booleans(),
        st.booleans(),
    ),
    max_size=60,
)


@SAME_STORE
@given(exchanges=EXCHANGES, size=st.integers(1, 50))
def test_minutes_are_the_sums_of_the_requests(store, exchanges, size):
    with store._database.write() as connection:
        connection.exec_driver_sql("DELETE FROM pilotfish_traffic")
        connection.exec_driver_sql("DELETE FROM pilotfish_traffic_minutes")
    exchanges = [replace(x, id=f"req_{i}") for i, x in enumerate(exchanges)]
    for start in range(0, len(exchanges), size):
        store.traffic.add(exchanges[start : start + size])
    minutes = list(store.traffic.minutes(NOON, NOON + 180))
    assert list(store.traffic.minutes(NOON - 999, NOON)) == []
    keys = [(m.minute, m.asked, m.model, m.task, m.status) for m in minutes]
    assert len(set(keys)) == len(keys)
    groups: dict[tuple, list[Exchange]] = {}
    for x in exchanges:
        model = x.completion.model if x.completion else ""
        groups.setdefault((int(x.time // 60), x.asked, model, x.task, x.status), []).append(x)
    assert set(keys) == set(groups)
    for minute, key in zip(minutes, keys, strict=True):
        rows = groups[key]
        answers = [x.completion for x in rows if x.completion]
        costs = [c.cost for c in answers if c.cost is not None]
        baselines = [x.baseline for x in rows if x.baseline is not None]
        both = [
            x
            for x in rows
            if x.completion and x.completion.cost is not None and x.baseline is not None
        ]
        assert minute.requests == len(rows)
        assert minute.errors == sum(x.status >= 400 for x in rows)
        assert minute.escalated == sum(bool(c.decisions) for c in answers)
        assert minute.prompt_tokens == 3 * len(answers)
        assert minute.completion_tokens == 2 * len(answers)
        assert minute.cost == pytest.approx(sum(costs))
        assert minute.unpriced == len(answers) - len(costs)
        assert minute.baseline == pytest.approx(sum(baselines))
        assert minute.baseline_unknown == len(rows) - len(baselines)
        assert minute.compared == len(both)
        assert minute.compared_cost == pytest.approx(sum(x.completion.cost for x in both))
        assert minute.compared_baseline == pytest.approx(sum(x.baseline for x in both))
        assert minute.latency == pytest.approx(sum(x.latency for x in rows))
        assert minute.histogram == Histogram.of(x.latency for x in rows)


def test_unknown_model_names_make_one_row(store):
    nobody = {"completion": None, "status": 404, "error": "model_not_found"}
    store.traffic.add([exchange(i, asked=f"guess {i}", **nobody) for i in range(50)])
    assert [(m.asked, m.requests) for m in store.traffic.minutes(0, 2e9)] == [("", 50)]
    assert store.traffic.recent(1)[0].asked == "guess 49"


def test_the_longest_names_fit_postgresqls_index(store):
    name = "\x00" * 200
    store.traffic.add(
        [exchange(1, asked=name, task=name, completion=Completion("", name), error=name)]
    )
    assert store.traffic.get("req_00000001").task == name[:128]


def test_a_skipped_or_failed_member_is_no_escalation():
    skipped = Decision("cascade", "", "not-certified", rejected=("small",))
    answer = Completion("a", "large", decisions=(skipped, Decision("cascade", "large", "last")))
    group = Group([exchange(1, completion=answer), exchange(2)])
    assert [sums.escalated for sums in group.minutes.values()] == [1]


def test_reading_by_task_and_time(store):
    tasks = ["", "spam", "tone"]
    store.traffic.add([exchange(i, task=tasks[i % 3]) for i in range(90)])
    table = pa.Table.from_batches(list(store.traffic.read(batch=7)))
    assert table["id"].to_pylist() == [f"req_{i:08x}" for i in range(90)]
    assert Counter(table["task"].to_pylist()) == dict.fromkeys(tasks, 30)
    row = table.slice(1, 1).to_pylist()[0]
    assert row["time"] == datetime.fromtimestamp(NOON + 1, UTC)
    assert from_dict(Request, json.loads(row["request"])) == exchange(1).request
    assert from_dict(Completion, json.loads(row["completion"])) == exchange(1).completion
    since = datetime.fromtimestamp(NOON + 60, UTC)
    table = pa.Table.from_batches(list(store.traffic.read(since=since, task="spam", batch=4)))
    assert table["id"].to_pylist() == [f"req_{i:08x}" for i in range(61, 90, 3)]
    assert list(store.traffic.read(task="other")) == []
    assert list(store.traffic.read(since=datetime.now(UTC).replace(year=2090))) == []
    with pytest.raises(StoreError, match="time zone"):
        next(store.traffic.read(since=datetime(2026, 1, 1)))
    with pytest.raises(StoreError, match="batch=0"):
        next(store.traffic.read(batch=0))


def test_reading_a_rare_task_uses_its_index(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        seen = []

        def note(connection, cursor, statement, parameters, context, many):
            seen.append((statement, parameters))

        sa.event.listen(store._database.engine, "before_cursor_execute", note)
        store.traffic.add([exchange(i, task="rare" * (i == 500)) for i in range(1000)])
        (batch,) = store.traffic.read(task="rare")
        assert batch["id"].to_pylist() == ["req_000001f4"]
        statement, parameters = next(
            s for s in seen if "SELECT pilotfish_traffic.request_id" in s[0]
        )
        with store._database.read() as connection:
            plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", parameters).all()
        assert "pilotfish_traffic_task" in str(plan)


WRITE = """
import sys
from pilotfish.store.store import open_store
from tests.store.test_traffic import exchange
url, first = sys.argv[1], int(sys.argv[2])
with open_store(url) as store:
    print("ready", flush=True)
    sys.stdin.readline()
    for start in range(first, first + 1000, 20):
        store.traffic.add([exchange(i, time=1_790_000_040.0 + i % 120)
                           for i in range(start, start + 20)])
"""


def test_gateways_that_write_at_once_lose_nothing(url):
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITE, url, str(first)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for first in (0, 1000, 2000)
    ]
    for writer in writers:
        assert writer.stdout.readline() == "ready\n"
    for writer in writers:
        writer.stdin.write("go\n")
        writer.stdin.flush()
    for writer in writers:
        writer.communicate(timeout=60)
        assert writer.returncode == 0
    with open_store(url) as store:
        assert store.traffic.count() == 3000
        minutes = list(store.traffic.minutes(0, 2e9))
        assert sum(m.requests for m in minutes) == 3000
        assert sum(len(m.histogram) for m in minutes) == 3000


def test_feedback(store):
    first = Feedback("req_1", "spam", 0.0, "no: \x00 \ud800", "key_1", 5.0)
    store.feedback.add(first)
    store.feedback.add(Feedback("req_1", score=1.0))
    store.feedback.add(Feedback("req_2", "ham"))
    assert store.feedback.about(["req_1"])[0] == first
    assert [f.score for f in store.feedback.about(["req_1", "req_3"])] == [0.0, 1.0]
    assert [f.request_id for f in store.feedback.recent(2)] == ["req_2", "req_1"]


@pytest.mark.parametrize(
    "wrong",
    [
        Feedback("r", score=1.1),
        Feedback("r", score=math.nan),
        Feedback("r" * 200),
    ],
)
def test_wrong_feedback_is_refused(store, wrong):
    with pytest.raises(InputError, match="expected"):
        store.feedback.add(wrong)
    assert store.feedback.recent() == []


def test_checks(store):
    check = Check("req_1", "both", "small", "large", False, "yes \x00", "no", 0.5, 7.0)
    store.checks.add(check)
    store.checks.add(Check("req_2", "other", "small", "large", True, cost=math.inf))
    assert store.checks.recent(asked="both") == [check]
    assert [c.cost for c in store.checks.recent()] == [None, 0.5]


def test_the_store_says_whether_it_can_be_written(store, tmp_path):
    store.check()
    assert isinstance(store.traffic, Traffic)
