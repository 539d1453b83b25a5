"""Routing by price: ask the model with the best expected quality less weighted cost and latency.

With ``weight`` dollars turned into quality this is the rule of FORC (Sakota et al. 2024), Tryage's
flags and RouterBench's cost-aware routers, and Dekoninck et al. (2025) prove it optimal for routing
under a budget, if ties are mixed (:mod:`pilotfish.infer.policies.mixed` finds the weight and the
mix). HybridLLM's and RouteLLM's threshold on the difference between a strong and a weak model is
the same rule for two models: with costs 0 and 1, ``weight`` is the threshold. ``min_quality`` asks
the cheapest model that is expected to be good enough, as Zooter and OrchestraLLM are used in
practice.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pilotfish.infer.outcomes import Floats
from pilotfish.infer.policies.policy import STOP, Ints, Step, View


@dataclass(frozen=True)
class Weighted:
    """Asks once.

    Attributes:
        models: The models.
        weight: Quality that one unit of cost must bring, not negative.
        latency_weight: Quality that one second must bring, not negative.
        min_quality: Models expected to be at least this good count as equally good; above 1: none do.
    """

    models: tuple[str, ...]
    weight: float = 0.0
    latency_weight: float = 0.0
    min_quality: float = 2.0

    def values(self, view: View) -> Floats:
        """What each model is worth for each request ``[n, m]``."""
        quality = np.minimum(view.expected, np.float32(self.min_quality))
        value = quality - self.weight * view.cost - self.latency_weight * view.latency
        if self.min_quality <= 1:  # of the good enough ones, the cheapest, whatever the weight
            dearest = max(float(view.cost.max(initial=0.0)), 1e-30)
            # In double precision: beside a quality in single precision, so little would be nothing.
            value = value.astype(np.float64) - 1e-9 * view.cost / dearest
        failed = view.scores < 0
        out: Floats = np.where(failed, -np.inf, value)
        return out

    def step(self, view: View) -> Step:
        """Ask the best; then stop."""
        best: Ints = self.values(view).argmax(axis=1)
        done = (view.asked & ~(view.scores < 0)).any(axis=1) | view.asked.all(axis=1)
        judged = view.judged()
        answer: Ints = judged.argmax(axis=1)
        margin = np.where(done, judged.max(axis=1), 0.0).astype(np.float32)
        return Step(np.where(done, STOP, best), np.where(done, answer, STOP), margin)
