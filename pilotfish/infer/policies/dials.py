"""Dials in the user's terms: what may be spent, how often the large model is asked, how good it must be.

A policy has a weight or thresholds; nobody should have to know them. A frontier is what each
setting did on recorded questions, and a dial picks from it: the best quality within ``max_cost``
and ``strong_share``, or the cheapest that reaches ``min_quality``. ``agree`` is no choice from a
frontier but a promise, see :mod:`pilotfish.infer.policies.certified`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import isnan
from typing import Literal

import numpy as np

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Floats
from pilotfish.infer.policies.chain_search import Plan
from pilotfish.infer.policies.mixed import Mixed
from pilotfish.infer.policies.policy import Play, Policy

_WORDS = {
    "cost": "mean cost of a request",
    "strong_share": "share of requests on which the large model is asked",
    "latency": "mean latency",
}


@dataclass(frozen=True)
class Setting:
    """A policy and what it did on the questions it is chosen on.

    Attributes:
        policy: The policy.
        cost: Mean cost of a question.
        quality: Mean quality.
        strong_share: Share of questions on which the large model was asked.
        latency: Mean seconds, NaN where unknown.
    """

    policy: Policy
    cost: float
    quality: float
    strong_share: float
    latency: float = float("nan")


def setting_of(policy: Policy, played: Play, large: int) -> Setting:
    """Sum a replay up; questions of unknown quality or cost are left out of the means."""
    return Setting(
        policy,
        _mean(played.cost),
        _mean(played.quality),
        played.strong_share(large),
        _mean(played.latency),
    )


def settings_of_plans(plans: Iterable[Plan]) -> list[Setting]:
    """The frontier of a search for chains."""
    return [Setting(p.chain, p.cost, p.quality, p.strong_share) for p in plans]


def sweep(
    policy_of: Callable[[float], Policy],
    replay: Callable[[Policy], Play],
    weights: Iterable[float],
    large: int,
) -> list[Setting]:
    """A setting for each weight."""
    found = []
    for weight in weights:
        policy = policy_of(weight)
        found.append(setting_of(policy, replay(policy), large))
    return found


def pick(
    settings: Sequence[Setting],
    *,
    max_cost: float | None = None,
    strong_share: float | None = None,
    min_quality: float | None = None,
    max_latency: float | None = None,
) -> Setting:
    """The setting that a user's dials mean.

    Args:
        settings: A frontier, in any order.
        max_cost: Mean cost of a request, at most.
        strong_share: Share of requests on which the large model is asked, at most.
        min_quality: Mean quality, at least; then the cheapest such setting is taken instead of the best.
        max_latency: Mean seconds, at most.

    Raises:
        InputError: No setting keeps to all of them; the message names the nearest.
    """
    limits = (("cost", max_cost), ("strong_share", strong_share), ("latency", max_latency))
    allowed = list(settings)
    for name, most in limits:
        if most is None:
            continue
        known = [s for s in allowed if not isnan(getattr(s, name))]
        if allowed and not known:
            raise InputError(
                f"Got a limit of {most:g} on the {_WORDS[name]}, but none was recorded.",
                remedy="Add a column of that name, or (costs) give --price MODEL=INPUT,OUTPUT",
            )
        kept = [s for s in known if getattr(s, name) <= most + 1e-12]
        if not kept:
            least = min((getattr(s, name) for s in known), default=float("nan"))
            also = " within the other limits" if len(allowed) < len(settings) else ""
            raise InputError(
                f"Got a limit of {most:g} on the {_WORDS[name]}, but the least that can be had{also} is "
                f"{least:.4g}.",
                remedy=f"Allow at least {least:.4g}, or record a model that needs less.",
            )
        allowed = kept
    if not allowed:
        raise InputError("There are no settings to choose from.")
    if min_quality is None:
        return max(allowed, key=lambda s: (s.quality, -s.cost))
    good = [s for s in allowed if s.quality >= min_quality - 1e-12]
    if not good:
        best = max(s.quality for s in allowed)
        also = " within the other limits" if len(allowed) < len(settings) else ""
        raise InputError(
            f"Got a least quality of {min_quality:g}, but the best that can be had{also} is {best:.4g}.",
            remedy="Ask for less, or allow more cost.",
        )
    return min(good, key=lambda s: (s.cost, -s.quality))


def mix(
    settings: Sequence[Setting], limit: float, by: Literal["cost", "strong_share"] = "cost"
) -> Policy:
    """The best mean quality for exactly this mean cost: two settings of the upper hull, and a coin.

    A frontier of separate settings leaves a part of most budgets unspent. Between two of them a coin
    reaches every cost, and the best pair lies on the upper convex hull of (cost, quality).

    Args:
        settings: A frontier, in any order.
        limit: Mean cost of a request, or share of requests on which the large model is asked.
        by: Which of the two.

    Raises:
        InputError: Even the cheapest setting costs more.
    """
    cheap = pick(settings, **{{"cost": "max_cost"}.get(by, by): limit})
    if cheap is max(settings, key=lambda s: (s.quality, -s.cost)):
        return cheap.policy
    best, found = cheap.quality, cheap.policy
    below = [s for s in settings if getattr(s, by) <= limit]
    above = [s for s in settings if getattr(s, by) > limit]
    for low in below:
        for high in above:
            share = (getattr(high, by) - limit) / (getattr(high, by) - getattr(low, by))
            quality = share * low.quality + (1 - share) * high.quality
            if quality > best + 1e-12:
                best, found = quality, Mixed(low.policy, high.policy, share)
    return found


def _mean(values: Floats) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if known.size else float("nan")
