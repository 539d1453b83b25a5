"""Tests of one threshold that may be looked at while the answers come in.

Three ways to test "the promise is broken at t" on a growing prefix of rows in random order:

- *betting*: mixture wealth (:mod:`pilotfish.infer.bounds`); rows may be asked with unequal, known
  probability. Valid at every row.
- *binomial*: every row that counts is asked. Looks are planned ahead; delta is spent on them by a
  spending function (Lan and DeMets 1983), and the boundary is computed exactly for the binomial, so
  that the last look is almost as strong as a test of fixed size.
- *file*: rows are drawn without replacement from the very rows the promise is about; exact
  hypergeometric tails, at planned looks that share delta.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats

from pilotfish.errors import InputError
from pilotfish.infer.bounds import Bets, bets, betting_upper
from pilotfish.infer.constraints import Constraint, Floats, Ints, Terms

LOOKS = 48


def look_sizes(horizon: int) -> Ints:
    """Sample sizes at which a growing sample is looked at: even steps up to the horizon, ``[<=48]``."""
    return np.unique(np.linspace(0, max(horizon, 1), LOOKS + 1).astype(np.int64)[1:])


@lru_cache(maxsize=2048)
def spending_boundary(horizon: int, alpha: float, delta: float, power: float = 2.0) -> Ints:
    """Most errors allowed at each look so that a rate of ``alpha`` ever passes with P <= ``delta``.

    The chance spent by look ``m`` is ``delta * (m / horizon) ** power``. The walk of the error count
    under rate ``alpha`` is followed exactly: what has passed is removed, the rest is convolved with
    the binomial of the next step. A higher rate passes less often (more errors at every look), so the
    test is valid for every rate >= alpha.

    Args:
        horizon: Rows planned, >= 1; the test is over after that.
        alpha: Error rate refuted, in (0, 1).
        delta: Allowed chance of passing.
        power: How late delta is spent; 2 is close to O'Brien and Fleming.

    Returns:
        Largest passing count per look of :func:`look_sizes`, ``[looks]``; -1: nothing passes yet.
    """
    sizes = look_sizes(horizon)
    limits = np.full(sizes.size, -1, dtype=np.int64)
    alive = np.ones(1)
    passed, before = 0.0, 0
    for k, size in enumerate(sizes):
        step = int(size - before)
        alive = np.convolve(alive, stats.binom.pmf(np.arange(step + 1), step, alpha))
        # counts so high that they cannot matter any more; cutting them removes no passing path
        top = int(stats.binom.ppf(1.0 - 1e-12, size, alpha)) + 2
        alive = alive[: top + 1].copy()
        budget = delta * (size / sizes[-1]) ** power - passed
        limit = int(np.searchsorted(np.cumsum(alive), budget, side="right")) - 1
        if limit >= 0:
            passed += float(alive[: limit + 1].sum())
            alive[: limit + 1] = 0.0
        limits[k] = limit
        before = int(size)
    return limits


def binomial_crossed(errors: Floats, horizon: int, alpha: float, delta: float) -> bool:
    """Whether a sample passed at any planned look so far.

    Args:
        errors: 1 where a row is an error, in order, ``[m]``; only rows that count.
        horizon: Rows planned.
        alpha: Error rate to refute.
        delta: Allowed chance of passing wrongly.
    """
    sizes = look_sizes(horizon)
    sizes = sizes[sizes <= errors.size]
    if not sizes.size:
        return False
    seen = np.cumsum(errors)[sizes - 1]
    return bool(np.any(seen <= spending_boundary(horizon, alpha, delta)[: sizes.size]))


def binomial_upper(errors: Floats, horizon: int, alpha: float, delta: float) -> float:
    """Upper confidence bound on the error rate from all looks so far, to 0.0005 above.

    The same test for other rates; 1 when nothing was refuted.
    """
    low, high = (0.0, alpha) if binomial_crossed(errors, horizon, alpha, delta) else (alpha, 1.0)
    while high - low > 5e-4:
        middle = (low + high) / 2.0
        won = binomial_crossed(errors, horizon, round(middle, 12), delta)
        low, high = (low, middle) if won else (middle, high)
    return high


def file_look_sizes(population: int) -> Ints:
    """Sample sizes for looks at a file: growing by a half each, up to the whole."""
    count = max(1, int(np.ceil(np.log(max(population, 1) / 20.0) / np.log(1.5))) + 1)
    sizes = np.ceil(population / 1.5 ** np.arange(count)[::-1]).astype(np.int64)
    return np.unique(np.maximum(sizes, 1))


def file_levels(looks: int, delta: float) -> Floats:
    """What each look spends, ``[looks]``: mostly the late ones; the last is a census and free."""
    weights = 1.6 ** np.arange(looks)
    weights[-1] = 0.0
    return np.asarray(delta * weights / max(weights.sum(), 1e-300))


def file_crossed(errors: Floats, population: int, delta: float, allowed: float) -> bool:
    """Whether at some look a sample without replacement shows that errors are few enough.

    Args:
        errors: 1 where a sampled row is an error, in random order, ``[m]``.
        population: Rows that the small model would answer, >= m.
        delta: Allowed chance of being wrong, at any look.
        allowed: Errors allowed among those rows.
    """
    least = np.floor(allowed + 1e-9) + 1.0
    if least > population:
        return True
    sizes = file_look_sizes(population)
    levels = file_levels(sizes.size, delta)
    done = sizes <= errors.size
    if not done.any():
        return False
    seen = np.cumsum(errors)[sizes[done] - 1]
    # the most favourable of the broken files has one error too many
    tail = stats.hypergeom.cdf(seen, population, least, sizes[done])
    return bool(np.any(tail <= levels[done]))


def file_upper(errors: Floats, population: int, delta: float) -> int:
    """Upper confidence bound on the errors in the file, from all looks so far."""
    low = int(errors.sum()) - 1
    high = population
    while high - low > 1:
        middle = (low + high) // 2
        if file_crossed(errors, population, delta, float(middle)):
            high = middle
        else:
            low = middle
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
    shares: Floats
    levels: Floats
    members: Ints

    @property
    def betting(self) -> bool:
        """Whether wealth decides, instead of counts."""
        return self.method == "betting" or self.constraint.kind == "recall"

    @property
    def z(self) -> float:
        """About how many standard deviations it needs; for planning."""
        return 2.5 if self.betting else 1.75 if self.population == "inputs" else 2.1

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
        return max(1, round(1.1 ** round(np.log(expected) / np.log(1.1))))

    def _allowed(self, index: int, risk: float) -> float:
        everything = self.constraint.kind == "agree" and self.constraint.on == "all"
        return risk * float(self.rows if everything else self.members[index])

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
            return all(binomial_crossed(v, horizon, alpha, up) for up in self._up_from(level))
        return file_crossed(v, int(self.members[index]), level, self._allowed(index, alpha))

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
            return binomial_upper(v, self.horizon(index), alpha, self.delta)
        most = file_upper(v, int(self.members[index]), self.delta)
        return float(min(most / max(self._allowed(index, 1.0), 1.0), 1.0))
