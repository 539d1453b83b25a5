"""Buckets of a score against quantiles by sorting."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from pilotfish.curate.scores.buckets import Buckets, _steps, _value
from pilotfish.curate.step import ROW, TEXT
from pilotfish.errors import ConfigError


def batch(score: np.ndarray, group: list[str | None] | None = None) -> pa.RecordBatch:
    n = len(score)
    columns = {
        ROW: pa.array(range(n), pa.uint64()),
        TEXT: pa.array(["x"] * n),
        "s": pa.array(score, from_pandas=True),
    }
    if group is not None:
        columns["g"] = pa.array(group, pa.string())
    return pa.RecordBatch.from_pydict(columns)


def buckets(step: Buckets, rows: pa.RecordBatch, cuts: list[int]) -> pa.Array:
    states = [step.map(rows.slice(a, b - a)) for a, b in itertools.pairwise(cuts)]
    assert len({state.schema for state in states}) == 1
    return step.reduce(states[::-1], Path()).apply(rows)


def test_they_are_the_quantiles_of_each_group() -> None:
    rng = np.random.default_rng(0)
    score = np.concatenate([rng.lognormal(4, 1, 900), -rng.lognormal(1, 1, 600)])
    group: list[str | None] = ["a"] * 900 + [None] * 600
    order = rng.permutation(1500)
    rows = batch(score[order], [group[i] for i in order])
    step = Buckets("s", by="g", quantiles=(0.2, 0.5, 0.8), names=("a", "b", "c", "d"))
    found = buckets(step, rows, [0, 1, 700, 1500]).columns["s_bucket"].to_pylist()
    for low, high in ((0, 900), (900, 1500)):
        mine = [i for i in range(1500) if low <= order[i] < high]
        ranks = np.argsort(np.argsort([score[order[i]] for i in mine])) / len(mine)
        names = np.array(["a", "b", "c", "d"])[np.searchsorted([0.2, 0.5, 0.8], ranks, "right")]
        wrong = np.mean([found[i] != name for i, name in zip(mine, names, strict=True)])
        assert wrong <= 4 / len(mine)  # scores of one step beside an edge


def test_equal_scores_share_a_bucket_and_none_is_lost() -> None:
    score = np.array([1.0] * 50 + [2.0] * 40 + [3.0] * 10)
    verdict = buckets(Buckets("s", keep=("head",)), batch(score), [0, 100])
    assert (
        verdict.columns["s_bucket"].to_pylist() == ["head"] * 50 + ["middle"] * 40 + ["tail"] * 10
    )
    assert (
        verdict.reasons.to_pylist() == [None] * 50 + ["buckets.middle"] * 40 + ["buckets.tail"] * 10
    )
    assert verdict.margin.to_pylist()[-1] == pytest.approx(0.5)


def test_rows_without_a_score() -> None:
    score = np.array([1.0, 2.0, 3.0, np.nan])
    assert buckets(Buckets("s"), batch(score), [0, 4]).reasons is None
    verdict = buckets(Buckets("s", keep=("head", "middle", "tail")), batch(score), [0, 3, 4])
    assert verdict.reasons.to_pylist() == [None, None, None, "buckets.no_score"]
    assert verdict.columns["s_bucket"].to_pylist()[-1] is None


def test_steps_keep_the_order_and_the_size() -> None:
    rng = np.random.default_rng(1)
    score = np.sort(np.concatenate([rng.standard_cauchy(2000), [0.0, -0.0, 1e30, -1e30]]))
    steps = _steps(score)
    assert (np.diff(steps.astype(np.int64)) >= 0).all()
    assert (
        np.abs(_value(steps) - score) == pytest.approx(np.zeros(2004), abs=0)
        or (np.abs(_value(steps) - score) <= np.abs(score) * 2.0**-14).all()
    )


def test_settings_must_fit_together() -> None:
    with pytest.raises(ConfigError, match="ascending"):
        Buckets(quantiles=(0.6, 0.3))
    with pytest.raises(ConfigError, match="names"):
        Buckets(quantiles=(0.5,))
    with pytest.raises(ConfigError, match="keep"):
        Buckets(keep=("neck",))
