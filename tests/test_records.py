"""Records: round trips through JSON and Arrow, and keys that stay the same for ever."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotfish.records import (
    Completion,
    Decision,
    Example,
    Inputs,
    Request,
    Usage,
    canonical_json,
    from_dict,
    from_table,
    schema,
    to_dict,
    to_table,
)

text = st.text(max_size=20)
number = st.floats(allow_nan=False, allow_infinity=False)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | number | text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(text, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(text, json_values, max_size=4)
tuples_of_objects = st.lists(objects, max_size=3).map(tuple)
requests = st.builds(
    Request, messages=tuples_of_objects, params=objects, task=text, user=text, tags=objects
)
counts = st.integers(0, 2**40)
decisions = st.builds(
    Decision,
    by=text,
    chose=text,
    reason=text,
    score=st.none() | number,
    threshold=st.none() | number,
    rejected=st.lists(text, max_size=3).map(tuple),
)
completions = st.builds(
    Completion,
    text=text,
    model=text,
    usage=st.builds(Usage, counts, counts, counts),
    cost=st.none() | number,
    latency=number,
    finish_reason=text,
    logprobs=st.none() | tuples_of_objects,
    tool_calls=tuples_of_objects,
    label_probs=st.none() | st.dictionaries(text, number, max_size=3),
    decisions=st.lists(decisions, max_size=3).map(tuple),
    cached=st.booleans(),
    extra=objects,
)
examples = st.builds(
    Example, input=text, output=text, label=text, weight=number, provenance=objects
)
records = requests | completions | decisions | examples
tables = st.one_of(
    *(st.lists(kind, max_size=4) for kind in (requests, completions, decisions, examples))
)


@given(records)
def test_dict_and_back(record: Any) -> None:
    plain = to_dict(record)
    assert json.loads(json.dumps(plain)) == plain
    assert from_dict(type(record), plain) == record


@settings(max_examples=60)
@given(tables)
def test_arrow_and_back(rows: list[Any]) -> None:
    for kind in {type(row) for row in rows} or {Request}:
        table = to_table(rows, kind)
        assert table.schema == schema(kind)
        assert table.num_rows == len(rows)
        assert from_table(table, kind) == rows


def test_a_file_and_back(tmp_path: Any) -> None:
    rows = [Example("a", "b", weight=2, provenance={"model": "m", "deep": {"x": [1, None, "é"]}})]
    pq.write_table(to_table(rows, Example), tmp_path / "e.parquet")
    assert from_table(pq.read_table(tmp_path / "e.parquet"), Example) == rows


@pytest.mark.parametrize("kind", [Request, Completion, Decision, Example])
def test_every_field_has_a_column(kind: Any) -> None:
    assert schema(kind).names == [field.name for field in dataclasses.fields(kind)]
    assert all(t in {pa.string(), pa.float64(), pa.bool_()} for t in schema(kind).types)
    assert to_table([], kind).num_rows == 0


def test_later_versions_can_be_read() -> None:
    plain = to_dict(
        Completion("a", "m", usage=Usage(1, 2, 3), decisions=(Decision("x", "y", "z"),))
    )
    plain["new_field"] = 1
    plain["usage"]["reasoning_tokens"] = 9
    plain["decisions"][0]["confidence"] = 0.5
    read = from_dict(Completion, plain)
    assert read.usage == Usage(1, 2, 3)
    assert read.decisions == (Decision("x", "y", "z"),)


@given(requests, text)
def test_a_key_depends_on_what_is_sent_and_on_nothing_else(request: Request, other: str) -> None:
    key = request.key("m")
    assert len(key) == 64
    assert from_dict(Request, to_dict(request)).key("m") == key
    reordered = {name: request.params[name] for name in reversed(list(request.params))}
    same = dataclasses.replace(request, params=reordered, tags={"x": other}, user=other, task=other)
    assert same.key("m") == key
    assert request.key("m2") != key
    changed = dataclasses.replace(request, params={**request.params, "another": other})
    assert changed.key("m") != key or changed.params == request.params
    said = dataclasses.replace(
        request, messages=(*request.messages, {"role": "user", "content": other})
    )
    assert said.key("m") != key


def test_keys_never_change_between_versions() -> None:
    """A changed key makes users pay again for all they have asked: these values are for ever."""
    assert (
        Request.of("Hi", temperature=0).key("openai:gpt-4.1-mini")
        == "77a9e7bf39dacdec75bccf4a10248630cd59c19724db7026f92592ed8c08a77d"
    )
    request = Request.of("Grüße 👋", system="Be brief.", stop=["\n"], labels=["a", "b"])
    assert request.key("m") == "befc9abb6afa074873088024177249a81ecf891ab58e703b913ad43b9e4d09cc"


def test_keys_of_texts_that_are_not_unicode() -> None:
    lone = Request.of("\ud800")
    assert lone.key("m") != Request.of("\ud801").key("m")


def test_a_boundary_between_model_and_messages_cannot_be_forged() -> None:
    assert Request.of("x").key('m",[') != Request.of('",[x').key("m")
    assert Request.of("x", temperature=0).key("m") != Request.of("x", temperature="0").key("m")


def test_the_prompt_is_the_last_users_text() -> None:
    assert Request.of("a", system="s").prompt == "a"
    assert Request(messages=()).prompt == ""
    parts = ({"type": "text", "text": "a"}, {"type": "image_url"}, {"type": "text", "text": "b"})
    assert Request(messages=({"role": "user", "content": parts},)).prompt == "ab"
    turns = ({"role": "user", "content": "1"}, {"role": "assistant", "content": "2"})
    assert Request(messages=turns).prompt == "1"
    assert Request(messages=({"role": "user", "content": None},)).prompt == ""


def test_records_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Request.of("x").task = "y"  # type: ignore[misc]


def test_what_json_cannot_hold_is_refused() -> None:
    with pytest.raises(TypeError, match="expected JSON values"):
        Request.of("x", tool=object()).key("m")


@given(json_values)
def test_canonical_json_is_json(value: Any) -> None:
    assert json.loads(canonical_json(value)) == value


def test_usage_adds_up() -> None:
    assert Usage(1, 2, 3) + Usage(10, 20, 30) == Usage(11, 22, 33)


@given(st.lists(st.tuples(text, number), min_size=1, max_size=6), st.data())
def test_inputs_keep_columns_together(rows: list[tuple[str, float]], data: st.DataObject) -> None:
    inputs = Inputs([row[0] for row in rows], {"x": [row[1] for row in rows]})
    chosen = data.draw(st.lists(st.integers(0, len(rows) - 1)))
    taken = inputs.take(chosen)
    assert len(taken) == len(chosen)
    assert list(zip(taken.texts, taken.fields["x"], strict=True)) == [rows[i] for i in chosen]
