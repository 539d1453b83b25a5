"""A learned scorer of (question, answer): how likely an answer is right.

FrugalGPT (Chen, Zaharia and Zou 2023) fine-tunes DistilBERT to regress whether an answer is correct
on the question and the answer; here it is a logistic regression for each model on embeddings, the
surfaces of both texts, and the agreement with the other answers asked for. It is fitted with random
sets of other answers, so that one judge serves every stage of a cascade: alone with the first
answer, and better the more there are.

The paper's scorer sees one answer at a time: ``together=False``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.infer.judges.answer_features import AnswerFeatures, votes_for
from pilotfish.infer.judges.fitted import FittedJudge, fit_answers, texts_of
from pilotfish.infer.judges.judge import Bools, only, seen
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.models.logistic import fit_logistic
from pilotfish.models.protocols import Encoder
from pilotfish.records import Completion, Request

COPIES = 3  # random sets of other answers for each question
FOLDS = 4
STRENGTH = 0.1  # scikit-learn's C


@dataclass(eq=False)
class LearnedScorer(FittedJudge):
    """Scores answers of models that it was fitted on.

    Attributes:
        alone: Coefficients of an answer's own features, then the bias ``[m, width + 1]``.
        joint: Those of all features, then the bias; ``[m, 0]`` if it looks at one answer at a time.
    """

    name: ClassVar[str] = "learned"

    alone: Floats
    joint: Floats

    def __post_init__(self) -> None:
        self._last: tuple[Outcomes, Floats, Floats, Floats] | None = None

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        *,
        encoder: Encoder | None = None,
        pattern: str = "",
        together: bool = True,
        strength: float = STRENGTH,
        seed: int = 0,
    ) -> Self:
        """Learn from recorded answers and their quality.

        Args:
            outcomes: With answers; qualities between 0 and 1 are soft labels.
            encoder: Embeds questions and answers; default not.
            pattern: Finds the final answer, see :class:`~pilotfish.infer.judges.same.Same`.
            together: Whether agreement with other answers counts.
            strength: How much the data count against the prior.
            seed: Of the random sets.

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
        if not together:
            return cls(outcomes.models, features, np.stack(alone), np.zeros((m, 0), np.float32))
        same = features.same.matrix(answers)
        joint = []
        for j in range(m):
            rows = np.flatnonzero(known[:, j])
            blocks = []
            for copy in range(COPIES):
                share = rng.random((len(rows), 1)) * (copy > 0)  # the first time alone
                others = known[rows] & (rng.random((len(rows), m)) < share)
                votes = features.together(same[rows], others, j, single[rows])
                blocks.append(np.hstack([own[j][rows], votes]))
            quality = np.tile(outcomes.quality[rows, j], COPIES)
            joint.append(_fit(np.vstack(blocks), quality, np.ones(len(quality), bool), strength))
        return cls(outcomes.models, features, np.stack(alone), np.stack(joint))

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
        _, alone, base, same = self._last
        if not self.joint.size:
            return only(_sigmoid(alone), visible)
        logits = np.empty_like(base)
        support = votes_for(same, visible, alone)
        for j in range(len(self.models)):
            votes = self.features.together(same, visible, j, alone, support)
            logits[:, j] = base[:, j] + votes @ self.joint[j, -1 - votes.shape[1] : -1]
        return only(_sigmoid(logits), visible)

    def _read(
        self, outcomes: Outcomes, answers: NDArray[np.object_]
    ) -> tuple[Floats, Floats, Floats]:
        """Log-odds of every answer alone, its own part of the joint ones, and who agrees."""
        texts, asked = texts_of(answers), self.features.questions(outcomes.texts)
        alone = np.zeros(outcomes.quality.shape, np.float32)
        base = np.zeros_like(alone)
        for j in range(len(self.models)):
            own = self.features.alone(asked, list(texts[:, j]))
            alone[:, j] = own @ self.alone[j, :-1] + self.alone[j, -1]
            if self.joint.size:
                base[:, j] = own @ self.joint[j, : own.shape[1]] + self.joint[j, -1]
        return alone, base, self.features.same.matrix(answers)


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
