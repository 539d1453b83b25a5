"""Ask the large model for training answers, in rounds, until more of them no longer pay.

The first batch is chosen to represent the inputs, later ones where a quick student is unsure. After each
round the quick student is cross-fitted and its servable share estimated; the next round, as large as all
before together, is bought when the expected gain, times the inputs that will profit, exceeds its calls.
Only training rows are used, so neither the choice nor the stopping touches the promise.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from pilotfish.curate.selection.select import representative, uncertain_and_diverse
from pilotfish.infer.certify import Constraint
from pilotfish.loop.population import Population
from pilotfish.loop.race import Learnt, try_student
from pilotfish.loop.targets import encode
from pilotfish.loop.task import Task
from pilotfish.loop.teacher import Teacher
from pilotfish.models.protocols import Encoder
from pilotfish.progress import Progress, Stage

QUICK_STUDENT = "tfidf-embedding-linear"  # a second a round, and the usual winner
FIRST_BATCH = 100
POOL = 20_000  # inputs that selection looks at; more changes coverage of the space by < 1%
FIRST_GAIN = 0.10  # coverage expected from the first doubling, before anything was seen
EVEN_BATCH = 300  # answers to learn an extraction from, where there are fewer
GIVE_UP = 800  # answers after which a student that can serve nothing is given up


@dataclass(frozen=True, slots=True)
class Round:
    """One round of asking: answers so far, and what the quick student could serve then."""

    asked: int
    agreement: float
    servable: float


def learnt_from(population: Population, task: Task, teacher: Teacher, ids: list[int]) -> Learnt:
    """The parsed answers among ``ids``, ready to learn from."""
    parsed = [i for i in ids if teacher.answers.get(i) is not None]
    answers = [str(teacher.answers[i]) for i in parsed]
    return Learnt(
        population.inputs.take(parsed),
        answers,
        encode(task, answers),
        population.train_weights[parsed],
    )


def teach(
    population: Population,
    task: Task,
    teacher: Teacher,
    encoder: Encoder,
    target: Constraint,
    *,
    limit: int,
    horizon: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> tuple[list[int], list[Round]]:
    """Ask for training answers.

    Args:
        population: What may be asked: its training rows.
        task: The task.
        teacher: Answers, within its budget.
        encoder: Makes the vectors that selection works on.
        target: The promise that the student is prepared for.
        limit: Answers at most.
        horizon: Inputs that will profit from a better student.
        seed: Of every random choice.
        progress: Watches.

    Returns:
        The unique inputs that were asked about, in order, and the rounds.
    """
    rng = np.random.default_rng(seed)
    pool = population.train_ids
    if len(pool) > POOL:
        pool = np.sort(rng.choice(pool, POOL, replace=False))
    limit = min(limit, len(pool))
    watch = progress or Progress()
    with watch.stage("Reading the inputs", None):
        vectors = encoder.encode([population.inputs.texts[i] for i in pool])
    weights = population.train_weights[pool]
    asked: list[int] = []  # positions in the pool
    rounds: list[Round] = []
    expected = FIRST_GAIN
    with watch.stage("Asking the large model for training answers", None) as stage:
        chosen = representative(vectors, min(FIRST_BATCH, limit), weights=weights, seed=seed)
        while len(chosen):
            stage.expect(len(asked) + len(chosen))
            teacher.ask([int(pool[i]) for i in chosen], stage)
            asked.extend(int(i) for i in chosen)
            learnt = learnt_from(population, task, teacher, [int(i) for i in pool[asked]])
            outcome = try_student(QUICK_STUDENT, task, learnt, target, encoder, seed=seed)
            rounds.append(Round(len(asked), outcome.agreement, outcome.servable))
            _tell(stage, rounds[-1])
            if len(rounds) > 1:
                gain = rounds[-1].servable - rounds[-2].servable
                expected = 0.5 * expected + 0.5 * max(gain, 0.0)
            more = min(len(asked), limit - len(asked), teacher.affordable(len(asked)))
            hopeless = rounds[-1].servable == 0 and len(asked) >= GIVE_UP
            if more <= 0 or hopeless or expected * horizon < more:
                break
            proba = outcome.student.predict_proba(population.inputs.take(pool))
            chosen = uncertain_and_diverse(proba, vectors, more, exclude=asked, seed=seed)
    return [int(pool[i]) for i in asked], rounds


def teach_evenly(
    population: Population,
    teacher: Teacher,
    known: Collection[int],
    *,
    limit: int,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[int]:
    """Ask about a uniform sample of the training inputs: for students that no quick one stands for.

    Args:
        population: What may be asked.
        teacher: Answers, within its budget.
        known: Unique inputs that were answered.
        limit: Answers at most.
        seed: Of the sample.
        progress: Watches.

    Returns:
        The unique inputs that were asked about.
    """
    pool = np.setdiff1d(population.train_ids, list(known))
    size = min(limit, len(pool), teacher.affordable(limit))
    chosen = [int(i) for i in np.random.default_rng(seed).choice(pool, size, replace=False)]
    with (progress or Progress()).stage(
        "Asking the large model for training answers", len(chosen)
    ) as stage:
        teacher.ask(chosen, stage)
    return chosen


def _tell(stage: Stage, now: Round) -> None:
    stage.note(f"a student could serve {now.servable:.0%} after {now.asked} answers")
