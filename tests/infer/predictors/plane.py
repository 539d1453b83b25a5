"""Texts that are points of a plane, an encoder that a test can read, and outcomes of models on them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.predictors.logistic import sigmoid

NAN = float("nan")


class Plane:
    """Texts are points ``"x y"`` of a plane; an encoder that a test can read."""

    name = "plane"
    dim = 2

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.array([text.split()[:2] for text in texts], np.float32).reshape(-1, 2)


def outcomes_of(texts: Sequence[str], quality: Sequence[Sequence[float]], **more: Any) -> Outcomes:
    table = np.array(quality, np.float32)
    names = tuple("abcdef"[: table.shape[1]])
    return Outcomes(tuple(texts), names, table, **more)


def noisy(n: int = 60, m: int = 2, seed: int = 0) -> Outcomes:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    quality = (rng.random((n, m)) < sigmoid(x @ rng.normal(size=(2, m)) * 2)).astype(np.float32)
    return outcomes_of(
        [f"{a:.3f} {b:.3f} some words {i % 7}" for i, (a, b) in enumerate(x)], quality
    )


class Plane2:
    """Any text is a point: its length and its first letter."""

    name = "plane2"
    dim = 2

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        self.calls += 1
        return np.array([[len(t) + 1, ord((t or "a")[0])] for t in texts], np.float32).reshape(
            -1, 2
        )
