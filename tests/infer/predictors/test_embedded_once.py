"""A slow encoder is asked once for each text of a replay, and says the same."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import pytest

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.embedded_once import EmbeddedOnce, embedded_once
from pilotfish.infer.replay import replay
from pilotfish.models.load import load_encoder
from pilotfish.models.ngrams import MAX_CHARS


class Counting:
    """The static encoder, which counts what it is asked."""

    name = "counting"

    def __init__(self) -> None:
        self.inner = load_encoder("static")
        self.dim = self.inner.dim
        self.asked: Counter[str] = Counter()

    def encode(self, texts: Sequence[str]) -> Floats:
        self.asked.update(texts)
        return self.inner.encode(texts)


def test_vectors_are_those_of_the_encoder() -> None:
    counting = Counting()
    texts = ["one fish", "two fish", "one fish", "red " * MAX_CHARS]
    kept = EmbeddedOnce(counting, texts)
    cut = [text[:MAX_CHARS] for text in ["two fish", "blue fish", texts[3], "one fish"]]
    np.testing.assert_array_equal(kept.encode(cut), counting.inner.encode(cut))
    np.testing.assert_array_equal(kept.encode(cut), counting.inner.encode(cut))
    assert counting.asked == {"one fish": 1, "two fish": 1, cut[2]: 1, "blue fish": 2}
    assert kept.encode([]).shape == (0, counting.dim)


def test_a_replay_embeds_each_question_once() -> None:
    policies = ["knn", "stacked"]
    rng = np.random.default_rng(0)
    texts = tuple(f"question {i} about {'fish' if i % 3 else 'ships'}" for i in range(90))
    quality = rng.integers(0, 2, (90, 2)).astype(np.float32)
    cost = np.tile(np.array([1.0, 10.0], np.float32), (90, 1))
    outcomes = Outcomes(texts, ("small", "large"), quality, cost)
    counting = Counting()
    slow = replay(outcomes, policies, seeds=2, samples=0, encoder=counting)
    assert set(counting.asked) == set(texts)
    assert set(counting.asked.values()) == {1}
    quick = replay(outcomes, policies, seeds=2, samples=0, encoder=counting.inner)
    for one, other in zip(slow, quick, strict=True):
        assert one.measures.keys() == other.measures.keys()
        for name, interval in one.measures.items():
            assert interval.value == pytest.approx(other.measures[name].value, abs=1e-6)


def test_the_static_encoder_needs_no_keeping() -> None:
    static = load_encoder("static")
    assert embedded_once(static, ["a"]) is static
    assert embedded_once(None, ["a"]) is None
