"""What predictors read off a text: statistics and cues by hand, shared encoders, word order."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.predictors.cues import WIDTH, question_cues
from pilotfish.infer.predictors.features import Features, LinearMap, Shared
from pilotfish.infer.predictors.logistic import sigmoid
from pilotfish.infer.predictors.text_statistics import NAMES, text_statistics
from tests.infer.predictors.plane import Plane2, outcomes_of


def test_a_linear_map_is_the_product_with_its_blocks() -> None:
    texts = ["one two three", "two three 4?", "Grüße\nund 5", "", "one one one"]
    features = Features.fit(texts, Plane2())
    rng = np.random.default_rng(0)
    blocks = features.blocks(texts)
    coefficients = [rng.normal(size=(b.shape[1], 3)).astype(np.float32) for b in blocks]
    bias = rng.normal(size=3).astype(np.float32)
    made = LinearMap(features, coefficients, bias)
    by_hand = bias + sum(b @ c for b, c in zip(blocks, coefficients, strict=True))
    assert made(texts)[0] == pytest.approx(by_hand, abs=1e-4)
    assert made([texts[2]])[0] == pytest.approx(by_hand[2:3], abs=1e-4)


def test_a_shared_encoder_embeds_a_batch_once() -> None:
    inner = Plane2()
    shared = Shared(inner)
    first = shared.encode(["a", "bc"])
    assert shared.encode(["a", "bc"]) is first
    assert inner.calls == 1
    assert np.array_equal(shared.encode(["a"]), first[:1])
    assert np.array_equal(shared.statistics(["a b"]), text_statistics(["a b"]))


def test_statistics_by_hand() -> None:
    text = "Is 12 = 3x?\n\nA. yes"
    values = dict(zip(NAMES, text_statistics([text])[0].tolist(), strict=True))
    assert values["characters"] == pytest.approx(math.log1p(19))
    assert values["words"] == pytest.approx(math.log1p(6))  # Is 12 = 3x? A. yes
    assert values["lines"] == pytest.approx(math.log1p(2))
    assert values["first_line"] == pytest.approx(math.log1p(11))
    assert values["last_line"] == pytest.approx(math.log1p(6))
    assert values["word_mean"] == pytest.approx((2 + 2 + 1 + 3 + 2 + 3) / 6)
    assert values["digits"] == pytest.approx(3 / 20)
    assert values["capitals"] == pytest.approx(2 / 20)
    assert values["operators"] == pytest.approx(1 / 20)
    assert values["words_with_digit"] == pytest.approx(2 / 7)
    assert values["words_capitalised"] == pytest.approx(2 / 7)
    assert values["question_marks"] == 1
    assert text_statistics(["", "\ud800"]).shape == (2, len(NAMES))


def test_cues_by_hand() -> None:
    text = (
        "According to the passage, which of the following did she NOT say in 1968?\n"
        "A. 12\nB. All of the above, if so\n(c) x = 3\nAnswer: "
    )
    found = question_cues([text])[0].tolist()
    lengths = np.array([2, 23, 5])
    assert found[0] == pytest.approx(math.log1p(3))
    assert found[1] == pytest.approx(math.log1p(lengths.mean()))
    assert found[2] == pytest.approx(math.log1p(23))
    assert found[3] == pytest.approx(math.log1p(lengths.std()))
    assert found[4] == pytest.approx(2 / 3), "options with a digit"
    assert found[5] == pytest.approx(2 / 3), "options that are numbers or terms alone"
    assert found[6] == pytest.approx(math.log1p(2)), "commas"
    assert found[7] == pytest.approx(math.log1p(text.count(". ")))
    # no blank, a year, a formula; "which of the following", "all of the above" and a source are said
    assert found[8:11] == [0, 1, 1]
    assert found[11:21] == [1, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    # a negation, no first person, a third person, no question of who or when, no list, a condition
    assert found[21:] == [1, 0, 1, 0, 0, 1]
    assert question_cues(["", "\ud800", "a" * 10**6]).shape == (3, WIDTH)
    assert question_cues([""]).tolist() == [[0.0] * WIDTH]


def test_a_transformer_reads_the_order_of_words(tmp_path: Path) -> None:
    """Who bites whom: one model answers when dogs bite, the other when men do."""
    from tests.contract_rows import load_learner

    learner = load_learner()
    from pilotfish.infer.predictors.transformer import TextLearner, Transformer
    from tests.models.tiny_bert import write_bert

    def told(n: int, seed: int) -> Outcomes:
        rng = np.random.default_rng(seed)
        fillers = ["the", "a", "big", "old", "small", "red"]
        first = rng.integers(2, size=n)
        words = [("dog", "man") if one else ("man", "dog") for one in first]
        texts = [
            "{} {} bites {} {}".format(*np.insert(rng.choice(fillers, 2), [1, 2], w)) for w in words
        ]
        return outcomes_of(texts, np.stack([first, 1 - first], axis=1))

    base = write_bert(tmp_path, ["dog", "man", "bites", "the", "a", "big", "old", "small", "red"])
    data = told(160, 0)
    made = Transformer.fit(data, None, 0, base=str(base), epochs=8)
    assert isinstance(made.learner, learner)
    assert isinstance(made.learner, TextLearner)
    test = told(100, 1)
    said = made.predict(test.texts)
    assert np.mean(said.mean.argmax(axis=1) == test.quality.argmax(axis=1)) > 0.9
    # The head's log-odds of the encoder's own rows are the scorer's logits.
    from pilotfish.records import Inputs

    logits = made.learner.scorer.logits(Inputs(list(test.texts)))
    assert said.mean == pytest.approx(sigmoid(logits), abs=1e-5)
