"""Outcomes: parts, splits, prices and files."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pilotfish.config import Price
from pilotfish.errors import InputError
from pilotfish.infer.outcome_files import read_outcomes, write_outcomes
from pilotfish.infer.outcomes import Outcomes

NAN = float("nan")


def small() -> Outcomes:
    return Outcomes(
        texts=("one", "two", "three", "two"),
        models=("openai:s", "l"),
        quality=np.array([[1, 1], [0, 1], [NAN, 0.5], [0, 1]], np.float32),
        cost=np.array([[1, 10], [2, 20], [NAN, 30], [2, 20]], np.float32),
        latency=np.array([[0.1, 1]] * 4, np.float32),
        answers=np.array([["a", "b"], ["c", "d"], [None, "e"], ["c", "d"]], object),
        signals={"probability": np.array([[0.9, NAN]] * 4, np.float32)},
        groups=("x", "y", "x", "y"),
    )


def same(one: Outcomes, other: Outcomes) -> bool:
    arrays = [(one.quality, other.quality), (one.cost, other.cost)]
    arrays += [(one.latency, other.latency)]
    arrays += zip(one.signals.values(), other.signals.values(), strict=True)
    return (
        (one.texts, one.models, one.groups, [*one.signals])
        == (other.texts, other.models, other.groups, [*other.signals])
        and all(np.array_equal(a, b, equal_nan=True) for a, b in arrays)
        and bool((one.answers == other.answers).all())
    )


def test_parts_keep_everything_together() -> None:
    part = small().take([2, 0]).select(["l"])
    assert part.texts == ("three", "one")
    assert part.models == ("l",)
    assert part.quality.tolist() == [[0.5], [1]]
    assert part.cost.tolist() == [[30], [10]]
    assert part.answers is not None
    assert part.answers.tolist() == [["e"], ["b"]]
    assert part.groups == ("x", "x")
    assert small().take(np.array([True, False, False, True])).texts == ("one", "two")
    with pytest.raises(InputError, match="no outcomes of x"):
        small().select(["x"])


def test_means_leave_out_what_is_unknown() -> None:
    assert small().mean_quality().tolist() == pytest.approx([1 / 3, 3.5 / 4])
    assert small().mean_cost().tolist() == pytest.approx([5 / 3, 20])


def test_unknown_costs_are_filled_by_their_models_means() -> None:
    filled = small().filled()
    assert filled.cost.tolist() == [[1, 10], [2, 20], [pytest.approx(5 / 3), 30], [2, 20]]
    assert np.isnan(filled.quality[2, 0]), "what an answer was worth is not made up"
    none = Outcomes(("a", "b"), ("m", "n"), np.ones((2, 2)), cost=np.array([[NAN, 1], [NAN, NAN]]))
    assert np.array_equal(none.filled().cost, [[NAN, 1], [NAN, 1]], equal_nan=True)


def test_questions_of_which_nothing_is_known_are_left_out() -> None:
    quality = np.array([[1, NAN], [NAN, NAN], [NAN, NAN], [NAN, NAN]], np.float32)
    sure = np.array([[NAN, NAN], [NAN, 0.5], [NAN, NAN], [NAN, NAN]], np.float32)
    said = np.array([[None, None], [None, None], ["so", None], [None, None]], object)
    rows = Outcomes(tuple("abcd"), ("m", "n"), quality, answers=said, signals={"sure": sure})
    assert rows.recorded().texts == ("a", "b", "c")


@pytest.mark.parametrize("seed", range(5))
def test_a_split_keeps_equal_texts_together_and_loses_none(seed: int) -> None:
    texts = tuple(f"t{i % 70}" for i in range(100))
    outcomes = Outcomes(texts, ("m",), np.linspace(0, 1, 100, dtype=np.float32)[:, None])
    for wanted, most in ((0.3, 30), (40, 40)):
        fit, test = outcomes.split(seed, fit=wanted)
        assert not set(fit.texts) & set(test.texts)
        assert most - 2 < len(fit) <= most
        assert sorted([*fit.quality[:, 0], *test.quality[:, 0]]) == outcomes.quality[:, 0].tolist()
    folds = outcomes.folds(seed, 5)
    assert sorted(q for _, test in folds for q in test.quality[:, 0]) == (
        outcomes.quality[:, 0].tolist()
    )
    assert all(not set(a.texts) & set(b.texts) for a, b in folds)
    assert outcomes.split(seed)[0].texts == outcomes.split(seed)[0].texts
    assert outcomes.split(seed)[0].texts != outcomes.split(seed + 1)[0].texts


def test_a_split_without_a_test_part_is_refused() -> None:
    with pytest.raises(InputError, match="both parts need some"):
        small().split(0, fit=4)


def test_prices_count_tokens_by_the_texts_length() -> None:
    outcomes = Outcomes(
        ("q" * 40,),
        ("s", "l", "free"),
        np.ones((1, 3), np.float32),
        answers=np.array([["a" * 20, None, "x"]], object),
    )
    prices = {"s": Price(1, 2), "l": Price(10, 30)}
    cost = outcomes.priced(prices).cost[0]
    assert cost[0] == pytest.approx((10 * 1 + 5 * 2) / 1e6)
    assert np.isnan(cost[1:]).all(), "no answer, or no price: unknown"
    assert outcomes.priced(prices, answer_tokens=100).cost[0, 1] == pytest.approx(3100e-6)


def test_values_that_cannot_be_are_refused() -> None:
    with pytest.raises(InputError, match="quality of 7"):
        Outcomes(("a",), ("m",), np.array([[7]], np.float32))
    with pytest.raises(InputError, match=r"cost of shape \(1, 2\)"):
        Outcomes(("a",), ("m",), np.ones((1, 1), np.float32), cost=np.ones((1, 2), np.float32))
    with pytest.raises(InputError, match="below 0"):
        Outcomes(("a",), ("m",), np.ones((1, 1), np.float32), cost=-np.ones((1, 1), np.float32))
    with pytest.raises(InputError, match="names that differ"):
        Outcomes(("a",), ("m", "m"), np.ones((1, 2), np.float32))


def test_a_file_gives_back_what_was_written(tmp_path: Path) -> None:
    write_outcomes(small(), tmp_path / "o.parquet")
    assert same(read_outcomes(tmp_path / "o.parquet"), small())
    assert read_outcomes(tmp_path / "o.parquet", models=["l"]).models == ("l",)


def test_a_long_file_of_json_lines(tmp_path: Path) -> None:
    rows = [
        {"prompt": "one", "model": "s", "quality": True, "cost": 1.0, "answer": "a", "sure": 0.9},
        {"prompt": "one", "model": "l", "quality": 0.5, "cost": None, "answer": "b", "sure": 1},
        {"prompt": "two", "model": "l", "quality": 1, "cost": 3.0, "answer": None, "sure": None},
        {"prompt": "two", "model": "l", "quality": 0, "cost": 3.0, "answer": "again", "sure": 0.2},
    ]
    rows[0]["quality"] = 1.0
    (tmp_path / "o.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    got = read_outcomes(tmp_path / "o.jsonl")
    assert got.texts == ("one", "two", "two"), "a question asked twice is two questions"
    assert got.models == ("s", "l")
    assert np.array_equal(got.quality, [[1, 0.5], [NAN, 1], [NAN, 0]], equal_nan=True)
    assert np.array_equal(got.cost, [[1, NAN], [NAN, 3], [NAN, 3]], equal_nan=True)
    assert got.signals["sure"][0].tolist() == pytest.approx([0.9, 1])
    assert got.answers is not None
    assert got.answers.tolist() == [["a", "b"], [None, None], [None, "again"]]


def test_columns_may_be_named_otherwise(tmp_path: Path) -> None:
    table = {"question": ["q"], "s": [True], "l": [False], "s_text": ["a"], "category": ["c"]}
    pq.write_table(pa.table(table), tmp_path / "o.parquet")
    got = read_outcomes(
        tmp_path / "o.parquet", models=["s", "l"], columns={"quality": "{}", "answer": "{}_text"}
    )
    assert got.quality.tolist() == [[1, 0]]
    assert got.answers is not None
    assert got.answers.tolist() == [["a", None]]
    assert got.groups == ("c",)


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("o.csv", "prompt,other\na,1\n", "neither a column 'model' nor"),
        ("o.csv", "a,model,quality\nx,m,1\n", "no column 'prompt'"),
        ("o.csv", "prompt,model,quality\nx,m,good\n", "'quality' is string, but expected numbers"),
        ("o.csv", "prompt,model,quality\n1,m,1\n", "row 1: the column 'prompt' is 1"),
        ("o.xlsx", "", "ends in .parquet, .jsonl or .csv"),
        ("o.parquet", "text", "cannot be read"),
    ],
)
def test_a_file_that_cannot_be_used_says_why(
    tmp_path: Path, name: str, text: str, message: str
) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=message):
        read_outcomes(tmp_path / name)
    with pytest.raises(InputError, match="no file"):
        read_outcomes(tmp_path / "none.parquet")
