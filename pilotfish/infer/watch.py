"""An alarm on served small answers: does the small model still keep its promise?

A chosen share of the small answers is also given by the large model. Each such *check* either agrees or
not, and a gambler bets that disagreement has become more frequent than was promised:

1. For the promise "risk <= target", a bet with stake ``b`` is multiplied by ``1 + b (x - target)`` at
   every check, ``x`` 1 for a disagreement and 0 otherwise, ``0 <= b < 1 / target``. While the promise
   holds, this is worth at most 1 on average, whatever came before (Waudby-Smith and Ramdas 2024,
   testing by betting).
2. Nobody knows how large the drift will be, so the capital is spread over several bets: small ones win
   slowly against small drifts, large ones quickly against large ones.
3. Nobody knows when it will begin, and a bet that has run for months of kept promises is worth nothing.
   So most capital stays in cash and is put in bit by bit, on schedule: at every check some of it starts
   afresh. (A mixture over starting times; Shin, Ramdas and Rinaldo 2024 sum over them instead, which
   bounds the mean time between false alarms and not the chance of ever having one.)
4. The whole is a nonnegative supermartingale that starts at 1. By Ville's inequality the chance that it
   *ever* reaches 1 / delta while the promise holds is at most delta, so it may be looked at at any
   moment.

A check that was chosen with probability ``q`` counts ``floor / q``, where ``floor`` is the smallest
probability that is ever used; then the mean over the checks is that over all answers, also when unsure
ones are checked more often. :func:`is_checked` draws by the request's random id, so that which answers
are to be checked is known after a crash too, without a record of the draw.

The state is a few numbers (:meth:`Watch.to_dict`): a process that takes it up goes on as if it had never
been away.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError

BETS = 8
SMALLEST_DRIFT = 0.4  # of the target: what the most careful bet is best against
LARGEST_SHARE = 0.9  # of the way from the target to a risk of 1: what the boldest is best against
AT_START = 0.4  # capital put in at the first check, for a promise that is broken from the beginning
PATIENCE = 200.0  # checks after which the cash that is left starts to shrink more slowly than 1 / n
_TWO_64 = float(1 << 64)


def stakes(target: float, bets: int = BETS) -> NDArray[np.float64]:
    """The stakes of the bets, ``[bets]``, each in (0, 1 / target).

    The bet ``(p - target) / (target (1 - target))`` grows fastest when the risk is ``p``; the ``p`` lie
    evenly on a log scale of the distance to the target.

    >>> bool(stakes(0.05).max() < 20)
    True
    """
    least = min(SMALLEST_DRIFT * target, 0.5 * LARGEST_SHARE * (1.0 - target))
    gaps = np.geomspace(least, LARGEST_SHARE * (1.0 - target), bets)
    return np.asarray(gaps / (target * (1.0 - target)))


def cash(checks: int | NDArray[np.int64]) -> Any:
    """Capital that is not yet put in after so many checks, in (0, 1]; falls to 0, ever more slowly."""
    after = (1.0 - AT_START) / (1.0 + np.log1p(np.maximum(np.asarray(checks) - 1, 0) / PATIENCE))
    return np.where(np.asarray(checks) <= 0, 1.0, after)


def is_checked(request_id: str, share: float) -> bool:
    """Whether a small answer is checked: with probability ``share``, decided by its request's random id.

    >>> [is_checked("req_1", share) for share in (0.0, 1.0)]
    [False, True]
    """
    digest = hashlib.blake2b(request_id.encode("utf-8", "replace"), digest_size=8).digest()
    return int.from_bytes(digest, "big") / _TWO_64 < share


@dataclass
class Watch:
    """The e-process of one small model in service.

    Attributes:
        target: Share of its answers that may differ from the large model's, in (0, 1).
        delta: Chance of ever raising the alarm while the promise holds, in (0, 1).
        floor: Smallest probability with which an answer is checked, in (0, 1].
        checks: Checks so far.
        disagreements: Those that did not agree.
        peak: Highest wealth so far; :attr:`p_value` is its inverse.
        alarm_at: The check that raised the alarm, or None.

    Raises:
        InputError: A number is out of its range.

    >>> watch = Watch(target=0.05, delta=0.05)
    >>> for answer in range(100):
    ...     _ = watch.observe(disagreed=answer % 4 == 0)
    >>> watch.alarm, watch.alarm_at
    (True, 17)
    """

    target: float
    delta: float
    floor: float = 1.0
    checks: int = 0
    disagreements: int = 0
    peak: float = 1.0
    alarm_at: int | None = None
    _invested: NDArray[np.float64] = field(default_factory=lambda: np.zeros(BETS), repr=False)

    def __post_init__(self) -> None:
        for name in ("target", "delta"):
            if not 0 < getattr(self, name) < 1:
                raise InputError(
                    f"Got {name} {getattr(self, name)}, but expected a number in (0, 1)."
                )
        if not 0 < self.floor <= 1:
            raise InputError(f"Got floor {self.floor}, but expected a probability in (0, 1].")
        self._stakes = stakes(self.target, self._invested.size)

    @property
    def wealth(self) -> float:
        """What the gambler has now; 1 at the beginning."""
        return float(cash(self.checks) + self._invested.sum())

    @property
    def alarm(self) -> bool:
        """Whether the wealth has ever reached 1 / delta."""
        return self.alarm_at is not None

    @property
    def p_value(self) -> float:
        """Evidence against the promise, valid at any stopping time, in (0, 1]."""
        return min(1.0, 1.0 / self.peak)

    @property
    def rate(self) -> float | None:
        """Share of the checks that disagreed, None before the first."""
        return self.disagreements / self.checks if self.checks else None

    def observe(self, disagreed: bool, probability: float | None = None) -> bool:
        """Count one check; once raised, the alarm stays.

        Args:
            disagreed: Small and large answered differently.
            probability: With which this answer was chosen; default ``floor``.

        Returns:
            Whether the alarm is raised.

        Raises:
            InputError: The probability is below the floor, or above 1.
        """
        q = self.floor if probability is None else probability
        if not self.floor * (1 - 1e-12) <= q <= 1:
            raise InputError(
                f"Got a check made with probability {q}, but expected one in [{self.floor}, 1].",
                remedy="Start a new watch with a lower floor.",
            )
        if self.alarm:
            return True
        fresh = float(cash(self.checks) - cash(self.checks + 1)) / self._stakes.size
        payoff = (self.floor / q) * (float(disagreed) - self.target)
        self._invested = (self._invested + fresh) * (1.0 + self._stakes * payoff)
        self.checks += 1
        self.disagreements += bool(disagreed)
        self.peak = max(self.peak, self.wealth)
        if self.peak >= 1.0 / self.delta:
            self.alarm_at = self.checks
        return self.alarm

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON values; :meth:`from_dict` goes on from it exactly."""
        names = ("target", "delta", "floor", "checks", "disagreements", "peak", "alarm_at")
        return {name: getattr(self, name) for name in names} | {
            "invested": [float(value) for value in self._invested]
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Watch:
        """Inverse of :meth:`to_dict`.

        Raises:
            InputError: It is no such state.
        """
        try:
            given = dict(values)
            invested = np.asarray(given.pop("invested"), dtype=np.float64).reshape(-1)
            state = cls(**given, _invested=invested)
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"This is not the state of a watch: {error}.") from error
        if not math.isfinite(state.wealth):
            raise InputError(f"This is not the state of a watch: its wealth is {state.wealth}.")
        return state


def simulate(disagreed: NDArray[np.bool_], target: float, delta: float) -> NDArray[np.int64]:
    """When many independent watches raise the alarm: for tests, figures and choosing a share.

    Args:
        disagreed: Outcomes of the checks, in order, ``[runs, checks]``.
        target: As :class:`Watch`.
        delta: As :class:`Watch`.

    Returns:
        Checks until the alarm ``[runs]``; 0 where there is none.
    """
    runs, length = disagreed.shape
    bets = stakes(target)
    schedule = cash(np.arange(length + 1))
    fresh = -np.diff(schedule) / bets.size
    lost, won = 1.0 - bets * target, 1.0 + bets * (1.0 - target)
    invested = np.zeros((runs, bets.size))
    alarm = np.zeros(runs, np.int64)
    for i in range(length):
        invested += fresh[i]
        invested *= np.where(disagreed[:, i, None], won, lost)
        hit = (schedule[i + 1] + invested.sum(axis=1) >= 1.0 / delta) & (alarm == 0)
        if hit.any():
            alarm[hit] = i + 1
            invested[alarm > 0] = 0.0  # it stays raised; nothing may overflow
    return alarm
