"""What the fitted judges have in common: live answers are judged as a table of one row.

What they keep is said by their fields, as with predictors
(:class:`~pilotfish.infer.predictors.fitted.Fitted`).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.infer.judges.answer_features import AnswerFeatures
from pilotfish.infer.judges.judge import Bools, present
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.fitted import Fitted, State
from pilotfish.records import Completion, Request


@dataclass(eq=False)
class FittedJudge(Fitted):
    """A judge of the answers of models that it was fitted on.

    Attributes:
        features: What it reads of an answer.
    """

    name: ClassVar[str]

    features: AnswerFeatures

    @abstractmethod
    def score_many(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """Scores of recorded answers ``[n, m]``, NaN where an answer was not asked for."""

    async def score_together(
        self, request: Request, completions: Mapping[str, Completion]
    ) -> dict[str, float]:
        """A score for each answer, given all of them.

        Raises:
            InputError: It was not fitted on one of the models.
        """
        if unknown := sorted(set(completions) - set(self.models)):
            raise InputError(
                f"The judge {self.name!r} was not fitted on {', '.join(unknown)}.",
                remedy=f"It knows {', '.join(self.models)}",
            )
        texts = np.array([[None] * len(self.models)], object)
        for name, completion in completions.items():
            texts[0, self.models.index(name)] = completion.text
        quality = np.full(texts.shape, np.nan, np.float32)
        scores = self.score_many(Outcomes((request.prompt,), self.models, quality, answers=texts))
        return {name: float(scores[0, self.models.index(name)]) for name in completions}

    def state(self) -> State:
        """JSON values, the models among them, and arrays; :meth:`restore` is the inverse."""
        settings, arrays = super().state()
        return {"models": list(self.models), **settings}, arrays

    def recorded(self, outcomes: Outcomes) -> NDArray[np.object_]:
        """The answers ``[n, m]``.

        Raises:
            InputError: There are none, or they are other models'.
        """
        if outcomes.answers is None or outcomes.models != self.models:
            raise InputError(
                f"Got outcomes of {', '.join(outcomes.models)}"
                + (" without answers" if outcomes.answers is None else "")
                + f", but the judge {self.name!r} reads answers of {', '.join(self.models)}."
            )
        return outcomes.answers


def texts_of(answers: NDArray[np.object_]) -> NDArray[Any]:
    """The answers' texts, empty where there is none."""
    return np.where(present(answers), answers, "")


def fit_answers(outcomes: Outcomes) -> NDArray[np.object_]:
    """The answers to learn from ``[n, m]``.

    Raises:
        InputError: There are none.
    """
    if outcomes.answers is None:
        raise InputError(
            "A learned judge reads answers, but the outcomes hold none.",
            remedy="Record the answers' texts: a column 'answer', or 'answer:NAME' for each model",
        )
    return outcomes.answers
