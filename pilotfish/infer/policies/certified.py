"""Any policy with a promise: where it is not sure enough, the large model answers.

The policy runs as it likes. Where it would give an answer without having asked the large model, its
margin is compared with a threshold, and below it the large model is asked as well. Once the large
model was asked, its answer is given. Raising the threshold only ever moves answers to the large
model, so :func:`pilotfish.infer.certify.certify` can choose it: the score is the margin (1 where
the large model was asked anyway, which is never a loss), and a loss is an answer that differs from
the large model's, or is worse than it (``risk``).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.infer.certificate import Certificate
from pilotfish.infer.certify import certify
from pilotfish.infer.constraints import Constraint
from pilotfish.infer.judges.same import Same
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.policy import STOP, Bools, Play, Policy, Step, View


@dataclass(frozen=True)
class Certified:
    """Runs a policy and asks the large model where the margin is below the threshold.

    Attributes:
        policy: What decides below.
        large: Position of the large model.
        threshold: The policy's own answer is given from this margin on; None: never.
        certificate: Where the threshold comes from; None where it was set by hand.
    """

    policy: Policy
    large: int
    threshold: float | None
    certificate: Certificate | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """The policy's models."""
        return self.policy.models

    def step(self, view: View) -> Step:
        """What the policy does; where it would stop unsure, the large model."""
        n = len(view.asked)
        if self.threshold is None:
            done = view.asked[:, self.large]
            sure = np.ones(n, np.float32)
            return Step(np.where(done, STOP, self.large), np.where(done, self.large, STOP), sure)
        step = self.policy.step(view)
        there = view.asked[:, self.large] & ~(view.scores[:, self.large] < 0)
        unsure = (step.ask < 0) & (step.margin < self.threshold) & ~view.asked[:, self.large]
        ask = np.where(there, STOP, np.where(unsure, self.large, step.ask))
        answer = np.where(there, self.large, np.where(unsure, STOP, step.answer))
        return Step(ask, answer, np.where(there, np.float32(1.0), step.margin))


def certify_policy(
    policy: Policy,
    played: Play,
    outcomes: Outcomes,
    large: str,
    *,
    agree: float = 0.95,
    risk: Literal["answer", "quality"] = "answer",
    delta: float = 0.05,
    pattern: str = "",
    thresholds: NDArray[Any] | None = None,
    curve: int = 0,
) -> Certified:
    """Certify a policy on outcomes that neither it nor its judge was fitted to.

    Args:
        policy: The policy.
        played: What it did on these outcomes.
        outcomes: Drawn like the requests to come.
        large: Name of the large model.
        agree: Share of all requests that must agree with the large model.
        risk: What a disagreement is: another final ``"answer"``, or a lower ``"quality"``.
        delta: Allowed probability that the promise is broken.
        pattern: Finds the final answer, see :class:`~pilotfish.infer.judges.same.Same`.
        thresholds: Candidates, chosen without these rows; default as in ``certify``.
        curve: Points of the certificate's curve.

    Raises:
        InputError: There are no answers to compare, or no such model.
    """
    if large not in policy.models:
        raise InputError(
            f"There is no model {large!r}.", remedy=f"Models: {', '.join(policy.models)}"
        )
    position = policy.models.index(large)
    agreed = agreements(played, outcomes, position, risk, pattern)
    scores = np.where(played.asked[:, position], 1.0, played.margin)
    certificate = certify(
        scores,
        agreed,
        constraints=(Constraint("agree", agree),),
        delta=delta,
        thresholds=thresholds,
        curve=curve,
    )
    return Certified(policy, position, certificate.threshold, certificate)


def agreements(
    played: Play, outcomes: Outcomes, large: int, risk: str = "answer", pattern: str = ""
) -> Bools:
    """Whether each answer is as good as the large model's ``[n]``; where that was asked it is given.

    Raises:
        InputError: Answers were not recorded, or ``risk`` is not one of the two.
    """
    rows = np.arange(len(outcomes))
    own = played.asked[:, large]
    if risk == "quality":
        given, theirs = outcomes.quality[rows, played.answered], outcomes.quality[:, large]
        found: Bools = own | (given >= theirs)  # NaN on either side is no agreement
        return found
    if risk != "answer":
        raise InputError(f"Got risk={risk!r}, but expected 'answer' or 'quality'.")
    if outcomes.answers is None:
        raise InputError("The outcomes hold no answers.", remedy='Use risk="quality"')
    same = Same(pattern)
    pairs = zip(outcomes.answers[rows, played.answered], outcomes.answers[:, large], strict=True)
    equal = np.array([same.agreement(a, b) == 1.0 for a, b in pairs], bool)
    return np.asarray(own | equal)
