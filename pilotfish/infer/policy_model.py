"""A policy at work: a model that asks its members as the policy says, and judges their answers.

The same object that was replayed on recorded outcomes decides here, one request at a time: a
router, a cascade with any judge, cascade routing, or any of these with a certificate. A member that
fails cannot give the answer; the policy goes on without it, and only when nothing is left does its
error reach the caller.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import ArrayLike

from pilotfish.errors import ConfigError, ModelError
from pilotfish.infer.judges.judge import score_answers
from pilotfish.infer.outcomes import Floats
from pilotfish.infer.policies.policy import Policy, View
from pilotfish.infer.predictors.predictor import QualityPredictor
from pilotfish.infer.trail import Trail, failure_reason
from pilotfish.models.protocols import Judge, Model
from pilotfish.records import Completion, Request

FAILED = -1.0


class PolicyModel:
    """Members, a policy, and what it looks at.

    Args:
        members: Models by the names that the policy knows them by.
        policy: Decides who is asked next.
        cost: What asking each is expected to cost ``[m]``, in the unit the policy was fitted in.
        predictor: Quality expected before asking; its models are the policy's. Default: ``expected``.
        expected: Quality expected of each model whatever the request ``[m]``; default 0.5.
        judge: Scores answers; default: answers are as good as was expected.
        latency: Seconds that asking each is expected to take ``[m]``; default 0.
        name: The name of the composite.

    Raises:
        ConfigError: A model of the policy is missing, or the predictor knows others.
    """

    def __init__(
        self,
        members: Mapping[str, Model],
        policy: Policy,
        *,
        cost: ArrayLike,
        predictor: QualityPredictor | None = None,
        expected: ArrayLike = 0.5,
        judge: Judge | None = None,
        latency: ArrayLike = 0.0,
        name: str = "policy",
    ) -> None:
        if missing := [each for each in policy.models if each not in members]:
            raise ConfigError(
                f"The policy asks {', '.join(missing)}, which are not among the members."
            )
        if predictor is not None and tuple(predictor.models) != policy.models:
            raise ConfigError(
                f"The predictor knows {', '.join(predictor.models)}, but the policy asks "
                f"{', '.join(policy.models)}."
            )
        self.name = name
        self.policy = policy
        self.predictor = predictor
        self.judge = judge
        self._members = [members[each] for each in policy.models]
        self._cost, self._latency, self._expected = (
            np.broadcast_to(np.asarray(each, np.float32), (1, len(self._members)))
            for each in (cost, latency, expected)
        )

    def look(self, request: Request) -> View:
        """What is known before anyone was asked."""
        expected: Floats = self._expected
        if self.predictor is not None:
            expected = self.predictor.predict([request.prompt]).mean
        m = len(self._members)
        digest = hashlib.sha256(request.prompt.encode("utf-8", "surrogatepass")).digest()
        dice = np.array(
            [int.from_bytes(digest[:7], "big") / 2**56]
        )  # the same for a repeated request
        scores = np.full((1, m), np.nan, np.float32)
        return View(np.zeros((1, m), bool), expected, scores, self._cost, self._latency, dice)

    async def complete(self, request: Request) -> Completion:
        """The answer that the policy stops at, with what every step decided.

        Raises:
            ModelError: No member gave an answer, or one says that the request is wrong.
        """
        view = self.look(request)
        trail = Trail(self.name)
        given: dict[str, Completion] = {}
        failed: ModelError | None = None
        while True:
            step = self.policy.step(view)
            position = int(step.ask[0])
            if position < 0:
                break
            model = self.policy.models[position]
            view.asked[0, position] = True
            try:
                given[model] = await self._members[position].complete(request)
            except ModelError as error:
                reason = failure_reason(error)
                if reason is None:
                    raise
                failed = error
                view.scores[0, position] = FAILED
                trail.fail(model, reason, 0.0)
                continue
            if self.judge is not None:
                scores = await score_answers(self.judge, request, given)
                for each, score in scores.items():
                    view.scores[0, self.policy.models.index(each)] = score
        chosen = self.policy.models[int(step.answer[0])]
        if chosen not in given:
            if failed is not None:
                raise failed
            raise ModelError(f"The policy gave the answer of {chosen}, which was not asked.")
        for each, answer in given.items():
            if each != chosen:
                known = _known(view.scores[0, self.policy.models.index(each)])
                trail.refuse(answer, each, "not-best", known, None)
        known = _known(view.scores[0, int(step.answer[0])])
        reason = "best-of-asked" if len(given) > 1 else "chosen"
        trail.settle(given[chosen], reason, known, rejected=self._not_asked(given))
        return trail.result()

    def _not_asked(self, given: Sequence[str] | Mapping[str, Completion]) -> tuple[str, ...]:
        return tuple(name for name in self.policy.models if name not in given)


def _known(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
