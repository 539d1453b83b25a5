"""Certify reused answers: ask about calibration rows until the threshold is settled.

As :mod:`pilotfish.loop.settle` does for students; but the promise is about what is reused, and who is
asked is a judge.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.calibration import Calibration
from pilotfish.infer.certify import Certificate, threshold_grid
from pilotfish.loop.plan import constraints
from pilotfish.loop.settle import BATCH, CURVE, GRID, rows_to_draw
from pilotfish.progress import Progress

LEAST_SCORE = 0.5
"""What is more likely different than equal is not given, even where the average would allow it."""

Floats = NDArray[np.floating]


def certify_reuse(
    scores: Floats,
    reference: Floats,
    ask: Callable[[Sequence[int]], Sequence[bool]],
    *,
    agree: float,
    delta: float,
    expected: Callable[[Floats], Floats],
    servable: float,
    horizon: int,
    affordable: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Certificate:
    """The lowest threshold at which reused answers are equivalent often enough.

    Args:
        scores: Of calibration rows ``[n]`` in [0, 1]; 0 where nothing can be reused.
        reference: Scores of other rows, from which the candidates come.
        ask: Whether the reused answers of some rows are equivalent to their own.
        agree: Share of the reused answers that must be, in (0, 1).
        delta: Probability that the promise may fail.
        expected: Score to probability of a disagreement, learned from other rows.
        servable: Share of the rows that may be served, as expected.
        horizon: Requests that will profit.
        affordable: Rows that may be asked about.
        seed: Of the choice of rows.
        progress: Watches.
    """
    draw = rows_to_draw(
        len(scores), affordable, horizon=horizon, fewest=fewest_of(agree, delta), servable=servable
    )
    drawn = np.random.default_rng(seed).permutation(len(scores))[:draw]
    grid = threshold_grid(reference[reference > 0.0], GRID)
    calibration = Calibration(
        scores[drawn],
        constraints=constraints(agree, "served"),
        delta=delta,
        thresholds=np.append(grid[grid >= LEAST_SCORE], 1.0),
        reference=reference,
        expected_disagreement=expected(scores[drawn]),
        budget=max(affordable, 0),
        remaining=horizon,
        seed=seed,
    )
    with (progress or Progress()).stage("Certifying with held-out answers", None) as stage:
        while not calibration.done:
            asked = calibration.next(BATCH)
            if not len(asked):
                break
            stage.expect(calibration.asked + len(asked))
            calibration.tell(asked, list(ask([int(drawn[i]) for i in asked])))
            stage.advance(len(asked))
    return calibration.certificate(curve=CURVE)


def fewest_of(agree: float, delta: float) -> int:
    """Reused answers without which nothing can be certified, even if all are equivalent."""
    return int(np.ceil(np.log(delta) / np.log(agree)))
