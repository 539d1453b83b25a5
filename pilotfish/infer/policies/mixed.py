"""Two policies and a coin, and the weight and coin that spend a budget exactly.

A policy with a weight spends less as the weight grows, in jumps. Between two weights that spend too
much and too little, a coin spends any mean in between, and no policy of expected quality less
weighted cost can do better under that budget: the linear programme of routing (fractional knapsack
with one choice for each request) has its optimum there (Dekoninck et al. 2025, theorem 1).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from pilotfish.errors import InputError
from pilotfish.infer.policies.policy import Policy, Step, View

HALVINGS = 40


@dataclass(frozen=True)
class Mixed:
    """Follows ``first`` for a share of the requests, ``second`` for the others.

    Attributes:
        first: A policy.
        second: Another of the same models.
        share: Of the requests for the first, in [0, 1].
    """

    first: Policy
    second: Policy
    share: float

    @property
    def models(self) -> tuple[str, ...]:
        """The models of both."""
        return self.first.models

    def step(self, view: View) -> Step:
        """What the policy of each request's coin does."""
        one, two = self.first.step(view), self.second.step(view)
        heads = view.dice < self.share
        return Step(
            np.where(heads, one.ask, two.ask),
            np.where(heads, one.answer, two.answer),
            np.where(heads, one.margin, two.margin),
        )


def spend(
    policy_of: Callable[[float], Policy],
    cost_of: Callable[[Policy], float],
    budget: float,
    *,
    halvings: int = HALVINGS,
) -> Policy:
    """The policy with a weight that spends the budget in the mean.

    Args:
        policy_of: Weight to policy; a larger weight must not spend more.
        cost_of: Mean cost of a policy on the questions to tune on.
        budget: Mean cost for a request, in the same unit.
        halvings: Precision of the weight; each costs one call of ``cost_of``.

    Raises:
        InputError: Even the largest weight spends more.
    """
    low, dear = 0.0, policy_of(0.0)
    spent_low = cost_of(dear)
    if spent_low <= budget:
        return dear
    high = 1.0 / max(spent_low, 1e-12)
    for _ in range(60):
        cheap = policy_of(high)
        spent_high = cost_of(cheap)
        if spent_high <= budget:
            break
        high *= 4.0
    else:
        raise InputError(
            f"Got a budget of {budget:g} for a request, but the cheapest choice costs {spent_high:g}.",
            remedy=f"Allow at least {spent_high:g}, or add a cheaper model.",
        )
    for _ in range(halvings):
        middle = (low + high) / 2
        policy = policy_of(middle)
        spent = cost_of(policy)
        if spent > budget:
            low, dear, spent_low = middle, policy, spent
        else:
            high, cheap, spent_high = middle, policy, spent
    share = (budget - spent_high) / (spent_low - spent_high)
    return Mixed(dear, cheap, float(np.clip(share, 0.0, 1.0)))
