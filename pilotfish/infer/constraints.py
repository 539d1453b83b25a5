"""What can be promised about a cascade, each as one number per calibration row.

A cascade with threshold ``t`` gives the small model's answer where ``score >= t`` and asks the large
model elsewhere. Every promise is written as a *payoff* ``g = alpha * u - v`` per row, ``alpha`` being
1 - target: ``u`` counts the row in the promise's denominator, ``v`` counts a broken row. The promise
holds at ``t`` exactly if the mean of ``g`` over the inputs is >= 0, so that one test serves all:

===============================  =========================  ==============================
promise                          u                          v
===============================  =========================  ==============================
agree, on "all" inputs           1                          served and different
agree, on "served" inputs        served                     served and different
precision of class c             served as c                served as c, large differs
recall of class c                large says c               large says c, served as another
===============================  =========================  ==============================

A row that was asked with probability ``q`` enters its answer-dependent parts with weight ``1/q``
(Horvitz-Thompson), and with 0 when the coin said not to ask; the mean stays what it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pilotfish.errors import InputError

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Constraint:
    """One promise.

    Attributes:
        kind: ``"agree"`` with the large model, ``"precision"`` or ``"recall"`` of one class.
        target: The share that must be kept, in (0, 1), e.g. 0.95.
        label: The class, for precision and recall; "" for agree.
        on: For agree: the share of ``"all"`` inputs (escalated ones agree by definition), or of
            those ``"served"`` by the small model.

    Raises:
        InputError: The kind, target, label or scope is not one of these.
    """

    kind: Literal["agree", "precision", "recall"]
    target: float
    label: str = ""
    on: Literal["all", "served"] = "all"

    def __post_init__(self) -> None:
        if self.kind not in ("agree", "precision", "recall"):
            raise InputError(
                f"Got the promise {self.kind!r}, but expected agree, precision or recall."
            )
        if self.on not in ("all", "served"):
            raise InputError(f"Got on={self.on!r}, but expected 'all' or 'served'.")
        if not 0.0 < self.target < 1.0:
            raise InputError(
                f"Got target={self.target}, but expected a share strictly between 0 and 1.",
                remedy="A promise of 1 cannot be tested on a sample; try 0.99",
            )
        if self.kind != "agree" and not self.label:
            raise InputError(f"A {self.kind} promise needs the class it is about (label=...).")

    @property
    def alpha(self) -> float:
        """The share that may be broken."""
        return 1.0 - self.target

    @property
    def monotone(self) -> bool:
        """Whether a higher threshold can only be safer (then any start is a safe start)."""
        return (self.kind == "agree" and self.on == "all") or self.kind == "recall"

    def worst(self, floor: float) -> float:
        """The largest possible loss ``-g`` of one row, when rows are asked with q >= ``floor``."""
        if self.kind == "recall":
            return self.target / floor
        return 1.0 / floor - self.alpha


@dataclass(frozen=True)
class Terms:
    """The parts of the payoff of ``n`` rows; each array has ``n`` entries.

    Attributes:
        u_below: ``u`` where the threshold is above the row's score (large model answers).
        u_served: ``u`` where the small model answers.
        v_served: ``v`` where the small model answers (``v`` is 0 where the large one does).
    """

    u_below: Floats
    u_served: Floats
    v_served: Floats

    def payoffs(self, alpha: float) -> tuple[Floats, Floats]:
        """``g`` of every row where it is escalated, and where it is served."""
        return alpha * self.u_below, alpha * self.u_served - self.v_served


@dataclass(frozen=True)
class Answers:
    """What is known about ``n`` rows of calibration data.

    Attributes:
        agreed: Whether small and large agree; False where the large model could not answer.
        asked: Whether the row's coin said "ask" (rows of unknown answer have False).
        probability: The probability ``q`` with which it was asked, in (0, 1].
        weight: How much the row counts, in (0, 1].
        small: The small model's labels, or None when no promise is about a class.
        large: The large model's labels (None entries: it did not answer), or None likewise.
    """

    agreed: Bools
    asked: Bools
    probability: Floats
    weight: Floats
    small: NDArray[Any] | None = None
    large: NDArray[Any] | None = None

    def take(self, rows: Any) -> Answers:
        """The same, for some of the rows, in this order."""
        return Answers(
            self.agreed[rows],
            self.asked[rows],
            self.probability[rows],
            self.weight[rows],
            None if self.small is None else self.small[rows],
            None if self.large is None else self.large[rows],
        )


def terms(constraint: Constraint, answers: Answers) -> Terms:
    """The payoff parts of every row; an answer that never came counts against the promise.

    Args:
        constraint: The promise.
        answers: ``n`` rows.
    """
    scale = answers.weight * answers.asked / answers.probability
    if constraint.kind == "agree":
        one = answers.weight
        below = one if constraint.on == "all" else np.zeros_like(one)
        return Terms(below, one, scale * ~answers.agreed)
    assert answers.small is not None  # checked_answers sees to it
    is_label = np.asarray(answers.small == constraint.label, dtype=bool)
    if constraint.kind == "precision":
        one = answers.weight * is_label
        return Terms(np.zeros_like(one), one, scale * is_label * ~answers.agreed)
    positive = is_label & answers.agreed
    missed = np.zeros_like(positive)
    if answers.large is not None:
        unknown = np.asarray(answers.large == None, dtype=bool)  # noqa: E711 (element-wise)
        named = np.asarray(answers.large == constraint.label, dtype=bool)
        missed = ~is_label & (named | unknown) & ~answers.agreed
        positive |= ~is_label & named
    lost = scale * missed
    return Terms(scale * positive, np.maximum(scale * positive, lost), lost)


def checked_scores(scores: ArrayLike) -> Floats:
    """Scores as float64 ``[n]``, or an error that names the first bad row."""
    values = np.asarray(scores, dtype=np.float64)
    if values.ndim != 1:
        raise InputError(f"Got scores of shape {values.shape}, but expected one number per row.")
    bad = np.flatnonzero(~((values >= 0.0) & (values <= 1.0)))
    if bad.size:
        raise InputError(
            f"Got score {values[bad[0]]} in row {bad[0]} ({bad.size} such rows), "
            "but expected numbers in [0, 1].",
            remedy="Give the probability that the small model's answer is right",
        )
    return values


def checked_labels(values: Sequence[Any] | NDArray[Any] | None, n: int, name: str) -> Any:
    """Labels as an object array ``[n]``, or None."""
    if values is None:
        return None
    labels = np.empty(len(values), dtype=object)
    # plain values, so that they can be compared with what JSON brings back
    if isinstance(values, np.ndarray) and values.dtype != object:
        labels[:] = values.tolist()  # the same, and at once
    else:
        labels[:] = [v.item() if isinstance(v, np.generic) else v for v in values]
    if len(labels) != n:
        raise InputError(f"Got {len(labels)} {name} labels for {n} scores.")
    return labels


def checked_setting(
    constraints: Sequence[Constraint], delta: float, small: Any, large: Any, *, later: bool = False
) -> tuple[Constraint, ...]:
    """Refuse what cannot be tested; ``later`` says that large answers are still to come."""
    if not 0.0 < delta < 1.0:
        raise InputError(f"Got delta={delta}, but expected a probability strictly between 0 and 1.")
    if not constraints:
        raise InputError("Got no promise; expected at least one Constraint.")
    for constraint in constraints:
        if constraint.kind != "agree" and small is None:
            raise InputError(
                f"A {constraint.kind} promise needs the small model's labels (small=...)."
            )
        if constraint.kind == "recall" and large is None and not later:
            raise InputError("A recall promise needs the large model's labels (large=...).")
    return tuple(constraints)


def threshold_grid(reference: ArrayLike | None = None, size: int = 100) -> Floats:
    """Candidate thresholds in [0, 1], from the safest (highest) down.

    The grid may not be chosen by looking at the calibration rows, so it is either fixed (even steps,
    and even steps in log-odds for scores crowded near 0 or 1) or made of quantiles of other rows.

    Args:
        reference: Scores of rows outside the calibration sample, e.g. cross-fitted training scores.
        size: About how many thresholds.

    >>> [round(float(t), 2) for t in threshold_grid([0.1, 0.2, 0.3, 0.4], size=4)]
    [0.4, 0.3, 0.2, 0.1, 0.0]
    """
    if reference is not None and np.size(reference):
        scores = checked_scores(reference)
        levels = np.quantile(scores, np.linspace(0.0, 1.0, size), method="nearest")
        return np.unique(np.append(levels, 0.0))[::-1]
    half = size // 2
    odds = 1.0 / (1.0 + np.exp(-np.linspace(-9.0, 9.0, size - half)))
    return np.unique(np.concatenate([np.linspace(0.0, 1.0, half + 1), odds]))[::-1]


def checked_thresholds(thresholds: ArrayLike | None) -> Floats:
    """Distinct thresholds, highest first; the fixed grid when None."""
    if thresholds is None:
        return threshold_grid()
    values = np.unique(checked_scores(np.atleast_1d(np.asarray(thresholds, dtype=np.float64))))
    if not values.size:
        raise InputError("Got an empty list of thresholds; expected at least one, or None.")
    return values[::-1]
