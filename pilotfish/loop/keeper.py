"""The loop beside the gateway: it finds tasks, learns, promotes, watches and rolls back.

One process for each store (a lease sees to that), never on a user's path. Each round takes the next
recorded requests, has the chosen small answers checked, and commits the evidence, the sums of the day
and the cursor in one transaction; then pointers are moved, each move bound to the pointer that was
decided on (:mod:`pilotfish.loop.steps`). So it can be killed at any moment: what was bought is in the
store under a key of its own, and the next round starts where the last commit was. What is being learned
is committed too: who starts again learns from the same requests, so nothing else is bought, and does
less of it each time that learning was cut off, so that even short lives get it done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from pilotfish.config import Config
from pilotfish.errors import BudgetSpent, ConfigError, InputError, ModelError, StoreError
from pilotfish.loop.answers import Kind
from pilotfish.loop.following import Follower, Item, Shares
from pilotfish.loop.inputs_drift import InputsSeen
from pilotfish.loop.learn import BETTER, LearnSettings, Outcome, learn
from pilotfish.loop.learn_reuse import TextTask, learn_text
from pilotfish.loop.learned import to_send
from pilotfish.loop.lessons import MARK, MOST_ROWS, large_of, lessons
from pilotfish.loop.reuse_scope import scope_of
from pilotfish.loop.steps import Steps
from pilotfish.loop.tasks import FoundTask, find_tasks
from pilotfish.loop.teach import QUICK_STUDENT
from pilotfish.loop.template import Template
from pilotfish.loop.trial import Attempt, TaskState
from pilotfish.models.load import Models
from pilotfish.progress import Progress
from pilotfish.store.feedback import Check
from pilotfish.store.ledger import Cursor, Day
from pilotfish.store.store import Store
from pilotfish.store.traffic import Recorded
from pilotfish.store.versions import KnownTask, Pointer

UNKNOWN = 5_000  # requests of no known task that are kept to find tasks in
PAUSE = 5.0  # seconds, where the store fails
MORE = 1.25  # times the requests of an attempt that failed: then another one is made
CUT_OFF = 2  # times that learning may be cut off before it is made shorter


@dataclass(frozen=True)
class KeeperSettings:
    """How the loop runs.

    Attributes:
        learn: How a task is learned.
        shares: On which share of the requests versions are judged.
        canary_share: Share of the traffic that a canary answers.
        trial_rows: Requests on which a version must prove itself in shadow, and again as a canary.
        fewest: Requests of a task before it is learned.
        growth: A task in service is learned again when there are so many times the requests.
        found_from: Requests of one template that make it a task.
        above: Only tasks that have cost at least so many US dollars.
        only: Only these tasks; empty for all.
        batch: Requests in a round.
        every: Seconds between two rounds when there is nothing to do.
    """

    learn: LearnSettings = field(default_factory=LearnSettings)
    shares: Shares = field(default_factory=Shares)
    canary_share: float = 0.2
    trial_rows: int = 100
    fewest: int = 300
    growth: float = 3.0
    found_from: int = 50
    above: float = 0.0
    only: tuple[str, ...] = ()
    batch: int = 500
    every: float = 0.5


class Keeper:
    """Runs the loop on one store.

    Args:
        store: The gateway's.
        config: Declares the models.
        settings: How.
        progress: Told what happens.
        models: Where large models come from; default those of ``config``.
    """

    def __init__(
        self,
        store: Store,
        config: Config,
        settings: KeeperSettings,
        progress: Progress | None = None,
        models: Models | None = None,
    ) -> None:
        self.store = store
        self.config = config
        self.settings = settings
        self.progress = progress or Progress()
        self._models = models or Models(config)
        self._inputs = InputsSeen(settings.learn.encoder, config)
        self._steps = Steps(
            store, self._inputs, settings.canary_share, settings.trial_rows, self.progress
        )
        self._counting = asyncio.Lock()
        self._read()

    def _read(self) -> None:
        """Take up what was committed."""
        self._cursor = Cursor.from_dict(self.store.ledger.state("cursor"))
        self.follower = Follower(self.store, self._models, self.settings.shares)
        self.follower.know(self.store.versions.tasks())
        # Requests of no known task that an earlier process had read and not made a task of.
        latest = self.store.ledger.latest(self._cursor.last, UNKNOWN)
        known, unknown = self.follower.sort(latest)
        self._remember(known)
        self._unknown: deque[Recorded] = deque(unknown, UNKNOWN)
        search = self.store.ledger.state("search") or {}
        self._new_unknown = int(search.get("new", len(unknown)))
        self._searches = int(search.get("cut_off", 0))

    @property
    def states(self) -> Mapping[str, TaskState]:
        """What is known of each task."""
        return self.follower.states

    async def run(self, stop: asyncio.Event) -> None:
        """Go on until told to stop; a version that is being learned is finished first."""
        learning: asyncio.Task[Outcome | str] | None = None
        with self.store.run("keeper", "loop", {}):
            while not stop.is_set():
                read = await self._round(stop)
                if learning is not None and learning.done():
                    learning.result()
                    learning = None
                if learning is None and (name := self.next_to_learn()) is not None:
                    learning = asyncio.create_task(self.learn(name))
                if read < self.settings.batch:
                    await _wait(stop, self.settings.every)
            if learning is not None:
                await learning

    async def _round(self, stop: asyncio.Event) -> int:
        """:meth:`fold`; where the store fails, go back to the last commit and try again later."""
        try:
            return await self.fold()
        except StoreError as error:
            self.progress.say(f"The store fails, tried again in {PAUSE:.0f} s: {error.message}")
        await _wait(stop, PAUSE)
        async with self._counting:
            with contextlib.suppress(StoreError):
                await asyncio.to_thread(self._read)
        return 0

    async def once(self) -> list[tuple[str, Outcome | str]]:
        """Read all traffic that is there, and learn each task that is due, once."""
        done: list[tuple[str, Outcome | str]] = []
        with self.store.run("keeper", "loop", {}):
            while await self.fold():
                pass
            await asyncio.to_thread(self.discover)
            tried: set[str] = set()
            while (name := self.next_to_learn(tried)) is not None:
                tried.add(name)
                done.append((name, await self.learn(name)))
        return done

    async def fold(self) -> int:
        """One round: take in the next requests and move pointers; how many requests there were."""
        async with self._counting:
            return await self._fold()

    async def _fold(self) -> int:
        ledger, versions = self.store.ledger, self.store.versions
        rows, cursor = await asyncio.to_thread(
            ledger.traffic_after, self._cursor, self.settings.batch
        )
        if rows:
            self.follower.know(await asyncio.to_thread(versions.tasks))
            pointers = await asyncio.to_thread(versions.pointers)
            known, days, unknown = await self.follower.follow(rows, pointers)
            self._remember(known)
            self._unknown.extend(unknown)
            self._new_unknown += len(unknown)
            checks = [item.bought for item in known if item.bought is not None]
            await asyncio.to_thread(self._commit, cursor, days, checks)
        await asyncio.to_thread(self._take_steps)
        if self._new_unknown >= self.settings.found_from:
            await asyncio.to_thread(self.discover)
        return len(rows)

    def _remember(self, known: Sequence[Item]) -> None:
        for item in known:
            prompt = self.follower.definitions[item.task].prompt
            self._inputs.add(item.task, [Template(prompt).input_text(item.values)])

    def _commit(
        self,
        cursor: Cursor,
        days: Sequence[Day] = (),
        checks: Sequence[Check] = (),
        tasks: Mapping[str, Mapping[str, Any]] | None = None,
    ) -> None:
        states = {f"task {name}": state.to_dict() for name, state in self.states.items()}
        states["cursor"] = cursor.to_dict()
        states["search"] = {"new": self._new_unknown, "cut_off": self._searches}
        self.store.ledger.commit(states, days, checks, tasks)
        self._cursor = cursor

    def _take_steps(self) -> None:
        self._steps.take(self.states, lambda: self._commit(self._cursor))

    # Tasks.

    def discover(self) -> list[FoundTask]:
        """Find new tasks among the requests that belong to none; returns them."""
        fewest = self.settings.found_from
        most = max(UNKNOWN >> max(0, self._searches - CUT_OFF), 4 * fewest)
        self._searches += 1  # committed, so that one which takes too long is made shorter
        self._commit(self._cursor)
        known = {n: (d.system, d.prompt) for n, d in self.follower.definitions.items()}
        rows = list(self._unknown)[-most:]
        found = [
            task
            for task in find_tasks(rows, fewest=fewest, known=known, estimate=False)
            if task.name not in known
        ]
        self._new_unknown = self._searches = 0
        if found:
            self._adopt({task.name: self.definition_of(task) for task in found}, rows)
        for task in found:
            self.progress.say(f"New task {task.name}: {task.kind}, {task.requests} requests")
        return found

    def _adopt(self, new: Mapping[str, Mapping[str, Any]], rows: Sequence[Recorded]) -> None:
        """Take new tasks in, with the requests that came before they were known, in one step."""
        tasks = self.store.versions.tasks()
        tasks |= {name: KnownTask(name, values, {}) for name, values in new.items()}
        self.follower.know(tasks)
        known, unknown = self.follower.sort(rows)
        days: dict[tuple[str, int], Day] = {}
        for item in known:
            self.follower.count(item, None, days)
        self._unknown = deque(unknown, UNKNOWN)
        self._commit(self._cursor, list(days.values()), tasks=new)

    def definition_of(self, task: FoundTask) -> dict[str, Any]:
        """What the store keeps of a found task."""
        asked = max(task.models, key=lambda name: task.models[name])
        return {
            "prompt": task.prompt,
            "system": task.system,
            "kind": task.kind,
            "labels": list(task.labels),
            "large": large_of(asked, self.config),
        }

    def next_to_learn(self, tried: Collection[str] = ()) -> str | None:
        """The most expensive task that is due, or None."""
        pointers = self.store.versions.pointers()
        due = [
            name
            for name, state in self.states.items()
            if name not in tried and self._is_due(name, state, pointers.get(name))
        ]
        states = self.states
        return max(due, key=lambda n: (states[n].attempt is not None, states[n].rows), default=None)

    def _is_due(self, name: str, state: TaskState, pointer: Pointer | None) -> bool:
        settings = self.settings
        kind = self.kinds().get(name)
        marks = self.follower.marks[name]
        if not (kind == "text" or Kind(kind or "").learned) or marks.get("local_only"):
            return False
        if settings.only and name not in settings.only:
            return False
        if settings.above and (state.each or 0.0) * state.rows < settings.above:
            return False
        if pointer is not None and (pointer.shadow is not None or pointer.canary is not None):
            return False
        if state.made is not None:
            return False
        if state.attempt is not None:
            return True
        factor = MORE
        if pointer is not None and pointer.serving is not None:
            factor = settings.growth
            if self._serves_all(name, pointer.serving):
                return False
        tried = 0 if kind == "text" and state.scope not in ("", scope_of(marks)) else state.tried
        return state.rows >= settings.fewest and state.rows >= factor * tried

    def _serves_all(self, name: str, number: int) -> bool:
        """Whether no version could serve clearly more."""
        certificate = self.store.versions.version(name, number).certificate
        return float(certificate.get("coverage", 0.0)) + BETTER > 1.0

    def kinds(self) -> dict[str, str]:
        """The kind of each task."""
        tasks = self.store.versions.tasks()
        return {name: str(task.definition.get("kind", "")) for name, task in tasks.items()}

    async def learn(self, name: str) -> Outcome | str:
        """Learn a task now; a new version enters in shadow. A failure is said, and why is returned.

        What is learned from is fixed and committed first: who is killed and starts again learns from the
        same requests, and so buys nothing else.
        """
        state = self.states[name]
        days = await asyncio.to_thread(self.store.ledger.days, name)
        bought = sum(day.lessons for day in days)
        first = Attempt(state.rows, self._cursor.last, bought)
        attempt = state.attempt = first if state.attempt is None else state.attempt.again(bought)
        await self._commit_states()
        try:
            outcome = await asyncio.to_thread(self._learn, name, attempt)
        except StoreError as error:  # as in a round: the attempt is taken up again
            self.progress.say(f"{name}: not learned yet: {error.message}")
            return error.message
        except (InputError, ModelError, ConfigError, BudgetSpent) as error:
            self._close_attempt(name, attempt)
            await self._commit_states()
            self.progress.say(f"{name}: not learned: {error.message}")
            return error.message
        self.progress.say(f"{name}: {outcome.reason}, coverage {outcome.coverage:.0%}")
        if self._close_attempt(name, attempt) and outcome.version is not None:
            self.states[name].made = outcome.to_dict()
        await self._commit_states()
        async with self._counting:
            await asyncio.to_thread(self._take_steps)
        return outcome

    def _close_attempt(self, name: str, attempt: Attempt) -> bool:
        """Note that it was made; False when an alarm has overtaken it."""
        state = self.states[name]
        if state.attempt is None:
            return False
        state.attempt, state.tried = None, attempt.rows
        state.scope = scope_of(self.follower.marks[name])
        return True

    async def _commit_states(self) -> None:
        async with self._counting:  # between rounds: states and cursor belong together
            await asyncio.to_thread(self._commit, self._cursor)

    def _learn(self, name: str, attempt: Attempt) -> Outcome:
        definition = self.follower.definitions[name]
        since = self.states[name].since
        rows = list(self.store.ledger.traffic_since(since, attempt.last))
        small = [row.id for row in rows if row.model.startswith(name + MARK)]
        settings, most = self._effort(attempt)
        checks = self.store.ledger.checks_of(small)
        marks = self.follower.marks[name]
        pointer = self.store.versions.pointers().get(name)
        in_service = None
        if pointer is not None and pointer.serving is not None:
            in_service = self.store.versions.version(name, pointer.serving)
        large = self.follower.large(name)
        if self.kinds().get(name) == "text":
            judge = self._models.load(settings.judge) if settings.judge else large
            task = TextTask(definition, marks, self.store, large, judge, settings, self.config)
            return learn_text(
                task if most == MOST_ROWS else replace(task, most=most), rows, checks=checks,
                since=since, in_service=in_service, progress=self.progress,
            )  # fmt: skip
        known = lessons(definition, rows, checks=checks, most=most)
        sent = [to_send(request, marks) for request in known.requests]
        known = replace(known, requests=sent)
        return learn(
            definition,
            known,
            self.store,
            large,
            settings,
            config=self.config,
            since=since,
            in_service=in_service,
            progress=self.progress,
        )

    def _effort(self, attempt: Attempt) -> tuple[LearnSettings, int]:
        """How much is learned, by how often that was cut off: settings, and requests at most."""
        settings, beyond = self.settings.learn, attempt.cut_off - CUT_OFF
        if beyond < 0:
            return settings, MOST_ROWS
        settings = replace(settings, students=(settings.students or (QUICK_STUDENT,))[:1])
        return settings, max(MOST_ROWS >> beyond, 2 * self.settings.fewest)


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    try:
        async with asyncio.timeout(seconds):
            await stop.wait()
    except TimeoutError:
        return
