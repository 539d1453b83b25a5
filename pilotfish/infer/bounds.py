"""Bounds on a mean that hold at any sample size: exact binomial, and betting.

*Binomial* (Clopper and Pearson 1934): for a sample whose size was fixed before its answers were
looked at. *Betting* (Waudby-Smith and Ramdas 2024): a gambler starts with 1 and bets a share
``lambda`` on the payoff of every row, so that the wealth is ``prod(1 + lambda * g_i)``. Proof that it
may be looked at after every row:

1. ``lambda`` is fixed before row ``i`` and ``1 + lambda * g_i >= 0``, since ``lambda * worst <= 1``.
2. Where the promise is broken, ``E[g_i | past] < 0``, so ``E[wealth_i | past] <= wealth_{i-1}``: a
   nonnegative supermartingale that starts at 1, and so is any average of such over several lambdas.
3. Ville's inequality: the chance that it *ever* reaches 1/delta is at most delta.

Differences from the paper: the bets are a fixed mixture of constants instead of the paper's plug-in
(aGRAPA) bets. Under a mixture the order of rows does not matter, wealth at a lower threshold is
never higher (for promises that are monotone), and a resumed run needs no history.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pilotfish.infer.constraints import Floats


def binomial_p_value(errors: ArrayLike, n: ArrayLike, alpha: float) -> Floats:
    """P(at most ``errors`` of ``n`` | error rate ``alpha``): small if the rate is really lower.

    1 where ``n`` is 0 or all are errors. Exact for the hypothesis "rate >= alpha", since the tail
    falls as the rate grows.
    """
    x, m = np.broadcast_arrays(np.asarray(errors, float), np.asarray(n, float))
    inside = x < m
    tail = special.betainc(np.where(inside, m - x, 1.0), x + 1.0, 1.0 - alpha)
    return np.asarray(np.where(inside, tail, 1.0))


def clopper_pearson_upper(errors: ArrayLike, n: ArrayLike, delta: float) -> Floats:
    """Upper bound on an error rate that fails with probability <= ``delta`` (one-sided).

    1 where ``n`` is 0 or every row is an error.

    >>> round(float(clopper_pearson_upper(0, 59, 0.05)), 4)
    0.0495
    """
    x, m = np.broadcast_arrays(np.asarray(errors, float), np.asarray(n, float))
    open_ended = x >= m
    bound = special.betaincinv(x + 1.0, np.where(open_ended, 1.0, m - x), 1.0 - delta)
    return np.asarray(np.where(open_ended, 1.0, bound))


@dataclass(frozen=True)
class Bets:
    """A mixture of constant bets.

    Attributes:
        shares: The lambdas, ``[bets]``, each in (0, 1 / worst].
        log_weights: Log of the starting capital behind each, summing to 1.
    """

    shares: Floats
    log_weights: Floats

    def wealth(self, logs: Floats) -> Any:
        """Log of the mixture's wealth from each bet's summed ``log(1 + lambda g)``, ``[..., bets]``."""
        total = logs + self.log_weights
        most = total.max(axis=-1, keepdims=True)
        return most[..., 0] + np.log(np.exp(total - most).sum(axis=-1))


@lru_cache(maxsize=1024)
def bets(n: float, alpha: float, delta: float, worst: float, spread: float = 1.0) -> Bets:
    """Bets made for a sample of about ``n`` rows that count.

    With variance ``V = spread * alpha (1 - alpha)`` per row, the smallest gap that ``n`` rows can
    certify is sqrt(2 V log(1/delta) / n), and the bet that finds it sqrt(2 log(1/delta) / (n V)). A
    smaller bet cannot win in time. Half of the capital lies there; the rest is spread upwards, to
    stop early where the gap is wide.

    Args:
        n: Rows (draws) expected, >= 0.
        alpha: Share that may be broken, in (0, 1).
        delta: Allowed failure probability.
        worst: Largest loss of one row (:meth:`Constraint.worst`).
        spread: Variance relative to one unweighted row (> 1 when rows carry weights 1/q).
    """
    top = 0.999 / worst
    variance = spread * max(alpha * (1.0 - alpha), 1e-12)
    least = min(np.sqrt(2.0 * np.log(1.0 / delta) / (max(n, 1.0) * variance)), top / 1.05)
    count = int(np.clip(np.ceil(np.log(top / least) / np.log(1.6)), 1, 12)) + 1
    shares = np.geomspace(least, top, count)
    weights = np.full(count, 0.5 / (count - 1))
    weights[0] = 0.5
    return Bets(shares, np.log(weights))


def log_wealths(
    bet: Bets, below: Floats, served: Floats, bins: NDArray[np.int64], thresholds: int
) -> Floats:
    """Each bet's log wealth at every threshold, ``[thresholds, bets]``.

    Args:
        bet: The bets.
        below: Payoff of each row where it is escalated, ``[n]``.
        served: Payoff where it is served, ``[n]``.
        bins: Index of the highest threshold that serves the row (``thresholds`` if none does).
        thresholds: How many thresholds there are.
    """
    total = np.empty((thresholds, bet.shares.size))
    for k, share in enumerate(bet.shares):
        escalated = np.log1p(share * below)
        gain = np.log1p(share * served) - escalated
        by_bin = np.bincount(bins, gain, minlength=thresholds + 1)[:thresholds]
        total[:, k] = escalated.sum() + np.cumsum(by_bin)
    return total


def betting_upper(
    bet: Bets,
    u: Floats,
    v: Floats,
    delta: float,
    *,
    alpha: float,
    largest: float = 1.0,
    steps: int = 30,
) -> float:
    """Upper confidence bound on the share broken: the least risk at which the bets reach 1/delta.

    Wealth rises with the risk that is bet against, so all larger risks are refuted too. Below
    ``alpha`` the bets are cut so that one row can never lose more than everything.

    Args:
        bet: The bets made for ``alpha``.
        u: Denominator terms, ``[n]``.
        v: Broken terms, ``[n]``.
        delta: Allowed failure probability.
        alpha: The risk that ``bet`` was made for.
        largest: Largest possible ``v`` (1 / smallest asking probability).
        steps: Bisections; the answer is at most 2**-steps too high.

    Returns:
        A number in [0, 1]; 1 when nothing is refuted.
    """
    # u and v take few values: each distinct pair is evaluated once (a complex number is a pair)
    pairs, counts = np.unique(u + 1j * v, return_counts=True)
    above, broken = pairs.real[:, None], pairs.imag[:, None]
    cut = np.minimum(bet.shares, 0.999 / largest)

    def refuted(risk: float) -> bool:
        shares = bet.shares if risk >= alpha else cut
        logs = np.log1p(shares * (risk * above - broken))
        return bool(bet.wealth(counts.astype(float) @ logs) >= -np.log(delta))

    low, high = (0.0, alpha) if refuted(alpha) else (alpha, 1.0)
    for _ in range(steps):
        middle = (low + high) / 2.0
        low, high = (low, middle) if refuted(middle) else (middle, high)
    return high
