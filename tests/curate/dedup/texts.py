"""What the tests of deduplication share."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from pilotfish.curate.scores.judging import judge
from pilotfish.curate.step import ROW, TEXT, FittedStep

WORDS = [
    f"{a}{b}" for a in ("river", "stone", "größe", "fish", "light", "naïve") for b in "abcdefghijk"
]


def batch(texts: Sequence[str], first: int = 0, **columns: Any) -> pa.RecordBatch:
    """Texts as rows from ``first`` on."""
    rows = pa.array(range(first, first + len(texts)), pa.uint64())
    return pa.record_batch({ROW: rows, TEXT: pa.array(texts, pa.string()), **columns})


def dropped(step: FittedStep, texts: Sequence[str], folder: Path, **columns: Any) -> list[int]:
    """The rows that a deduplication drops, all texts in one batch."""
    folder.mkdir(exist_ok=True)
    whole = batch(texts, **columns)
    verdict, _ = judge(step.reduce([step.map(whole)], folder), whole)
    assert verdict.reasons is not None
    found = verdict.reasons.to_pylist()
    assert {reason for reason in found if reason} <= {f"{step.name}.duplicate"}
    return [i for i, reason in enumerate(found) if reason]


def near_duplicates(n: int, seed: int, longest: int = 120) -> list[str]:
    """Texts of random words; half of them are an earlier one with some words replaced."""
    draw = random.Random(seed)
    made: list[list[str]] = []
    for _ in range(n):
        if made and draw.random() < 0.5:
            words = list(draw.choice(made))
            for _ in range(draw.randint(0, 1 + len(words) // 20)):
                words[draw.randrange(len(words))] = draw.choice(WORDS)
        else:
            words = draw.choices(WORDS, k=draw.randint(1, longest))
        made.append(words)
    return [" ".join(words) for words in made]
