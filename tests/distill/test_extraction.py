"""The extraction student against the rule that wrote its lessons, and its parts against slow ones."""

from __future__ import annotations

import json
import random
from typing import Any

import jsonschema
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilotfish.distill.calibrate import expected_calibration_error
from pilotfish.distill.extraction import CrossFitted, Extraction, Objects, fit_extraction
from pilotfish.distill.objects import (
    Style,
    Validator,
    asked_schema,
    assemble,
    is_schema,
    leaves,
    schema_of,
)
from pilotfish.distill.spans import PLACES, choose_spans, meant
from pilotfish.distill.tagger import Problem, Tagger, Weights, fit_tagger
from pilotfish.distill.tokens import Tokens, Vocabulary
from pilotfish.distill.values import TRANSFORMATIONS
from pilotfish.errors import ArtifactError, BadAnswer, InputError
from pilotfish.models.load import load_encoder
from pilotfish.models.objects import canonical_value, parse_object, same_object
from pilotfish.records import Inputs
from tests.loop.documents import answer, mails


def learned(pairs: list[tuple[str, Any]], **options: Any) -> CrossFitted:
    texts = [text for text, _ in pairs]
    answers = [value if isinstance(value, str) else answer(value) for _, value in pairs]
    return fit_extraction(Inputs(texts), Objects.of(answers), **options)


@pytest.fixture(scope="module")
def fitted() -> CrossFitted:
    return learned(mails(200))


def agreement(student: Extraction, pairs: list[tuple[str, Any]]) -> float:
    answers, _ = student.predict([text for text, _ in pairs])
    return float(
        np.mean([same_object(a, answer(v)) for a, (_, v) in zip(answers, pairs, strict=True)])
    )


def test_it_finds_what_the_rule_finds(fitted: CrossFitted) -> None:
    """Names, codes, money, dates in three notations, phone numbers or null, a class of the whole."""
    assert agreement(fitted.student, mails(300, seed=1)) >= 0.97
    assert fitted.agreed.mean() >= 0.97
    made = {one.path[0]: type(one.maker).__name__ for one in fitted.student.fields}
    assert made["reason"] == "Closed"
    assert {made[name] for name in ("name", "order", "total", "date", "phone")} == {"Tagged"}


def test_answers_look_like_the_large_models(fitted: CrossFitted) -> None:
    ((text, value),) = mails(1, seed=5)
    answers, scores = fitted.student.predict([text])
    assert answers == [answer(value)]  # to the letter: order of keys, indentation, 1234.5 and null
    assert scores[0] > 0.9


@settings(max_examples=60, deadline=None)
@given(
    text=st.text(max_size=300) | st.integers(0, 10_000).map(lambda i: mails(1, i)[0][0][: i % 300])
)
def test_every_answer_is_valid_under_the_schema(fitted: CrossFitted, text: str) -> None:
    (said,), scores = fitted.student.predict([text])
    jsonschema.validate(json.loads(said), fitted.student.schema)
    assert 0 <= scores[0] <= 1


def test_a_schema_that_is_asked_for_is_kept(fitted: CrossFitted) -> None:
    """The requests allow no such city: such objects get the score 0, and so go to the large model."""
    asked = schema_of([value for _, value in mails(50)])
    asked["properties"]["city"] = {"enum": ["LYON", "PORTO"]}
    student = learned(mails(150), asked=asked).student
    pairs = mails(80, seed=3)
    answers, scores = student.predict([text for text, _ in pairs])
    valid = np.array([Validator(asked)(json.loads(a)) for a in answers])
    assert 0 < valid.sum() < len(pairs)
    assert (scores[~valid] == 0).all()
    assert scores[valid].mean() > 0.5


def test_it_comes_back_from_its_files(fitted: CrossFitted) -> None:
    card, arrays, _ = fitted.student.files()
    card = json.loads(json.dumps(card))
    again = Extraction.restore(card, arrays, load_encoder)
    texts = [text for text, _ in mails(40, seed=9)]
    one, two = fitted.student.predict(texts), again.predict(texts)
    assert one[0] == two[0]
    assert np.array_equal(one[1], two[1])
    with pytest.raises(ArtifactError, match="format"):
        Extraction.restore({**card, "format": "label"}, arrays, load_encoder)
    for part in ("0.tokens", "0.bias"):
        fewer = {k: v for k, v in arrays.items() if k != part}
        with pytest.raises(ArtifactError, match="lack"):
            Extraction.restore(card, fewer, load_encoder)
    del card["fields"]
    with pytest.raises(ArtifactError, match="lack"):
        Extraction.restore(card, arrays, load_encoder)


def test_a_field_that_is_invented_is_refused_by_name() -> None:
    rng = random.Random(0)
    pairs = [(text, {**value, "id": rng.getrandbits(60)}) for text, value in mails(80)]
    with pytest.raises(InputError, match="'id' cannot be learned"):
        learned(pairs)
    pairs = [(t, {**v, "items": [{"n": i, "m": str(v)}]}) for i, (t, v) in enumerate(mails(80))]
    with pytest.raises(InputError, match=r"'items' .* list of things"):
        learned(pairs)


def test_the_score_is_the_probability_of_being_right() -> None:
    """A quarter of the reasons are drawn at random, so no score may be near 1."""
    rng = random.Random(1)
    reasons = sorted({value["reason"] for _, value in mails(50)})

    def noisy(pairs: list[tuple[str, Any]]) -> list[tuple[str, Any]]:
        return [
            (text, {**value, "reason": rng.choice(reasons)} if rng.random() < 0.25 else value)
            for text, value in pairs
        ]

    student = learned(noisy(mails(300))).student
    fresh = noisy(mails(600, seed=8))
    answers, scores = student.predict([text for text, _ in fresh])
    right = np.array([same_object(a, answer(v)) for a, (_, v) in zip(answers, fresh, strict=True)])
    assert expected_calibration_error(scores, right) < 0.08
    assert abs(scores.mean() - right.mean()) < 0.06
    assert right.mean() > 0.7


def test_unlikely_inputs_get_low_scores(fitted: CrossFitted) -> None:
    known = fitted.student.predict([text for text, _ in mails(30, seed=4)])[1]
    other = fitted.student.predict(["", "Hello", "Buy 3 pies in June 2025.", "xyz " * 50])[1]
    assert known.min() > other.max()


def test_nested_absent_and_null_fields() -> None:
    rng = random.Random(2)
    pairs: list[tuple[str, Any]] = []
    for _ in range(200):
        city, code = rng.choice(["Lyon", "Porto", "Graz"]), str(rng.randint(10_000, 99_999))
        if rng.random() < 0.3:
            pairs.append((f"Nothing to ship {rng.random():.3f}", {"to": None, "tags": []}))
        else:
            value = {"to": {"city": city, "zip": code}, "tags": ["ship"]}
            gift = rng.random() < 0.5
            text = f"Please ship to {city} {code}" + (" as a gift" if gift else "")
            pairs.append((text, {**value, "gift": True} if gift else value))
    fitted = learned(pairs[:150])
    assert agreement(fitted.student, pairs[150:]) >= 0.95
    for text, _ in pairs:
        jsonschema.validate(json.loads(fitted.student.predict([text])[0][0]), fitted.student.schema)


def test_lists_of_things_in_the_text() -> None:
    rng = random.Random(4)
    pairs: list[tuple[str, Any]] = []
    for _ in range(320):
        codes = [f"{rng.choice('AB')}{rng.randint(100, 999)}" for _ in range(rng.randint(0, 4))]
        codes = list(dict.fromkeys(codes))
        other = f"{rng.choice('AB')}{rng.randint(100, 999)}"
        said = f"Send {' and '.join(codes)}" if codes else "Send nothing"
        pairs.append((f"{said}. Keep {other} as it is.", {"send": codes}))
    fitted = learned(pairs[:200])
    assert type(fitted.student.fields[0].maker).__name__ == "Listed"
    assert agreement(fitted.student, pairs[200:]) >= 0.95
    card, arrays, _ = fitted.student.files()
    again = Extraction.restore(json.loads(json.dumps(card)), arrays, load_encoder)
    texts = [text for text, _ in pairs[200:240]]
    assert again.predict(texts)[0] == fitted.student.predict(texts)[0]
    held = float(fitted.agreed.mean())
    assert abs(held - agreement(fitted.student, pairs[200:])) < 0.06


def test_one_text_is_scored_as_many_are() -> None:
    """The quick path against the matrices that were fitted with."""
    texts = [Tokens.of(text) for text, _ in mails(40)]
    keys = [canonical_value(value["date"]) for _, value in mails(40)]
    vocabulary = Vocabulary.fit(texts)
    columns, bags = vocabulary.columns(texts), [vocabulary.bag(t) for t in texts]
    features, words = vocabulary.features(columns), vocabulary.bags(bags)
    chosen = choose_spans(texts, keys)
    assert chosen is not None
    ones, fold = np.ones(40), np.arange(40) % 3
    tagger, _ = fit_tagger(chosen[0], ["null"], texts, keys, ones, fold, features, words)
    problem = Problem(tagger.spans.all(texts), features, words, 2)
    proba = problem.softmax(problem.scores(tagger.weights) / tagger.temperature)
    slow = tagger.values(texts, problem, proba)
    first = 0
    for tokens, bag, expected in zip(texts, bags, slow, strict=True):
        quick = tagger.predict(tokens, columns[first : first + len(tokens)], bag)
        first += len(tokens)
        assert quick == pytest.approx(expected, abs=1e-4)
        assert sum(quick.values()) == pytest.approx(1, abs=0.01)


def test_the_gradient_is_that_of_the_scores() -> None:
    texts = [Tokens.of(text) for text, _ in mails(3)]
    vocabulary = Vocabulary.fit(texts)
    features = vocabulary.features(vocabulary.columns(texts))
    words = vocabulary.bags([vocabulary.bag(t) for t in texts])
    chosen = choose_spans(texts, [canonical_value(v["name"]) for _, v in mails(3)])
    assert chosen is not None
    problem = Problem(chosen[0].all(texts), features, words, 2)
    rng = np.random.default_rng(0)
    sizes = [(features.shape[1], 3), (PLACES,), (words.shape[1], 2), (2,)]
    zero, step = (Weights(*(np.zeros(s, np.float32) for s in sizes)) for _ in range(2))
    step = Weights(*(rng.normal(size=s).astype(np.float32) for s in sizes))
    pull = rng.normal(size=problem.size)
    change = problem.scores(step) - problem.scores(zero)  # scores are linear in the weights
    slope = problem.gradient(pull)
    along = sum(float((g * w).sum()) for g, w in zip(
        slope.arrays().values(), step.arrays().values(), strict=True))  # fmt: skip
    assert along == pytest.approx(float(pull @ change), rel=1e-4)


def test_ambiguous_values_share_their_probability() -> None:
    tokens = Tokens.of("Paid 12.50, yes 12.50, not 13.00")
    chosen = choose_spans([tokens] * 3, ["12.5"] * 3)
    assert chosen is not None
    assert (chosen[0].format, chosen[0].transformations) == ("number", ("number",))
    assert len(meant(tokens, chosen[0], "12.5")) == 2


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("number", "1,234.50", 1234.5),
        ("number", "12", 12),
        ("number", "1.234,50", None),
        ("number, comma", "1.234,50", 1234.5),
        ("number", "1 234", 1234),
        ("number as text", "1,234.50", "1234.50"),
        ("cents", "7", "7.00"),
        ("number word", "Twelve", 12),
        ("date", "3rd of May, 2026", "2026-05-03"),
        ("date", "May 3, 2026", "2026-05-03"),
        ("date", "03/05/26", "2026-05-03"),
        ("date, month first", "05/03/2026", "2026-05-03"),
        ("date", "31.02.2026", None),
        ("clock", "3:05 pm", "15:05"),
        ("clock", "12:30 am", "00:30"),
        ("digits", "(030) 12-34", "0301234"),
        ("plus and digits", "+49 30/1234", "+49301234"),
        ("title", "ada  LOVELACE", "Ada Lovelace"),
    ],
)
def test_transformations(name: str, text: str, value: Any) -> None:
    assert TRANSFORMATIONS[name](text) == value


@pytest.mark.parametrize(
    "style",
    [Style(), Style(compact=True), Style(indent=2), Style(indent=4, ascii=True), Style(fence=True)],
)
def test_the_style_is_recognised(style: Style) -> None:
    objects = [{"name": "Zoë", "n": [1, 2]}, {"name": "Bo", "n": []}]
    assert Style.of([style.write(value) for value in objects]) == style


json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-99, 99) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(
    st.lists(st.dictionaries(st.text(max_size=2), json_values, max_size=3), min_size=1, max_size=4)
)
def test_schemas_and_leaves(objects: list[dict[str, Any]]) -> None:
    schema = schema_of(objects)
    for value in objects:
        jsonschema.validate(value, schema)
        assert assemble(leaves(value)) == value
        assert same_object(json.dumps(value), json.dumps(dict(reversed(value.items()))))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**objects[0], "surely another key": 1}, schema)


def test_what_counts_as_the_same_object() -> None:
    assert same_object('{"a": 1.0}', '```json\n{"a": 1}\n```')
    assert not same_object('{"a": 1}', '{"a": true}')
    assert not same_object('{"a": 1}', '{"a": "1"}')
    assert not same_object('{"a": 1}', '{"a": 1, "b": null}')
    for text in ("Here it is: {}", "[1]", "{", '{"a": NaN}', "[" * 100_000):
        with pytest.raises(BadAnswer):
            parse_object(text)
    form = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"type": "object"}}}
    assert asked_schema({"response_format": form}) == {"type": "object"}
    assert asked_schema({"response_format": {"type": "json_object"}}) is None


def test_schemas_of_requests_are_not_trusted() -> None:
    """A reference to elsewhere is not followed, and what is no schema is none."""
    assert not is_schema({"type": "nonsense"})
    remote = {"$ref": "http://127.0.0.1:9/schema.json"}
    assert is_schema(remote)
    assert not Validator(remote)({"a": 1})
    local = {"$defs": {"a": {"type": "integer"}}, "properties": {"a": {"$ref": "#/$defs/a"}}}
    assert [Validator(local)({"a": one}) for one in (1, "1")] == [True, False]


def test_long_and_odd_texts_take_no_longer_than_their_length(fitted: CrossFitted) -> None:
    for text in (
        "a" * 200_000,
        "-" * 100_000,
        "a@" * 50_000,
        "1," * 50_000,
        "A1-" * 40_000,
        "\n" * 99,
    ):
        (said,), _ = fitted.student.predict([text])
        assert parse_object(said)


def test_the_restored_tagger_is_plain_numbers(fitted: CrossFitted) -> None:
    one = next(f for f in fitted.student.fields if f.path == ("date",))
    settings_, arrays = one.maker.state()
    tagger = Tagger.restore(json.loads(json.dumps(settings_["tagger"])), arrays)
    assert tagger.spans.format == "date"
    assert all(
        isinstance(array, np.ndarray) and array.dtype.kind == "f" for array in arrays.values()
    )
