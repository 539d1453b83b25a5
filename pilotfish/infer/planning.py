"""Which threshold to go for next, and whether it is still worth the answers it costs.

Planning only decides where to ask and when to stop. The tests are valid whatever it decides, so it may
use rough predictions: a wrong plan costs answers, never the promise.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import special

from pilotfish.errors import InputError
from pilotfish.infer.constraints import Bools, Constraint, Floats, Ints

PRIOR_ROWS = 4.0
LEAST_CHANCE = 0.02
# shares of the rows after which a test is imagined to end
SHARES = np.geomspace(0.004, 1.0, 24)


def relearned(
    expected: Floats, answered: Bools, errors: Floats, groups: int = 12
) -> tuple[Floats, Floats]:
    """Predicted disagreement of every row, corrected by the answers seen so far.

    Rows are grouped by their prediction; each group's rate is the mean of its answers and of
    ``PRIOR_ROWS`` imagined ones.

    Returns:
        The prediction ``[n]`` in (0, 1) and its standard error ``[n]``.
    """
    edges = (
        np.unique(np.quantile(expected, np.linspace(0, 1, groups + 1)[1:-1]))
        if expected.size
        else expected
    )
    group = np.searchsorted(edges, expected, side="left")
    count = np.bincount(group, answered, minlength=edges.size + 1) + PRIOR_ROWS
    members = np.maximum(np.bincount(group, minlength=edges.size + 1), 1)
    average = np.bincount(group, expected, minlength=edges.size + 1) / members
    found = np.bincount(group, answered * errors, minlength=edges.size + 1)
    # groups without answers of their own follow the ratio seen elsewhere
    predicted = float(np.sum(answered * expected))
    prior = average * (found.sum() + 1.0) / (predicted + 1.0)
    rate = np.clip((found + PRIOR_ROWS * prior) / count, 1e-4, 1.0 - 1e-4)
    scale = rate / np.maximum(average, 1e-9)
    return (
        np.clip(expected * scale[group], 1e-5, 1.0 - 1e-5),
        np.sqrt(rate * (1.0 - rate) / count)[group],
    )


@dataclass(frozen=True)
class Outlook:
    """What is predicted for one promise at every threshold, if all rows were asked; ``[thresholds]``.

    Attributes:
        total: Sum of the payoffs (positive: the promise holds).
        spread: Standard deviation of that sum as a sample of the inputs.
        unknown: Standard deviation of the prediction itself.
    """

    total: Floats
    spread: Floats
    unknown: Floats

    def chance(self, shares: Floats, needs: Floats, known: Floats, *, finite: bool) -> Floats:
        """Chance of passing after each share of the rows, ``[shares, thresholds]``.

        Args:
            shares: Shares of the rows, in (0, 1].
            needs: Standard deviations that the test asks for there.
            known: Share of the rows whose answer is known already, ``[thresholds]``.
            finite: Drawn without replacement: a complete sample has no error left.
        """
        share = shares[:, None]
        left = 1.0 - share if finite else np.ones_like(share)
        hurdle = needs[:, None] * self.spread * np.sqrt(share * left)
        new = np.clip(share - known, 0.0, 1.0)
        doubt = self.unknown * new / np.maximum(1.0 - known, 1e-9)
        noise = np.sqrt(self.spread**2 * new * left + doubt**2) + 1e-9
        # what is known has been tested and did not pass, however well it looked
        tested = np.interp(known, shares, needs) * self.spread
        tested = tested * np.sqrt(known * (1.0 - known) if finite else known)
        standing = np.minimum(known * self.total, tested)
        expected = np.where(share > known, standing + (share - known) * self.total, -np.inf)
        return np.asarray(special.ndtr((expected - hurdle) / noise))


def outlook(
    constraint: Constraint,
    expected: Floats,
    doubt: Floats,
    probability: Floats,
    bins: Ints,
    size: int,
    small: NDArray[Any] | None,
) -> Outlook:
    """Predict the sums of one promise's payoffs.

    Args:
        constraint: The promise.
        expected: Chance of disagreement per row (0 or 1 where it is known), ``[n]``.
        doubt: Its standard error, ``[n]``.
        probability: Chance with which each row is asked.
        bins: Threshold index per row.
        size: How many thresholds there are.
        small: The small model's labels, for a promise about a class.
    """
    alpha = constraint.alpha
    one, zero = np.ones(bins.size), np.zeros(bins.size)
    counted, loss, below = one, expected, zero
    if constraint.kind == "agree" and constraint.on == "all":
        below = alpha * one
    served = alpha - expected
    if constraint.kind != "agree" and small is not None:
        counted = np.asarray(small == constraint.label, dtype=np.float64)
        served = counted * served
        if constraint.kind == "recall":
            others = max(len(set(small.tolist())) - 1, 1)
            loss = counted * (1.0 - expected) + (1.0 - counted) * expected / others
            below, counted = alpha * loss, 1.0 - counted
            served = below - counted * loss

    def cumulative(values: Floats) -> Floats:
        return np.asarray(np.cumsum(np.bincount(bins, values, minlength=size + 1)[:size]))

    return Outlook(
        below.sum() + cumulative(served - below),
        np.sqrt(cumulative(counted * loss / probability) + 1e-9),
        0.5 * cumulative(counted * doubt),
    )


def next_target(
    outlooks: list[tuple[Outlook, Floats]],
    bins: Ints,
    wanted: Bools,
    answered: Bools,
    certified: int,
    start: int,
    *,
    remaining: float | None,
    budget: float,
    finite: bool,
) -> int | None:
    """The threshold whose expected net saving is largest; None if none saves anything.

    Args:
        outlooks: One per promise, with what its test needs after each of :data:`SHARES`.
        bins: Threshold index of every row, in the order of asking.
        wanted: Rows that are asked when a threshold needs them.
        answered: Rows that have an answer.
        certified: Index of the lowest certified threshold, or -1.
        start: First threshold that can be certified.
        remaining: Inputs that the cascade will serve; None: as many as it takes.
        budget: Answers left.
        finite: The rows are themselves what is served: a row asked below the threshold would have
            been sent to the large model anyway and costs nothing extra.
    """
    n, size = bins.size, outlooks[0][0].total.size
    if certified + 1 >= size or n == 0 or budget <= 0:
        return None
    served = np.cumsum(np.bincount(bins, minlength=size + 1)[:size]).astype(float)
    open_rows = wanted & ~answered
    left = np.cumsum(np.bincount(bins, open_rows, minlength=size + 1)[:size])
    all_asks = np.cumsum(np.bincount(bins, wanted, minlength=size + 1)[:size])
    known = 1.0 - left / np.maximum(all_asks, 1.0)
    base = served[certified] if certified >= 0 else 0.0
    # rows in a prefix of the order that are still to be asked
    edges = np.maximum(1, np.round(SHARES * n)).astype(int)
    asks = np.zeros((SHARES.size, size))
    for k, edge in enumerate(edges):
        asks[k] = np.cumsum(np.bincount(bins[:edge], open_rows[:edge], minlength=size + 1)[:size])
    chance = np.ones((SHARES.size, size))
    for view, needs in outlooks:
        chance = np.minimum(chance, view.chance(SHARES, needs, known, finite=finite))
    possible = (np.arange(size) > certified) & (np.arange(size) >= start)
    possible = possible & (asks > 0) & (asks <= budget) & (chance > LEAST_CHANCE) & (served > base)
    if finite:
        open_base = left[certified] if certified >= 0 else 0.0
        above = np.zeros((SHARES.size, 1))
        if certified >= 0:
            above = asks[:, certified : certified + 1]
        gain = chance * (left - open_base - (asks - above)) - above
    else:
        inputs = 1000.0 * n if remaining is None else remaining
        gain = chance * (served - base) / n * inputs - asks
    gain = np.where(possible, gain, -np.inf)
    best = int(np.argmax(gain))
    return best % size if gain.flat[best] > 0 else None


def asking_probability(
    constraints: tuple[Constraint, ...],
    expected: Floats,
    small: NDArray[Any] | None,
    delta: float,
) -> Floats:
    """With which probability each row is asked, ``[n]`` in (0, 1].

    In proportion to the root of the expected squared payoff (Neyman's allocation), 1 where a
    disagreement is as likely as the promise allows on average. Never below a floor, which keeps the
    largest bet (1/floor limits it) well above the one that ``n`` rows call for. Values lie on a
    coarse grid, so that rows of equal weight can be counted together.

    Args:
        constraints: The promises; a row is asked for the one that needs it most.
        expected: Predicted chance of disagreement, from other rows.
        small: The small model's labels, for recall.
        delta: Failure probability per promise.
    """
    floor = least_probability(constraints, expected.size, delta)
    probability = np.full(expected.size, floor)
    for constraint in constraints:
        alpha = constraint.alpha
        root = np.sqrt(expected / alpha)
        if constraint.kind == "recall":
            missed = np.sqrt(expected) * constraint.target / alpha
            root = np.where(small == constraint.label, 1.0, missed)
        probability = np.maximum(probability, np.clip(root, floor, 1.0))
    steps = np.ceil(np.log(probability / floor) / np.log(1.15) - 1e-9)
    return np.asarray(np.minimum(1.0, floor * 1.15**steps))


def least_probability(constraints: tuple[Constraint, ...], n: int, delta: float) -> float:
    """The floor of :func:`asking_probability`; depends on the sample's size alone."""
    # of a class's recall only its members count: a tenth of the rows is assumed to be some
    counted = [c.alpha * (0.1 if c.kind == "recall" else 1.0) for c in constraints]
    need = np.log(1.0 / delta) / (max(n, 1) * min(counted))
    return float(min(1.0, max(2.5 * need, 2.0 * np.sqrt(2.0 * need), 0.05)))


def checked_expected(
    expected: ArrayLike | Callable[[Floats], ArrayLike] | None, scores: Floats
) -> Floats:
    """The predicted disagreement of every row, ``[n]`` inside (0, 1); ``1 - score`` when not given.

    Raises:
        InputError: Not one probability per row.
    """
    if expected is None:
        expected = 1.0 - scores
    column = np.asarray(expected(scores) if callable(expected) else expected, dtype=np.float64)
    if column.shape != scores.shape or not np.all((column >= 0.0) & (column <= 1.0)):
        raise InputError(
            f"Got expected_disagreement of shape {column.shape} for {scores.size} rows, "
            "but expected one probability in [0, 1] per row."
        )
    return np.asarray(np.clip(column, 1e-4, 1.0 - 1e-4))
