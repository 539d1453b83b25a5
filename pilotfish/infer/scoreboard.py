"""How good a routing policy is: its curve of quality against cost, and the field's measures of it.

A policy with a dial (a threshold, a price of quality) is replayed at several settings; each gives, for
every question, the quality of what was answered, its cost, and whether the strongest model was asked.
All measures are taken from these recorded columns, so several policies are compared on the same
questions, and the bootstrap resamples questions.

- **APGR, CPT** (RouteLLM, Ong et al. 2024). The performance gap recovered at a share ``c`` of calls
  to the strong model is ``PGR(c) = (q(c) - q_weak) / (q_strong - q_weak)``; APGR is its mean over
  ``c``, here
  as in their code the area under the piecewise linear curve; CPT(x) is the least share with ``PGR >=
  x``.
- **AIQ** (RouterBench, Hu et al. 2024): the area under the non-decreasing convex hull of (cost,
  quality), divided by the range of costs. A policy that stops short of the largest cost goes on
  horizontally.

Random choice has an APGR of .5; the oracle's, for 0-1 qualities, is known in closed form (both are
tested).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Floats, Outcomes

Doubles = NDArray[np.float64]
Measure = Callable[[Doubles], float]


@dataclass(frozen=True)
class Points:
    """What a policy did at each setting of its dial, question by question.

    Attributes:
        quality: ``[settings, n]``, quality of the answer that was given; NaN where it is not known.
        cost: ``[settings, n]``, of all models that were asked.
        latency: ``[settings, n]`` seconds, or None.
        strong: ``[settings, n]``, whether the strongest model was asked.
        dial: The settings ``[settings]``.
    """

    quality: Floats
    cost: Floats
    strong: NDArray[np.bool_]
    dial: Floats
    latency: Floats | None = None

    def means(self, weights: Doubles | None = None) -> tuple[Doubles, Doubles, Doubles]:
        """Mean quality, cost and strong share of each setting ``[settings]``.

        Args:
            weights: How often each question counts ``[n]``; default once.
        """
        w = np.ones(self.quality.shape[1]) if weights is None else weights
        known = ~np.isnan(self.quality)
        quality = np.where(known, self.quality, 0) @ w / np.maximum(known @ w, 1e-12)
        return quality, self.cost.astype(np.float64) @ w / w.sum(), self.strong @ w / w.sum()


@dataclass(frozen=True)
class Interval:
    """A measure and its bootstrap interval.

    Attributes:
        value: On all questions.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def threshold_points(
    score: Floats, weak: Floats, strong: Floats, cost: Floats, latency: Floats | None = None
) -> Points:
    """The curve of a two-model router: questions from a score upwards go to the strong model.

    Questions with equal scores go together in the curve's corners, so between two corners the share of
    them that goes is drawn as chance would: a constant score is random choice.

    Args:
        score: How much the strong model is needed ``[n]``.
        weak: Quality of the weak model ``[n]``.
        strong: Quality of the strong model ``[n]``.
        cost: Cost of both ``[n, 2]``, weak first.
        latency: Seconds of both ``[n, 2]``, or None.
    """
    levels = np.unique(score)[::-1]
    if len(levels) > 200:  # corners at every half percent are plenty
        levels = np.quantile(score, np.linspace(1, 0, 201))
    cuts = np.concatenate([[np.inf], levels])
    asked = score[None, :] >= cuts[:, None]
    return Points(
        quality=np.where(asked, strong, weak).astype(np.float32),
        cost=np.where(asked, cost[:, 1], cost[:, 0]).astype(np.float32),
        strong=asked,
        dial=cuts.astype(np.float32),
        latency=None if latency is None else np.where(asked, latency[:, 1], latency[:, 0]),
    )


def weighted_points(
    expected: Floats,
    outcomes: Outcomes,
    believed: Floats,
    weights: Floats,
    *,
    large: int | None = None,
) -> Points:
    """The curve of routing by price: each weight asks the best ``expected - weight * cost``.

    Args:
        expected: Quality expected of each model ``[n, m]``.
        outcomes: What was recorded.
        believed: What asking each model is believed to cost ``[m]``, from other questions.
        weights: Quality that a unit of cost must bring ``[settings]``.
        large: Position of the strongest model; default the best one of these outcomes.
    """
    rows = np.arange(len(outcomes))
    top = _strongest(outcomes, large)
    chosen = np.stack([(expected - w * believed).argmax(axis=1) for w in weights])
    return Points(
        quality=outcomes.quality[rows, chosen],
        cost=outcomes.cost[rows, chosen],
        strong=chosen == top,
        dial=np.asarray(weights, np.float32),
        latency=None if outcomes.latency is None else outcomes.latency[rows, chosen],
    )


def oracle(outcomes: Outcomes, *, large: int | None = None) -> Points:
    """The cheapest of the best answers to each question: what no router can beat.

    One of unknown cost counts as dearer than any other, but no worse.
    """
    quality = np.where(np.isnan(outcomes.quality), -1, outcomes.quality)
    best = quality == quality.max(axis=1, keepdims=True)
    price = np.where(best & ~np.isnan(outcomes.cost), outcomes.cost, np.inf)
    known = np.isfinite(price).any(axis=1)
    chosen = np.where(known, price.argmin(axis=1), best.argmax(axis=1))
    return single(outcomes, chosen, large=large)


def single(outcomes: Outcomes, chosen: NDArray[Any] | int, *, large: int | None = None) -> Points:
    """One setting: one model for all questions, or one for each ``[n]``."""
    n = len(outcomes)
    at = np.full(n, chosen) if isinstance(chosen, int) else chosen
    rows = np.arange(n)
    top = _strongest(outcomes, large)
    return Points(
        quality=outcomes.quality[rows, at][None],
        cost=outcomes.cost[rows, at][None],
        strong=(at == top)[None],
        dial=np.zeros(1, np.float32),
        latency=None if outcomes.latency is None else outcomes.latency[rows, at][None],
    )


def _strongest(outcomes: Outcomes, large: int | None) -> int:
    return int(np.nanargmax(outcomes.mean_quality())) if large is None else large


def _curve(share: Doubles, quality: Doubles, weak: float, strong: float) -> tuple[Doubles, Doubles]:
    """Corners from share 0 to 1, in order of the share; the ends are the two models alone."""
    order = np.lexsort((quality, share))
    x = np.concatenate([[0.0], share[order], [1.0]])
    y = np.concatenate([[weak], quality[order], [strong]])
    return x, y


def apgr(points: Points, weak: Floats, strong: Floats, weights: Doubles | None = None) -> float:
    """Average performance gap recovered; .5 for random choice, NaN where both models are as good.

    Args:
        points: Of the policy.
        weak: Quality of the weak model ``[n]``.
        strong: Quality of the strong model ``[n]``.
        weights: How often each question counts ``[n]``; default once.
    """
    w = np.ones(len(weak)) if weights is None else weights
    low, high = float(weak @ w / w.sum()), float(strong @ w / w.sum())
    if high == low:
        return float("nan")
    quality, _, share = points.means(weights)
    x, y = _curve(share, quality, low, high)
    return (float(np.trapezoid(y, x)) - low) / (high - low)


def cpt(
    points: Points, weak: Floats, strong: Floats, recovered: float, weights: Doubles | None = None
) -> float:
    """Call-performance threshold: the least share of calls to the strong model that recovers this much.

    NaN where both models are as good.

    Args:
        points: Of the policy.
        weak: Quality of the weak model ``[n]``.
        strong: Quality of the strong model ``[n]``.
        recovered: Share of the gap between the models, for example 0.5.
        weights: How often each question counts ``[n]``; default once.
    """
    w = np.ones(len(weak)) if weights is None else weights
    low, high = float(weak @ w / w.sum()), float(strong @ w / w.sum())
    if high == low:
        return float("nan")
    quality, _, share = points.means(weights)
    x, y = _curve(share, quality, low, high)
    target = low + recovered * (high - low)
    reached = np.flatnonzero(y >= target - 1e-12)
    if not len(reached):
        return 1.0
    i = int(reached[0])
    if i == 0 or y[i] == y[i - 1]:
        return float(x[i])
    part = (target - y[i - 1]) / (y[i] - y[i - 1])
    return float(x[i - 1] + part * (x[i] - x[i - 1]))


def hull(cost: Doubles, quality: Doubles) -> tuple[Doubles, Doubles]:
    """The non-decreasing convex hull: corners in order of cost, ever better, ever less steep."""
    order = np.lexsort((-quality, cost))
    corners: list[tuple[float, float]] = []
    for x, y in zip(cost[order].tolist(), quality[order].tolist(), strict=True):
        if corners and y <= corners[-1][1]:
            continue
        while len(corners) > 1:
            (x1, y1), (x2, y2) = corners[-2], corners[-1]
            if (y2 - y1) * (x - x1) > (y - y1) * (x2 - x1):
                break
            corners.pop()
        corners.append((x, y))
    found = np.array(corners)
    return found[:, 0], found[:, 1]


def quality_at(cost: Doubles, quality: Doubles, at: Sequence[float] | Doubles) -> Doubles:
    """Best quality for a mean cost of at most ``at``, mixing two settings; NaN below the cheapest."""
    x, y = hull(cost, quality)
    at = np.asarray(at, np.float64)
    # Costs come as float32, and the cheapest one may be compared with its own mean of other rounding.
    return np.where(at < x[0] * (1 - 1e-6), np.nan, np.interp(at, x, y))


def aiq(
    points: Points, cheapest: tuple[float, float], high: float, weights: Doubles | None = None
) -> float:
    """Average improvement in quality: mean height of the hull from the cheapest model's cost upwards.

    The cheapest model alone is a corner of every policy's hull, since any policy can be mixed with it;
    without it a policy that starts late would have no height there.

    Args:
        points: Of the policy.
        cheapest: Mean cost and quality of the cheapest model; the same for all policies compared.
        high: Largest cost, likewise the same for all.
        weights: How often each question counts ``[n]``; default once.

    Raises:
        InputError: The costs are unknown, or there is no range.
    """
    quality, cost, _ = points.means(weights)
    if not np.isfinite(cost).all():
        raise InputError(
            "AIQ needs the cost of every answer, but some are unknown.",
            remedy="Add cost columns, or give prices: --price NAME=INPUT,OUTPUT",
        )
    low, start = cheapest
    if high <= low:
        raise InputError(f"Got costs from {low:g} to {high:g}, but expected a range.")
    x, y = hull(np.append(cost, low), np.append(quality, start))
    inside = (x > low) & (x < high)
    grid = np.concatenate([[low], x[inside], [high]])
    return float(np.trapezoid(np.interp(grid, x, y), grid) / (high - low))


def bootstrap(
    measure: Measure, n: int, *, samples: int = 500, level: float = 0.95, seed: int = 0
) -> Interval:
    """Percentile interval of a measure over questions drawn with replacement (Efron 1979).

    Args:
        measure: From weights ``[n]``, how often each question was drawn, to the measure.
        n: Number of questions.
        samples: Draws.
        level: Coverage of the interval.
        seed: Of the draws; with the same one, policies are compared on the same draws.
    """
    rng = np.random.default_rng(seed)
    drawn = [
        measure(np.bincount(rng.integers(0, n, n), minlength=n).astype(np.float64))
        for _ in range(samples)
    ]
    tail = 100 * (1 - level) / 2
    low, high = np.nanpercentile(drawn, [tail, 100 - tail])
    return Interval(measure(np.ones(n)), float(low), float(high))
