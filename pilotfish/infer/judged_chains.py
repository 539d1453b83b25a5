"""Cascades of a judge, chosen on recorded answers: order and thresholds by money, or by seconds as well.

A frontier by money alone never asks a model that is dearer than an equally good one, however much faster
it is. Where seconds count, chains are searched by cost, by seconds, and by three exchanges of the one for
the other (Zhang et al. 2024 optimise cascades for latency), and a limit picks from all of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from pilotfish.errors import InputError
from pilotfish.infer.judges.judge import AnswerJudge
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.policies.chain import Chain
from pilotfish.infer.policies.chain_search import search_chains
from pilotfish.infer.policies.policy import Policy

MAX_PLANS = 40


def judged_chains(
    kind: str,
    judge: AnswerJudge,
    rows: Outcomes,
    large: int,
    own: Mapping[str, Any],
    *,
    timed: bool,
) -> list[Policy]:
    """The cascades of a judge, the best on these questions first.

    Args:
        kind: ``"cascade"``: the frontier of all chains; ``"synergy"``: all small models first.
        judge: Scores their answers.
        rows: To choose on; every quality and cost is known.
        large: Position of the large model.
        own: Settings of ``"cascade"``: ``max_stages`` and ``answer``.
        timed: Whether chains that spare seconds are wanted as well.

    Raises:
        InputError: ``"synergy"`` of one model.
    """
    models = rows.models
    if kind == "synergy":
        small = tuple(j for j in range(len(models)) if j != large)
        if not small:
            raise InputError("Got one model, but small models and a large one are needed.")
        best = np.nanmax(scores_after(judge, rows, small)[:, list(small)], axis=1)
        cuts = np.unique(np.quantile(best, np.linspace(0, 1, MAX_PLANS)))
        falling = (1.01, *cuts[::-1].tolist())
        return [Chain(models, (small, (large,)), (cut,)) for cut in falling]
    found: dict[Chain, None] = {}
    for price in prices(rows) if timed else [rows.cost]:
        plans = search_chains(
            models,
            rows.quality,
            price,
            lambda asked: np.nan_to_num(scores_after(judge, rows, asked)),
            max_stages=int(own.get("max_stages", 3)),
            answer=own.get("answer", "last"),
        )
        at = np.unique(np.linspace(0, len(plans) - 1, MAX_PLANS).astype(int))
        found |= dict.fromkeys(plans[i].chain for i in at[::-1])
    return list(found)


def prices(rows: Outcomes) -> list[Floats]:
    """Cost, seconds, and three exchanges of the one for the other, each ``[n, m]``."""
    assert rows.latency is not None
    spans = [float(np.ptp(values.mean(axis=0))) for values in (rows.cost, rows.latency)]
    if np.isnan(rows.latency).any() or not spans[1]:
        return [rows.cost]
    rates = [share * spans[0] / spans[1] for share in (0.1, 1.0, 10.0)] if spans[0] else []
    return [
        rows.cost,
        *(rows.cost + np.float32(rate) * rows.latency for rate in rates),
        rows.latency,
    ]


def scores_alone(judge: AnswerJudge, outcomes: Outcomes) -> Floats:
    """The score of each answer when nobody else was asked ``[n, m]``."""
    every = range(len(outcomes.models))
    return np.stack([scores_after(judge, outcomes, [j])[:, j] for j in every], axis=1)


def scores_after(judge: AnswerJudge, outcomes: Outcomes, asked: Sequence[int]) -> Floats:
    """Scores when these models have answered ``[n, m]``."""
    seen = np.zeros(outcomes.quality.shape, bool)
    seen[:, list(asked)] = True
    return judge.score_many(outcomes, seen)
