"""Curves of policies that judge answers: cascades and cascade routing, replayed setting by setting.

- ``cascade:JUDGE``: the frontier of all chains; - ``cascade-routing:JUDGE`` and
``reservation:JUDGE``: weights from free to dear, with what a logistic regression expects of the
question alone.

The judge is ``learned``, a learned scorer of (question, answer), or a recorded signal. Nothing is
chosen on answers that the judge learned from: it is fitted on one half, and what depends on its
scores on the other. In the replay a judge sees the answers that were asked for, and no others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pilotfish.infer import scoreboard as sb
from pilotfish.infer.judges.confidence import ConfidenceJudge
from pilotfish.infer.judges.judge import AnswerJudge
from pilotfish.infer.judges.learned import LearnedScorer
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.policies.beliefs import spread
from pilotfish.infer.policies.cascade_routing import CascadeRouting
from pilotfish.infer.policies.chain_search import search_chains
from pilotfish.infer.policies.policy import Policy, play
from pilotfish.infer.policies.reservation import Reservation
from pilotfish.infer.predictors.predictor import fit_predictor
from pilotfish.models.protocols import Encoder

JUDGED = ("cascade", "cascade-routing", "reservation")
MAX_PLANS = 40
WEIGHTS = 20


def judged_points(
    kind: str, judge: str, learn: Outcomes, test: Outcomes, seed: int, encoder: Encoder | None
) -> sb.Points:
    """The curve of one of :data:`JUDGED`.

    Args:
        kind: Which.
        judge: ``"learned"``, or the name of a recorded signal.
        learn: To fit and choose on, with all qualities and costs.
        test: To replay on.
        seed: Of splits and draws.
        encoder: For what is expected of the question; default the static one.
    """
    first, second = learn.split(seed, fit=0.5)
    learned = judge == "learned"
    used: AnswerJudge = (
        LearnedScorer.fit(first, seed=seed) if learned else ConfidenceJudge(signal=judge)
    )
    expected: Floats | None = None
    policies: list[Policy]
    if kind == "cascade":
        chosen_on = second if learned else learn
        plans = search_chains(
            chosen_on.models,
            chosen_on.quality,
            chosen_on.cost,
            lambda asked: _after(used, chosen_on, asked),
            max_stages=3,
        )
        at = np.unique(np.linspace(0, len(plans) - 1, MAX_PLANS).astype(int))
        policies = [plans[i].chain for i in at[::-1]]
        dial = [plans[i].cost for i in at[::-1]]
    else:
        predictor = fit_predictor("logistic", first, seed=seed, encoder=encoder)
        expected = predictor.predict(test.texts).mean
        m = len(second.models)
        alone = np.stack([_after(used, second, [j])[:, j] for j in range(m)], axis=1)
        moves = spread(predictor.predict(second.texts).mean, alone)
        method: Any = CascadeRouting if kind == "cascade-routing" else Reservation
        cost = learn.mean_cost()
        dial = [0.0, *(np.geomspace(1e-3, 10.0, WEIGHTS) / max(float(np.ptp(cost)), 1e-30))]
        policies = [method(second.models, moves, weight) for weight in dial]
    believed = np.nan_to_num(learn.mean_cost())
    played = [play(p, test, expected, used, cost=believed, seed=seed) for p in policies]
    top = int(learn.mean_quality().argmax())
    return sb.Points(
        quality=np.stack([one.quality for one in played]),
        cost=np.stack([one.cost for one in played]),
        strong=np.stack([one.asked[:, top] for one in played]),
        dial=np.array(dial, np.float32),
        latency=np.stack([one.latency for one in played]),
    )


def _after(judge: AnswerJudge, outcomes: Outcomes, asked: Sequence[int]) -> Floats:
    """Scores when these models have answered ``[n, m]``."""
    seen = np.zeros(outcomes.quality.shape, bool)
    seen[:, list(asked)] = True
    return judge.score_many(outcomes, seen)
