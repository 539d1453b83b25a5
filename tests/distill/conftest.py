"""A small task with a known answer, the packaged encoder, and a tiny model that can teach."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.models.load import load_encoder, load_model
from pilotfish.models.protocols import Encoder
from pilotfish.records import Inputs
from tests.distill.counting_prompts import WORDS
from tests.models import tiny_gguf

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


@pytest.fixture(scope="session")
def torch() -> Any:
    return pytest.importorskip("torch", reason='needs torch: pip install "pilotfish[torch]"')


@pytest.fixture(scope="session")
def teacher(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A tiny Llama that has learned to count things; random weights have nothing to teach."""
    from pilotfish.distill.language_model import (
        TokenSequence,
        Tuning,
        finetune_language_model,
    )
    from tests.models import tiny_llama

    folder = tmp_path_factory.mktemp("teacher")
    tiny_llama.write(folder, tiny_gguf.random_weights(0))
    model: Any = load_model(f"transformers:{folder}", Config(), threads=1)
    texts = [model.tokenize(f"{WORDS[i % 5]} {WORDS[i % 3]} cab. " * 4) for i in range(48)]
    losses = finetune_language_model(
        model.network,
        [TokenSequence(np.array(text[i % 7 :])) for i, text in enumerate(texts)],
        Tuning(epochs=8, batch=8, learning_rate=5e-3),
    )
    assert losses[-1] < losses[0] / 3
    yield model
    model.close()
