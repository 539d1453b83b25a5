"""Outcomes of three models of known chances, with the signals that policies decide by."""

from __future__ import annotations

from typing import Any

import numpy as np

from pilotfish.infer.outcomes import Outcomes

NAMES = ("small", "middle", "large")
COST = np.array([1.0, 3.0, 10.0], np.float32)


def draw(seed: int, n: int = 400, names: tuple[str, ...] = NAMES, **more: Any) -> Outcomes:
    rng = np.random.default_rng(seed)
    m = len(names)
    hard = rng.random((n, 1))
    chance = np.clip(np.linspace(1.1, 1.7, m) - hard, 0, 1)
    quality = (rng.random((n, m)) < chance).astype(np.float32)
    cost = np.tile(np.resize(COST, m), (n, 1)) * rng.uniform(0.5, 1.5, (n, m))
    score = np.clip(0.5 + 0.35 * (quality - 0.5) + 0.2 * rng.normal(size=(n, m)), 0, 1)
    expected = np.clip(chance + 0.1 * rng.normal(size=(n, m)), 0, 1)
    seen = quality + 0.3 * rng.normal(
        size=(n, m)
    )  # posterior = prior times the odds of what was seen
    odds = chance / np.maximum(1 - chance, 1e-6) * np.exp((seen - 0.5) / 0.09)
    signals = {
        "posterior": (odds / (1 + odds)).astype(np.float32),
        "chance": chance.astype(np.float32),
    }
    signals |= {"score": score.astype(np.float32), "expected": expected.astype(np.float32)}
    texts = tuple(f"question {i}" for i in range(n))
    return Outcomes(texts, names, quality, cost.astype(np.float32), signals=signals, **more)
