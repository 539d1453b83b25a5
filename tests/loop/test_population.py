"""Unique inputs, weights and splits."""

from __future__ import annotations

import numpy as np

from pilotfish.loop.population import Population, populate
from pilotfish.loop.rows import Rows
from pilotfish.loop.template import Template


def made(texts: list[str], *, evaluate: bool = False, seed: int = 0) -> Population:
    rows = Rows({"text": texts, "other": list(range(len(texts)))}, list(range(len(texts))))
    return populate(rows, Template("{text}"), seed=seed, evaluate=evaluate)


def test_splits_are_disjoint_and_cover_every_row() -> None:
    population = made([str(i % 70) for i in range(500)], evaluate=True)
    parts = [population.train, population.calibrate, population.evaluate]
    assert sorted(np.concatenate(parts)) == list(range(500))
    assert [len(part) for part in parts] == [225, 225, 50]


def test_duplicates_are_one_input_with_a_weight() -> None:
    population = made(["a", "b", "a", "a", "c"] * 20)
    assert population.inputs.texts == ["a", "b", "c"]
    assert population.counts.tolist() == [60, 20, 20]
    assert population.train_weights.sum() == len(population.train)
    assert [population.row(i) for i in (0, 2)] == [{"text": "a"}, {"text": "c"}]


def test_calibration_rows_are_a_uniform_sample() -> None:
    # 30% of the rows have the text "a": over many seeds, so must the calibration rows.
    texts = ["a"] * 30 + [str(i) for i in range(70)]
    share = [
        np.mean([texts[row] == "a" for row in made(texts, seed=seed).calibrate])
        for seed in range(300)
    ]
    # Standard error of the mean of 300 hypergeometric shares of 50 out of 100: 0.27 points.
    assert abs(np.mean(share) - 0.3) < 0.01


def test_fingerprint_sees_texts_and_counts() -> None:
    same = {made(["a", "b", "b"]).fingerprint, made(["a", "b", "b"], seed=5).fingerprint}
    assert len(same) == 1
    assert len({made(["a", "b"]).fingerprint, made(["a", "c"]).fingerprint} | same) == 3
