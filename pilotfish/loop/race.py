"""The race: every student that fits the task, judged by what it could serve.

Each student is cross-fitted on the large model's answers, so that every probability comes from a fit
that did not see that answer. The winner is the one that could serve most inputs at the target; equal
ones are told apart by log loss. The race uses training rows only, so it costs none of delta.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from pilotfish.distill import STUDENTS
from pilotfish.distill.calibrate import expected_calibration_error, log_loss
from pilotfish.distill.crossfit import About
from pilotfish.distill.student import Student, fit_and_crossfit, fit_seconds, unavailable
from pilotfish.errors import ConfigError
from pilotfish.figures import duration
from pilotfish.infer.certify import Constraint
from pilotfish.infer.decide import agrees, decide
from pilotfish.loop.estimate import servable
from pilotfish.loop.result import RaceEntry
from pilotfish.loop.targets import Targets
from pilotfish.loop.task import Task
from pilotfish.models.protocols import Encoder
from pilotfish.progress import Progress
from pilotfish.records import Inputs

RACE_SECONDS = 300.0  # that a student may take to fit unless it was asked for by name
SPEED_SAMPLE = 2_000  # texts timed in a batch; a tenth of a second for most students
FIRST_SAMPLE = 64  # texts that warm it up; a student slow on these is timed on no more
SLOW = 0.1  # seconds for these
SINGLE_SAMPLE = 50  # texts timed one at a time


@dataclass(frozen=True)
class Outcome:
    """One student, fitted on all answers, and what its out-of-fold predictions are worth.

    Attributes:
        student: Fitted and calibrated.
        entry: The line for the report.
        servable: Share it could serve at the target.
        agreement: Share of its answers that agree, served or not.
        log_loss: Nats per input.
        scores: Out-of-fold scores ``[n]``.
        agreed: Whether the out-of-fold answer agrees ``[n]``.
    """

    student: Student
    entry: RaceEntry
    servable: float
    agreement: float
    log_loss: float
    scores: NDArray[np.float32]
    agreed: NDArray[np.bool_]


@dataclass(frozen=True)
class Learnt:
    """Answers that a student learns from.

    Attributes:
        inputs: ``n`` unique inputs.
        answers: The large model's answers ``[n]``, parsed.
        targets: The same, encoded.
        weights: Training rows that each stands for ``[n]``.
    """

    inputs: Inputs
    answers: Sequence[str]
    targets: Targets
    weights: NDArray[np.float64]

    def about(self, encoder: Encoder, seed: int) -> About:
        """What a student is told besides inputs and answers."""
        return {
            "classes": self.targets.classes,
            "multilabel": self.targets.multilabel,
            "weights": self.weights,
            "encoder": encoder,
            "seed": seed,
        }


def try_student(
    name: str, task: Task, learnt: Learnt, target: Constraint, encoder: Encoder, *, seed: int
) -> Outcome:
    """Fit and cross-fit one student and estimate what it could serve."""
    started = time.perf_counter()
    targets = learnt.targets
    # These matrices are small: with two BLAS threads the same fits take two to four times as long.
    with threadpool_limits(limits=1):
        student, proba = fit_and_crossfit(
            name, learnt.inputs, targets.values, **learnt.about(encoder, seed)
        )
    seconds = time.perf_counter() - started
    small, scores = decide(proba, targets.classes, task.kind, tolerance=task.tolerance)
    agreed = np.array(
        [
            agrees(a, b, task.kind, tolerance=task.tolerance)
            for a, b in zip(small, learnt.answers, strict=True)
        ],
        bool,
    )
    share = servable(scores, agreed, learnt.weights, target=target.target, on=target.on)
    agreement = float(np.average(agreed, weights=learnt.weights))
    loss = log_loss(proba, targets.values)
    entry = RaceEntry(
        student=name,
        agreement=agreement,
        coverage=share,
        log_loss=loss,
        ece=expected_calibration_error(scores, agreed),
        fit_seconds=seconds,
    )
    return Outcome(student, entry, share, agreement, loss, scores, agreed)


def candidates(names: Sequence[str] | None, inputs: Inputs, encoder: Encoder) -> list[RaceEntry]:
    """Who takes part; those that cannot carry the reason in ``note``.

    Raises:
        UnknownName: A name in ``names`` is no registered student.
        ConfigError: None of them can take part.
    """
    entries: list[RaceEntry] = []
    for name in names or STUDENTS:
        STUDENTS[name]  # a typo is answered here, before anything is paid
        reason = unavailable(name, inputs, encoder)
        entries.append(RaceEntry(student=name, note=reason or ""))
    if all(entry.note for entry in entries):
        why = "; ".join(f"{entry.student} {entry.note}" for entry in entries)
        raise ConfigError(f"None of the students that were asked for can take part: {why}.")
    return entries


def too_slow(name: str, learnt: Learnt, encoder: Encoder) -> str:
    """Why fitting this student would hold up the race, or ""."""
    about = learnt.about(encoder, 0)
    seconds = fit_seconds(name, learnt.inputs, learnt.targets.values, **about)
    if seconds <= RACE_SECONDS:
        return ""
    return (
        f"would take about {duration(seconds)} to fit, more than the {duration(RACE_SECONDS)} of a race; "
        f"--student {name} takes the time"
    )


def speed(answer: Callable[[Inputs], object], inputs: Inputs) -> tuple[float, float]:
    """Inputs per second in a batch, and the median milliseconds of one at a time."""
    batch = inputs.take(np.arange(SPEED_SAMPLE) % len(inputs))
    first = batch.take(range(FIRST_SAMPLE))
    answer(first)
    rate = 0.0
    for timed in (first, batch):
        started = time.perf_counter()
        answer(timed)
        seconds = time.perf_counter() - started
        rate = len(timed) / seconds
        if seconds > SLOW:
            break
    single = []
    for i in range(SINGLE_SAMPLE):
        one = batch.take([i])
        started = time.perf_counter()
        answer(one)
        single.append(time.perf_counter() - started)
    return rate, float(np.median(single) * 1e3)


def race(
    task: Task,
    learnt: Learnt,
    target: Constraint,
    encoder: Encoder,
    *,
    names: Sequence[str] | None = None,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[Outcome, list[RaceEntry]]:
    """Run the race.

    Returns:
        The winner, and every student's line, best first; those that could not run come last.
    """
    entries = candidates(names, learnt.inputs, encoder)
    if names is None:
        entries = [replace(e, note=e.note or too_slow(e.student, learnt, encoder)) for e in entries]
    running = [entry.student for entry in entries if not entry.note]
    outcomes: list[Outcome] = []
    with (progress or Progress()).stage("Racing students", len(running)) as stage:
        for name in running:
            stage.note(name)
            outcomes.append(try_student(name, task, learnt, target, encoder, seed=seed))
            stage.advance()
    outcomes.sort(key=lambda o: (-o.servable, o.log_loss))
    best = outcomes[0]
    lines = [
        replace(o.entry, per_second=rate, p50_ms=single, chosen=o is best)
        for o in outcomes
        for rate, single in [speed(o.student.predict_proba, learnt.inputs)]
    ]
    return best, lines + [entry for entry in entries if entry.note]
