"""Judges of single answers and of samples, against their formulas, with scripted models."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from pilotfish.errors import ConfigError, InputError, Unavailable
from pilotfish.infer.judges.confidence import ConfidenceJudge
from pilotfish.infer.judges.judge import score_answers
from pilotfish.infer.judges.model_agreement import ModelAgreement
from pilotfish.infer.judges.same import Same, majority
from pilotfish.infer.judges.sample_agreement import SampleAgreement
from pilotfish.infer.judges.verification import SelfVerification, verdict
from pilotfish.infer.outcomes import Outcomes
from pilotfish.models.fake import FakeModel
from pilotfish.records import Completion, Request

ASKED = Request.of("What is 6 x 7?", system="Be brief.")
ANSWER = Completion("The answer is 42", "small")


def outcomes(answers: list[list[str | None]], **signals: Any) -> Outcomes:
    texts = np.array(answers, object)
    quality = np.where(np.equal(texts, None), np.nan, 1.0).astype(np.float32)
    names = tuple("abcdef"[: texts.shape[1]])
    tables = {name: np.array(values, np.float32) for name, values in signals.items()}
    questions = tuple(f"q{i}" for i in range(len(texts)))
    return Outcomes(questions, names, quality, answers=texts, signals=tables)


# The answer's own probability


async def test_sequence_likelihood_sum_and_mean() -> None:
    logs = (-0.1, -0.7, -0.2)
    answer = Completion("x", "m", logprobs=tuple({"token": "t", "logprob": v} for v in logs))
    whole = await ConfidenceJudge("sequence_probability").score(ASKED, answer)
    mean = await ConfidenceJudge("mean_probability").score(ASKED, answer)
    assert whole == pytest.approx(math.exp(-1.0))
    assert mean == pytest.approx(math.exp(-1.0 / 3))


async def test_nothing_to_judge_by_scores_zero() -> None:
    for name in ("top_probability", "margin", "mean_probability"):
        assert await ConfidenceJudge(name).score(ASKED, Completion("x", "m")) == 0.0


def test_recorded_confidence_is_the_signal_where_it_was_asked() -> None:
    rows = outcomes([["x", "y"], ["x", None]], margin=[[0.2, 1.4], [0.3, np.nan]])
    judge = ConfidenceJudge("margin")
    seen = judge.score_many(rows)
    np.testing.assert_allclose(seen, [[0.2, 1.0], [0.3, np.nan]], rtol=1e-6)
    only_first = judge.score_many(rows, np.array([[True, False], [True, True]]))
    np.testing.assert_allclose(only_first, [[0.2, np.nan], [0.3, np.nan]], rtol=1e-6)
    with pytest.raises(InputError, match="top_probability"):
        ConfidenceJudge().score_many(rows)


# Self-verification


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Verdict: correct", True),
        ("It looks correct, but no: Verdict: incorrect.", False),
        ("INCORRECT", False),
        ("Verdict: not correct", False),
        ("The answer isn't correct.", False),
        ("It is not incorrect", True),
        ("Verdict: **Correct**, not a guess", True),
        ("Yes", True),
        ("no", False),
        ("The correctness is unclear", None),
        ("", None),
    ],
)
def test_a_verdict_is_the_last_one(text: str, expected: bool | None) -> None:
    assert verdict(text) is expected


async def test_self_verification_is_the_share_of_correct_verdicts() -> None:
    said = ["Verdict: correct"] * 5 + ["Verdict: incorrect"] * 2 + ["I cannot tell"]
    model = FakeModel(said)
    score = await SelfVerification(model, samples=8).score(ASKED, ANSWER)
    assert score == pytest.approx(5 / 7), "AutoMix: k verdicts, those without a word do not count"
    assert len({request.key("m") for request in model.requests}) == 8, (
        "a cache must not merge samples"
    )
    prompt = model.requests[0].prompt
    assert "What is 6 x 7?" in prompt
    assert "The answer is 42" in prompt
    assert prompt.count("Verdict: correct") + prompt.count("Verdict: incorrect") >= 4, "few-shot"


async def test_self_verification_bears_failing_samples_but_not_only_those() -> None:
    faults = [Unavailable("gone"), None, None]
    model = FakeModel("Verdict: correct", faults=faults)
    assert await SelfVerification(model, samples=3).score(ASKED, ANSWER) == 1.0
    dead = FakeModel("x", faults=itertools.repeat(Unavailable("gone")))
    with pytest.raises(Unavailable):
        await SelfVerification(dead, samples=2).score(ASKED, ANSWER)
    silent = SelfVerification(FakeModel("Hm."), samples=2)
    assert await silent.score(ASKED, ANSWER) == 0.0


# Sample agreement


async def test_vote_is_the_share_of_samples_with_the_same_answer() -> None:
    model = FakeModel(["it is 42", "41", "42.", "The answer is 42"])
    judge = SampleAgreement(model, samples=4, pattern="[0-9]+")
    assert await judge.score(ASKED, ANSWER) == pytest.approx(4 / 5)
    assert len({request.params["seed"] for request in model.requests}) == 4


@pytest.mark.parametrize(
    ("thought", "program", "expected"),
    [(["42", "42", "7"], ["42", "8", "42"], 1.0), (["42", "42", "7"], ["8", "8", "42"], 0.0)],
)
async def test_verify_keeps_what_both_ways_agree_on(
    thought: list[str], program: list[str], expected: float
) -> None:
    judge = SampleAgreement(
        FakeModel([*thought, *program]),
        samples=3,
        pattern="[0-9]+",
        form="verify",
        ways=[lambda r: r, lambda r: Request.of("Write a program: " + r.prompt)],
    )
    assert await judge.score(ASKED, ANSWER) == expected


def test_verify_needs_two_ways() -> None:
    with pytest.raises(ConfigError, match="two"):
        SampleAgreement(FakeModel("x"), form="verify")


async def test_open_answers_agree_by_their_words() -> None:
    model = FakeModel(["a red car", "blue"])
    judge = SampleAgreement(model, samples=2)
    score = await judge.score(ASKED, Completion("the red car", "m"))
    assert score == pytest.approx((1 + 2 / 3 + 0) / 3), "F1 of words: 2 * 2 / (3 + 3)"


def test_majority_of_equals_is_the_first() -> None:
    assert majority(["x", "y", None, "y", "x"]) == ("x", 0.4)
    assert majority([None]) == (None, 0.0)


# Agreement between models


async def test_model_agreement_is_the_weighted_share() -> None:
    judge = ModelAgreement({"a": 3.0, "b": 1.0, "c": 1.0}, prior={"a": 0.7}, pattern="[0-9]+")
    given = {
        name: Completion(text, name) for name, text in zip("abc", ["1", "2", "= 2"], strict=True)
    }
    scores = await score_answers(judge, ASKED, given)
    assert scores == pytest.approx({"a": 0.6, "b": 0.4, "c": 0.4})
    assert await score_answers(judge, ASKED, {"a": given["a"]}) == pytest.approx({"a": 0.7})


async def test_recorded_and_live_agreement_are_the_same() -> None:
    rng = np.random.default_rng(0)
    rows = outcomes([[str(rng.integers(3)) for _ in "abcd"] for _ in range(20)])
    judge = ModelAgreement.fit(rows, pattern="[0-9]")
    asked = rng.random((20, 4)) < 0.6
    recorded = judge.score_many(rows, asked)
    assert rows.answers is not None
    for i in range(20):
        given = {
            name: Completion(rows.answers[i, j], name)
            for j, name in enumerate(rows.models)
            if asked[i, j]
        }
        live = await score_answers(judge, Request.of(rows.texts[i]), given) if given else {}
        for j, name in enumerate(rows.models):
            assert np.isnan(recorded[i, j]) == (name not in live)
            if name in live:
                assert recorded[i, j] == pytest.approx(live[name], abs=1e-6)


def test_a_missing_final_answer_agrees_with_none_even_another_missing_one() -> None:
    same = Same("[0-9]+")
    assert same.agreement("no number", "no number") == 0.0
    matrix = same.matrix(np.array([["none", "none", "1", "x 1"]], object))[0]
    assert matrix.tolist() == [[0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]
    with pytest.raises(ConfigError, match="regular expression"):
        Same("(")
