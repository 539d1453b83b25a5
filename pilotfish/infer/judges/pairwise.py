"""A pairwise ranker: of two answers to a question, which is better?

LLM-Blender's PairRanker (Jiang, Ren and Lin 2023) reads the question with both answers and gives
each a logit; the answers are ranked by the sum of all differences (*max logits*), by the
comparisons they win (*max wins*), or by the winner that is left after comparing one after the other
(*bubble*). Here the reader is a logistic regression on the difference of the two answers' features
and on which models they come from, so swapping the answers turns the sign; the paper fine-tunes
DeBERTa, which must be shown both orders.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ConfigError, InputError
from pilotfish.infer.judges.answer_features import AnswerFeatures, QuestionFeatures
from pilotfish.infer.judges.fitted import FittedJudge, fit_answers, texts_of
from pilotfish.infer.judges.judge import Bools, only, seen
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.settings import Positive
from pilotfish.models.logistic import fit_logistic
from pilotfish.models.protocols import Encoder
from pilotfish.records import Completion, Request

STRENGTH = 0.1
PAIRS = 4  # drawn for each question
AGGREGATIONS = ("max_logits", "max_wins", "bubble")


@dataclass(eq=False)
class PairwiseRanker(FittedJudge):
    """Ranks answers by comparing them two by two.

    Attributes:
        coefficients: Of the difference of two answers' features ``[width]``.
        strength: Of each model ``[m]``: what its name is worth.
        aggregate: How comparisons become scores.

    Raises:
        ConfigError: There is no such aggregation.
    """

    name: ClassVar[str] = "pairwise"

    coefficients: Floats
    strength: Floats
    aggregate: str = "max_logits"

    def __post_init__(self) -> None:
        if self.aggregate not in AGGREGATIONS:
            raise ConfigError(
                f"Got aggregate={self.aggregate!r}, but expected one of {AGGREGATIONS}."
            )

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        *,
        encoder: Encoder | None = None,
        pattern: str = "",
        aggregate: Literal["max_logits", "max_wins", "bubble"] = "max_logits",
        strength: Positive = STRENGTH,
        seed: int = 0,
    ) -> Self:
        """Learn from pairs of answers of different quality.

        Args:
            outcomes: With answers.
            encoder: Embeds questions and answers; default not.
            pattern: Finds the final answer.
            aggregate: How comparisons become scores.
            strength: How much the data count against the prior.
            seed: Of the pairs drawn.

        Raises:
            InputError: There are no answers, or no two of different quality.
        """
        answers = fit_answers(outcomes)
        rng = np.random.default_rng(seed)
        n, m = outcomes.quality.shape
        known = seen(outcomes, None) & ~np.isnan(outcomes.quality)
        rows = np.repeat(np.arange(n), PAIRS)
        first, second = rng.integers(m, size=(2, n * PAIRS))
        quality = np.nan_to_num(outcomes.quality)
        gap = quality[rows, first] - quality[rows, second]
        use = known[rows, first] & known[rows, second] & (gap != 0)
        rows, first, second, gap = rows[use], first[use], second[use], gap[use]
        if not rows.size:
            raise InputError("No two answers to a question differ in quality.")
        texts = texts_of(answers)
        asked = [outcomes.texts[i] for i in rows]
        features = AnswerFeatures.fit(asked, list(texts[rows, first]), encoder, pattern)
        same = features.same.matrix(answers)
        read = features.questions(outcomes.texts).take(rows)
        sides = [_side(features, read, texts, same, known, rows, side) for side in (first, second)]
        names = np.eye(m, dtype=np.float32)
        inputs = np.hstack([sides[0] - sides[1], names[first] - names[second]])
        targets = (0.5 + 0.5 * gap).astype(np.float32)
        # Each pair in both orders: the bias is 0 then, as it must be.
        ((weights, _),) = fit_logistic(
            [np.vstack([inputs, -inputs])],
            np.concatenate([targets, 1 - targets])[:, None],
            np.ones(2 * len(rows)),
            multilabel=True,
            strengths=[strength],
        )
        flat = weights[0][:, 0]
        return cls(outcomes.models, features, flat[:-m], flat[-m:], aggregate)

    def compare(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """Logit that the first of two answers is better ``[n, m, m]``; 0 against what was not asked."""
        visible = seen(outcomes, asked)
        worth = self._worth(outcomes, visible)
        both = visible[:, :, None] & visible[:, None, :]
        out: Floats = np.where(both, worth[:, :, None] - worth[:, None, :], 0.0).astype(np.float32)
        return out

    def _worth(self, outcomes: Outcomes, visible: Bools) -> Floats:
        answers = self.recorded(outcomes)
        texts, every = texts_of(answers), np.arange(len(outcomes))
        same = self.features.same.matrix(answers)
        worth = np.zeros(outcomes.quality.shape, np.float32)
        asked = self.features.questions(outcomes.texts)
        for j in range(len(self.models)):
            side = np.full(len(outcomes), j)
            read = _side(self.features, asked, texts, same, visible, every, side)
            worth[:, j] = read @ self.coefficients + self.strength[j]
        return worth

    async def score(self, request: Request, completion: Completion) -> float:
        """An answer that is alone is neither better nor worse than another: 0.5."""
        return 0.5

    def score_many(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """Comparisons of recorded answers as scores.

        Raises:
            InputError: There are no answers, or other models.
        """
        visible = seen(outcomes, asked)
        logits = self.compare(outcomes, asked)
        return only(aggregate(logits, visible, self.aggregate), visible)


def aggregate(logits: Floats, visible: Bools, how: str) -> Floats:
    """Scores in [0, 1] from pairwise logits.

    Args:
        logits: That the first is better than the second ``[n, m, m]``.
        visible: Which answers there are ``[n, m]``.
        how: ``"max_logits"``: the mean over the others of half the logit of being better less that of
            being worse, through a sigmoid. ``"max_wins"``: the share of the others beaten, a draw
            counting a half.
            ``"bubble"``: 1 for the winner left by comparing in order, 0 for the others.

    >>> three = np.array([[[0, 1, 3], [-1, 0, 5], [-3, -5, 0]]], np.float32)
    >>> there = np.ones((1, 3), bool)
    >>> [int(aggregate(three, there, how).argmax()) for how in AGGREGATIONS]
    [0, 0, 0]
    """
    n, m = visible.shape
    others = np.maximum(visible.sum(1, keepdims=True) - visible, 1)
    both = visible[:, :, None] & visible[:, None, :] & ~np.eye(m, dtype=bool)
    if how == "max_wins":
        wins = np.where(both, (logits > 0) + 0.5 * (logits == 0), 0.0).sum(axis=2)
        share: Floats = np.where(visible.sum(1, keepdims=True) > 1, wins / others, 0.5)
        return share.astype(np.float32)
    if how == "bubble":
        best = np.full(n, -1)
        for j in range(m):
            first = best < 0
            beats = np.where(first, 1.0, logits[np.arange(n), j, np.maximum(best, 0)]) > 0
            best = np.where(visible[:, j] & beats, j, best)
        winner: Floats = (np.arange(m) == best[:, None]).astype(np.float32)
        return winner
    edge = np.where(both, (logits - logits.transpose(0, 2, 1)) / 2, 0.0).sum(axis=2)
    out: Floats = (0.5 * (1 + np.tanh(0.5 * edge / others))).astype(np.float32)
    return out


def _side(
    features: AnswerFeatures,
    questions: QuestionFeatures,
    texts: NDArray[np.object_],
    same: Floats,
    visible: Bools,
    rows: NDArray[Any],
    side: NDArray[Any],
) -> Floats:
    own = features.alone(questions, list(texts[rows, side]))
    others = visible[rows].copy()
    others[np.arange(len(rows)), side] = False
    count = np.maximum(others.sum(axis=1, keepdims=True), 1)
    agree = (same[rows, side] * others).sum(axis=1, keepdims=True) / count
    return np.hstack([own, agree]).astype(np.float32)
