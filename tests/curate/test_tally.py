"""Numbers that add up: the same in any order, and the same as NumPy's."""

from __future__ import annotations

import random

import msgspec
import numpy as np
import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.curate.step import Verdict
from pilotfish.curate.tally import OTHER_TAGS, PieceTally, StepTally, bins, edges, total

NUMBERS = st.floats(allow_nan=False, allow_infinity=False, width=64)


def tally(rows: range, seed: int = 0) -> StepTally:
    draw = np.random.default_rng([seed, rows.start])
    n = len(rows)
    score = draw.normal(size=n)
    batch = pa.record_batch(
        {"row": pa.array(rows, pa.uint64()), "text": [f"text {row}" for row in rows]}
    )
    reasons = np.where(score < -0.5, "s.low", np.where(score > 1, "s.high", None))
    verdict = Verdict(
        {"score": pa.array(score)}, pa.array(reasons, pa.string()), pa.array(score + 0.5)
    )
    counted = StepTally("s")
    counted.count(batch, verdict, batch.filter(verdict.reasons.is_null()))
    return counted


@given(st.randoms(use_true_random=False), st.integers(1, 8))
def test_the_sum_does_not_depend_on_order_or_grouping(draw: random.Random, parts: int) -> None:
    pieces = [PieceTally(steps=[tally(range(i * 40, i * 40 + 40))]) for i in range(8)]
    whole = total(pieces)
    shuffled = draw.sample(pieces, len(pieces))
    grouped = total(total(shuffled[i::parts]) for i in range(parts))
    assert grouped == whole
    assert msgspec.json.decode(msgspec.json.encode(whole), type=PieceTally) == whole
    [step] = whole.steps
    assert step.rows_in == 320
    assert step.rows_in - step.rows_out == sum(step.reasons.values())


def test_examples_are_the_closest_of_all_pieces() -> None:
    parts = [tally(range(i * 40, i * 40 + 40)) for i in range(8)]
    whole = total(PieceTally(steps=[part]) for part in parts).steps[0]
    every = [
        (abs(score + 0.5), row, reason)
        for i in range(8)
        for row, score, reason in scored(range(i * 40, i * 40 + 40))
    ]
    for reason, limit in (("s.low", 3), ("s.high", 3), ("", 6)):
        wanted = sorted((d, row) for d, row, why in every if why == reason)[:limit]
        assert [(e.distance, e.row) for e in whole.examples[reason]] == wanted
        assert all(e.text == f"text {e.row}" for e in whole.examples[reason])


def scored(rows: range) -> list[tuple[int, float, str]]:
    score = np.random.default_rng([0, rows.start]).normal(size=len(rows))
    why = ["s.low" if s < -0.5 else "s.high" if s > 1 else "" for s in score]
    return list(zip(rows, score.tolist(), why, strict=True))


@given(st.lists(NUMBERS, min_size=1))
def test_every_number_lies_in_its_bin(values: list[float]) -> None:
    for value in values:
        [(key, count)] = bins(np.array([value])).items()
        low, high = edges(key)
        assert count == 1
        assert low <= value <= high
    assert sum(bins(np.array(values)).values()) == len(values)


def test_bins_are_narrow() -> None:
    for value in (1e-9, 0.3, 1.0, 7.0, 1e12):
        low, high = edges(next(iter(bins(np.array([value])))))
        assert (high - low) / value <= 1 / 128


def test_without_a_margin_examples_are_a_sample_that_the_rows_decide() -> None:
    def sample(cut: int) -> list[int]:
        parts = []
        for start in range(0, 1000, cut):
            rows = range(start, min(start + cut, 1000))
            batch = pa.record_batch({"row": pa.array(rows, pa.uint64()), "text": ["x"] * len(rows)})
            part = StepTally("s")
            part.count(batch, Verdict({}), batch)
            parts.append(PieceTally(steps=[part]))
        return [example.row for example in total(parts).steps[0].examples[""]]

    assert sample(7) == sample(100) == sample(1000)
    assert max(sample(7)) > 100


def test_missing_scores_and_many_tags() -> None:
    n = 300
    batch = pa.record_batch({"row": pa.array(range(n), pa.uint64()), "text": ["x"] * n})
    score = pa.array([None, float("nan"), float("inf")] + [0.0, -0.0] + [0.5] * (n - 5))
    names = pa.array([f"t{i}" for i in range(n)]).dictionary_encode()
    flag = pa.array([True, False, None] * 100)
    counted = StepTally("s")
    counted.count(batch, Verdict({"p": score, "tag": names, "flag": flag}), batch)
    assert counted.scores["p"].missing == 3
    assert sum(counted.scores["p"].kept.values()) == n - 3
    assert counted.tags["tag"][OTHER_TAGS] == 100
    assert counted.tags["flag"] == {"True": 100, "False": 100, "": 100}


def test_pieces_without_a_score_or_a_margin_can_be_kept_and_added() -> None:
    counted = StepTally("s")
    batch = pa.record_batch({"row": pa.array([1, 2], pa.uint64()), "text": ["a", "b"]})
    nothing = pa.nulls(2, pa.float64())
    counted.count(batch, Verdict({"score": nothing}, None, nothing), batch)
    piece = PieceTally(steps=[counted])
    kept = msgspec.json.decode(msgspec.json.encode(piece), type=PieceTally)
    assert kept == piece
    assert (kept.steps[0].scores["score"].low, kept.steps[0].scores["score"].missing) == (None, 2)
    some = PieceTally(steps=[tally(range(40))])
    some.steps[0].name = "s"
    both = total([kept, some, kept]).steps[0].scores["score"]
    alone = some.steps[0].scores["score"]
    assert (both.low, both.high, both.missing) == (alone.low, alone.high, 4)
