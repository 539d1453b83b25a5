"""Policies replayed on recorded outcomes: fitted on some questions, measured on the others.

All policies see the same splits, and the bootstrap draws the same questions for all of them. A policy
is named in one line:

- a quality predictor, ``kernel`` or ``knn:k=5,prior=0``: routing by price over what it predicts;
- ``cascade:JUDGE``: the frontier of all chains, judged by a learned scorer (``cascade:learned``) or by a
  recorded signal (``cascade:probability``); ``cascade-routing:JUDGE`` and ``reservation:JUDGE`` likewise;
- ``single``: the best single model of the part that was fitted on; ``random``; ``oracle``, the
  cheapest of the best answers, which nothing can beat.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError, UnknownName
from pilotfish.infer import scoreboard as sb
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors import PREDICTORS
from pilotfish.infer.predictors.predictor import fit_predictor
from pilotfish.infer.replayed_judges import JUDGED, judged_points
from pilotfish.models.protocols import Encoder

BASELINES = ("single", "random", "oracle")
WEIGHTS = 40


@dataclass(frozen=True)
class Score:
    """What a policy reached, mean over the splits.

    Attributes:
        policy: As it was named.
        measures: By name, each with its interval. ``quality``, ``cost`` and ``strong_share`` are those
            of its best setting; ``quality_at_single_cost`` is at the cost of the best single model;
            ``aiq``, and for two models ``apgr``, ``cpt50`` and ``cpt80``, are those of
            :mod:`pilotfish.infer.scoreboard`.
        curve: Mean quality at a range of mean costs ``[points, 2]``, cost first; NaN where it cannot
            go so low. Empty without costs.
    """

    policy: str
    measures: Mapping[str, sb.Interval]
    curve: NDArray[np.float64]


@dataclass(frozen=True)
class _Part:
    """One split: where its test questions are, and what the policies did on them."""

    rows: NDArray[np.intp]
    fit: Outcomes
    test: Outcomes
    points: dict[str, sb.Points]


def replay(
    outcomes: Outcomes,
    policies: Sequence[str],
    *,
    fit: float = 0.5,
    seeds: int = 3,
    samples: int = 200,
    encoder: Encoder | None = None,
) -> list[Score]:
    """Fit and replay each policy on the same splits.

    Args:
        outcomes: What was recorded.
        policies: Names as in the module's text.
        fit: Share or number of the questions to fit on.
        seeds: Splits.
        samples: Bootstrap draws for the 95% intervals; 0 gives none.
        encoder: For predictors that embed; default the static one.

    Raises:
        UnknownName: A policy, predictor or signal has no such name.
        InputError: The outcomes do not hold what a policy needs.
    """
    for name in policies:
        _maker(name, outcomes)
    parts = []
    for seed in range(seeds):
        learn, test, rows = _split(outcomes, seed, fit)
        points = {name: _maker(name, outcomes)(learn, test, seed, encoder) for name in policies}
        parts.append(_Part(rows, learn, test, points))
    return [_score(name, parts, len(outcomes), samples) for name in policies]


def _split(
    outcomes: Outcomes, seed: int, fit: float
) -> tuple[Outcomes, Outcomes, NDArray[np.intp]]:
    learn, test = outcomes.split(seed, fit=fit)
    held = set(test.texts)
    return learn, test, np.flatnonzero([text in held for text in outcomes.texts])


Maker = Callable[[Outcomes, Outcomes, int, Encoder | None], sb.Points]


def parse_settings(text: str) -> dict[str, Any]:
    """``k=5,labels=soft`` as settings; values are JSON where they can be, else texts.

    >>> parse_settings("k=5,labels=soft")
    {'k': 5, 'labels': 'soft'}

    Raises:
        InputError: A part is not NAME=VALUE.
    """
    found: dict[str, Any] = {}
    for part in filter(None, text.split(",")):
        name, equals, value = part.partition("=")
        if not equals or not name:
            raise InputError(f"Got {part!r}, but expected NAME=VALUE.")
        try:
            found[name] = json.loads(value)
        except json.JSONDecodeError:
            found[name] = value
    return found


def _maker(name: str, outcomes: Outcomes) -> Maker:
    kind, _, rest = name.partition(":")
    if kind == "single":
        return lambda learn, test, *_: sb.single(test, int(learn.mean_quality().argmax()))
    if kind == "oracle":
        return lambda learn, test, *_: sb.oracle(test)
    if kind == "random":
        return _random
    if kind in JUDGED:
        if rest != "learned" and rest not in outcomes.signals:
            raise UnknownName("judge", rest, ["learned", *outcomes.signals])
        return lambda learn, test, seed, encoder: judged_points(
            kind, rest, learn, test, seed, encoder
        )
    if kind not in PREDICTORS:
        raise UnknownName(
            "policy", kind, [*PREDICTORS, *BASELINES, *(f"{name}:JUDGE" for name in JUDGED)]
        )
    settings = parse_settings(rest)

    def route(learn: Outcomes, test: Outcomes, seed: int, encoder: Encoder | None) -> sb.Points:
        predictor = fit_predictor(kind, learn, seed=seed, encoder=encoder, **settings)
        return route_points(predictor.predict(test.texts).mean, learn, test)

    return route


def route_points(expected: Floats, learn: Outcomes, test: Outcomes) -> sb.Points:
    """The curve of routing by predicted quality; costs that are unknown count as the models' order."""
    if len(test.models) == 2:
        weak, strong = _ends(learn)
        score = expected[:, strong] - expected[:, weak]
        cost = test.cost[:, [weak, strong]]
        return sb.threshold_points(score, test.quality[:, weak], test.quality[:, strong], cost)
    believed = learn.mean_cost()
    if np.isnan(believed).any():
        believed = np.zeros_like(believed)
    span = max(float(believed.max() - believed.min()), 1e-30)
    weights = np.concatenate([[0.0], np.geomspace(1e-3, 10.0, WEIGHTS)]) / span
    return sb.weighted_points(expected, test, believed, weights.astype(np.float32))


def _ends(outcomes: Outcomes) -> tuple[int, int]:
    """The cheapest and the best model; without costs the worst and the best."""
    quality, cost = outcomes.mean_quality(), outcomes.mean_cost()
    strong = int(quality.argmax())
    by = quality if np.isnan(cost).any() else cost
    others = [j for j in range(len(quality)) if j != strong] or [strong]
    return min(others, key=lambda j: float(by[j])), strong


def _random(learn: Outcomes, test: Outcomes, seed: int, encoder: Encoder | None) -> sb.Points:
    noise = np.random.default_rng(seed).random(test.quality.shape).astype(np.float32)
    return route_points(noise, learn, test)


def _score(name: str, parts: list[_Part], n: int, samples: int) -> Score:
    measures: dict[str, sb.Interval] = {}
    for key, of in _measures(name, parts).items():

        def mean(weights: NDArray[np.float64], of: Any = of) -> float:
            return float(np.mean([of(part, weights[part.rows]) for part in parts]))

        if samples:
            measures[key] = sb.bootstrap(mean, n, samples=samples)
        else:
            value = mean(np.ones(n))
            measures[key] = sb.Interval(value, value, value)
    return Score(name, measures, _curve(name, parts))


PartMeasure = Callable[[_Part, NDArray[np.float64]], float]


def _measures(name: str, parts: list[_Part]) -> dict[str, PartMeasure]:
    priced = all(np.isfinite(part.test.cost).all() for part in parts)
    found: dict[str, PartMeasure] = {
        "quality": lambda part, w: float(part.points[name].means(w)[0].max()),
        "strong_share": lambda part, w: _at_best(part.points[name], w)[2],
    }
    if priced:
        found["cost"] = lambda part, w: _at_best(part.points[name], w)[1]
        found["quality_at_single_cost"] = lambda part, w: _at_single(part, name, w)
        if len(parts[0].test.models) > 1 and name.partition(":")[0] not in BASELINES[::2]:
            found["aiq"] = lambda part, w: _aiq(part, name, w)
    if len(parts[0].test.models) == 2 and name.partition(":")[0] not in BASELINES[::2]:
        found["apgr"] = lambda part, w: _pair(part, sb.apgr, name, w)
        found["cpt50"] = lambda part, w: _pair(part, sb.cpt, name, w, 0.5)
        found["cpt80"] = lambda part, w: _pair(part, sb.cpt, name, w, 0.8)
    return found


def _at_best(points: sb.Points, weights: NDArray[np.float64]) -> tuple[float, float, float]:
    quality, cost, strong = points.means(weights)
    best = int(quality.argmax())
    return float(quality[best]), float(cost[best]), float(strong[best])


def _pair(
    part: _Part, measure: Any, name: str, weights: NDArray[np.float64], *level: float
) -> float:
    weak, strong = _ends(part.fit)
    quality = part.test.quality
    return float(measure(part.points[name], quality[:, weak], quality[:, strong], *level, weights))


def _floor(part: _Part, weights: NDArray[np.float64]) -> tuple[float, float, float]:
    """Mean cost and quality of the cheapest model, and the mean cost of the dearest."""
    total = weights.sum()
    cost, quality = weights @ part.test.cost / total, weights @ part.test.quality / total
    cheapest = int(cost.argmin())
    return float(cost[cheapest]), float(quality[cheapest]), float(cost.max())


def _aiq(part: _Part, name: str, weights: NDArray[np.float64]) -> float:
    cost, quality, dearest = _floor(part, weights)
    return sb.aiq(part.points[name], (cost, quality), dearest, weights)


def _at_single(part: _Part, name: str, weights: NDArray[np.float64]) -> float:
    best = int(part.fit.mean_quality().argmax())
    budget = float(weights @ part.test.cost[:, best] / weights.sum())
    quality, cost, _ = part.points[name].means(weights)
    low, floor, _ = _floor(part, weights)
    return float(sb.quality_at(np.append(cost, low), np.append(quality, floor), [budget])[0])


def _curve(name: str, parts: list[_Part], points: int = 50) -> NDArray[np.float64]:
    if not all(np.isfinite(part.test.cost).all() for part in parts):
        return np.zeros((0, 2))
    low = min(float(part.test.mean_cost().min()) for part in parts)
    high = max(float(part.test.mean_cost().max()) for part in parts)
    at = np.linspace(low, high, points)
    each = []
    for part in parts:
        quality, cost, _ = part.points[name].means()
        each.append(sb.quality_at(cost, quality, at))
    return np.stack([at, np.mean(each, axis=0)], axis=1)
