"""Outcomes as preferences: which of two models answered better.

RouteLLM (Ong et al. 2024) learns from people's preferences between two answers. Recorded qualities give
the same: the higher one wins, equal ones tie, and a tie counts as half a win for each.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats

Doubles = NDArray[np.float64]


def wins(quality: Floats) -> Floats:
    """``[n, m, m]``: 1 where row model beats column model, 0.5 for a tie, 0 otherwise or if unknown."""
    a, b = quality[:, :, None], quality[:, None, :]
    known = ~(np.isnan(a) | np.isnan(b))
    out = np.where(known, (a > b) + 0.5 * (a == b), 0).astype(np.float32)
    out[:, np.arange(quality.shape[1]), np.arange(quality.shape[1])] = 0
    return out


def bradley_terry(won: Doubles, rounds: int = 100) -> Doubles:
    """Log-strengths of the Bradley-Terry model by maximum likelihood.

    The MM algorithm (Hunter 2004): ``s_i <- W_i / sum_j N_ij / (s_i + s_j)``, which rises at every
    step. Half a win for both of every pair is added, so that a model that never lost keeps a finite
    strength.

    Args:
        won: Wins of row over column, ``[..., m, m]``; several tables at once.
        rounds: Most steps; it stops when nothing changes.

    Returns:
        ``[..., m]``, with mean 0.
    """
    m = won.shape[-1]
    won = won + 0.5 * (1 - np.eye(m))
    total = won.sum(axis=-1)
    met = won + np.swapaxes(won, -1, -2)
    log = np.zeros(total.shape)
    for _ in range(rounds):
        s = np.exp(log)
        new = np.log(total / (met / (s[..., :, None] + s[..., None, :])).sum(axis=-1))
        new -= new.mean(axis=-1, keepdims=True)
        step = np.abs(new - log).max(initial=0)
        log = new
        if step < 1e-6:
            break
    return log


def win_rate(log: NDArray[np.floating[Any]]) -> Floats:
    """Probability of beating another model of the pool chosen at random, ``[..., m]``."""
    gap = log[..., :, None] - log[..., None, :]
    m = log.shape[-1]
    beats = 0.5 * (1 + np.tanh(0.5 * gap))
    if m == 1:
        return np.full(log.shape, 0.5, np.float32)
    rate: Floats = ((beats.sum(axis=-1) - 0.5) / (m - 1)).astype(np.float32)
    return rate
