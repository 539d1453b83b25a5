"""From answers to a certified student: learn, answer every input small, certify.

The stages that ``offload`` and ``learn`` have in common. Where the answers come from, whether they were
just asked for or recorded in service, is the teacher's affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.loop.artifact import StudentModel
from pilotfish.loop.estimate import disagreement_curve
from pilotfish.loop.plan import Plan
from pilotfish.loop.population import Population
from pilotfish.loop.race import race
from pilotfish.loop.result import RaceEntry
from pilotfish.loop.settle import Settled, settle
from pilotfish.loop.small import CANDIDATES, Small
from pilotfish.loop.task import Task
from pilotfish.loop.teach import learnt_from
from pilotfish.loop.teacher import Teacher
from pilotfish.models.protocols import Encoder
from pilotfish.progress import Progress

BATCH = 10_000


@dataclass(frozen=True)
class Candidate:
    """A small model before its certificate, with what cross-fitting on ``n`` answers says of it.

    Attributes:
        small: It.
        entries: Lines of the race, best first.
        scores: Out-of-fold scores ``[n]``.
        agreed: Whether the out-of-fold answer agrees ``[n]``.
        weights: Training rows that each answer stands for ``[n]``.
        servable: Share in [0, 1] that it could serve at the target.
    """

    small: Small
    entries: Sequence[RaceEntry]
    scores: NDArray[np.floating[Any]]
    agreed: NDArray[np.bool_]
    weights: NDArray[np.float64]
    servable: float


@dataclass(frozen=True)
class CertifiedStudent:
    """A small model with its certificate.

    Attributes:
        small: The small model.
        entries: Every student's line of the race, best first.
        answers: Its answer for every unique input ``[u]``.
        scores: Its score ``[u]``.
        settled: The certificate, and which rows it asked about.
    """

    small: Small
    entries: Sequence[RaceEntry]
    answers: list[str]
    scores: NDArray[np.float32]
    settled: Settled


def race_students(
    plan: Plan,
    task: Task,
    population: Population,
    teacher: Teacher,
    encoder: Encoder,
    ids: list[int],
    *,
    name: str,
    progress: Progress,
) -> Candidate:
    """Race the students on the answers of ``ids``; the winner stands for certification.

    Args:
        plan: Promises, students, seed.
        task: With its labels.
        population: Whose inputs these are.
        teacher: Has answered ``ids``.
        encoder: For the students.
        ids: Unique inputs of the training rows to learn from.
        name: The small model's name.
        progress: Watches.
    """
    learnt = learnt_from(population, task, teacher, ids)
    outcome, entries = race(
        task, learnt, plan.agreement, encoder,
        names=plan.students, seed=plan.seed, progress=progress,
    )  # fmt: skip
    small = StudentModel(outcome.student, task, name)
    weights = learnt.weights
    return Candidate(small, entries, outcome.scores, outcome.agreed, weights, outcome.servable)


def certify_small(
    plan: Plan,
    task: Task,
    population: Population,
    teacher: Teacher,
    encoder: Encoder,
    ids: list[int],
    *,
    name: str,
    horizon: int,
    affordable: Callable[[], int],
    timed: Callable[[str], AbstractContextManager[None]],
    progress: Progress,
) -> CertifiedStudent:
    """Learn a small model of the task's kind from the answers of ``ids``, and certify it.

    Args:
        plan: Promises, delta, students, seed.
        task: What it answers; its kind says how it is learned
            (:data:`pilotfish.loop.small.CANDIDATES`).
        population: Whose calibration rows are asked about.
        teacher: Has answered ``ids``, and answers calibration rows within its budget.
        encoder: For the students.
        ids: Unique inputs of the training rows to learn from.
        name: The small model's name.
        horizon: Inputs that will profit.
        affordable: Answers that may be asked for to certify, asked when it is learned.
        timed: Measures the stages ``"race"`` and ``"certify"``.
        progress: Watches.

    Raises:
        InputError: It cannot be learned; the message says what and why.
    """
    with timed("race"):
        learn: Callable[..., Candidate] = CANDIDATES.load(task.kind)
        learned = learn(plan, task, population, teacher, encoder, ids, name=name, progress=progress)
        answers, scores = answer_all(learned.small, population, progress)
    with timed("certify"):
        settled = settle(
            population,
            task,
            teacher,
            small=answers,
            scores=scores,
            constraints=plan.constraints,
            delta=plan.delta,
            expected=disagreement_curve(learned.scores, learned.agreed, learned.weights),
            horizon=horizon,
            affordable=affordable(),
            servable=learned.servable,
            fewest=plan.fewest_rows,
            seed=plan.seed,
            progress=progress,
        )
    return CertifiedStudent(learned.small, learned.entries, answers, scores, settled)


def answer_all(
    small: Small, population: Population, progress: Progress
) -> tuple[list[str], NDArray[np.float32]]:
    """Answers and scores for every unique input."""
    inputs = population.inputs
    answers: list[str] = []
    scores = np.zeros(len(inputs), np.float32)
    with progress.stage("Answering every input small", len(inputs)) as stage:
        for start in range(0, len(inputs), BATCH):
            part = range(start, min(start + BATCH, len(inputs)))
            some, scores[part.start : part.stop] = small.answer(inputs.take(part))
            answers.extend(some)
            stage.advance(len(part))
    return answers, scores
