"""A learned scorer of (question, answer): how likely an answer is right.

FrugalGPT (Chen, Zaharia and Zou 2023) fine-tunes DistilBERT to regress whether an answer is correct
on the question and the answer; here it is the mean of a logistic regression and of boosted trees
(Friedman 2001) for each model on embeddings, the surfaces of both texts, and the agreement with the
other answers asked for. It is fitted with random sets of other answers, so that one judge serves every
stage of a cascade: alone with the first answer, and better the more there are.

The trees raise the area under the ROC curve on MMLU-Pro (2,500 questions learned from, mean of the
models) by 0.02 for an answer alone, 0.008 for two and 0.003 for all eight. The paper's scorer sees one
answer at a time: ``together=False``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.infer.judges.answer_features import AnswerFeatures, votes_for
from pilotfish.infer.judges.fitted import FittedJudge, fit_answers, texts_of
from pilotfish.infer.judges.judge import Bools, only, seen
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.fitted import Arrays
from pilotfish.infer.predictors.settings import Positive
from pilotfish.infer.predictors.trees import Trees
from pilotfish.models.logistic import fit_logistic
from pilotfish.models.protocols import Encoder
from pilotfish.records import Completion, Request

COPIES = 3  # random sets of other answers for each question
FOLDS = 4
STRENGTH = 0.1  # scikit-learn's C
TREES, RATE, LEAVES = 80, 0.08, 8  # boosted trees of each model, their step, and leaves of a tree


@dataclass(eq=False)
class LearnedScorer(FittedJudge):
    """Scores answers of models that it was fitted on.

    Attributes:
        alone: Coefficients of an answer's own features, then the bias ``[m, width + 1]``.
        joint: Those of all features, then the bias; ``[m, 0]`` if it looks at one answer at a time.
        trees: Boosted trees over the same features, equally many for each model, whose probability is
            averaged with the linear one; none with ``trees=0``.
    """

    name: ClassVar[str] = "learned"

    alone: Floats
    joint: Floats
    trees: Trees

    def __post_init__(self) -> None:
        self._last: tuple[Outcomes, list[Floats], Floats, Floats] | None = None
        count = len(self.models)
        self._trees = [self.trees.part(j, count) for j in range(count) if len(self.trees.roots)]

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        *,
        encoder: Encoder | None = None,
        pattern: str = "",
        together: bool = True,
        strength: Positive = STRENGTH,
        trees: int = TREES,
        seed: int = 0,
    ) -> Self:
        """Learn from recorded answers and their quality.

        Args:
            outcomes: With answers; qualities between 0 and 1 are soft labels.
            encoder: Embeds questions and answers; default not.
            pattern: Finds the final answer, see :class:`~pilotfish.infer.judges.same.Same`.
            together: Whether agreement with other answers counts.
            strength: How much the data count against the prior.
            trees: Boosted trees for each model; 0 for the linear scorer alone.
            seed: Of the random sets and the trees.

        Raises:
            InputError: There are no answers, or none of some model.
        """
        answers = fit_answers(outcomes)
        rng = np.random.default_rng(seed)
        n, m = outcomes.quality.shape
        texts = texts_of(answers)
        known = seen(outcomes, None) & ~np.isnan(outcomes.quality)
        sample = rng.permutation(n * m)[: min(n * m, 4000)]
        features = AnswerFeatures.fit(
            [outcomes.texts[i // m] for i in sample],
            [texts[i // m, i % m] for i in sample],
            encoder,
            pattern,
        )
        asked, fold = features.questions(outcomes.texts), rng.integers(FOLDS, size=n)
        single = np.zeros((n, m), np.float32)
        own, alone = [], []
        for j, name in enumerate(outcomes.models):
            if not known[:, j].any():
                raise InputError(f"No quality was recorded of {name}.")
            own.append(features.alone(asked, list(texts[:, j])))
            alone.append(_fit(own[j], outcomes.quality[:, j], known[:, j], strength))
            # Others' votes are weighed by logits of fits that did not see their answers.
            for k in range(FOLDS):
                rows, held = known[:, j] & (fold != k), fold == k
                fitted = (
                    _fit(own[j], outcomes.quality[:, j], rows, strength) if rows.any() else alone[j]
                )
                single[held, j] = own[j][held] @ fitted[:-1] + fitted[-1]
        same = features.same.matrix(answers) if together else None
        joint, boosted = [], []
        for j in range(m):
            rows = np.flatnonzero(known[:, j])
            if same is None:
                joint.append(np.zeros(0, np.float32))
                boosted += _boost(own[j][rows], outcomes.quality[rows, j], trees, seed)
                continue
            blocks = []
            for copy in range(COPIES):
                share = rng.random((len(rows), 1)) * (copy > 0)  # the first time alone
                others = known[rows] & (rng.random((len(rows), m)) < share)
                votes = features.together(same[rows], others, j, single[rows])
                blocks.append(np.hstack([own[j][rows], votes]))
            quality, read = np.tile(outcomes.quality[rows, j], COPIES), np.vstack(blocks)
            joint.append(_fit(read, quality, np.ones(len(quality), bool), strength))
            boosted += _boost(read, quality, trees, seed)
        grown = Trees.of_boosted(boosted) if boosted else Trees.none(m)
        return cls(outcomes.models, features, np.stack(alone), np.stack(joint), grown)

    async def score(self, request: Request, completion: Completion) -> float:
        """The probability that an answer is right, nothing else having been asked."""
        return (await self.score_together(request, {completion.model: completion}))[
            completion.model
        ]

    def score_many(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """The same for recorded answers; what does not depend on ``asked`` is kept from call to call.

        Raises:
            InputError: There are no answers, or other models.
        """
        answers = self.recorded(outcomes)
        visible = seen(outcomes, asked)
        if self._last is None or self._last[0] is not outcomes:
            self._last = (outcomes, *self._read(outcomes, answers))
        _, own, alone, same = self._last
        scores = np.zeros_like(alone)
        support = votes_for(same, visible, alone) if self.joint.size else None
        for j in range(len(self.models)):
            rows, weights = visible[:, j], self.alone[j]
            read = own[j][rows]
            if self.joint.size:
                votes = self.features.together(same, visible, j, alone, support)
                read, weights = np.hstack([read, votes[rows]]), self.joint[j]
            scores[rows, j] = _sigmoid(read @ weights[:-1] + weights[-1])
            if self._trees:
                grown = np.clip(self._trees[j].total(read)[:, 0], 0, 1)
                scores[rows, j] = (scores[rows, j] + grown) / 2
        return only(scores, visible)

    def _read(
        self, outcomes: Outcomes, answers: NDArray[np.object_]
    ) -> tuple[list[Floats], Floats, Floats]:
        """Each model's own features, log-odds of every answer alone, and who agrees."""
        texts, asked = texts_of(answers), self.features.questions(outcomes.texts)
        own = [self.features.alone(asked, list(texts[:, j])) for j in range(len(self.models))]
        logits = [rows @ w[:-1] + w[-1] for rows, w in zip(own, self.alone, strict=True)]
        return own, np.stack(logits, axis=1), self.features.same.matrix(answers)

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from a state and the encoder that it was fitted with.

        Raises:
            ArtifactError: The trees read other features.
        """
        made = super().restore(settings, arrays, encoder)
        made.trees.check(max(made.alone.shape[1], made.joint.shape[1]) - 1)
        return made


def _boost(inputs: Floats, quality: Floats, trees: int, seed: int) -> list[Any]:
    """A boosted regression of the quality, or none without trees."""
    if not trees:
        return []
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        max_iter=trees,
        learning_rate=RATE,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=max(1, min(40, len(inputs) // 10)),
        l2_regularization=10.0,
        max_features=0.3,
        early_stopping=False,
        random_state=seed,
    )
    return [model.fit(inputs, quality)]


def _fit(inputs: Floats, quality: Floats, rows: Bools, strength: float) -> Floats:
    """Coefficients, then the bias, of a logistic regression on these rows ``[width + 1]``."""
    ((weights, bias),) = fit_logistic(
        [inputs[rows]],
        quality[rows][:, None].astype(np.float32),
        np.ones(int(rows.sum())),
        multilabel=True,
        strengths=[strength],
    )
    out: Floats = np.append(weights[0][:, 0], bias[0]).astype(np.float32)
    return out


def _sigmoid(logits: Floats) -> Floats:
    out: Floats = 0.5 * (1 + np.tanh(0.5 * logits))
    return out
