"""Cascade routing: at every step, ask whatever is worth most, or stop (Dekoninck et al. 2025).

A *supermodel* is a set of models of which the best answer is given. Its quality is the expected
largest of its members' quality estimates, which are spread because judging an answer will move
them; its cost is the sum. At every step the supermodel with the largest quality less weighted cost
is chosen among those that contain everything asked so far; what was paid for is paid for. If it
holds nothing new, the answer with the best estimate is given; else its cheapest new member is
asked, and all estimates are renewed. Routing is the case of sets of one model, and a cascade the
case of the beginnings of one order (``family``).

Differences from the paper: the estimates of models that were not asked are moved by what was seen
of the others, by linear regression (the paper leaves that to the quality estimator); the spread is
that of a multivariate normal with the covariance found on other outcomes, evaluated at fixed draws
(the paper takes members as independent); one weight for all steps (the paper searches one for
each).
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Floats
from pilotfish.infer.policies.beliefs import after, by_pattern
from pilotfish.infer.policies.policy import STOP, Bools, Ints, Step, View

DRAWS = 32


@dataclass(frozen=True, eq=False)
class CascadeRouting:
    """Asks while it pays.

    Attributes:
        models: ``m`` of them.
        covariance: Of how far judging an answer moves the estimate of each model's quality ``[m, m]``.
        weight: Quality that one unit of cost must bring.
        family: Which sets may be asked: ``"any"``, ``"one"`` (routing) or ``"prefix"`` (a cascade).
        order: Positions of the models, for ``"prefix"``; default as they stand.
        max_size: Most models of a set.
        draws: Of the normal distribution; half are mirror images of the others, hence a power of 2.
    """

    models: tuple[str, ...]
    covariance: Floats
    weight: float = 0.0
    family: Literal["any", "one", "prefix"] = "any"
    order: tuple[int, ...] = ()
    max_size: int = 3
    draws: int = DRAWS
    _sets: list[tuple[int, ...]] = field(init=False, repr=False)  # by size
    _members: Bools = field(init=False, repr=False)
    _levels: list[tuple[Ints, Ints]] = field(
        init=False, repr=False
    )  # set of one less, its new member

    def __post_init__(self) -> None:
        m = len(self.models)
        if np.shape(self.covariance) != (m, m):
            raise InputError(
                f"Got a covariance of shape {np.shape(self.covariance)} for {m} models."
            )
        if self.family == "prefix":
            order = self.order or tuple(range(m))
            sets = [tuple(sorted(order[:k])) for k in range(1, len(order) + 1)]
        else:
            most = 1 if self.family == "one" else min(self.max_size, m)
            sets = [s for k in range(1, most + 1) for s in itertools.combinations(range(m), k)]
        members = np.zeros((len(sets), m), bool)
        levels = []
        for size in sorted({len(each) for each in sets}):
            level = [each for each in sets if len(each) == size]
            before = {each: i for i, each in enumerate(e for e in sets if len(e) == size - 1)}
            grown = [_grown(each, before) for each in level]
            levels.append((np.array([p for p, _ in grown]), np.array([j for _, j in grown])))
        for i, each in enumerate(sets):
            members[i, list(each)] = True
        object.__setattr__(self, "_sets", sets)
        object.__setattr__(self, "_members", members)
        object.__setattr__(self, "_levels", levels)

    def set_values(self, view: View, asked: Sequence[int]) -> tuple[list[tuple[int, ...]], Floats]:
        """The sets that contain ``asked``, and what each is worth ``[n, sets]``, paid costs left out."""
        mean, covariance = after(self.covariance, view, asked)
        moves = _normal(len(self.models), self.draws) @ _root(covariance).T  # [draws, m]
        drawn = mean[:, None, :] + moves[None]  # [n, draws, m]
        tops: list[Floats] = []
        values: list[Floats] = []
        for parents, last in self._levels:
            # The draws' mean is exact for one model; for more it is off by what the draws are off.
            top = drawn[:, :, last]
            if tops:
                top = np.maximum(tops[-1][:, :, parents], top)
            values.append(top.mean(axis=1) if tops else mean[:, last])
            tops.append(top)
        new = self._members.copy()
        new[:, list(asked)] = False
        value = np.hstack(values) - self.weight * (view.cost @ new.T.astype(np.float32))
        kept: Bools = np.asarray(self._members[:, list(asked)].all(axis=1))
        sets = [members for members, keep in zip(self._sets, kept, strict=True) if keep]
        value = value[:, kept]
        if asked and tuple(asked) not in sets:  # more were asked than a set may hold
            sets = [tuple(asked), *sets]
            value = np.hstack([mean[:, list(asked)].max(axis=1, keepdims=True), value])
        return sets, value

    def step(self, view: View) -> Step:
        """Choose the best set for every request, grouped by what was asked."""
        n = len(view.asked)
        ask: Ints = np.full(n, STOP, np.int64)
        answer: Ints = np.full(n, STOP, np.int64)
        judged = view.judged()
        for rows, asked in by_pattern(view):
            ask[rows] = self._next(view.take(rows), asked, judged[rows])
        stops = ask < 0
        answer[stops] = judged[stops].argmax(axis=1)
        margin = np.where(stops, judged.max(axis=1, initial=-np.inf), 0.0)
        return Step(ask, answer, np.clip(margin, 0, 1).astype(np.float32))

    def _next(self, view: View, asked: tuple[int, ...], judged: Floats) -> Ints:
        works: Bools = judged.max(axis=1, initial=-np.inf) >= 0
        if asked and self.family == "one" and works.all():
            return np.full(len(works), STOP, np.int64)
        sets, value = self.set_values(view, asked)
        chosen = value.argmax(axis=1)
        new = np.array([[j in s and j not in asked for j in range(len(self.models))] for s in sets])
        open_ = new[chosen]
        if self.family == "prefix":
            places = np.full(len(self.models), len(self.models))
            order = np.array(self.order or range(len(self.models)))
            places[order] = np.arange(len(order))
            price: Floats = np.broadcast_to(places, view.cost.shape).astype(np.float32)
        else:
            price = view.cost
        ask = np.where(open_, price, np.inf).argmin(axis=1)
        found: Ints = np.where(open_.any(axis=1), ask, STOP).astype(np.int64)
        # If all that answered have failed, the best of those left is asked, whatever the family.
        lost = (found < 0) & ~works
        if lost.any() and len(asked) < len(self.models):
            found[lost] = np.where(view.asked, -np.inf, view.expected)[lost].argmax(axis=1)
        return found


def _grown(members: tuple[int, ...], before: dict[tuple[int, ...], int]) -> tuple[int, int]:
    """A set with one member less among ``before``, and that member."""
    for j in members:
        rest = tuple(k for k in members if k != j)
        if rest in before:
            return before[rest], j
    return 0, members[0]  # sets of one model


@functools.lru_cache(maxsize=16)
def _normal(m: int, draws: int) -> Floats:
    """Standard normal draws ``[draws, m]``, each with its mirror image: scrambled Sobol points."""
    from scipy.stats import norm, qmc

    half = qmc.Sobol(m, seed=0).random_base2(max((draws - 1).bit_length() - 1, 0))
    z = norm.ppf(np.clip(half, 1e-6, 1 - 1e-6))
    out: Floats = np.concatenate([z, -z]).astype(np.float32)
    return out


def _root(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance.astype(np.float64))
    out: Floats = (vectors * np.sqrt(np.maximum(values, 0.0))).astype(np.float32)
    return out
