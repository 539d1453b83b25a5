"""What can answer a task small, by the kind of the task, and how it is learned.

Everything after it (certificate, artifact, shadow, canary, watch) is the same for all kinds: it needs
answers with scores, and answers that can be compared. So a kind of task is learned by two lines: a class
that answers and can be restored from an artifact, and a function that learns one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, Self, TypeVar, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pilotfish.loop.task import Task
from pilotfish.loop.template import Template
from pilotfish.records import Completion, Inputs, Request
from pilotfish.registry import Registry
from pilotfish.store.artifacts import Artifact

Files = tuple[dict[str, Any], dict[str, NDArray[Any]], dict[str, bytes]]


class Small(Protocol):
    """A model that answers one task, with a score for each answer.

    Attributes:
        name: The name its answers carry.
        task: What it answers.
        template: Of the task's prompt.
        technique: How it answers: the name of the student.
    """

    name: str
    task: Task
    template: Template

    @property
    def technique(self) -> str:
        """How it answers."""
        ...

    def answer(self, inputs: Inputs) -> tuple[list[str], NDArray[np.float32]]:
        """Answers and scores of many inputs at once."""
        ...

    async def complete(self, request: Request) -> Completion:
        """Answer one request, with ``extra["score"]``; -1 where it is not this task's."""
        ...

    def renamed(self, name: str) -> Self:
        """The same under another name."""
        ...

    def files(self) -> Files:
        """What to store: JSON settings, arrays, and other files."""
        ...

    @classmethod
    def restore(cls, artifact: Artifact, task: Task, name: str) -> Self:
        """Rebuild it from an artifact; runs nothing that is in it.

        Raises:
            ArtifactError: A part is missing, damaged or of another format.
        """
        ...


class Named(Protocol):
    """What a student is, whatever it learns."""

    @property
    def name(self) -> str:
        """How it answers."""
        ...


S = TypeVar("S", bound=Named)


class OfStudent(Generic[S]):
    """What all models made of a student share.

    Args:
        student: What was learned.
        task: What it answers.
        name: The name its answers carry.
    """

    def __init__(self, student: S, task: Task, name: str) -> None:
        self.student = student
        self.task = task
        self.name = name
        self.template = Template(task.prompt)

    @property
    def technique(self) -> str:
        """The name of the student."""
        return self.student.name

    def renamed(self, name: str) -> Self:
        """The same under another name."""
        return type(self)(self.student, self.task, name)


@runtime_checkable
class ReadsRequests(Protocol):
    """A small model whose answer depends on more than the input: on who asks, and how."""

    def answer_requests(self, requests: Sequence[Request]) -> tuple[list[str], NDArray[np.float32]]:
        """Answers and scores of many requests; ``tags`` hold ``fields``, ``caller`` and ``reuse``."""
        ...


SMALL = Registry(
    "kind of task",
    {
        "label": "pilotfish.loop.artifact:StudentModel",
        "labels": "pilotfish.loop.artifact:StudentModel",
        "rating": "pilotfish.loop.artifact:StudentModel",
        "extraction": "pilotfish.loop.extraction:ExtractionModel",
        "text": "pilotfish.loop.reuse:ReuseModel",
    },
)
"""Kind of a task to the class that answers it."""

CANDIDATES = Registry(
    "kind of task",
    {
        "label": "pilotfish.loop.certified:race_students",
        "labels": "pilotfish.loop.certified:race_students",
        "rating": "pilotfish.loop.certified:race_students",
        "extraction": "pilotfish.loop.extraction:learn_fields",
    },
)
"""Kind of a task to what learns a small model for it; all take the arguments of
:func:`pilotfish.loop.certified.race_students`."""
