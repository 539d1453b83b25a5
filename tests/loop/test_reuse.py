"""Reused answers: whose go to whom, which questions are near, and how alike they are."""

from __future__ import annotations

import dataclasses
import random
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.errors import ArtifactError, InputError
from pilotfish.loop import nearest
from pilotfish.loop.lessons import Definition
from pilotfish.loop.likeness import FEATURES, MOST, Likeness, Rarity, features
from pilotfish.loop.nearest import Nearest
from pilotfish.loop.reuse import ReuseModel
from pilotfish.loop.reuse_rows import build, own_rows
from pilotfish.loop.reuse_scope import SCOPES, allows, check_scope, group_of
from pilotfish.models.calls import wait
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Encoder
from pilotfish.records import Completion, Request
from pilotfish.store.artifacts import Card, load_artifact, save_artifact
from pilotfish.store.feedback import Check
from pilotfish.store.traffic import Recorded
from tests.loop import faq

FAQ = Definition("faq", "{text}", faq.SYSTEM, "large")
ORDER = Definition("order", "Customer {name} asks: {text}", "", "large")


@cache
def encoder() -> Encoder:
    return load_encoder("static")


def small_of(rows: list[Recorded], scope: str = "all", definition: Definition = FAQ) -> ReuseModel:
    return build(definition, own_rows(definition, rows, {}, scope), encoder(), scope)


def ask(
    small: ReuseModel, text: str, caller: str = "", user: str = "", **params: Any
) -> Completion:
    request = Request.of(text, system=faq.SYSTEM, **params)
    return wait(small.complete(dataclasses.replace(request, user=user, tags={"caller": caller})))


def test_neighbours_are_those_of_brute_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(nearest, "SLAB", 64)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(500, 16)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    vectors[400] = vectors[300]  # a tie: the earlier one comes first
    index = Nearest(vectors, ["a", "b", "c"], np.array([0, 200, 203, 500]))
    queries = vectors[[5, 201, 300]]
    for group, (start, stop) in {"a": (0, 200), "b": (200, 203), "c": (203, 500)}.items():
        rows, cosines = index.search(queries, index.span(group), 7)
        wanted = queries @ vectors[start:stop].T
        order = np.argsort(-wanted, axis=1, kind="stable")[:, :7]
        assert (rows == order + start).all()
        assert np.allclose(cosines, np.take_along_axis(wanted, order, axis=1), atol=1e-6)
    assert index.span("d") == index.span(None) == (0, 0)
    assert index.search(queries, (0, 0), 5)[0].shape == (3, 0)
    with pytest.raises(InputError, match="500 vectors"):
        Nearest(vectors, ["a"], np.array([0, 200, 500]))


@pytest.mark.parametrize(
    ("feature", "question", "other"),
    [
        ("numbers", "Can I return it after 20 days?", "Can I return it after 30 days?"),
        ("numbers", "Can I return it after two days?", "Can I return it after 3 days?"),
        ("negations", "Can I pay with a card?", "Can I pay without a card?"),
        ("negations", "Do you ship there?", "Don't you ship there?"),
        ("names", "When will it be in Paris?", "When will it be in Rome?"),
        ("names", "Is the X200 in stock?", "Is the Z9 in stock?"),
    ],
)
def test_what_differs_lowers_the_score(feature: str, question: str, other: str) -> None:
    rarity = Rarity.of([question, other, "Where are you?"])
    row = features(question, other, 0.98, 0.5, rarity)
    at = FEATURES.index(feature)
    assert row[at] == 1.0
    without = [*row[:at], 0.0, *row[at + 1 :]]
    # Also where every judged pair said that it does not matter.
    fitted = Likeness.fit(np.array([row] * 200), np.ones(200, bool))
    for likeness in (Likeness(), fitted):
        lower, higher = likeness.score(np.array([row, without]))
        assert lower < higher <= MOST


def test_the_same_name_in_small_letters_is_no_other_name() -> None:
    row = features("Do you ship to Paris?", "do you ship to paris", 0.99, 0.5, Rarity({}, 0))
    assert row[FEATURES.index("names")] == 0.0


def test_scores_are_calibrated_on_judged_pairs() -> None:
    """Pairs whose verdicts follow a known logistic curve: predicted and true rates agree."""
    rng = np.random.default_rng(1)
    rows = np.column_stack(
        [rng.uniform(0.5, 1, 3000), rng.uniform(0, 1, 3000), np.full(3000, 0.5)]
        + [rng.random(3000) < 0.3 for _ in range(3)]
        + [rng.uniform(0, 1, 3000)]
    ).astype(float)
    truth = np.array([5.0, 4.0, 0.5, -5.0, -2.0, -2.5, -1.5, -3.0])
    chance = 1 / (1 + np.exp(-(rows @ truth[:-1] + truth[-1])))
    fitted = Likeness.fit(rows[:2000], rng.random(2000) < chance[:2000])
    assert np.abs(fitted.score(rows[2000:]) - chance[2000:]).mean() < 0.03
    assert Likeness.from_dict(fitted.to_dict()) == fitted


def test_whose_answers_go_to_whom() -> None:
    rows = [
        faq.recorded(0, "How do I pay?", user="ann", caller="k1"),
        faq.recorded(1, "Where are you?", caller="k2"),
    ]
    found = {
        (scope, caller, user): ask(small_of(rows, scope), "how do I pay", caller, user).extra[
            "score"
        ]
        for scope in ("user", "key", "all")
        for caller in ("k1", "k2", "")
        for user in ("ann", "bob", "")
    }
    given = {key for key, score in found.items() if score == 1.0}
    assert given == {
        ("user", "k1", "ann"),
        *(("key", "k1", user) for user in ("ann", "bob", "")),
        *(("all", caller, user) for caller in ("k1", "k2", "") for user in ("ann", "bob", "")),
    }
    # What may not be given is not merely unsure: it is not looked at.
    others = [score for key, score in found.items() if key not in given and key[0] == "user"]
    assert set(others) == {-1.0}
    assert not small_of([rows[1]], "user").ids
    assert not small_of(rows, "never").ids


def test_a_narrower_scope_stops_a_version_at_once() -> None:
    small = small_of([faq.recorded(0, "How do I pay?", user="ann")], "all")
    for scope, score in (("all", 1.0), ("key", -1.0), ("user", -1.0), ("never", -1.0)):
        request = Request(
            (), user="ann", tags={"fields": {"text": "How do I pay?"}, "reuse": scope}
        )
        completion = wait(small.complete(request))
        assert completion.extra["score"] == score
        assert bool(completion.text) == (score == 1.0)
    assert [allows("user", scope) for scope in SCOPES] == [False, True, False, False]
    with pytest.raises(InputError, match="never, user, key, all"):
        check_scope("everyone")


def test_requests_that_want_their_answer_drawn_get_no_old_one() -> None:
    small = small_of([faq.recorded(0, "How do I pay?"), faq.recorded(1, "A?", max_tokens=9)])
    plain = ask(small, "How do I pay?")
    assert (plain.extra["score"], plain.cost, plain.extra["reused"]) == (
        1.0,
        0.0,
        "req_" + 32 * "0",
    )
    same: list[dict[str, Any]] = [{"temperature": 0}, {"seed": 3}, {"n": 1}, {"stream_options": {}}]
    drawn: list[dict[str, Any]] = [
        {"temperature": 0.2},
        {"n": 2},
        {"logprobs": True},
        {"tools": [{"a": 1}]},
    ]
    for params in same:
        assert ask(small, "How do I pay?", **params).extra["score"] == 1.0
    for params in drawn:
        answer = ask(small, "How do I pay?", **params)
        assert (answer.extra["score"], answer.extra["why"], answer.text) == (-1.0, "sampled", "")
    # Another shape of answer is asked for: only answers of that shape are near.
    assert ask(small, "How do I pay?", max_tokens=5).extra["why"] == "nothing-near"
    assert ask(small, "How do I pay?", max_tokens=9).extra["score"] < 1.0
    assert group_of(Request.of("x", stop="."), "", "all") != group_of(Request.of("x"), "", "all")


def test_what_is_no_whole_answer_is_not_given_out() -> None:
    def with_answer(number: int, words: str, **changes: object) -> Recorded:
        row = faq.recorded(number, f"Question {words}?")
        assert row.completion is not None
        completion = dataclasses.replace(row.completion, **changes)  # type: ignore[arg-type]
        return dataclasses.replace(row, completion=completion, model=completion.model)

    rows = [
        with_answer(0, "whole"),
        with_answer(1, "cut", finish_reason="length"),
        with_answer(2, "empty", text=" "),
        with_answer(3, "redacted", text="Write to [email]."),
        with_answer(4, "small", model="faq@1"),
        with_answer(5, "checked", model="faq@1"),
        with_answer(6, "whole", text="The later answer."),
    ]
    check = Check(rows[5].id, "auto", "faq@1", "large", True, "", "What the large one said.")
    found = own_rows(FAQ, rows, {rows[5].id: check}, "all")
    small = build(FAQ, found, encoder(), "all")
    assert dict(zip(small.ids, small.answers, strict=True)) == {
        rows[5].id: "What the large one said.",
        rows[6].id: "The later answer.",
    }


def test_places_that_tell_nothing_weigh_little() -> None:
    rng = random.Random(0)
    rows = []
    for number in range(300):
        text, _ = faq.question(rng)
        name = rng.choice(["Ann", "Bob", "Eve", "Dan", "Kim", "Lee", "Max", "Zoe"])
        row = faq.recorded(number, f"Customer {name} asks: {text}")
        assert row.request is not None
        assert row.completion is not None
        request = dataclasses.replace(row.request, messages=row.request.messages[1:])
        completion = dataclasses.replace(row.completion, text=faq.answer(text))
        rows.append(dataclasses.replace(row, request=request, completion=completion))
    small = small_of(rows, definition=ORDER)
    weights = dict(zip(small.template.fields, small.embedding.weights, strict=True))
    assert weights["text"] > 4 * weights["name"]
    assert np.allclose(np.linalg.norm(small.nearest.vectors, axis=1), 1, atol=1e-3)


def test_through_an_artifact_it_is_the_same() -> None:
    small = small_of(list(faq.traffic(300)))
    settings, arrays, _ = small.files()
    card = Card.new(name="faq", kind="offload", task=small.task.to_dict())
    folder = Path("artifact")
    save_artifact(folder, card, tensors={"student": arrays}, json_files={"student.json": settings})
    again = ReuseModel.restore(load_artifact(folder), small.task, "faq@1")
    asked = [
        Request((), tags={"fields": {"text": faq.question(random.Random(i))[0]}}) for i in range(50)
    ]
    assert again.name == "faq@1"
    before, after = small.answer_requests(asked), again.answer_requests(asked)
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    settings["format"] = 9
    save_artifact(folder, card, tensors={"student": arrays}, json_files={"student.json": settings})
    with pytest.raises(ArtifactError, match="format 9"):
        ReuseModel.restore(load_artifact(folder), small.task, "faq@1")
