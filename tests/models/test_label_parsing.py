"""Strict parsing of written answers: a label, a set of labels, a rating, or nothing."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.errors import BadAnswer, InputError
from pilotfish.models.labels import parse_label, parse_labels, parse_rating

TOPICS = ["sport", "sports news", "a, b", "Straße", "3", "none of these"]


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("sport", "sport"),
        ("  Sports   News.\n", "sports news"),
        ('"a, b"', "a, b"),
        ("STRASSE", "Straße"),
        ("Label: sport", "sport"),
        ("The answer is: 'sport'.", "sport"),
        ("**Answer:** sport", "sport"),
        ('{"label": "sport"}', "sport"),
        ('```json\n{"label": "Sport"}\n```', "sport"),
        ('{"answer": 3}', "3"),
        ('["sport"]', "sport"),
        ("3", "3"),
        ("None of these", "none of these"),
    ],
)
def test_labels_that_parse(text: str, label: str) -> None:
    assert parse_label(text, TOPICS) == label


@pytest.mark.parametrize(
    "text",
    [
        "",
        "sport or a, b",
        "It is about sport",
        "sport, sports news",
        "sports",
        "not sport",
        '{"label": "sport", "answer": "3"}',
        '["sport", "3"]',
        "3.0",
        "sport\nsports news",
        '{"label": null}',
        "true",
    ],
)
def test_labels_that_do_not_parse(text: str) -> None:
    with pytest.raises(BadAnswer, match="expected exactly one of"):
        parse_label(text, TOPICS)


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("sport, 3", ["sport", "3"]),
        ("3; Sport", ["sport", "3"]),
        ("- a, b\n- sport", ["sport", "a, b"]),
        ("sport, a, b, 3", ["sport", "a, b", "3"]),
        ('["a, b", "sport"]', ["sport", "a, b"]),
        ('{"labels": ["sport"]}', ["sport"]),
        ("[]", []),
        ("None", []),
        ("", []),
        ("sport, sport", ["sport"]),
    ],
)
def test_sets_of_labels(text: str, labels: list[str]) -> None:
    assert parse_labels(text, TOPICS) == labels


@pytest.mark.parametrize(
    "text", ["sport, tennis", "maybe sport", '["tennis"]', '{"x": 1}', "[1.5]"]
)
def test_sets_with_strangers_do_not_parse(text: str) -> None:
    with pytest.raises(BadAnswer, match="expected a list of labels"):
        parse_labels(text, TOPICS)


@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=8))
def test_every_label_of_a_usable_set_reads_back_as_itself(labels: list[str]) -> None:
    try:
        found = [parse_label(label, labels) for label in labels]
    except InputError:
        return
    assert found == labels
    assert parse_labels(json.dumps(labels), labels) == labels


def test_ratings() -> None:
    values = ["1", "2", "3", "4", "5"]
    for text in ("4", "4.0", " Rating: 4.", "4/5", "4 out of 5", '{"rating": 4}', '"4"'):
        assert parse_rating(text, values) == "4"
    for text in ("6", "4.5", "four", "4 or 5", "3-4", "", "nan", "true", "4/10"):
        with pytest.raises(BadAnswer, match="Got the answer"):
            parse_rating(text, values)
    assert parse_rating("85/100", scale=(0, 100)) == "85"
    assert parse_rating("-0.25", scale=(-1, 1)) == "-0.25"
    for text in ("101", "inf", "Infinity", "about 50"):
        with pytest.raises(BadAnswer, match=r"a number in \[0, 100\]"):
            parse_rating(text, scale=(0, 100))
