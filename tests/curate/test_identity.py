"""Runs that differ in anything that decides the result are different runs."""

from __future__ import annotations

import datetime
import decimal
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.curate import Pipeline, Verdict
from pilotfish.curate.identity import describe
from pilotfish.errors import ConfigError


class Slotted:
    __slots__ = ("n",)

    def __init__(self, n: int) -> None:
        self.n = n


class Step:
    name = "step"

    def __init__(self, setting: Any) -> None:
        self.setting = setting

    def apply(self, batch: Any) -> Verdict:
        return Verdict({})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (1, 2),
        ("a", "b"),
        (b"a", b"b"),
        (Path("a"), Path("b")),
        (np.int64(1), np.int64(2)),
        (np.float32(1), np.float32(2)),
        (np.zeros(2), np.zeros(2, np.int64)),
        (np.zeros((2, 3)), np.zeros((3, 2))),
        (decimal.Decimal(1), decimal.Decimal(2)),
        (datetime.date(2020, 1, 1), datetime.date(2021, 1, 1)),
        (1j, 2j),
        (slice(1), slice(2)),
        ({"a", "b"}, {"a", "c"}),
        (Slotted(1), Slotted(2)),
        ({"deep": [Path("a")]}, {"deep": [Path("b")]}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_differs_is_told_apart(one: Any, other: Any, tmp_path: Path) -> None:
    assert describe(Step(one)) == describe(Step(one))
    assert describe(Step(one)) != describe(Step(other))
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    Pipeline([Step(one)]).run(tmp_path / "a.jsonl", tmp_path / "out")
    with pytest.raises(ConfigError, match="another run"):
        Pipeline([Step(other)]).run(tmp_path / "a.jsonl", tmp_path / "out")


def test_what_cannot_be_pickled_counts_by_its_kind() -> None:
    assert describe(threading.Lock()) == describe(threading.Lock())
