"""A small task with a known answer, and the packaged encoder."""

from __future__ import annotations

import numpy as np
import pytest

from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Encoder
from pilotfish.records import Inputs

TOPICS = {
    "weather": ["rain", "snow", "sunny", "storm", "cloudy", "forecast"],
    "money": ["bank", "loan", "credit card", "mortgage", "invoice", "salary"],
    "food": ["pizza", "soup", "breakfast", "recipe", "cheese", "restaurant"],
}
FRAMES = ["what about the {} today", "tell me about {}", "{} please", "is there any {} left?"]


def make_task(n: int, seed: int = 0) -> tuple[Inputs, np.ndarray]:
    """``n`` texts of three topics and their classes."""
    rng = np.random.default_rng(seed)
    words = list(TOPICS.values())
    target = rng.integers(3, size=n)
    texts = [
        f"{rng.choice(FRAMES).format(rng.choice(words[t]))} {rng.integers(1000)}" for t in target
    ]
    return Inputs(texts), target


@pytest.fixture(scope="session")
def encoder() -> Encoder:
    return load_encoder("static")
