"""Prompts of a few words, and logits drawn at random."""

from __future__ import annotations

from typing import Any

import numpy as np

from pilotfish.records import Request

WORDS = ("one", "two", "many", "other", "no")
PROMPTS = [Request.of(f"{WORDS[i % 5]} cab {i}") for i in range(40)]


def logits(n: int, vocab: int, seed: int, gain: float = 1.5) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal((n, vocab)) * gain).astype(np.float32)
