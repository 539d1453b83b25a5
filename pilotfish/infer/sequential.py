"""Tests of one threshold that may be looked at while the answers come in.

Three ways to test "the promise is broken at t" on a growing prefix of rows in random order:

- *betting*: mixture wealth (:mod:`pilotfish.infer.bounds`); rows may be asked with unequal, known
  probability. Valid at every row.
- *binomial*: every row that counts is asked. Looks are planned ahead; delta is spent on them by a
  spending function (Lan and DeMets 1983), and the boundary is computed exactly for the binomial, so
  that the last look is almost as strong as a test of fixed size.
- *file*: the same for rows drawn without replacement from the very rows the promise is about, with
  the hypergeometric distribution.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special, stats

from pilotfish.errors import InputError
from pilotfish.infer.bounds import Bets, bets, betting_upper
from pilotfish.infer.certify import entry_levels
from pilotfish.infer.constraints import Constraint, Floats, Ints, Terms

FIRST_LOOK = 15
GROWTH = 1.15


@lru_cache(maxsize=4096)
def look_sizes(horizon: int) -> Ints:
    """Sample sizes at which a growing sample is looked at: from 15, 15% apart, to the horizon."""
    count = int(np.log(max(horizon, FIRST_LOOK) / FIRST_LOOK) / np.log(GROWTH)) + 1
    sizes = np.ceil(FIRST_LOOK * GROWTH ** np.arange(count)).astype(np.int64)
    return np.append(sizes[sizes < horizon], max(horizon, 1))


def spent(sizes: Ints, early: bool) -> Floats:
    """Share of delta that may be used up by each look, ``[looks]``, rising to 1.

    Late: in proportion to the square of the sample, so that the last look is almost a test of fixed
    size (O'Brien and Fleming's shape). Early: nine tenths in equal parts over the first 60% of the
    looks, so that a clear case is settled with few answers (Pocock's shape), the rest over the others.
    """
    if early:
        done = np.arange(1, sizes.size + 1) / sizes.size
        return np.asarray(np.minimum(done / 0.6, 1.0) * 0.9 + np.maximum(done - 0.6, 0.0) * 0.25)
    return np.asarray((sizes / sizes[-1]) ** 2)


class Boundary:
    """Most errors with which each look may pass, so that a broken promise ever passes with P <= delta.

    The walk of the error count in the least broken case is followed exactly: what has passed is
    removed, the rest moves on by the next step's distribution. In a more broken case there are more
    errors at every look, so that it passes less often. Looks are computed as samples reach them.

    Args:
        horizon: Rows planned, >= 1.
        rate: Least broken error rate: draws are independent; None for a file.
        errors: Least broken count of errors among ``horizon`` rows drawn without replacement.
        delta: Allowed chance of ever passing.
        early: See :func:`spent`.
    """

    def __init__(
        self, horizon: int, rate: float | None, errors: int, delta: float, early: bool
    ) -> None:
        self.sizes = look_sizes(horizon)
        self._horizon, self._rate, self._errors = horizon, rate, errors
        self._allowance = delta * spent(self.sizes, early)
        self._limits: list[int] = []
        self._alive, self._passed = np.ones(1), 0.0

    def limits(self, sample: int) -> Ints:
        """The limits of all looks at samples up to this size; -1: nothing passes at that look."""
        wanted = int(np.searchsorted(self.sizes, sample, side="right"))
        while len(self._limits) < wanted:
            self._extend(len(self._limits))
        return np.asarray(self._limits[:wanted], dtype=np.int64)

    def _extend(self, look: int) -> None:
        before = int(self.sizes[look - 1]) if look else 0
        step, rate = int(self.sizes[look]) - before, self._rate
        if rate is not None:
            moves = stats.binom.pmf(np.arange(step + 1), step, rate)
            alive = np.convolve(self._alive, moves)
        else:
            rate = self._errors / self._horizon
            alive = self._without_replacement(before, step)
        # counts this high cannot pass any more; what is cut is less than 1e-12 of the paths
        size = before + step
        top = int(size * rate + 8.0 * np.sqrt(size * rate * (1.0 - rate)) + 8.0)
        alive = alive[: top + 1].copy()
        room = self._allowance[look] - self._passed
        limit = int(np.searchsorted(np.cumsum(alive), room, side="right")) - 1
        if limit >= 0:
            self._passed += float(alive[: limit + 1].sum())
            alive[: limit + 1] = 0.0
        self._alive = alive
        self._limits.append(limit)

    def _without_replacement(self, before: int, step: int) -> Floats:
        left = self._horizon - before
        counts = np.flatnonzero(self._alive > 0.0)
        result = np.zeros(self._alive.size + step)
        if not counts.size:
            return result
        bad = np.maximum(self._errors - counts, 0).astype(np.float64)
        most = int(min(step, 8.0 * np.sqrt(step) + 8.0 + 2.0 * step * bad.max() / left))
        drawn = np.arange(most + 1, dtype=np.float64)[None, :]
        logs = _log_choose(bad[:, None], drawn) + _log_choose(left - bad[:, None], step - drawn)
        moves = np.exp(logs - _log_choose(np.array(float(left)), np.array(float(step))))
        flow = moves * self._alive[counts][:, None]
        np.add.at(result, counts[:, None] + drawn.astype(np.int64), flow)
        return result


def _log_choose(n: Floats, k: Floats) -> Floats:
    """Log of the binomial coefficient; -inf where it is 0."""
    possible = (k >= 0.0) & (k <= n)
    m, j = np.where(possible, n, 1.0), np.where(possible, k, 0.0)
    value = special.gammaln(m + 1) - special.gammaln(j + 1) - special.gammaln(m - j + 1)
    return np.asarray(np.where(possible, value, -np.inf))


@lru_cache(maxsize=4096)
def boundary(horizon: int, rate: float | None, errors: int, delta: float, early: bool) -> Boundary:
    """The :class:`Boundary` of these settings, computed once."""
    return Boundary(horizon, rate, errors, delta, early)


def crossed(errors: Floats, limits: Boundary) -> bool:
    """Whether a sample passed at any look so far.

    Args:
        errors: 1 where a row is an error, in random order, ``[m]``; only rows that count.
        limits: The boundary.
    """
    allowed = limits.limits(errors.size)
    if not allowed.size:
        return False
    return bool(np.any(np.cumsum(errors)[limits.sizes[: allowed.size] - 1] <= allowed))


def rate_upper(errors: Floats, horizon: int, alpha: float, delta: float, early: bool) -> float:
    """Upper confidence bound on the error rate from all looks so far, at most 0.0005 too high.

    The same test for other rates; 1 when nothing was refuted.
    """

    def refuted(rate: float) -> bool:
        return crossed(errors, boundary(horizon, round(rate, 6), 0, delta, early))

    low, high = (0.0, alpha) if refuted(alpha) else (alpha, 1.0)
    while high - low > 5e-4:
        middle = (low + high) / 2.0
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high


def count_crossed(
    errors: Floats, population: int, allowed: int, delta: float, early: bool = True
) -> bool:
    """Whether a sample without replacement shows that at most ``allowed`` errors are in the file."""
    if allowed >= population:
        return True
    if errors.size >= population:
        return bool(errors.sum() <= allowed)
    return crossed(errors, boundary(population, None, allowed + 1, delta, early))


def count_upper(errors: Floats, population: int, delta: float) -> float:
    """Upper confidence bound on the errors in the file, from all looks so far (0.2% coarse)."""
    low, high = float(errors.sum()) - 1.0, float(population)
    while high - low > max(1, population // 500):
        middle = (low + high) // 2
        won = count_crossed(errors, population, int(middle), delta)
        low, high = (low, middle) if won else (middle, high)
    return high


def checked_procedure(
    constraints: tuple[Constraint, ...], method: str, population: str, budget: int | None
) -> None:
    """Refuse a procedure that does not exist.

    Raises:
        InputError: It says which part.
    """
    if method not in ("binomial", "betting"):
        raise InputError(f"Got method={method!r}, but expected 'binomial' or 'betting'.")
    if population not in ("inputs", "file"):
        raise InputError(f"Got population={population!r}, but expected 'inputs' or 'file'.")
    bets_needed = method == "betting" or any(c.kind == "recall" for c in constraints)
    if population == "file" and bets_needed:
        raise InputError(
            "A promise about this very file is tested for agree and precision, by binomial.",
            remedy='Use population="inputs"',
        )
    if budget is not None and budget < 0:
        raise InputError(f"Got budget={budget}, but expected 0 or more answers.")


@dataclass(frozen=True)
class Tester:
    """The test of one promise at any threshold.

    Attributes:
        constraint: The promise.
        method: ``"binomial"`` or ``"betting"`` (recall always bets).
        population: ``"inputs"`` or ``"file"``.
        delta: Its share of the allowed failure probability.
        floor: Smallest probability with which a row is asked.
        rows: Rows of the sample.
        early: Whether the exact tests spend delta early (answers are to be saved).
        shares: Expected share of rows that count at each threshold, from other rows, ``[thresholds]``.
        levels: Part of ``delta`` that enters the sequence at each threshold, ``[thresholds]``.
        members: Rows of the file that the small model would answer, ``[thresholds]``; file only.
    """

    constraint: Constraint
    method: str
    population: str
    delta: float
    floor: float
    rows: int
    early: bool
    shares: Floats
    levels: Floats
    members: Ints

    @property
    def betting(self) -> bool:
        """Whether wealth decides, instead of counts."""
        return self.method == "betting" or self.constraint.kind == "recall"

    def needs(self, shares: Floats) -> Floats:
        """About how many standard deviations a test after these shares of the rows asks for."""
        if self.betting:
            return np.full(shares.size, 2.5)
        looks = max(look_sizes(max(self.rows, 1)).size, 2)
        nominal = shares**2 if not self.early else np.full(shares.size, min(1.0, 4.0 / looks))
        return np.asarray(special.ndtri(1.0 - self.delta * np.clip(nominal, 1e-4, 1.0)))

    def bets(self, index: int) -> Bets:
        """The bets at one threshold; the same at all thresholds of a monotone promise."""
        spread = 0.1 if self.constraint.kind == "recall" else self.floor**-0.5
        worst = self.constraint.worst(self.floor)
        return bets(self.horizon(index), self.constraint.alpha, self.delta, worst, spread)

    def horizon(self, index: int) -> int:
        """Rows that will have counted when the sample ends, foreseen from other rows.

        Rounded to steps of 10%, so that neighbouring thresholds share one boundary.
        """
        if self.constraint.monotone:
            return max(self.rows, 1)
        expected = max(self.shares[index] * self.rows, 1.0)
        return max(1, int(1.1 ** round(np.log(expected) / np.log(1.1)) + 0.5))

    def _allowed(self, index: int, risk: float) -> int:
        everything = self.constraint.kind == "agree" and self.constraint.on == "all"
        return int(risk * float(self.rows if everything else self.members[index]) + 1e-9)

    def _columns(self, index: int, parts: Terms, bins: Ints) -> tuple[Floats, Floats]:
        served = bins <= index
        u = np.where(served, parts.u_served, parts.u_below)
        v = np.where(served, parts.v_served, 0.0)
        if self.betting:
            return u, v
        counted = u > 0 if self.population == "inputs" else served & (u > 0)
        return u[counted], v[counted]

    def passes(self, index: int, level: float, parts: Terms, bins: Ints) -> bool:
        """Whether the promise is certified at a threshold; what passes at a level passes at more.

        Args:
            index: The threshold.
            level: Allowed chance of passing wrongly, a multiple of the smallest entering level.
            parts: Payoff terms of a gapless prefix of the rows, in random order.
            bins: Their threshold indices.
        """
        u, v = self._columns(index, parts, bins)
        alpha = round(self.constraint.alpha, 12)
        if self.betting:
            bet = self.bets(index)
            logs = np.log1p(bet.shares[:, None] * (alpha * u - v)).sum(axis=1)
            return bool(bet.wealth(logs) >= -np.log(level))
        if self.population == "inputs":
            horizon = self.horizon(index)
            return all(
                crossed(v, boundary(horizon, alpha, 0, up, self.early))
                for up in self._up_from(level)
            )
        total, allowed = int(self.members[index]), self._allowed(index, alpha)
        return all(count_crossed(v, total, allowed, up) for up in self._up_from(level))

    def _up_from(self, level: float) -> list[float]:
        """This level and all larger ones: spending boundaries of two levels may cross by a row."""
        step = float(self.levels[self.levels > 0].min())
        first = round(level / step)
        return [round(step * k, 12) for k in range(first, round(self.delta / step) + 1)]

    def upper(self, index: int, parts: Terms, bins: Ints) -> float:
        """Upper confidence bound on the share broken; arguments as :meth:`passes`."""
        u, v = self._columns(index, parts, bins)
        alpha = round(self.constraint.alpha, 12)
        if self.betting:
            return betting_upper(
                self.bets(index), u, v, self.delta, alpha=alpha, largest=1.0 / self.floor
            )
        if self.population == "inputs":
            return rate_upper(v, self.horizon(index), alpha, self.delta, self.early)
        most = count_upper(v, int(self.members[index]), self.delta)
        return float(min(most / max(self._allowed(index, 1.0), 1), 1.0))


def tester_for(
    constraint: Constraint,
    method: str,
    population: str,
    delta: float,
    floor: float,
    early: bool,
    bins: Ints,
    small: NDArray[Any] | None,
    shares: Floats,
) -> Tester:
    """The :class:`Tester` of a sample whose rows have these threshold indices and small labels."""
    counted = np.ones(bins.size)
    if constraint.kind == "precision":
        counted = np.asarray(small == constraint.label, dtype=np.float64)
    members = np.cumsum(np.bincount(bins, counted, minlength=shares.size + 1)[: shares.size])
    levels = entry_levels(constraint, shares, bins.size, delta, floor)
    return Tester(
        constraint, method, population, delta, floor, bins.size, early, shares, levels,
        members.astype(np.int64),
    )  # fmt: skip
