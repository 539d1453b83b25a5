"""Answers, the log and spending: the same on both databases."""

from __future__ import annotations

import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pytest
import sqlalchemy as sa
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pilotfish.errors import StoreError
from pilotfish.records import Completion, Decision, Request, Usage, from_dict
from pilotfish.store.encoding import escape, json_text, pack_json, unescape, unpack_json
from pilotfish.store.store import Store, open_store

# Every code point, also NUL and lone surrogates, which databases refuse.
ANY_TEXT = st.text(st.characters())
SAME_STORE = settings(
    max_examples=40,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
AWKWARD = ["", "\x00", "a\x00b", "\ud800", "\ud83d\ude00", "😀", "\\u0000", "\\", "'; --"]
AWKWARD += ["x" * 2**20, "\x00" * 2**14]


def entry(i: int, text: str = "", model: str = "m", **values):
    request = Request.of(f"question {i}", temperature=0)
    return request.key(model), request, Completion(text or f"answer {i}", model, **values)


def json_values():
    leaf = st.none() | st.booleans() | st.integers(-(2**60), 2**60) | ANY_TEXT
    leaf |= st.floats(allow_nan=False)
    return st.recursive(
        leaf,
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_TEXT, inner, max_size=3),
    )


requests = st.builds(
    Request,
    messages=st.lists(st.dictionaries(ANY_TEXT, json_values(), max_size=3), max_size=3).map(tuple),
    params=st.dictionaries(ANY_TEXT, json_values(), max_size=3),
    task=ANY_TEXT,
    user=ANY_TEXT,
)
counts = st.integers(0, 2**40)
decisions = st.builds(
    Decision, by=ANY_TEXT, chose=ANY_TEXT, reason=ANY_TEXT, score=st.none() | st.floats(0, 1)
)
completions = st.builds(
    Completion,
    text=ANY_TEXT,
    model=ANY_TEXT,
    usage=st.builds(Usage, counts, counts, counts),
    cost=st.none() | st.floats(0, 1e6),
    latency=st.floats(0, 1e6),
    finish_reason=ANY_TEXT,
    logprobs=st.none() | st.lists(st.dictionaries(ANY_TEXT, json_values(), max_size=2)).map(tuple),
    label_probs=st.none() | st.dictionaries(ANY_TEXT, st.floats(0, 1), max_size=3),
    decisions=st.lists(decisions, max_size=2).map(tuple),
    cached=st.booleans(),
    extra=st.dictionaries(ANY_TEXT, json_values(), max_size=2),
)


@SAME_STORE
@given(key=ANY_TEXT, request_=requests, completion=completions, task=ANY_TEXT, run=ANY_TEXT)
def test_what_is_put_comes_back(store, key, request_, completion, task, run):
    key = f"{time.perf_counter_ns()}{key}"
    store.put([(key, request_, completion)], task=task, run=run)
    assert store.get([key]) == {key: completion}
    batches = list(store.calls(run=run))
    row = pa.Table.from_batches(batches).to_pylist()[-1]
    # Arrow text cannot hold lone surrogates, JSON escapes can; the one loss is that two lone
    # surrogates in a row become the character that they stand for.
    meant = json.loads(json_text(pack_json(text := completion.text)))
    assert from_dict(Completion, json.loads(row["completion"])).text == meant
    assert meant == text or "\ud800" <= max(text) <= "\udfff" or any(c >= "\ud800" for c in text)


@pytest.mark.parametrize("text", AWKWARD, ids=range(len(AWKWARD)))
def test_awkward_texts_everywhere(store, text):
    name = text[:200]
    request = Request(({"role": "user", "content": text},), {"stop": [text]}, task=name)
    completion = Completion(text, text, extra={text: text})
    store.put([(name, request, completion)], run=name)
    store.log([(name, Decision(text, text, text, rejected=(text,)))], task=name, run=name)
    assert store.get([name, "other"]) == {name: completion}
    assert store.count(task=name, run=name, model=text) == 1
    assert [row.model for row in store.spending(model=text)] == [text]
    assert sum(b.num_rows for b in store.calls(task=name, run=name)) == 1
    assert sum(b.num_rows for b in store.decisions(task=name, run=name)) == 1
    with store.run(name, name, {text: text}) as run:
        run.set(name, {text: [text]})
        assert run.get(name) == {text: [text]}


@pytest.mark.parametrize("names", [{"task": "x" * 201}, {"run": "x" * 201}])
def test_long_names_are_refused_alike_everywhere(store, names):
    with pytest.raises(StoreError, match="201 characters"):
        store.put([entry(1)], **names)
    with pytest.raises(StoreError, match="201 characters"):
        store.log([("k", Decision("a", "b", "c"))], **names)
    with pytest.raises(StoreError, match="201 characters"):
        store.run("kind", "x" * 201, {})


@given(ANY_TEXT)
def test_escaped_text_is_storable_and_comes_back(text):
    escaped = escape(text)
    escaped.encode("utf-8")
    assert "\x00" not in escaped
    assert unescape(escaped) == text


@given(ANY_TEXT, ANY_TEXT)
def test_escaping_is_injective(one, other):
    assert (escape(one) == escape(other)) == (one == other)


@given(json_values())
def test_json_comes_back(value):
    assert unpack_json(pack_json(value)) == value


def test_floats_that_json_lacks_come_back(store):
    completion = Completion("a", "m", logprobs=({"token": "a", "logprob": float("-inf")},))
    store.put([("k", Request.of("q"), completion)])
    assert store.get(["k"])["k"] == completion


def test_any_number_of_keys(store):
    entries = [entry(i) for i in range(2500)]
    store.put(entries)
    keys = [key for key, _, _ in entries]
    found = store.get([*reversed(keys), "unknown", keys[0]])
    assert found == {key: completion for key, _, completion in entries}
    assert store.get([]) == {}


def test_the_first_answer_stays(store):
    key, request, first = entry(1, "first")
    store.put([(key, request, first), (key, request, Completion("in the same batch", "m"))])
    store.put([(key, request, Completion("later", "other"))])
    assert store.get([key])[key] == first
    assert store.count() == 1
    store.put([])
    assert store.count() == 1


def test_put_is_all_or_nothing(store):
    def entries():
        for i in range(1500):
            yield entry(i)
        yield "bad", Request.of("x"), Completion("x", "m", extra={"no JSON": object()})

    with pytest.raises(TypeError):
        store.put(entries())
    with pytest.raises(StoreError):  # refused by the database, after a thousand rows were inserted
        store.put([*(entry(i) for i in range(1500)), entry(2000, usage=Usage(10**30))])
    assert store.count() == 0


def test_answers_survive_closing(url):
    with open_store(url) as store:
        store.put([entry(1)])
    with open_store(url, durable="full") as store:
        assert store.get([entry(1)[0]])[entry(1)[0]].text == "answer 1"
        store.put([entry(2)])
    with open_store(url) as store:
        assert store.count() == 2


def test_calls_streams_everything_once_in_batches(store):
    for start in range(0, 1000, 100):
        store.put([entry(i) for i in range(start, start + 100)], task="t", run="r")
    batches = list(store.calls(batch=64))
    assert [b.num_rows for b in batches] == [64] * 15 + [40]
    table = pa.Table.from_batches(batches)
    assert sorted(table["key"].to_pylist()) == sorted(entry(i)[0] for i in range(1000))
    times = table["time"].to_pylist()
    assert times == sorted(times)
    assert table.schema.field("time").type == pa.timestamp("us", tz="UTC")
    row = table.to_pylist()[0]
    request = from_dict(Request, json.loads(row["request"]))
    completion = from_dict(Completion, json.loads(row["completion"]))
    assert request.key("m") == row["key"]
    assert completion == store.get([row["key"]])[row["key"]]
    assert (row["task"], row["run"], row["model"], row["cost"]) == ("t", "r", "m", None)
    assert list(store.calls(model="nobody")) == []
    with pytest.raises(StoreError, match="batch=0"):
        next(store.calls(batch=0))


def test_calls_may_be_put_while_reading(store):
    store.put([entry(i) for i in range(10)])
    reading = store.calls(batch=5)
    assert next(reading).num_rows == 5
    store.put([entry(i) for i in range(10, 13)])
    assert sum(batch.num_rows for batch in reading) == 8


def test_filters(store):
    store.put([entry(1)], task="a", run="1")
    store.put([entry(2)], task="a", run="2")
    moment = datetime.now(UTC)
    time.sleep(0.01)
    store.put([entry(3, model="n")], task="b", run="2")
    key, request, completion = entry(4)
    own = Request(request.messages, request.params, task="own")
    store.put([(key, own, completion)])

    def count(**filters):
        assert sum(b.num_rows for b in store.calls(**filters)) == store.count(**filters)
        return store.count(**filters)

    assert count() == 4
    assert count(task="a") == 2
    assert count(run="2") == 2
    assert count(task="a", run="2") == 1
    assert count(model="n") == 1
    assert count(since=moment) == 2
    assert count(since=moment - timedelta(hours=1)) == 4
    assert count(task="own") == 1, "the request's own task counts when put names none"
    assert count(run="") == 1
    with pytest.raises(StoreError, match="without a time zone"):
        store.count(since=datetime.now())


def test_spending_does_not_take_unknown_for_nothing(store):
    assert store.spending() == []
    store.put(
        [
            entry(1, model="priced", cost=0.25, usage=Usage(10, 2, 1)),
            entry(2, model="priced", cost=0.5, usage=Usage(20, 3, 0)),
            entry(3, model="mixed", cost=0.5),
            entry(4, model="mixed", cost=None),
            entry(5, model="free", cost=0.0),
            entry(6, model="free", cost=99.0, cached=True),
        ],
        task="t",
    )
    free, mixed, priced = store.spending()
    assert (priced.model, priced.calls, priced.cost) == ("priced", 2, 0.75)
    tokens = (priced.prompt_tokens, priced.completion_tokens, priced.cached_tokens)
    assert tokens == (30, 5, 1)
    assert (mixed.cost, mixed.known_cost, mixed.unpriced) == (None, 0.5, 1)
    assert (free.cost, free.calls) == (0.0, 1), "a cached answer was paid for elsewhere"
    assert store.spending(task="other") == []


def test_decisions_are_appended(store):
    decided = Decision("cascade", "small", "score>=threshold", 0.9, 0.8, ("large", "huge"))
    store.log([("k1", decided), ("k2", Decision("router", "large", "default"))], task="t", run="r")
    store.log([("k1", decided)])
    store.log([])
    rows = pa.Table.from_batches(store.decisions(batch=2)).to_pylist()
    assert [row["key"] for row in rows] == ["k1", "k2", "k1"]
    assert rows[0]["score"] == 0.9
    assert json.loads(rows[0]["rejected"]) == ["large", "huge"]
    assert rows[1]["threshold"] is None
    assert rows[0]["time"].tzinfo is not None
    assert sum(b.num_rows for b in store.decisions(task="t", run="r")) == 2


def test_many_threads(store):
    def work(number):
        for i in range(20):
            store.put([entry(number * 20 + i), entry(10_000 + i)])
            assert len(store.get([entry(number * 20 + i)[0], entry(10_000 + i)[0]])) == 2

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    assert store.count() == 8 * 20 + 20


def test_stored_text_can_be_read_by_hand(url, store):
    store.put([entry(1)], task="topics")
    store.log([("k", Decision("cascade", "small", "score>=threshold"))])
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.connect() as connection:
        rows = connection.execute(
            sa.text("SELECT task, model, completion, time FROM pilotfish_calls")
        ).one()
    engine.dispose()
    assert rows[:2] == ("topics", "m")
    assert json.loads(bytes(rows[2]))["text"] == "answer 1"


def test_store_in_memory():
    with open_store("sqlite://") as one, open_store("sqlite:///:memory:") as other:
        one.put([entry(1)])
        assert (one.count(), other.count()) == (1, 0)
        threads = [threading.Thread(target=lambda: one.put([entry(2)])) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert one.count() == 2
    assert isinstance(one, Store)
