"""The order and the thresholds of a cascade, chosen together on recorded outcomes.

FrugalGPT optimises both by a specialised mixed-integer solver, IDK cascades search orders with
greedy thresholds, Zhang et al. (2024) add latency. On a grid of thresholds the joint problem is
solved exactly here: for one order, each stage's scores are binned, the sums of quality and cost of
the questions that would stop at each stage are put into a histogram over the bins, and cumulative
sums give the mean quality and cost of *every* combination of thresholds at once (``grid ** (stages
- 1)`` of them from one pass over the questions). All orders of up to ``max_stages`` models are
tried, but for those that begin with a model that costs more and is worse than another one alone
(``prune``). What remains is the frontier: no plan of it costs more than another without being
better. A budget, a quality or a share of the large model picks a plan from it.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Floats
from pilotfish.infer.policies.chain import Chain
from pilotfish.infer.policies.policy import Bools, Ints

Doubles = NDArray[np.float64]
ScoresOf = Callable[[tuple[int, ...]], Floats]

GRID = 12
ABOVE = 1.01  # a threshold that nothing reaches


@dataclass(frozen=True)
class Plan:
    """A chain with what it did on the questions it was chosen on.

    Attributes:
        chain: The chain.
        cost: Mean cost of a question.
        quality: Mean quality.
        strong_share: Share of the questions that the most expensive model was asked about.
    """

    chain: Chain
    cost: float
    quality: float
    strong_share: float


def search_chains(
    models: Sequence[str],
    quality: NDArray[Any],
    cost: NDArray[Any],
    scores: NDArray[Any] | ScoresOf,
    *,
    max_stages: int = 3,
    grid: int = GRID,
    answer: Literal["last", "all"] = "last",
    prune: bool = True,
) -> list[Plan]:
    """The frontier of all chains, from cheap to dear.

    Args:
        models: ``m`` names.
        quality: ``[n, m]``, all known.
        cost: ``[n, m]``, all known; any price that adds up (dollars, dollars plus priced seconds).
        scores: The judge's scores ``[n, m]``; or a function of the positions asked so far, the latest
            last, where they depend on what else was asked.
        max_stages: Most models of a chain.
        grid: Thresholds tried for each stage: quantiles of its scores, and never.
        answer: As in :class:`~pilotfish.infer.policies.chain.Chain`.
        prune: Leave out orders that begin with a model that is dearer and worse than another.

    Raises:
        InputError: Something is unknown (NaN), or there are no questions.
    """
    quality, cost = np.asarray(quality, np.float64), np.asarray(cost, np.float64)
    if not quality.size or np.isnan(quality).any() or np.isnan(cost).any():
        raise InputError(
            "Choosing a cascade needs the quality and cost of every model on every question.",
            remedy="Leave incomplete questions out: outcomes.take(~np.isnan(outcomes.quality).any(1))",
        )
    of = _cached(scores)
    strong = int(cost.mean(axis=0).argmax())
    found: list[Plan] = []
    for order in _orders(quality, cost, max_stages, prune):
        found += _frontier(
            list(_plans(tuple(models), order, quality, cost, of, grid, answer, strong))
        )
    return _frontier(found)


def _cached(scores: NDArray[Any] | ScoresOf) -> ScoresOf:
    if not callable(scores):
        table = np.asarray(scores)
        return lambda asked: table
    known: dict[frozenset[int], Floats] = {}

    def of(asked: tuple[int, ...]) -> Floats:
        key = frozenset(asked)
        if key not in known:
            known[key] = scores(asked)
        return known[key]

    return of


def _orders(quality: Doubles, cost: Doubles, most: int, prune: bool) -> Iterator[tuple[int, ...]]:
    m = quality.shape[1]
    good, dear = quality.mean(0), cost.mean(0)
    worse = [
        any(dear[k] < dear[j] and good[k] > good[j] for k in range(m)) and prune for j in range(m)
    ]
    for length in range(1, min(most, m) + 1):
        for order in itertools.permutations(range(m), length):
            if length == 1 or not worse[order[0]]:
                yield order


def _plans(
    models: tuple[str, ...],
    order: tuple[int, ...],
    quality: Doubles,
    cost: Doubles,
    of: ScoresOf,
    grid: int,
    answer: Literal["last", "all"],
    strong: int,
) -> Iterator[Plan]:
    n, depth = len(quality), len(order) - 1
    thresholds, bins, values = [], [], []
    spent, bests = np.zeros(n), np.zeros(n, int)
    for number, position in enumerate(order):
        scores = np.asarray(of(order[: number + 1]), np.float64)
        spent = spent + cost[:, position]
        bests = np.full(n, position)
        if answer == "all":
            pool = np.array(order[: number + 1])
            bests = pool[scores[:, pool].argmax(axis=1)]
        asked_strong = float(strong in order[: number + 1])
        given = quality[np.arange(n), bests]
        values.append(np.stack([given, spent, np.full(n, asked_strong)]))
        if number < depth:
            score = scores[:, position]
            cuts = np.unique(np.quantile(score, np.linspace(0, 1, grid)))
            cuts = np.concatenate([cuts[::-1], [0.0]])[::-1] if cuts[0] > 0 else cuts
            cuts = np.append(cuts, ABOVE)
            thresholds.append(cuts)
            bins.append(np.searchsorted(cuts, score, side="right") - 1)
    totals = _totals(bins, [len(cuts) for cuts in thresholds], values) / n
    tables = [each.ravel() for each in totals]
    for place in _efficient(tables[1], tables[0]):
        at = np.unravel_index(place, totals.shape[1:])
        chosen = tuple(float(cuts[i]) for cuts, i in zip(thresholds, at, strict=True))
        stages = tuple((position,) for position in order)
        chain = Chain(models, stages, chosen, answer)
        yield Plan(chain, *(float(tables[k][place]) for k in (1, 0, 2)))


def _totals(bins: list[Ints], sizes: list[int], values: list[Doubles]) -> Doubles:
    """Sums of quality, cost and strong asks for every combination of thresholds: ``[3, *sizes]``.

    A question stops at stage ``k`` under thresholds ``t`` exactly if ``bin_i < t_i`` for the stages
    before and ``bin_k >= t_k``.
    """
    depth = len(sizes)
    total = np.zeros((3, *sizes))
    for k, columns in enumerate(values):
        inner = sizes[: min(k + 1, depth)]
        flat = np.zeros(len(columns[0]), int)
        for axis in range(len(inner)):
            flat = flat * inner[axis] + bins[axis]
        cells = int(np.prod(inner, dtype=int))
        for which in range(3):
            sums = np.bincount(flat, columns[which], minlength=cells).reshape(inner or ())
            for axis in range(min(k, depth)):  # bin < t: sum of all lower bins
                sums = np.cumsum(sums, axis=axis)
                sums = np.concatenate(
                    [np.zeros_like(sums.take([0], axis)), sums.take(range(inner[axis] - 1), axis)],
                    axis,
                )
            if k < depth:  # bin >= t: sum of this and all higher bins
                sums = np.flip(np.cumsum(np.flip(sums, k), axis=k), k)
            total[which] += sums.reshape((*inner, *([1] * (depth - len(inner)))))
    return total


def _efficient(cost: Doubles, quality: Doubles) -> Ints:
    """Positions of the undominated points, by cost."""
    order = np.lexsort((-quality, cost))
    best = np.maximum.accumulate(quality[order])
    keep: Bools = np.concatenate([[True], best[1:] > best[:-1] + 1e-12])
    found: Ints = order[keep]
    return found


def _frontier(plans: list[Plan]) -> list[Plan]:
    costs = np.array([plan.cost for plan in plans])
    return [plans[i] for i in _efficient(costs, np.array([plan.quality for plan in plans]))]
