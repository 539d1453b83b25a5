"""Recorded answers as lessons: the requests of one task become a population with known answers.

What the large model answered in service was paid for already. So each request of the task is a row, its
values are the input, and its recorded answer is the large model's; where a small model had answered, the
large one's answer is missing and is asked for only when it is needed. Rows are all requests of a stretch
of time, whoever answered, so a calibration sample drawn from them is one of the traffic.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from pilotfish.config import Config
from pilotfish.errors import InputError
from pilotfish.loop.answers import Kind, kind_of
from pilotfish.loop.population import Population, populate
from pilotfish.loop.rows import Rows
from pilotfish.loop.task import Task
from pilotfish.loop.tasks import Matcher, usable
from pilotfish.loop.template import Template
from pilotfish.models.protocols import Model
from pilotfish.records import Completion, Request
from pilotfish.store.feedback import Check
from pilotfish.store.traffic import Recorded

MOST_ROWS = 20_000  # the latest; more change a student by little
MARK = "@"  # between a task and its version in a small model's name


@dataclass(frozen=True)
class Definition:
    """A task as the loop knows it.

    Attributes:
        name: Its name.
        prompt: Template of the user's message.
        system: The system prompt.
        large: Spec of the large model.
    """

    name: str
    prompt: str
    system: str
    large: str

    @classmethod
    def of(cls, name: str, values: Mapping[str, object]) -> Definition:
        """From what the store keeps."""
        prompt, system, large = (str(values.get(key, "")) for key in ("prompt", "system", "large"))
        return cls(name, prompt, system, large)


@dataclass(frozen=True)
class Lessons:
    """One task's traffic, ready to learn from.

    Attributes:
        task: With the labels or the scale that its answers show.
        kind: Parses answers.
        population: Rows and unique inputs.
        requests: What was really sent, by unique input.
        recorded: Answer of the large model by unique input; None where it was no allowed one.
        ids: Request id of each row.
    """

    task: Task
    kind: Kind
    population: Population
    requests: Sequence[Request]
    recorded: Mapping[int, str | None]
    ids: Sequence[str]


def large_of(asked: str, config: Config) -> str:
    """The large model behind the name that clients ask for."""
    table = config.models.get(asked, {})
    if table.get("large"):
        return str(table["large"])
    members = table.get("models")
    if isinstance(members, list) and members:
        return str(members[0] if table.get("kind") == "learned" else members[-1])
    return asked


def is_small(model: str, task: str) -> bool:
    """Whether a name is that of a version of this task."""
    return model.startswith(task + MARK)


def lessons(
    definition: Definition,
    traffic: Iterable[Recorded],
    *,
    checks: Mapping[str, Check] | None = None,
    most: int = MOST_ROWS,
    seed: int = 0,
) -> Lessons:
    """Make lessons of a task's traffic.

    Args:
        definition: The task.
        traffic: Recorded requests, oldest first; others than the task's are passed over.
        checks: Answers of the large model to requests that a small one had answered, by request id.
        most: Requests at most, the latest.
        seed: Of the split into training and calibration rows.

    Raises:
        InputError: There are too few answers, or they are no labels, ratings or objects.
    """
    matcher = Matcher({definition.name: (definition.system, definition.prompt)})
    rows: list[tuple[Recorded, dict[str, str]]] = []
    for row in traffic:
        if usable(row) and row.request is not None:
            found = matcher.match(row.request)
            if found is not None:
                rows.append((row, found[1]))
    rows = rows[-most:]
    answers = [_large_answer(row, definition.name, checks or {}) for row, _ in rows]
    kind = kind_of([answer for answer in answers if answer is not None])
    if not kind.learned:
        raise InputError(
            f"The answers of the task {definition.name!r} are {kind.kind}, not labels, ratings or JSON "
            "objects.",
            remedy="Free text is not learned; recorded answers to it may be reused.",
        )
    task = Task(
        definition.prompt, kind.kind, kind.labels, range=kind.range, system=definition.system
    )
    template = Template(definition.prompt)
    columns = {name: [values[name] for _, values in rows] for name in template.fields}
    table = Rows(columns, list(range(1, len(rows) + 1)), read=len(rows))
    population = populate(table, template, seed=seed)
    requests: dict[int, Request] = {}
    recorded: dict[int, str | None] = {}
    for (row, _), answer, unique in zip(rows, answers, population.unique_of, strict=True):
        number = int(unique)
        if row.request is not None:
            requests.setdefault(number, row.request)
        if answer is not None:
            recorded[number] = kind.parse(answer)
    ordered = [requests[i] for i in range(len(population.inputs))]
    return Lessons(task, kind, population, ordered, recorded, [row.id for row, _ in rows])


def _large_answer(row: Recorded, task: str, checks: Mapping[str, Check]) -> str | None:
    if row.completion is None:
        return None
    if not is_small(row.completion.model, task):
        return row.completion.text
    check = checks.get(row.id)
    return None if check is None else check.large_answer


class Parsed:
    """A model whose answers are read as a task's; what it wrote stays in ``text``.

    Args:
        model: Answers in its own words.
        kind: Reads them.
    """

    def __init__(self, model: Model, kind: Kind) -> None:
        self.model = model
        self.name = model.name
        self.kind = kind

    async def complete(self, request: Request) -> Completion:
        """The answer with ``extra["label"]``, None where it is no allowed one."""
        answer = await self.model.complete(request)
        label = self.kind.parse(answer.text)
        return dataclasses.replace(answer, extra={**answer.extra, "label": label})
