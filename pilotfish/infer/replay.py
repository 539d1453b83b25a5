"""Policies replayed on recorded outcomes: fitted on some questions, measured on the others.

All policies see the same splits, and the bootstrap draws the same questions for all of them. A policy
is named in one line, see :mod:`pilotfish.infer.families`; besides there is ``oracle``, the cheapest of
the best answers, which nothing can beat. Without a dial, the curve of all settings is measured. With
one, the setting is chosen on a part of the questions that were fitted on, and what it does on the
others is measured, as it would be in service.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError, UnknownName
from pilotfish.infer import scoreboard as sb
from pilotfish.infer.families import (
    PLAIN,
    Family,
    check_name,
    fit_family,
    parse_settings,
    points_of,
    price_weights,
)
from pilotfish.infer.operating import Dials, columns_of, operate
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors import PREDICTORS
from pilotfish.infer.predictors.embedded_once import embedded_once
from pilotfish.models.protocols import Encoder

__all__ = ["Score", "parse_settings", "replay", "route_points", "shares"]

WEIGHTS = 40
ORACLE = "oracle"
_POINTS = ("single", ORACLE)  # one setting: no curve to measure


@dataclass(frozen=True)
class Score:
    """What a policy reached, mean over the splits.

    Attributes:
        policy: As it was named.
        measures: By name, each with its interval. ``quality``, ``cost``, ``latency`` and ``strong_share``
            are those of its setting: without a dial the best one in hindsight, with one the setting that
            was chosen, and then ``agreement`` with the large model is there if that was promised.
            ``quality_at_single_cost`` is at the cost of the best single model;
            ``aiq``, and for two models ``apgr``, ``cpt50`` and ``cpt80``, are those of
            :mod:`pilotfish.infer.scoreboard`.
        curve: Mean quality at a range of mean costs ``[points, 2]``, cost first; NaN where it cannot
            go so low. Empty without costs.
        point: Mean cost and quality of the setting that a dial chose, or None.
    """

    policy: str
    measures: Mapping[str, sb.Interval]
    curve: NDArray[np.float64]
    point: tuple[float, float] | None = None


@dataclass(frozen=True)
class _Part:
    """One split: where its test questions are, the large model if it was named, and what was done."""

    large: str
    rows: NDArray[np.intp]
    fit: Outcomes
    test: Outcomes
    points: dict[str, sb.Points]
    chosen: dict[str, dict[str, Floats]]  # with a dial: what the chosen setting did, by measure


def replay(
    outcomes: Outcomes,
    policies: Sequence[str],
    *,
    dials: Dials | None = None,
    large: str = "",
    fit: float = 0.5,
    seeds: int = 3,
    samples: int = 200,
    encoder: Encoder | None = None,
) -> list[Score]:
    """Fit and replay each policy on the same splits.

    Args:
        outcomes: What was recorded.
        policies: Names as in :mod:`pilotfish.infer.families`, and ``oracle``.
        dials: What a user wants: then each policy's setting is chosen on three tenths of the questions to
            fit on; half of these certify what is promised. Default: the whole curve.
        large: Name of the large model, which is the stronger one of two; default the best one.
        fit: Share or number of the questions to fit on.
        seeds: Splits.
        samples: Bootstrap draws for the 95% intervals; 0 gives none.
        encoder: For predictors that embed; default the static one.

    Raises:
        UnknownName: A policy, predictor, signal or model has no such name.
        InputError: The outcomes do not hold what a policy needs, no setting keeps a dial, or ``seeds`` or
            ``samples`` is out of range.
    """
    if seeds < 1 or samples < 0:
        raise InputError(
            f"Got seeds={seeds} and samples={samples}, but expected at least 1 and at least 0."
        )
    wanted = dials or Dials()
    for name in policies:
        if name != ORACLE:
            check_name(name, outcomes, also=(ORACLE,))
    if large and large not in outcomes.models:
        raise UnknownName("large model", large, outcomes.models)
    encoder = embedded_once(encoder, outcomes.texts)
    parts = []
    for seed in range(seeds):
        learn, test, rows = _split(outcomes, seed, fit)
        points, chosen = {}, {}
        for name in policies:
            points[name], chosen[name] = _play(name, learn, test, wanted, large, seed, encoder)
        parts.append(_Part(large, rows, learn, test, points, chosen))
    return [_score(name, parts, len(outcomes), samples) for name in policies]


def _play(
    name: str,
    learn: Outcomes,
    test: Outcomes,
    dials: Dials,
    large: str,
    seed: int,
    encoder: Encoder | None,
) -> tuple[sb.Points, dict[str, Floats]]:
    if name == ORACLE:
        return sb.oracle(test, large=_large(learn, large)), {}
    held: list[Outcomes] = []
    if dials:
        wanted = (0.6, 0.2, 0.2) if dials.agree is not None else (0.7, 0.3)
        learn, *held = shares(learn, wanted, seed)
    family = fit_family(
        name,
        learn,
        seed=seed,
        encoder=encoder,
        large=large,
        latency=dials.max_latency is not None,
    )
    points = _curve_points(name, family, learn, test, seed)
    if not held:
        return points, {}
    try:
        policy = operate(family, held[0], dials, certify_on=held[-1], seed=seed)
    except InputError as error:
        raise InputError(f"{name}: {error.message}", remedy=error.remedy) from None
    played = family.replayer(test.filled(), seed=seed)(policy)
    return points, columns_of(family, played, test, dials)


def shares(outcomes: Outcomes, parts: Sequence[float], seed: int) -> list[Outcomes]:
    """Random parts of these sizes; rows with the same text stay together.

    Args:
        outcomes: What was recorded.
        parts: Their shares, which sum to 1.
        seed: Of the shuffle.

    Raises:
        InputError: A part would be empty.
    """
    found, rest, left = [], outcomes, 1.0
    for i, part in enumerate(parts[:-1]):
        first, rest = rest.split(seed + 1000 * (i + 1), fit=part / left)
        found.append(first)
        left -= part
    return [*found, rest]


def _curve_points(
    name: str, family: Family, learn: Outcomes, test: Outcomes, seed: int
) -> sb.Points:
    kind = name.partition(":")[0]
    if kind == "single":
        return sb.single(test, _large(learn, ""), large=family.large)
    if kind in PREDICTORS or kind in PLAIN:
        return route_points(family.expected(test), learn, test, large=family.models[family.large])
    return points_of(family, test, seed=seed)


def _split(
    outcomes: Outcomes, seed: int, fit: float
) -> tuple[Outcomes, Outcomes, NDArray[np.intp]]:
    learn, test = outcomes.split(seed, fit=fit)
    held = set(test.texts)
    return learn, test, np.flatnonzero([text in held for text in outcomes.texts])


def route_points(
    expected: Floats, learn: Outcomes, test: Outcomes, *, large: str = ""
) -> sb.Points:
    """The curve of routing by predicted quality; where a model's costs are unknown, none counts.

    Args:
        expected: Quality expected of each model ``[n, m]``.
        learn: Whose mean costs are believed.
        test: What is replayed.
        large: Name of the large model; default the best one of ``learn``.
    """
    if len(test.models) == 2:
        weak, strong = _ends(learn, large)
        score = expected[:, strong] - expected[:, weak]
        both = [weak, strong]
        return sb.threshold_points(
            score,
            test.quality[:, weak],
            test.quality[:, strong],
            test.cost[:, both],
            None if test.latency is None else test.latency[:, both],
        )
    believed = learn.mean_cost()
    if np.isnan(believed).any():
        believed = np.zeros_like(believed)
    weights = np.array(price_weights(believed, WEIGHTS, low=1e-3), np.float32)
    return sb.weighted_points(expected, test, believed, weights, large=_large(learn, large))


def _large(outcomes: Outcomes, name: str) -> int:
    """The position of the model of this name; without one, of the best."""
    return outcomes.models.index(name) if name else int(np.nanargmax(outcomes.mean_quality()))


def _ends(outcomes: Outcomes, large: str) -> tuple[int, int]:
    """The cheapest and the large model; without costs the worst and the large one."""
    quality, cost = np.nan_to_num(outcomes.mean_quality()), outcomes.mean_cost()
    strong = _large(outcomes, large)
    by = quality if np.isnan(cost).any() else cost
    others = [j for j in range(len(quality)) if j != strong] or [strong]
    return min(others, key=lambda j: float(by[j])), strong


def _score(name: str, parts: list[_Part], n: int, samples: int) -> Score:
    measures: dict[str, sb.Interval] = {}
    for key, of in _measures(name, parts).items():

        def mean(weights: NDArray[np.float64], of: Any = of) -> float:
            drawn = [of(part, weights[part.rows]) for part in parts if weights[part.rows].any()]
            return float(np.mean(drawn)) if drawn else float("nan")

        value = mean(np.ones(n))
        if np.isnan(value):  # such as a gap between two models that are as good
            continue
        if samples:
            measures[key] = sb.bootstrap(mean, n, samples=samples)
        else:
            measures[key] = sb.Interval(value, value, value)
    point = None
    if any(part.chosen[name] for part in parts) and {"quality", "cost"} <= set(measures):
        point = (measures["cost"].value, measures["quality"].value)
    return Score(name, measures, _curve(name, parts), point)


PartMeasure = Callable[[_Part, NDArray[np.float64]], float]


def _measures(name: str, parts: list[_Part]) -> dict[str, PartMeasure]:
    priced = all(np.isfinite(part.test.cost).all() for part in parts)
    found: dict[str, PartMeasure] = {
        "quality": lambda part, w: float(part.points[name].means(w)[0].max()),
        "strong_share": lambda part, w: _at_best(part.points[name], w)[2],
    }
    if priced:
        found["cost"] = lambda part, w: _at_best(part.points[name], w)[1]
    if all(_timed(part.points[name]) for part in parts):
        found["latency"] = lambda part, w: _latency_at_best(part.points[name], w)
    for key in parts[0].chosen[name]:
        if not any(np.isnan(part.chosen[name][key]).all() for part in parts):
            found[key] = _chosen(name, key)
    if priced:
        found["quality_at_single_cost"] = lambda part, w: _at_single(part, name, w)
        if len(parts[0].test.models) > 1 and name not in _POINTS:
            found["aiq"] = lambda part, w: _aiq(part, name, w)
    whole = not any(np.isnan(part.test.quality).any() for part in parts)
    if len(parts[0].test.models) == 2 and whole and name not in _POINTS:
        found["apgr"] = lambda part, w: _pair(part, sb.apgr, name, w)
        found["cpt50"] = lambda part, w: _pair(part, sb.cpt, name, w, 0.5)
        found["cpt80"] = lambda part, w: _pair(part, sb.cpt, name, w, 0.8)
    return found


def _at_best(points: sb.Points, weights: NDArray[np.float64]) -> tuple[float, float, float]:
    quality, cost, strong = points.means(weights)
    best = int(quality.argmax())
    return float(quality[best]), float(cost[best]), float(strong[best])


def _timed(points: sb.Points) -> bool:
    return points.latency is not None and not np.isnan(points.latency).any()


def _latency_at_best(points: sb.Points, weights: NDArray[np.float64]) -> float:
    assert points.latency is not None
    return _mean(points.latency[int(points.means(weights)[0].argmax())], weights)


def _chosen(name: str, key: str) -> PartMeasure:
    return lambda part, w: _mean(part.chosen[name][key], w)


def _mean(column: Floats, weights: NDArray[np.float64]) -> float:
    known = ~np.isnan(column)
    return float(weights[known] @ column[known] / max(float(weights[known].sum()), 1e-12))


def _pair(
    part: _Part, measure: Any, name: str, weights: NDArray[np.float64], *level: float
) -> float:
    weak, strong = _ends(part.fit, part.large)
    quality = part.test.quality
    return float(measure(part.points[name], quality[:, weak], quality[:, strong], *level, weights))


def _floor(part: _Part, weights: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean cost and quality of the cheapest model, and the mean cost of the dearest."""
    known = ~np.isnan(part.test.quality)
    cost = weights @ part.test.cost / weights.sum()
    quality = weights @ np.where(known, part.test.quality, 0) / np.maximum(weights @ known, 1e-12)
    cheapest = int(cost.argmin())
    return float(cost[cheapest]), float(quality[cheapest]), float(cost.max())


def _aiq(part: _Part, name: str, weights: NDArray[np.float64]) -> float:
    cost, quality, dearest = _floor(part, weights)
    if cost >= dearest:
        return float("nan")
    return sb.aiq(part.points[name], (cost, quality), dearest, weights)


def _at_single(part: _Part, name: str, weights: NDArray[np.float64]) -> float:
    best = _large(part.fit, "")
    budget = float(weights @ part.test.cost[:, best] / weights.sum())
    quality, cost, _ = part.points[name].means(weights)
    low, floor, _ = _floor(part, weights)
    return float(sb.quality_at(np.append(cost, low), np.append(quality, floor), [budget])[0])


def _curve(name: str, parts: list[_Part], points: int = 50) -> NDArray[np.float64]:
    if not all(np.isfinite(part.test.cost).all() for part in parts):
        return np.zeros((0, 2))
    low = min(float(part.test.mean_cost().min()) for part in parts)
    high = max(float(part.test.mean_cost().max()) for part in parts)
    space = np.geomspace if 0 < 20 * low < high else np.linspace  # as the plot's axis is
    at = space(low, high, points)
    each = []
    for part in parts:
        quality, cost, _ = part.points[name].means()
        each.append(sb.quality_at(cost, quality, at))
    return np.stack([at, np.mean(each, axis=0)], axis=1)
