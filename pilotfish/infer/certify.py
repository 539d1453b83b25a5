"""Choose the threshold of a cascade, with a promise that holds at any sample size.

Given rows drawn like the user's inputs, with the small model's score and whether the large model
agreed, :func:`certify` returns the lowest threshold at which every promise holds with probability
>= 1 - delta over the draw of those rows, or None: then everything goes to the large model.
docs/certainty.md says in plain words what this means. :class:`pilotfish.infer.calibration.Calibration`
does the same while the answers are still being asked for, and asks for as few as it can.

Thresholds are tested from the safest down and testing stops at the first that fails (fixed-sequence
testing, Angelopoulos et al. 2021), so that hundreds of candidates cost no more delta than one: a
promise is broken only if the *first* bad threshold passes its test. Promises about served rows enter
the sequence at several places, with a part of delta each.

Methods: ``binomial`` (exact; the sample size must not depend on the answers) and ``betting``
(Waudby-Smith and Ramdas 2024; the rows may be what an adaptive procedure left behind, with the
probability of each having been asked).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pilotfish.errors import InputError
from pilotfish.infer.bounds import (
    Bets,
    bets,
    betting_upper,
    binomial_p_value,
    clopper_pearson_upper,
    log_wealths,
)
from pilotfish.infer.certificate import Certificate
from pilotfish.infer.constraints import (
    Answers,
    Bools,
    Constraint,
    Floats,
    Ints,
    Terms,
    checked_labels,
    checked_scores,
    checked_setting,
    checked_thresholds,
    terms,
    threshold_grid,
)

__all__ = ["Certificate", "Constraint", "certify", "threshold_grid"]

CURVE_POINTS = 60


def certify(
    scores: ArrayLike,
    agreed: ArrayLike,
    *,
    constraints: Sequence[Constraint] = (Constraint("agree", 0.95),),
    delta: float = 0.05,
    method: Literal["binomial", "betting"] = "binomial",
    thresholds: ArrayLike | None = None,
    probabilities: ArrayLike | None = None,
    weights: ArrayLike | None = None,
    small: Sequence[Any] | NDArray[Any] | None = None,
    large: Sequence[Any] | NDArray[Any] | None = None,
    reference: ArrayLike | None = None,
    curve: int = CURVE_POINTS,
) -> Certificate:
    """The lowest threshold that keeps every promise, from answers that are all in hand.

    Args:
        scores: The small model's scores, ``[n]`` in [0, 1]. Neither it nor its scores may have been
            fitted to these rows.
        agreed: ``[n]``: small and large gave the same answer; False where the large one gave none.
            NaN: was not asked (then ``probabilities`` must be given).
        constraints: The promises; several share ``delta`` equally.
        delta: Allowed probability, over the draw of these rows, that the promise is broken.
        method: ``"binomial"`` or ``"betting"``.
        thresholds: Candidates, chosen without these rows; default: :func:`threshold_grid`.
        probabilities: ``[n]`` in (0, 1]: the chance with which each row was asked (betting only);
            the smallest possible one should have been fixed beforehand.
        weights: ``[n]`` in (0, 1]: what each row counts for, relative to the heaviest possible row
            (betting only); for rows drawn from distinct inputs, whose number of copies differ.
        small: ``[n]`` labels of the small model; needed for precision and recall.
        large: ``[n]`` labels of the large model; needed for recall.
        reference: Scores of other rows, which decide where testing starts for promises about served
            rows only. Default, and always for precision: a tenth of the rows is set aside for that.
        curve: Most points of the certificate's curve; 0 saves the time.

    Raises:
        InputError: Arrays of different lengths, scores outside [0, 1] or NaN, target or delta out of
            range, a class promise without labels.

    >>> rows = np.linspace(0, 1, 400)
    >>> certificate = certify(rows, rows > 0.3)
    >>> certificate.threshold, certificate.reason
    (0.28, 'certified')
    """
    values = checked_scores(scores)
    n = values.size
    promised = checked_setting(constraints, delta, small, large)
    if method not in ("binomial", "betting"):
        raise InputError(f"Got method={method!r}, but expected 'binomial' or 'betting'.")
    if method == "binomial" and (probabilities is not None or weights is not None):
        raise InputError(
            "Rows with probabilities or weights are not a binomial sample.",
            remedy='Use method="betting"',
        )
    answers = _answers(n, agreed, probabilities, weights, small, large)
    grid = checked_thresholds(thresholds)
    others = np.zeros(0) if reference is None else checked_scores(reference)
    other_labels = None
    if set_aside(promised, reference):
        kept = np.ones(n, dtype=bool)
        kept[np.random.default_rng(n).permutation(n)[: -(-n // 10)]] = False
        others = values[~kept]
        other_labels = None if answers.small is None else answers.small[~kept]
        values, answers = values[kept], answers.take(kept)
        n = values.size
    share = delta / len(promised)
    bins = threshold_bins(grid, values)
    coverage = np.cumsum(np.bincount(bins, minlength=grid.size + 1))[: grid.size] / max(n, 1)
    parts = [terms(c, answers) for c in promised]
    floor = float(answers.probability.min(initial=1.0))
    tests = [_Test(c, method, share, floor, n) for c in promised]
    passed = np.ones(grid.size, dtype=bool)
    for test, part in zip(tests, parts, strict=True):
        shares = counted_shares(test.constraint, grid, others, other_labels)
        certified = np.zeros(grid.size, dtype=bool)
        fallback(
            entry_levels(test.constraint, shares, n, share, floor),
            _smaller(test.p_values(part, bins, grid.size)),
            certified,
        )
        passed &= certified
    enough = all(test.winnable(p) for test, p in zip(tests, parts, strict=True))
    return conclude(
        grid,
        coverage,
        lowest(passed),
        parts[0],
        bins,
        lambda j: tests[0].upper(parts[0], bins, j),
        points=curve,
        constraints=promised,
        delta=delta,
        method=method,
        draws=n,
        asked=int(answers.asked.sum()),
        reason="no-threshold" if enough else "too-few-answers",
    )


@dataclass(frozen=True)
class _Test:
    """One promise's test when all answers are in hand."""

    constraint: Constraint
    method: str
    delta: float
    floor: float
    rows: int

    @property
    def bets(self) -> Bets:
        """What is staked on each row."""
        worst = self.constraint.worst(self.floor)
        return bets(self.rows, self.constraint.alpha, self.delta, worst, self.floor**-0.5)

    def p_values(self, parts: Terms, bins: Ints, size: int) -> Floats:
        """Of "the promise is broken" at each of ``size`` thresholds, ``[size]``."""
        alpha = round(self.constraint.alpha, 12)
        if self.method == "binomial":
            u, v = served_counts(parts, bins, size)
            return binomial_p_value(v, u, alpha)
        logs = log_wealths(self.bets, *parts.payoffs(alpha), bins, size)
        return np.asarray(np.exp(-np.maximum(self.bets.wealth(logs), 0.0)))

    def winnable(self, parts: Terms) -> bool:
        """Whether perfect agreement would have passed."""
        most = float(np.maximum(parts.u_served, parts.u_below).sum())
        if self.method == "binomial":
            return bool(binomial_p_value(0, most, self.constraint.alpha) <= self.delta)
        best = self.bets.wealth(np.log1p(self.bets.shares * self.constraint.alpha) * most)
        return bool(best >= -np.log(self.delta))

    def upper(self, parts: Terms, bins: Ints, index: int) -> float:
        """Upper bound of the risk at one threshold, with probability 1 - delta."""
        served = bins <= index
        u = np.where(served, parts.u_served, parts.u_below)
        v = np.where(served, parts.v_served, 0.0)
        if self.method == "binomial":
            return float(clopper_pearson_upper(v.sum(), u.sum(), self.delta))
        largest = 1.0 / self.floor
        return betting_upper(
            self.bets, u, v, self.delta, alpha=self.constraint.alpha, largest=largest
        )


def _answers(
    n: int, agreed: Any, probabilities: Any, weights: Any, small: Any, large: Any
) -> Answers:
    known = np.asarray(agreed, dtype=np.float64)
    columns = {"agreed": known}
    for name, column in (("probabilities", probabilities), ("weights", weights)):
        columns[name] = np.ones(n) if column is None else np.asarray(column, dtype=np.float64)
    for name, column in columns.items():
        if column.shape != (n,):
            raise InputError(f"Got {name} of shape {column.shape} for {n} scores.")
        if name != "agreed" and not np.all((column > 0.0) & (column <= 1.0)):
            raise InputError(f"Got {name} outside (0, 1].")
    asked = ~np.isnan(known)
    if probabilities is None and not asked.all():
        raise InputError(
            f"Got {int((~asked).sum())} rows without an answer, but no probabilities.",
            remedy="Count a row that the large model could not answer as a disagreement (False)",
        )
    return Answers(
        known == 1.0,
        asked,
        columns["probabilities"],
        columns["weights"],
        checked_labels(small, n, "small"),
        checked_labels(large, n, "large"),
    )


def threshold_bins(grid: Floats, scores: Floats) -> Ints:
    """Index of the highest threshold at or below each score; ``grid.size`` if none is."""
    return np.asarray(np.searchsorted(-grid, -scores, side="left"), dtype=np.int64)


def counted_shares(
    constraint: Constraint, grid: Floats, scores: Floats, small: NDArray[Any] | None
) -> Floats:
    """Share of reference rows that count for a promise at every threshold, ``[thresholds]``."""
    if constraint.monotone or not scores.size:
        return np.ones(grid.size)
    counted = np.ones(scores.size)
    if constraint.kind == "precision" and small is not None:
        counted = np.asarray(small == constraint.label, dtype=np.float64)
    sums = np.bincount(threshold_bins(grid, scores), counted, minlength=grid.size + 1)
    return np.asarray(np.cumsum(sums[: grid.size]) / scores.size)


def entry_levels(
    constraint: Constraint, shares: Floats, n: int, delta: float, floor: float = 1.0
) -> Floats:
    """How much of ``delta`` enters the sequence at each threshold, ``[thresholds]``, summing to it.

    A monotone promise is easiest at the top: everything enters there. A promise about served rows
    cannot be certified where few are served, and nobody knows where it is easiest; so testing enters
    where enough rows are served to certify anything, and again at every fourfold of that, with equal
    parts (the fallback procedure of Wiens 2003). ``shares`` come from other rows than the ``n``
    tested.
    """
    levels = np.zeros(shares.size)
    if constraint.monotone:
        levels[0] = delta
        return levels
    wanted = 2.5 * np.log(1.0 / delta) / (constraint.alpha * floor)
    expected = shares * n
    entries = []
    while wanted <= expected[-1]:
        entries.append(int(np.argmax(expected >= wanted)))
        wanted *= 4.0
    entries = sorted({*entries, shares.size - 1} if not entries else set(entries))
    levels[entries] = delta / len(entries)
    return levels


def fallback(levels: Floats, passes: Callable[[int, float], bool], certified: Bools) -> None:
    """Test thresholds in order; one that passes hands its level on to the next.

    The first bad threshold that passes was tested at a level that entered after the previous bad one,
    and those parts sum to delta. With all of delta at one entry this is fixed-sequence testing.

    Args:
        levels: What enters at each threshold, ``[thresholds]`` (or the first few of them).
        passes: ``passes(index, level)``; passing at a level must imply passing at any larger one.
        certified: Which have passed before; updated in place.
    """
    carried = 0.0
    for index, entering in enumerate(levels):
        level = entering + carried
        if level > 0.0 and not certified[index]:
            certified[index] = passes(index, level)
        carried = level if certified[index] else 0.0


def set_aside(constraints: Sequence[Constraint], reference: Any) -> bool:
    """Whether a tenth of the rows must serve as reference (precision needs its labels)."""
    missing = reference is None and not all(c.monotone for c in constraints)
    return missing or any(c.kind == "precision" for c in constraints)


def _smaller(p_values: Floats) -> Callable[[int, float], bool]:
    return lambda index, level: bool(p_values[index] <= level)


def lowest(certified: Bools) -> int | None:
    """Index of the lowest threshold that was certified; None if none was."""
    found = np.flatnonzero(certified)
    return int(found[-1]) if found.size else None


def served_counts(terms_: Terms, bins: Ints, size: int) -> tuple[Floats, Floats]:
    """Sums of ``u`` and ``v`` at every threshold, ``[size]`` each."""

    def cumulative(values: Floats) -> Floats:
        # float: bincount of nothing counts in integers
        return np.cumsum(np.bincount(bins, values, minlength=size + 1)[:size], dtype=np.float64)

    u = terms_.u_below.sum() + cumulative(terms_.u_served - terms_.u_below)
    return u, cumulative(terms_.v_served)


def conclude(
    grid: Floats,
    coverage: Floats,
    index: int | None,
    parts: Terms,
    bins: Ints,
    bound: Callable[[int], float],
    *,
    points: int,
    **facts: Any,
) -> Certificate:
    """Write the certificate for the threshold at ``index`` (None: no threshold passed).

    Args:
        grid: Thresholds, ``[size]``.
        coverage: Share of rows served at each, ``[size]``.
        index: The one certified.
        parts: Payoff terms of the first promise.
        bins: Threshold index of each row of ``parts``.
        bound: Upper confidence bound on the first promise's risk at a threshold.
        points: Most points of the curve.
        facts: The other fields; ``reason`` is used when no threshold serves anything.
    """
    u, v = served_counts(parts, bins, grid.size)
    risk = np.divide(v, u, out=np.zeros_like(v), where=u > 0)
    if index is not None and coverage[index] == 0.0:
        index = None
    shown = np.flatnonzero(np.diff(coverage, prepend=0.0) > 0)
    if shown.size > points:
        shown = shown[np.linspace(0, shown.size - 1, points).astype(int)]
    curve = tuple(
        {
            "threshold": float(grid[j]),
            "coverage": float(coverage[j]),
            "risk": float(risk[j]),
            "bound": bound(int(j)),
        }
        for j in shown
    )
    if index is not None:
        facts["reason"] = "certified"
    return Certificate(
        threshold=None if index is None else float(grid[index]),
        coverage=0.0 if index is None else float(coverage[index]),
        risk=None if index is None else float(risk[index]),
        bound=None if index is None else bound(index),
        curve=curve,
        **facts,
    )
