"""What benchmarks/routing.py measures of predicted qualities, and its mean and spread over seeds."""

from __future__ import annotations

from typing import Any

import numpy as np

from pilotfish.infer import scoreboard as sb
from pilotfish.infer.outcomes import Outcomes


def spread(values: list[float]) -> dict[str, float]:
    known = [value for value in values if np.isfinite(value)]
    if not known:
        return {"mean": float("nan"), "std": float("nan"), "seeds": 0}
    return {
        "mean": float(f"{np.mean(known):.4g}"),
        "std": float(f"{np.std(known):.2g}"),
        "seeds": len(known),
    }


Found = dict[str, dict[str, list[float]]]


def note(found: Found, name: str, **values: float) -> None:
    for key, value in values.items():
        found.setdefault(name, {}).setdefault(key, []).append(float(value))


def summed(found: Found) -> dict[str, Any]:
    return {
        name: {key: spread(values) for key, values in own.items()} for name, own in found.items()
    }


def measure_pair(found: Found, name: str, score: np.ndarray[Any, Any], test: Outcomes) -> None:
    weak, strong = test.quality[:, 0], test.quality[:, 1]
    points = sb.threshold_points(score, weak, strong, test.cost)
    note(
        found,
        name,
        apgr=sb.apgr(points, weak, strong),
        cpt50=sb.cpt(points, weak, strong, 0.5),
        cpt80=sb.cpt(points, weak, strong, 0.8),
    )


def measure_pool(
    found: Found, name: str, expected: np.ndarray[Any, Any], fit: Outcomes, test: Outcomes
) -> None:
    """Quality when cost does not count, at the best single model's cost, and over all costs."""
    believed = fit.mean_cost()
    step = float(believed.max() - believed.min())
    weights = np.concatenate([[0.0], np.geomspace(1e-3, 10.0, 60)]) / step
    points = sb.weighted_points(expected, test, believed, weights)
    quality, cost, _ = points.means()
    best = int(fit.mean_quality().argmax())  # chosen on the part that was fitted on
    budget = float(test.mean_cost()[best])
    cheapest = int(test.mean_cost().argmin())
    low = (float(test.mean_cost()[cheapest]), float(test.mean_quality()[cheapest]))
    same = sb.quality_at(np.append(cost, low[0]), np.append(quality, low[1]), [budget])[0]
    half = sb.quality_at(np.append(cost, low[0]), np.append(quality, low[1]), [budget / 2])[0]
    dearest = float(test.mean_cost().max())
    note(
        found,
        name,
        quality=float(quality[0]),
        cost=float(cost[0]),
        quality_at_single_cost=float(same),
        quality_at_half_cost=float(half),
        aiq=sb.aiq(points, low, dearest),
    )
