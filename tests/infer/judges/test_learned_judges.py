"""The learned scorer and the pairwise ranker: what they learn, and their formulas."""

from __future__ import annotations

import json

import numpy as np
import pytest
from safetensors.numpy import load, save
from sklearn.metrics import roc_auc_score

from pilotfish.errors import InputError
from pilotfish.infer.judges.judge import score_answers
from pilotfish.infer.judges.learned import LearnedScorer
from pilotfish.infer.judges.pairwise import PairwiseRanker, aggregate
from pilotfish.infer.outcomes import Outcomes
from pilotfish.records import Completion, Request

PATTERN = "[0-9]+"


def lesson(seed: int, n: int = 500) -> Outcomes:
    """Three models that err independently; a wrong answer is longer, and wrong numbers differ."""
    rng = np.random.default_rng(seed)
    right = rng.random((n, 3)) < [0.85, 0.6, 0.55]
    answers = np.empty((n, 3), object)
    for i in range(n):
        for j in range(3):
            number = int(rng.integers(10, 99)) if not right[i, j] else 10 + i % 89
            hedge = (
                "maybe perhaps possibly " * int(rng.integers(1, 4)) if rng.random() < 0.5 else ""
            )
            answers[i, j] = f"{hedge if not right[i, j] else ''}It is {number}"
    texts = tuple(f"question {i} of {seed}?" for i in range(n))
    return Outcomes(texts, ("a", "b", "c"), right.astype(np.float32), answers=answers)


@pytest.fixture(scope="module")
def scorer() -> LearnedScorer:
    return LearnedScorer.fit(lesson(0), pattern=PATTERN)


def alone(test: Outcomes, j: int) -> np.ndarray:
    asked = np.zeros(test.quality.shape, bool)
    asked[:, j] = True
    return asked


def test_the_scorer_reads_the_answer_and_what_others_say(scorer: LearnedScorer) -> None:
    test = lesson(1)
    for j in range(3):
        single = scorer.score_many(test, alone(test, j))
        assert np.isnan(single[:, [k for k in range(3) if k != j]]).all()
        first = roc_auc_score(test.quality[:, j], single[:, j])
        all_ = roc_auc_score(test.quality[:, j], scorer.score_many(test)[:, j])
        # Half of the wrong answers hedge: (1 + 0.5) / 2 is what reading one answer can reach.
        assert first == pytest.approx(0.75, abs=0.06)
        assert all_ > first + 0.1, "other models' answers say more"
    picked = scorer.score_many(test).argmax(axis=1)
    best = test.quality.mean(axis=0).max()
    assert test.quality[np.arange(len(test)), picked].mean() > best + 0.05


def test_trees_see_what_a_sum_cannot() -> None:
    """A short answer is right to a short question and a long one to a long question."""

    def crossed(seed: int) -> Outcomes:
        rng = np.random.default_rng(seed)
        asked, said = rng.random((2, 800)) < 0.5
        texts = tuple(f"case {i}" + " and so on" * 9 * bool(a) for i, a in enumerate(asked))
        answers = np.array([["yes" + " indeed" * 9 * bool(b)] for b in said], object)
        return Outcomes(texts, ("a",), (asked == said)[:, None].astype(np.float32), answers=answers)

    test = crossed(1)
    linear, both = (LearnedScorer.fit(crossed(0), together=False, trees=t) for t in (0, 40))
    assert roc_auc_score(test.quality, linear.score_many(test)) < 0.7
    assert roc_auc_score(test.quality, both.score_many(test)) > 0.95
    # The score is the mean of the two probabilities.
    own = both.features.alone(both.features.questions(test.texts), list(test.answers[:, 0]))
    grown = np.clip(both.trees.total(own)[:, 0], 0, 1)
    assert 2 * both.score_many(test)[:, 0] == pytest.approx(
        linear.score_many(test)[:, 0] + grown, abs=1e-5
    )


def test_the_scores_are_calibrated_but_for_the_prior(scorer: LearnedScorer) -> None:
    test = lesson(2, 2000)
    scores = scorer.score_many(test)
    for low, high in ((0.0, 0.4), (0.4, 0.8), (0.8, 1.01)):
        inside = (scores >= low) & (scores < high)
        assert scores[inside].mean() == pytest.approx(test.quality[inside].mean(), abs=0.12)


async def test_live_and_recorded_scores_are_the_same(scorer: LearnedScorer) -> None:
    test = lesson(3, 5)
    assert test.answers is not None
    asked = np.array([[1, 1, 0], [1, 0, 0], [0, 1, 1], [1, 1, 1], [0, 0, 1]], bool)
    recorded = scorer.score_many(test, asked)
    for i in range(5):
        given = {
            name: Completion(test.answers[i, j], name)
            for j, name in enumerate(test.models)
            if asked[i, j]
        }
        live = await score_answers(scorer, Request.of(test.texts[i]), given)
        for j, name in enumerate(test.models):
            if asked[i, j]:
                assert live[name] == pytest.approx(recorded[i, j], abs=1e-5)
    with pytest.raises(InputError, match="zz"):
        await scorer.score(Request.of("x"), Completion("y", "zz"))


def test_a_learned_judge_is_the_same_after_storing(scorer: LearnedScorer) -> None:
    test = lesson(4, 30)
    ranker = PairwiseRanker.fit(lesson(0), pattern=PATTERN)
    for judge in (scorer, ranker):
        values, arrays = judge.state()
        again = type(judge).restore(json.loads(json.dumps(values)), load(save(arrays)), None)
        assert np.array_equal(again.score_many(test), judge.score_many(test))


def test_a_scorer_without_answers_or_of_other_models_says_so(scorer: LearnedScorer) -> None:
    bare = Outcomes(("q", "r"), ("a", "b", "c"), np.ones((2, 3), np.float32))
    with pytest.raises(InputError, match="answers"):
        LearnedScorer.fit(bare)
    with pytest.raises(InputError, match="without answers"):
        scorer.score_many(bare)


# The pairwise ranker

LOGITS = np.array([[[0, 2, -1], [-2, 0, 4], [1, -4, 0]]], np.float32)
ALL = np.ones((1, 3), bool)


def test_aggregations_against_the_papers_formulas() -> None:
    # Max logits: sum over others of (s_ij - s_ji); here s_ij = -s_ji, so 2 * row sums: 2, 4, -6.
    sums = LOGITS[0].sum(axis=1) / 2
    expected = 1 / (1 + np.exp(-sums))
    np.testing.assert_allclose(aggregate(LOGITS, ALL, "max_logits")[0], expected, rtol=1e-5)
    # Max wins: 0 beats 1, 1 beats 2, 2 beats 0: one win each of two comparisons.
    assert aggregate(LOGITS, ALL, "max_wins")[0].tolist() == [0.5, 0.5, 0.5]
    # Bubble: 1 does not beat 0; 2 beats 0.
    assert aggregate(LOGITS, ALL, "bubble")[0].tolist() == [0, 0, 1]
    two = np.array([[True, True, False]])
    assert aggregate(LOGITS, two, "max_wins")[0, :2].tolist() == [1, 0]
    assert aggregate(LOGITS, two, "bubble")[0].tolist() == [1, 0, 0]


def test_the_ranker_is_antisymmetric_and_finds_the_better_answer() -> None:
    ranker = PairwiseRanker.fit(lesson(0), pattern=PATTERN)
    test = lesson(1)
    logits = ranker.compare(test)
    np.testing.assert_allclose(logits, -logits.transpose(0, 2, 1), atol=1e-6)
    differs = test.quality[:, 1] != test.quality[:, 2]
    says = logits[differs, 1, 2] > 0
    assert np.mean(says == (test.quality[differs, 1] > test.quality[differs, 2])) > 0.8
    picked = ranker.score_many(test).argmax(axis=1)
    best = test.quality.mean(axis=0).max()
    assert test.quality[np.arange(len(test)), picked].mean() > best + 0.05
