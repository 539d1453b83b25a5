"""Certify: ask about calibration rows until the threshold is settled.

The student is fixed when this starts and has seen none of these rows. The calibration decides which row
to ask about next and when another answer is no longer worth its call; looking after every batch is
allowed, because its bounds hold at every moment at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.calibration import Calibration
from pilotfish.infer.certify import Certificate, Constraint, threshold_grid
from pilotfish.infer.decide import agrees
from pilotfish.loop.population import Population
from pilotfish.loop.task import Task
from pilotfish.loop.teacher import Teacher
from pilotfish.progress import Progress

BATCH = 32  # answers between two looks: two per place of the default concurrency
ROWS_PER_INPUT = 0.1  # calibration rows per input that will profit
ROWS_AT_LEAST = 10  # times the fewest rows: the bound is then about 2 points above the estimate
MOST_ROWS = 3_000  # beyond it, four times the answers win less than a point of coverage
LEAST_SERVED = 0.1  # a smaller share is not planned with: it would ask for very many rows
CURVE = 60  # points of the plotted curve
GRID = 200  # candidate thresholds; a finer grid gains less than half a percent of coverage


def rows_to_draw(
    available: int, affordable: int, *, horizon: int, fewest: int, servable: float
) -> int:
    """How many calibration rows to plan for; the test spends delta over exactly these.

    Planning for more rows than can be asked about would leave most of delta unspent, and planning for
    many when few inputs will profit costs more calls than it wins. Only rows that would be served cost a
    call, so a budget reaches further the less is served.

    Args:
        available: Calibration rows there are.
        affordable: Answers that the budget allows.
        horizon: Inputs that will profit.
        fewest: Rows without which nothing can be certified.
        servable: Share that the student is expected to serve, in [0, 1].

    >>> rows_to_draw(5000, 180, horizon=10_000, fewest=59, servable=0.5)
    360
    """
    worth = min(max(int(ROWS_PER_INPUT * horizon), ROWS_AT_LEAST * fewest), MOST_ROWS)
    reach = int(affordable / max(servable, LEAST_SERVED))
    return min(available, max(min(worth, reach), fewest))


@dataclass(frozen=True)
class Settled:
    """The certificate and what it rests on.

    Attributes:
        certificate: What is promised.
        asked: Calibration rows that were asked about, in order (positions in ``population.rows``).
    """

    certificate: Certificate
    asked: list[int]


def settle(
    population: Population,
    task: Task,
    teacher: Teacher,
    *,
    small: Sequence[str],
    scores: NDArray[np.floating],
    constraints: Sequence[Constraint],
    delta: float,
    expected: Callable[[NDArray[np.floating]], NDArray[np.floating]],
    horizon: int,
    affordable: int,
    servable: float,
    fewest: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> Settled:
    """Ask calibration rows and return the certificate.

    Args:
        population: Its calibration rows are asked, in their random order.
        task: Says when two answers agree.
        teacher: Answers, within its budget.
        small: The student's answer for every unique input ``[u]``.
        scores: The student's score for every unique input ``[u]``.
        constraints: What is promised.
        delta: Probability that the promise may fail, in (0, 1).
        expected: Score to probability of disagreement, learned from training rows.
        horizon: Inputs that will profit from a lower threshold.
        affordable: Answers that may be asked for.
        servable: Share that the student is expected to serve.
        fewest: Rows without which nothing can be certified.
        seed: Of the choice of rows.
        progress: Watches.
    """
    draw = rows_to_draw(
        len(population.calibrate),
        affordable,
        horizon=horizon,
        fewest=fewest,
        servable=servable,
    )
    drawn = population.calibrate[:draw]
    ids = population.unique_of[drawn]
    # Candidates come from the training rows' scores, so that no calibration row has a say in them.
    reference = scores[population.unique_of[population.train]]
    calibration = Calibration(
        scores[ids],
        small=[small[i] for i in ids],
        constraints=tuple(constraints),
        delta=delta,
        thresholds=threshold_grid(reference, GRID),
        reference=reference,
        expected_disagreement=expected(scores[ids]),
        budget=max(affordable, 0),
        remaining=horizon,
        seed=seed,
    )
    asked: list[int] = []
    with (progress or Progress()).stage("Certifying with held-out answers", None) as stage:
        while not calibration.done:
            rows = calibration.next(BATCH)
            if not len(rows):
                break
            stage.expect(len(asked) + len(rows))
            large = teacher.ask([int(ids[r]) for r in rows], stage)
            agreed = [
                agrees(small[ids[r]], answer, task.kind, tolerance=task.tolerance)
                for r, answer in zip(rows, large, strict=True)
            ]
            calibration.tell(rows, np.array(agreed, bool), large)
            asked.extend(int(drawn[r]) for r in rows)
            now = calibration.certificate()
            if now.threshold is not None:
                stage.note(f"certified for {now.coverage:.0%} of the inputs so far")
    return Settled(calibration.certificate(curve=CURVE), asked)
