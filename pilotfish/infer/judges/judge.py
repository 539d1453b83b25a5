"""What a judge is: a score in [0, 1] for an answer as it comes, and for recorded ones all at once.

Some judges look at one answer alone, others compare the answers that were asked for. So the recorded form
takes which answers may be seen, and the live form all answers of one request; what was not asked has no
score (NaN), never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.models.protocols import Judge
from pilotfish.records import Completion, Request

Bools = NDArray[np.bool_]


@runtime_checkable
class AnswerJudge(Judge, Protocol):
    """A judge of live and of recorded answers."""

    def score_many(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """Scores of recorded answers.

        Args:
            outcomes: ``n`` questions and ``m`` models.
            asked: Which answers may be looked at ``[n, m]``; default all that were recorded.

        Returns:
            ``[n, m]`` in [0, 1], NaN where an answer was not asked for or cannot be judged.
        """
        ...


@runtime_checkable
class ComparingJudge(AnswerJudge, Protocol):
    """A judge whose score of an answer depends on the other answers to the same request."""

    async def score_together(
        self, request: Request, completions: Mapping[str, Completion]
    ) -> dict[str, float]:
        """A score for each answer, by the name of its model."""
        ...


async def score_answers(
    judge: Judge, request: Request, completions: Mapping[str, Completion]
) -> dict[str, float]:
    """Judge all answers of one request, together where the judge can."""
    if isinstance(judge, ComparingJudge):
        return await judge.score_together(request, completions)
    return {name: await judge.score(request, given) for name, given in completions.items()}


def seen(outcomes: Outcomes, asked: Bools | None) -> Bools:
    """Which answers may be looked at ``[n, m]``: recorded, and asked for."""
    recorded = ~np.isnan(outcomes.quality)
    if outcomes.answers is not None:
        recorded |= present(outcomes.answers)
    for values in outcomes.signals.values():
        recorded |= ~np.isnan(values)
    return recorded if asked is None else recorded & asked


def present(answers: NDArray[np.object_]) -> Bools:
    """Where there is an answer ``[n, m]``."""
    return np.array([[text is not None for text in row] for row in answers], bool).reshape(
        answers.shape
    )


def only(scores: NDArray[Any], visible: Bools) -> Floats:
    """Scores where an answer is visible, NaN elsewhere, float32."""
    kept: Floats = np.where(visible, scores, np.nan).astype(np.float32)
    return kept
