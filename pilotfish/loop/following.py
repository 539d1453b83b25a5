"""Following the traffic: each recorded request becomes evidence on the versions of its task.

A request says something about a version when it is known what both the version and the large model
answer. Where the large model answered, that is free; where a small one did, a chosen share is asked of
the large model after the fact, each request once.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pilotfish.errors import ArtifactError, ConfigError, ModelError, StoreError
from pilotfish.infer.watch import is_checked
from pilotfish.loop.comparing import Comparer, counts, is_judged, sources
from pilotfish.loop.learned import Loaded, as_asked, load_version, to_send
from pilotfish.loop.lessons import MARK, Definition, is_small
from pilotfish.loop.small import ReadsRequests
from pilotfish.loop.tasks import Matcher, usable
from pilotfish.loop.trial import CANARY, SERVING, SHADOW, Evidence, TaskState
from pilotfish.models.load import Models
from pilotfish.models.protocols import Model
from pilotfish.records import Completion, Inputs
from pilotfish.store.feedback import Check
from pilotfish.store.ledger import Day
from pilotfish.store.store import Store
from pilotfish.store.traffic import Recorded
from pilotfish.store.versions import KnownTask, Pointer, Version

AT_ONCE = 8  # checks under way
DAY = 86_400


@dataclass(frozen=True)
class Shares:
    """On which share of a task's requests a version is judged.

    Attributes:
        serving: While it is in service.
        canary: While it is a canary.
        verdicts: Most answers of one version that a judge compares in a round, before it is in service.
    """

    serving: float = 0.05
    canary: float = 0.5
    verdicts: int = 100

    def of(self, role: str) -> float:
        """For a role; a shadow beside a version in service is judged as often as that one."""
        return self.canary if role == CANARY else self.serving


@dataclass
class Item:
    """A recorded request of a known task, and what is known of it.

    Attributes:
        row: As recorded.
        task: The task's name.
        values: Of the template's places.
        judged: Version to its answer and score.
        large: What the large model said, in its own words; None while that is not known.
        asked: The large model's answer, where it was asked after the fact.
        bought: The check that this made.
        agreed: Version to whether its answer and the large model's are the same, as far as known.
    """

    row: Recorded
    task: str
    values: dict[str, str]
    judged: dict[int, tuple[str, float]] = field(default_factory=dict)
    large: str | None = None
    asked: Completion | None = None
    bought: Check | None = None
    agreed: dict[int, bool] = field(default_factory=dict)


class Follower:
    """Turns recorded requests into evidence; keeps the states of the tasks.

    Args:
        store: Where versions and bought answers are.
        models: Where large models come from.
        shares: How often versions are judged.

    Attributes:
        states: By task.
        definitions: By task.
        marks: Privacy marks by task.
        failed_checks: Checks that came to nothing, because the large model failed.
    """

    def __init__(self, store: Store, models: Models, shares: Shares) -> None:
        self.store = store
        self.shares = shares
        self.states: dict[str, TaskState] = {}
        self.definitions: dict[str, Definition] = {}
        self.marks: dict[str, Mapping[str, object]] = {}
        self.failed_checks = 0
        self._models = models
        self._matcher = Matcher({})
        self._comparer = Comparer(store, models)
        self._loaded: dict[tuple[str, int], Loaded | None] = {}
        self._versions: dict[tuple[str, int], Version] = {}

    def know(self, tasks: Mapping[str, KnownTask]) -> None:
        """Take over the tasks that there are; the states of new ones are read from the store."""
        known = {name: Definition.of(name, task.definition) for name, task in tasks.items()}
        self.marks = {name: task.marks for name, task in tasks.items()}
        if known == self.definitions:
            return
        self.definitions = known
        self._matcher = Matcher({n: (d.system, d.prompt) for n, d in known.items() if d.prompt})
        for name in known:
            if name not in self.states:
                self.states[name] = TaskState.from_dict(self.store.ledger.state(f"task {name}"))

    async def follow(
        self, rows: Sequence[Recorded], pointers: Mapping[str, Pointer]
    ) -> tuple[list[Item], list[Day], list[Recorded]]:
        """Add requests to the evidence, in their order.

        Returns:
            Those of known tasks, what they came to per day, and the others.
        """
        known, unknown = self.sort(rows)
        await asyncio.to_thread(self._judge, known, pointers)
        await self._check(known, pointers)
        await self._compare(known, pointers)
        days: dict[tuple[str, int], Day] = {}
        for item in known:
            self.count(item, pointers.get(item.task), days)
        return known, list(days.values()), unknown

    def large(self, task: str) -> Model:
        """The task's large model, started if need be."""
        return self._models.load(self.definitions[task].large)

    def small(self, task: str, number: int) -> Loaded | None:
        """A version that can answer; None when its artifact cannot be loaded."""
        key = (task, number)
        if key not in self._loaded:
            try:
                self._versions[key] = self.store.versions.version(task, number)
                self._loaded[key] = load_version(self._versions[key])
            except (ArtifactError, StoreError):
                self._loaded[key] = None
        return self._loaded[key]

    def sort(self, rows: Sequence[Recorded]) -> tuple[list[Item], list[Recorded]]:
        """Requests of known tasks, and the others."""
        known: list[Item] = []
        unknown: list[Recorded] = []
        for row in rows:
            if row.request is None or row.completion is None or not usable(row):
                continue
            found = self._matcher.match(row.request)
            if found is None:
                unknown.append(row)
                continue
            item = Item(row, *found)
            if not is_small(row.model, item.task):
                item.large = row.completion.text
            known.append(item)
        return known, unknown

    def _roles(self, task: str, pointer: Pointer | None) -> dict[str, int]:
        """The versions on which evidence is gathered, by role."""
        if pointer is None:
            return {}
        places = {SHADOW: pointer.shadow, CANARY: pointer.canary, SERVING: pointer.serving}
        return {role: v for role, v in places.items() if v is not None and self.small(task, v)}

    def _judge(self, known: Sequence[Item], pointers: Mapping[str, Pointer]) -> None:
        """What each version would have answered, many requests at once."""
        by_task: dict[str, list[Item]] = {}
        for item in known:
            by_task.setdefault(item.task, []).append(item)
        for task, items in by_task.items():
            for number in self._roles(task, pointers.get(task)).values():
                loaded = self.small(task, number)
                assert loaded is not None
                answers, scores = self._answers(loaded, items)
                for item, answer, score in zip(items, answers, scores, strict=True):
                    item.judged[number] = (answer, float(score))

    def _answers(self, loaded: Loaded, items: Sequence[Item]) -> tuple[list[str], Any]:
        if isinstance(loaded.small, ReadsRequests):
            asked = [
                as_asked(item.row.request, item.values, self.marks[item.task], item.row.caller)
                for item in items
                if item.row.request is not None
            ]
            return loaded.small.answer_requests(asked)
        template = loaded.small.template
        texts = [template.input_text(item.values) for item in items]
        columns = {name: [item.values[name] for item in items] for name in template.fields}
        return loaded.small.answer(Inputs(texts, columns))

    async def _check(self, known: Sequence[Item], pointers: Mapping[str, Pointer]) -> None:
        """Ask the large model about the small answers that are to be checked."""
        wanted = [item for item in known if item.large is None and self._is_due(item, pointers)]
        ids = [item.row.id for item in wanted]
        there = await asyncio.to_thread(self.store.ledger.checks_of, ids)
        places = asyncio.Semaphore(AT_ONCE)

        async def one(item: Item) -> None:
            async with places:
                try:
                    answer = await self._ask_again(item)
                except (ModelError, ConfigError):
                    self.failed_checks += 1
                    return
            item.large, item.asked = answer.text, answer

        for item in wanted:
            if item.row.id in there:
                item.large = there[item.row.id].large_answer
        await asyncio.gather(*(one(item) for item in wanted if item.large is None))

    def _is_due(self, item: Item, pointers: Mapping[str, Pointer]) -> bool:
        if self.marks.get(item.task, {}).get("local_only"):
            return False
        for role, number in self._roles(item.task, pointers.get(item.task)).items():
            if role != SHADOW and item.row.model == f"{item.task}{MARK}{number}":
                return is_checked(item.row.id, self.shares.of(role))
        return False

    async def _ask_again(self, item: Item) -> Completion:
        """The large model's answer to a request that a small one answered; paid for once.

        The key is the request's own: a text that was asked about last month must be asked again, or the
        watch would compare with what the large model no longer says.
        """
        model = self.large(item.task)
        assert item.row.request is not None
        request = to_send(item.row.request, self.marks.get(item.task, {}))
        key = request.key(f"{model.name} check {item.row.id}")
        known = await asyncio.to_thread(self.store.get, [key])
        if key in known:
            return dataclasses.replace(known[key], cached=True)
        answer = await model.complete(request)
        entry = (key, request, answer)
        await asyncio.to_thread(lambda: self.store.put([entry], task=item.task))
        return answer

    async def _compare(self, known: Sequence[Item], pointers: Mapping[str, Pointer]) -> None:
        """Compare the versions' answers with the large model's, where that says something of them."""
        places = asyncio.Semaphore(AT_ONCE)

        async def one(item: Item, number: int) -> None:
            loaded = self.small(item.task, number)
            assert loaded is not None
            assert item.row.request is not None
            assert item.large is not None
            answer = item.judged[number][0]
            about = [item.row.id, *sources(loaded, answer)]
            async with places:
                try:
                    item.agreed[number] = await self._comparer.agreed(
                        loaded, self._versions[item.task, number], item.row.request,
                        (answer, item.large), self.definitions[item.task].large,
                        self.marks.get(item.task, {}), about,
                    )  # fmt: skip
                except (ModelError, ConfigError):
                    self.failed_checks += 1

        await asyncio.gather(*(one(*pair) for pair in self._to_compare(known, pointers)))
        for item in known:
            number = item.row.model.rpartition(MARK)[2]
            if item.asked is None or not number.isdigit() or int(number) not in item.agreed:
                continue
            small = item.row.completion.text if item.row.completion else ""
            item.bought = Check(
                item.row.id, item.row.asked, item.row.model, item.asked.model,
                item.agreed[int(number)], small, item.asked.text, item.asked.cost,
            )  # fmt: skip

    def _to_compare(
        self, known: Sequence[Item], pointers: Mapping[str, Pointer]
    ) -> Iterator[tuple[Item, int]]:
        """Items and versions that are to be compared; where that costs a verdict, no more than needed."""
        verdicts: dict[tuple[str, int], int] = {}
        for item in known:
            for role, number in self._roles(item.task, pointers.get(item.task)).items():
                if item.large is None or number not in item.judged:
                    continue
                loaded = self.small(item.task, number)
                assert loaded is not None
                if not counts(loaded, item.row.id, item.judged[number][1]):
                    continue
                if not is_checked(item.row.id, self._share(role, pointers[item.task])):
                    continue
                if role != SERVING and item.asked is None and is_judged(loaded):
                    count = verdicts[item.task, number] = verdicts.get((item.task, number), 0) + 1
                    if count > self.shares.verdicts:
                        continue
                yield item, number

    def _share(self, role: str, pointer: Pointer) -> float:
        """On which share of the requests a version is judged in its role.

        In shadow all are compared as long as the large model answers them all.
        """
        alone = role == SHADOW and pointer.serving is None
        return 1.0 if alone else self.shares.of(role)

    def count(self, item: Item, pointer: Pointer | None, days: dict[tuple[str, int], Day]) -> None:
        """Add one request to its day and to the evidence."""
        row, state = item.row, self.states[item.task]
        number = int(row.time // DAY)
        day = days.setdefault((item.task, number), Day(item.task, number))
        small = is_small(row.model, item.task)
        state.rows += row.time >= state.since
        day.requests += 1
        day.small += small
        if not small and row.cost is not None:
            state.large_cost += row.cost
            state.large_priced += 1
        baseline = row.baseline
        if baseline is None:
            baseline = state.each if small else row.cost
        if row.cost is None or baseline is None:
            day.unknown += 1
        else:
            day.spent += row.cost
            day.baseline += baseline
        if item.bought is not None:
            day.checks += 1
            day.disagreed += not item.bought.agreed
            day.checks_cost += item.bought.cost or 0.0
            day.unpriced += item.bought.cost is None
        for role, version in self._roles(item.task, pointer).items():
            assert pointer is not None  # or there were no roles
            self._weigh(item, state, role, version, self._share(role, pointer))

    def _weigh(self, item: Item, state: TaskState, role: str, version: int, share: float) -> None:
        """One request as evidence on a version: would it have answered, and otherwise than large?

        Every request of the task counts with the same probability, whoever answered it, so that the
        evidence is about the traffic as it is.
        """
        evidence = state.serving if role == SERVING else state.trial
        if evidence is None or (evidence.version, evidence.role) != (version, role):
            evidence = self._start(item.task, role, version)
            if role == SERVING:
                state.serving = evidence
            else:
                state.trial = evidence
        evidence.count_row()
        if version not in item.agreed or not is_checked(item.row.id, share):
            return
        loaded = self.small(item.task, version)
        assert loaded is not None
        served = item.judged[version][1] >= loaded.threshold
        evidence.add(served and not item.agreed[version], item.row.id, item.row.time)

    def _start(self, task: str, role: str, version: int) -> Evidence:
        made = self.store.versions.version(task, version).settings
        agree, delta = float(made.get("agree", 0.95)), float(made.get("delta", 0.05))
        return Evidence.start(version, role, 1.0 - agree, delta)
