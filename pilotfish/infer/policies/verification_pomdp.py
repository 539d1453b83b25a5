"""AutoMix's meta-verifier: noisy verification as a partially observed decision problem, solved exactly.

AutoMix (Aggarwal et al. 2024) treats the true quality of each model on the question as the hidden
state and the judge's score as a noisy observation: after each answer the policy keeps it or asks
the next model, so as to maximise quality less weighted cost. The order is fixed, observations are
binned and the horizon is the number of models; so there are finitely many histories of bins (``bins
** (models - 1)``), and backward induction over them, each with its exact belief, is the optimal
policy. No belief grid is needed.

Differences: the paper solves a POMDP with the states' transition folded in by an approximate
solver, and its observation model is a kernel density estimate; here bins are counted with add-one
smoothing, given whether that model's answer is right.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Floats
from pilotfish.infer.policies.policy import STOP, Ints, Step, View

Doubles = NDArray[np.float64]
History = tuple[int, ...]


@dataclass(frozen=True, eq=False)
class VerificationPomdp:
    """Follows the solved decision problem.

    Attributes:
        models: The models.
        order: Positions in the order of asking.
        cuts: Lower ends of the bins of each asked model's score but the first ``[stages, bins - 1]``.
        goes_on: History of bins to whether the next model is asked.
        best: History of bins to the position in ``order`` whose answer is best.
        value: History of bins to the expected quality of that answer.
    """

    models: tuple[str, ...]
    order: tuple[int, ...]
    cuts: Floats
    goes_on: dict[History, bool]
    best: dict[History, int]
    value: dict[History, float]

    @classmethod
    def fit(
        cls,
        models: tuple[str, ...],
        order: tuple[int, ...],
        quality: NDArray[Any],
        scores: NDArray[Any],
        cost: NDArray[Any],
        *,
        weight: float,
        bins: int = 9,
    ) -> Self:
        """Estimate the states and observations, and solve.

        Args:
            models: ``m`` names.
            order: Positions in the order of asking, at most 5.
            quality: ``[n, m]``; an answer is right from 0.5 on.
            scores: The judge's ``[n, m]``.
            cost: Mean cost of each model ``[m]``.
            weight: Quality that one unit of cost must bring.
            bins: Of each score, with equal counts where the scores allow it.

        Raises:
            InputError: There would be more than a million histories, or a quality is unknown.
        """
        chain = list(order)
        quality = np.asarray(quality, np.float64)[:, chain]
        if bins ** (len(chain) - 1) > 1_000_000 or np.isnan(quality).any():
            raise InputError(
                f"Got {len(chain)} models with {bins} bins, but expected known qualities and at most a "
                "million histories of bins."
            )
        given = np.asarray(scores, np.float64)[:, chain]
        quantiles = np.quantile(given, np.linspace(0, 1, bins + 1)[1:-1], axis=0).T
        cuts = quantiles.astype(np.float32)  # [stages, bins - 1]
        states, counts = np.unique(quality >= 0.5, axis=0, return_counts=True)
        binned = _binned(given, cuts)
        seen = np.ones((len(chain), 2, bins))  # add-one smoothing
        for k in range(len(chain)):
            np.add.at(seen[k], ((quality[:, k] >= 0.5).astype(int), binned[:, k]), 1.0)
        seen /= seen.sum(axis=2, keepdims=True)
        prices = weight * np.asarray(cost, np.float64)[chain]
        goes_on, best, value = solve(states, counts / counts.sum(), seen, prices)
        return cls(models, order, cuts, goes_on, best, value)

    def step(self, view: View) -> Step:
        """Ask the first; then look the history of bins up."""
        n = len(view.asked)
        ask: Ints = np.full(n, STOP, np.int64)
        answer: Ints = np.full(n, STOP, np.int64)
        margin = np.zeros(n, np.float32)
        chain = np.array(self.order)
        asked = view.asked[:, chain].sum(axis=1)
        judged = view.judged()[:, chain]
        binned = _binned(np.clip(judged, 0, 1), self.cuts)
        for row in range(n):
            k = int(asked[row])
            history = tuple(int(b) for b in binned[row, :k])
            failed = k > 0 and judged[row, k - 1] < 0
            if k == 0 or (k < len(chain) and (failed or self.goes_on[history])):
                ask[row] = chain[k]
            else:
                place = self.best[history]
                if judged[row, place] < 0:
                    place = int(judged[row, :k].argmax())
                answer[row], margin[row] = chain[place], self.value[history]
        return Step(ask, answer, margin)


def solve(
    states: NDArray[Any], prior: Doubles, seen: Doubles, prices: Doubles
) -> tuple[dict[History, bool], dict[History, int], dict[History, float]]:
    """Backward induction over all histories of observations.

    Args:
        states: Whether each model is right ``[states, models]``.
        prior: Probability of each state ``[states]``.
        seen: Probability of each bin for a model that is wrong and right ``[models, 2, bins]``.
        prices: What asking each model costs, in quality ``[models]``.

    Returns:
        For every history: whether to go on, whose answer is best, and that answer's expected quality.
    """
    right = states.astype(int)
    depth, bins = states.shape[1], seen.shape[2]
    goes_on: dict[History, bool] = {}
    best: dict[History, int] = {}
    value: dict[History, float] = {}

    def worth(history: History, joint: Doubles) -> float:
        """What is still to be had, times the probability of the history."""
        k = len(history)
        stop = -np.inf
        if k:
            quality = joint @ right[:, :k]
            best[history] = int(k - 1 - quality[::-1].argmax())
            stop = float(quality.max())
            value[history] = stop / max(float(joint.sum()), 1e-300)
        if k == depth:
            return stop
        on = -float(prices[k] * joint.sum())
        for b in range(bins):
            on += worth((*history, b), joint * seen[k, right[:, k], b])
        goes_on[history] = on > stop
        return max(on, stop)

    worth((), np.asarray(prior, np.float64))
    return goes_on, best, value


def _binned(scores: NDArray[Any], cuts: NDArray[Any]) -> Ints:
    out = [np.searchsorted(cuts[k], scores[:, k], side="right") for k in range(scores.shape[1])]
    return np.stack(out, axis=1).astype(np.int64)
