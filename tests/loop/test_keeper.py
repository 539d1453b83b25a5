"""The keeper may die at any step: it goes on where it was, and counts and pays nothing twice."""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilotfish.config import Config, Price
from pilotfish.errors import StoreError
from pilotfish.loop import keeper
from pilotfish.loop.following import Shares
from pilotfish.loop.keeper import Keeper, KeeperSettings
from pilotfish.loop.learn import LearnSettings
from pilotfish.loop.learned import LearnedModel
from pilotfish.loop.lessons import large_of
from pilotfish.loop.trial import CANARY, SHADOW, Evidence, TaskState, verdict
from pilotfish.models.calls import wait
from pilotfish.models.fake import FakeModel
from pilotfish.models.load import Models
from pilotfish.records import Completion, Request
from pilotfish.store.ledger import Day, Ledger
from pilotfish.store.store import Store, open_store
from pilotfish.store.traffic import Exchange
from pilotfish.store.versions import Versions
from tests.loop.traffic import large_answer, mixed

ROUNDS, PER_ROUND = 16, 100
TASK = "which-team-handle"
SETTINGS = KeeperSettings(
    learn=LearnSettings(students=("tfidf-embedding-linear",), folder=Path("learned")),
    shares=Shares(serving=0.3, canary=0.5),
    fewest=150,
    trial_rows=40,
    canary_share=0.5,
    batch=100,
)
PRICE = Price(input=2.0, output=8.0)


class Killed(BaseException):
    """Stands for SIGKILL: nothing catches it."""


class World:
    """A gateway without sockets: a learned model that answers, and its record."""

    def __init__(self, folder: Path) -> None:
        self.drifted = False
        self.url = f"sqlite:///{folder}/s.db"
        self.store = open_store(self.url)
        self.large = FakeModel(self._says, name="large", price=PRICE)
        self.model = LearnedModel(self.large, self.store, name="auto", draw=random.Random(1).random)
        self.checker = FakeModel(self._says, name="large", price=PRICE)  # whom the keeper asks
        self.numbers = itertools.count()
        self.keeper = self.start()

    def _says(self, request: Request) -> str:
        said = large_answer(request.prompt)
        return "shipping" if self.drifted and said == "billing" else said

    def start(self) -> Keeper:
        config = Config(store=self.url, models={"auto": {"kind": "learned", "models": ["large"]}})
        models = Models(config)
        models.load = lambda spec: self.checker  # type: ignore[method-assign]
        return Keeper(self.store, config, SETTINGS, models=models)

    def traffic(self, count: int, seed: int) -> None:
        """Send requests of one task and record them, as the gateway does."""
        requests = [Request.of(prompt) for prompt, _ in mixed(count, (1, 0, 0, 0), seed)]

        async def ask() -> list[Completion]:
            return [await self.model.complete(request) for request in requests]

        exchanges = []
        for request, completion in zip(requests, wait(ask()), strict=True):
            number = next(self.numbers)
            exchanges.append(
                Exchange(
                    id=f"req_{number:024x}", time=1_700_000_000.0 + number, caller="", task="",
                    asked="auto", endpoint="chat", streamed=False, status=200, error="",
                    latency=0.1, first_byte=None, request=request, completion=completion,
                    baseline=None,
                )
            )  # fmt: skip
        self.store.traffic.add(exchanges)

    def round(self) -> None:
        """What the keeper does in a while; a kill starts a new one in its place."""

        async def work() -> None:
            while await self.keeper.fold():
                pass
            if (name := self.keeper.next_to_learn()) is not None:
                await self.keeper.learn(name)

        while True:
            try:
                asyncio.run(work())
                break
            except Killed:
                self.keeper = self.start()
        self.look()

    def look(self) -> None:
        """What the model does twice a second: see which version is in service, and have it loaded."""
        self.model._pointers._read = -1e9  # as if half a second had gone by
        wait(self.model._refresh())
        ends = time.monotonic() + 20
        while any(loaded is None for loaded in self.model._loaded.values()):
            assert time.monotonic() < ends
            time.sleep(0.005)

    def story(self) -> list[str]:
        """Learn, serve, drift, alarm, learn again."""
        for seed in range(ROUNDS):
            self.drifted = seed >= ROUNDS // 2
            self.traffic(PER_ROUND, seed)
            self.round()
        return [event.kind for event in self.store.versions.events(TASK)]


@pytest.fixture
def world(tmp_path: Path) -> World:
    made = World(tmp_path)
    yield made  # type: ignore[misc]
    made.store.close()


CLOSED_LOOP = ["shadow", "canary", "promoted", "alarm", "shadow", "canary", "promoted"]


def kill_at(monkeypatch: pytest.MonkeyPatch, seed: int, *, after: bool) -> Counter[str]:
    """Die at a third of the keeper's writes, just before or just after them."""
    kills: Counter[str] = Counter()
    rng = random.Random(seed)

    def deadly(kind: type, name: str) -> None:
        whole: Callable[..., Any] = getattr(kind, name)

        def dying(self: Any, *args: Any, **options: Any) -> Any:
            dies = rng.random() < 0.33
            if dies and not after:
                kills[name] += 1
                raise Killed
            result = whole(self, *args, **options)
            if dies:
                kills[name] += 1
                raise Killed
            return result

        monkeypatch.setattr(kind, name, dying)

    for kind, name in (
        (Ledger, "commit"),
        (Versions, "move"),
        (Versions, "add"),
        (Versions, "keep_task"),
    ):
        deadly(kind, name)
    return kills


def test_the_loop_closes(world: World) -> None:
    assert world.story() == CLOSED_LOOP
    days = world.store.ledger.days(TASK)
    assert sum(day.requests for day in days) == ROUNDS * PER_ROUND
    assert sum(day.checks for day in days) == len(world.store.checks.recent(10_000))


@pytest.mark.parametrize(("seed", "after"), [(0, False), (1, True)])
def test_killed_at_any_write_it_goes_on(
    world: World, monkeypatch: pytest.MonkeyPatch, seed: int, after: bool
) -> None:
    kills = kill_at(monkeypatch, seed, after=after)
    kinds = world.story()
    assert sum(kills.values()) >= 5
    assert "alarm" in kinds
    assert kinds.index("alarm") > kinds.index("promoted")
    assert kinds.count("promoted") >= 2
    # Every request is counted once, every check made once, and no call was paid for twice.
    days = world.store.ledger.days(TASK)
    assert sum(day.requests for day in days) == ROUNDS * PER_ROUND
    checks = world.store.checks.recent(10_000)
    assert len({check.request_id for check in checks}) == len(checks)
    assert len(world.checker.requests) == world.store.count()


def test_a_step_waits_for_its_evidence() -> None:
    evidence = Evidence.start(1, SHADOW, target=0.05, delta=0.05)
    for i in range(99):
        evidence.add(i % 25 == 0, f"r{i}", float(i))
    assert verdict(evidence, 100) == ""
    evidence.add(False, "r99", 99.0)
    assert verdict(evidence, 100) == "pass"
    broken = Evidence.start(1, CANARY, target=0.05, delta=0.05)
    for i in range(30):
        broken.add(i % 3 == 0, f"r{i}", float(i))
    assert verdict(broken, 100) == "refuse"
    assert broken.summary()["p_value"] <= 0.05
    assert broken.summary()["requests"][0] == "r0"


def test_the_beginning_of_a_drift_is_dated() -> None:
    rng = random.Random(0)
    starts = []
    for _ in range(40):
        evidence = Evidence.start(1, "serving", target=0.05, delta=0.05)
        for i in range(2000):
            evidence.count_row()
            evidence.add(rng.random() < (0.02 if i < 1000 else 0.3), f"r{i}", float(i))
            if evidence.watch.alarm:
                break
        starts.append(evidence.since)
        assert evidence.rows_since == i - evidence.since + 1
    starts.sort()
    assert starts[4] >= 960
    assert starts[-4] <= 1040


def test_states_go_through_json_exactly() -> None:
    state = TaskState(since=3.0, rows=5, tried=2, large_cost=0.5, large_priced=4)
    state.trial = Evidence.start(2, SHADOW, 0.05, 0.05)
    state.trial.add(True, "r", 1.0)
    assert TaskState.from_dict(state.to_dict()).to_dict() == state.to_dict()
    assert TaskState.from_dict(None) == TaskState()
    assert state.each == 0.125


def test_the_large_model_behind_a_name() -> None:
    models = {
        "auto": {"kind": "learned", "models": ["big", "here"]},
        "both": {"kind": "cascade", "models": ["small", "big"]},
        "named": {"kind": "router", "models": ["a", "b"], "large": "b"},
        "big": {"backend": "openai"},
    }
    config = Config(models=models)
    assert [large_of(n, config) for n in ("auto", "both", "named", "big")] == [
        "big",
        "big",
        "b",
        "big",
    ]
    assert large_of("openai:gpt", config) == "openai:gpt"


def hide(text: str) -> str:
    """A redaction for the test: the fillers are private."""
    return text.replace("hello", "[private]")


def test_what_is_to_be_redacted_is_redacted_for_lessons_and_checks_too(world: World) -> None:
    for seed in range(2):
        world.traffic(100, seed)
        world.round()
    world.store.versions.keep_task(TASK, marks={"redact": "tests.loop.test_keeper:hide"})
    for seed in range(2, 12):
        world.traffic(100, seed)
        world.round()
    assert "promoted" in [event.kind for event in world.store.versions.events(TASK)]
    assert len(world.checker.requests) > 20
    asked = [request.prompt for request in world.checker.requests]
    assert not [text for text in asked if "hello" in text]
    assert [text for text in asked if "[private]" in text]


def test_a_store_that_fails_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The evidence of a round that could not be committed is not counted twice."""
    world.traffic(100, 0)
    world.round()
    world.traffic(100, 1)
    whole, failures = Ledger.commit, iter([True])

    def failing(self: Ledger, *args: Any, **options: Any) -> None:
        if next(failures, False):
            raise StoreError("The disk is full.")
        whole(self, *args, **options)

    monkeypatch.setattr(Ledger, "commit", failing)
    monkeypatch.setattr(keeper, "PAUSE", 0.01)
    stop = asyncio.Event()

    async def run() -> None:
        running = asyncio.create_task(world.keeper.run(stop))
        while sum(day.requests for day in world.store.ledger.days(TASK)) < 200:
            await asyncio.sleep(0.02)
        stop.set()
        await running

    asyncio.run(asyncio.wait_for(run(), 20))
    assert next(failures, None) is None
    assert sum(day.requests for day in world.store.ledger.days(TASK)) == 200


def test_local_only_tasks_are_never_checked_nor_learned(world: World) -> None:
    for seed in range(4):
        world.traffic(100, seed)
        world.round()
    world.store.versions.keep_task(TASK, marks={"local_only": True})
    asked = len(world.checker.requests)
    version = world.store.versions.versions(TASK)[0].version
    world.store.versions.move(
        TASK, "promoted", version=version, evidence={}, serving=version, shadow=None
    )
    world.look()
    for seed in range(4, 10):
        world.traffic(100, seed)
        world.round()
    assert len(world.checker.requests) == asked
    assert isinstance(world.store, Store)
    assert isinstance(world.store.ledger.days(TASK)[0], Day)
