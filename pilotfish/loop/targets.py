"""From the large model's answers to what a student is fitted on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.loop.task import MAX_VALUES, Task


@dataclass(frozen=True, slots=True)
class Targets:
    """Classes and the class of each answer.

    Attributes:
        classes: Names, in the task's label order; numbers as text for ratings.
        values: Class index ``[n]``, or membership ``[n, classes]`` (bool) when several may hold.
        multilabel: Whether several may hold.
    """

    classes: tuple[str, ...]
    values: NDArray[Any]
    multilabel: bool


def encode(task: Task, answers: Sequence[str]) -> Targets:
    """Encode parsed answers; only classes that occur become classes.

    A continuous rating is learned as at most :data:`~pilotfish.loop.task.MAX_VALUES` steps, the medians
    of equally filled bins: the decision rule then picks the value that is most likely within tolerance.

    >>> encode(Task("{x}", labels=("no", "yes", "maybe")), ["yes", "no"]).classes
    ('no', 'yes')
    """
    if task.kind == "labels":
        sets = [set(json.loads(answer)) for answer in answers]
        used = set().union(*sets) if sets else set()
        classes = _ordered(task, used)
        member = np.array([[name in one for name in classes] for one in sets], bool)
        return Targets(classes, member.reshape(len(sets), len(classes)), True)
    if task.kind == "rating":
        numbers = np.array([float(answer) for answer in answers])
        steps = np.unique(numbers)
        if len(steps) > MAX_VALUES:
            edges = np.quantile(numbers, np.linspace(0, 1, MAX_VALUES + 1)[1:-1])
            bins = np.digitize(numbers, edges)
            steps = np.unique([np.median(numbers[bins == b]) for b in np.unique(bins)])
        nearest = np.abs(numbers[:, None] - steps[None, :]).argmin(axis=1)
        return Targets(tuple(f"{step:g}" for step in steps), nearest, False)
    classes = _ordered(task, set(answers))
    index = {name: i for i, name in enumerate(classes)}
    return Targets(classes, np.array([index[answer] for answer in answers], np.int64), False)


def _ordered(task: Task, used: set[str]) -> tuple[str, ...]:
    known = [label for label in task.labels if label in used]
    return (*known, *sorted(used.difference(known)))
