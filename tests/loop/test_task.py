"""Tasks: settings checked, requests rendered, answers encoded for students."""

from __future__ import annotations

import json

import numpy as np
import pytest

from pilotfish.errors import InputError
from pilotfish.loop.targets import encode
from pilotfish.loop.task import MAX_VALUES, Task, parse_scale


def test_request_carries_the_closed_set() -> None:
    task = Task("Urgent? {text}", labels=("yes", "no"), system="Be brief.", params={"seed": 1})
    request = task.request({"text": "Now!"})
    assert request.prompt == "Urgent? Now!"
    assert request.messages[0] == {"role": "system", "content": "Be brief."}
    assert request.params == {
        "temperature": 0, "seed": 1, "answer": "label", "labels": ["yes", "no"],
        "blanks": ["Urgent? N/A", "Urgent? ", "Urgent? [MASK]"],
    }  # fmt: skip
    assert "labels" not in task.request({"text": "Now!"}, open_ended=True).params


def test_json_round_trip() -> None:
    task = Task("{a} {b}", "rating", (), 0.5, (0.0, 10.0), "s", {"top_p": 0.5})
    assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


@pytest.mark.parametrize("labels", [("a",), ("a", "A"), ("a", " ")])
def test_bad_label_sets(labels: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match="label"):
        Task("{x}", labels=labels)


@pytest.mark.parametrize(
    ("text", "values", "scale"),
    [
        ("1-5", ("1", "2", "3", "4", "5"), None),
        ("-2..2", ("-2", "-1", "0", "1", "2"), None),
        ("0-100", (), (0.0, 100.0)),
        ("0.0-1.0", (), (0.0, 1.0)),
        ("1 to 3", ("1", "2", "3"), None),
    ],
)
def test_scales(text: str, values: tuple[str, ...], scale: tuple[float, float] | None) -> None:
    assert parse_scale(text) == (values, scale)


@pytest.mark.parametrize("text", ["5-1", "good", "1", "", "3-3"])
def test_no_scales(text: str) -> None:
    with pytest.raises(InputError, match="--rating 1-5"):
        parse_scale(text)


def test_labels_are_encoded_in_task_order() -> None:
    targets = encode(Task("{x}", labels=("b", "a", "c")), ["a", "b", "a"])
    assert targets.classes == ("b", "a")
    assert targets.values.tolist() == [1, 0, 1]


def test_label_sets_are_encoded_as_membership() -> None:
    task = Task("{x}", "labels", ("a", "b", "c"))
    targets = encode(task, ['["a", "c"]', "[]"])
    assert targets.multilabel
    assert targets.classes == ("a", "c")
    assert targets.values.tolist() == [[True, True], [False, False]]


def test_continuous_ratings_become_few_steps_close_to_the_answers() -> None:
    numbers = np.random.default_rng(0).uniform(0, 100, 2000)
    targets = encode(Task("{x}", "rating", range=(0, 100)), [str(x) for x in numbers])
    steps = np.array([float(name) for name in targets.classes])
    assert len(steps) <= MAX_VALUES
    assert np.abs(steps[targets.values] - numbers).max() < 100 / MAX_VALUES
