"""Agreement between models: an answer is as good as the other answers asked for agree with it.

Synergy of Thoughts (Shang et al. 2024) lets several small models answer and brings the large one in
where they conflict; mixture of thought across models is the same. Each model's vote may carry a weight.
If models err independently, the best one is the log-odds of its accuracy where there are two answers
(Nitzan and Paroush 1982), and ``log(k - 1)`` more where errors scatter over ``k``; :data:`SCATTER`
stands for this. An answer that is alone has nothing to be compared with and scores its model's prior
accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Self

import numpy as np

from pilotfish.errors import InputError
from pilotfish.infer.judges.judge import Bools, only, seen
from pilotfish.infer.judges.same import Same
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.records import Completion, Request

SCATTER = 2.0  # log(k - 1) for some 8 answers; how many there are is not known


class ModelAgreement:
    """Weighted share of the models asked whose answer is the same.

    Args:
        weights: Model name to the weight of its vote; a model that is not named has 1.
        prior: Model name to the score of its answer when it is alone; a model that is not named has 0.
        pattern: Finds the final answer, see :class:`~pilotfish.infer.judges.same.Same`.
    """

    def __init__(
        self,
        weights: Mapping[str, float] | None = None,
        *,
        prior: Mapping[str, float] | None = None,
        pattern: str = "",
    ) -> None:
        self.name = "model-agreement"
        self.weights = dict(weights or {})
        self.prior = dict(prior or {})
        self.same = Same(pattern)

    @classmethod
    def fit(cls, outcomes: Outcomes, *, pattern: str = "") -> Self:
        """Weights by accuracy: log-odds and :data:`SCATTER`, at least 0.1 so that every vote counts."""
        accuracy = np.clip(outcomes.mean_quality(), 0.01, 0.99)
        weights = np.maximum(np.log(accuracy / (1 - accuracy)) + SCATTER, 0.1)
        named = dict(zip(outcomes.models, weights.tolist(), strict=True))
        prior = dict(zip(outcomes.models, accuracy.tolist(), strict=True))
        return cls(named, prior=prior, pattern=pattern)

    async def score(self, request: Request, completion: Completion) -> float:
        """The score of an answer that is alone."""
        return self.prior.get(completion.model, 0.0)

    async def score_together(
        self, request: Request, completions: Mapping[str, Completion]
    ) -> dict[str, float]:
        """The weighted share of the answers that agree with each."""
        names = list(completions)
        texts = np.array([[completions[name].text for name in names]], object)
        scores = self._scores(names, self.same.matrix(texts), np.ones((1, len(names)), bool))
        return dict(zip(names, scores[0].tolist(), strict=True))

    def score_many(self, outcomes: Outcomes, asked: Bools | None = None) -> Floats:
        """The same for recorded answers.

        Raises:
            InputError: There are no answers.
        """
        if outcomes.answers is None:
            raise InputError("The outcomes hold no answers, so that none can be compared.")
        visible = seen(outcomes, asked)
        return only(
            self._scores(outcomes.models, self.same.matrix(outcomes.answers), visible), visible
        )

    def _scores(self, names: tuple[str, ...] | list[str], same: Floats, visible: Bools) -> Floats:
        weights = np.array([self.weights.get(name, 1.0) for name in names])
        prior = np.array([self.prior.get(name, 0.0) for name in names])
        votes = weights * visible
        share = np.einsum("njk,nk->nj", same, votes) / np.maximum(votes.sum(1), 1e-9)[:, None]
        alone = (visible.sum(1) < 2)[:, None]
        out: Floats = np.where(alone, prior, share).astype(np.float32)
        return out
