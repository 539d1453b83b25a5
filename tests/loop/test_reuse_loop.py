"""Reused answers through the whole loop, with a large model behind real sockets that also judges."""

from __future__ import annotations

import dataclasses
import itertools
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from pilotfish.config import Config
from pilotfish.loop.following import Shares
from pilotfish.loop.forgetting import withdraw_reused
from pilotfish.loop.keeper import Keeper, KeeperSettings
from pilotfish.loop.learn import LearnSettings
from pilotfish.loop.learned import LearnedModel
from pilotfish.models.calls import stream, wait
from pilotfish.models.fake_server import FakeServer
from pilotfish.models.load import load_model
from pilotfish.records import Completion, Request
from pilotfish.store.store import open_store
from pilotfish.store.traffic import Exchange
from tests.loop import faq

PRICE = {"input": 2.0, "output": 8.0, "date": "2026-11-01"}
SETTINGS = KeeperSettings(
    learn=LearnSettings(folder=Path("learned")),
    shares=Shares(serving=0.3, canary=0.5, verdicts=40),
    fewest=500,
    growth=100.0,
    trial_rows=40,
    canary_share=0.5,
    batch=200,
)


class Shop:
    """A gateway without its HTTP side: a learned model, its record, and a keeper beside it."""

    def __init__(self, folder: Path, upstream: FakeServer, large: faq.Large) -> None:
        self.large = large
        url = f"sqlite:///{folder}/s.db"
        table = {
            "backend": "openai", "model": "scripted", "base_url": upstream.base_url, "price": PRICE,
        }  # fmt: skip
        self.config = Config(
            store=url, models={"auto": {"kind": "learned", "models": ["large"]}, "large": table}
        )
        self.store = open_store(url)
        model = load_model("auto", self.config)
        assert isinstance(model, LearnedModel)
        self.model = model
        self.keeper = Keeper(self.store, self.config, SETTINGS)
        self.numbers = itertools.count()
        self.right: list[tuple[bool, bool]] = []  # answered small, and as the large model would now

    def send(self, count: int, seed: int) -> None:
        """Ask, and record as the gateway does."""
        rng = random.Random(seed)
        asked = [Request.of(faq.question(rng)[0], system=faq.SYSTEM) for _ in range(count)]

        async def ask() -> list[Completion]:
            return [await self.model.complete(request) for request in asked]

        exchanges = []
        for request, completion in zip(asked, wait(ask()), strict=True):
            truth = faq.answer(request.prompt, self.large.era)
            small = "@" in completion.model
            self.right.append((small, faq.equivalent(completion.text, truth)))
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
        """What the keeper does in a while."""

        async def work() -> None:
            while await self.keeper.fold():
                pass
            if (name := self.keeper.next_to_learn()) is not None:
                await self.keeper.learn(name)

        wait(work())
        self.look()

    def look(self) -> None:
        """As if half a second had gone by, and what is new were loaded."""
        self.model._pointers._read = -1e9
        wait(self.model._refresh())
        wanted = [key for key, loaded in self.model._loaded.items() if loaded is None]
        self.model._load(wanted)

    @property
    def task(self) -> str:
        (name,) = self.store.versions.tasks()
        return name

    @property
    def kinds(self) -> list[str]:
        return [event.kind for event in self.store.versions.events(self.task)]


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Shop]:
    monkeypatch.setattr(faq, "TAILS", 0.0)  # one template: the question is all there is
    large = faq.Large()
    with FakeServer(large, keep=False) as upstream:
        made = Shop(tmp_path, upstream, large)
        yield made
        for model in (made.model, made.model.large, made.keeper.follower.large(made.task)):
            wait(model.aclose())  # type: ignore[attr-defined]
        made.store.close()


def learned(shop: Shop) -> None:
    """Traffic until a version is in service."""
    shop.send(300, 0)
    shop.round()
    shop.store.versions.keep_task(shop.task, marks={"reuse": "all"})
    for seed in range(1, 12):
        shop.send(200, seed)
        shop.round()
        if "promoted" in shop.kinds:
            return
    raise AssertionError(shop.kinds)


def test_learned_served_watched_and_learned_again(shop: Shop) -> None:
    learned(shop)
    assert shop.kinds == ["shadow", "canary", "promoted"]
    shop.right.clear()
    for seed in range(20, 24):
        shop.send(150, seed)
        shop.round()
    small = [right for small, right in shop.right if small]
    assert len(small) > 0.5 * len(shop.right)
    assert sum(small) >= 0.95 * len(small)
    # The same answer, streamed: in one piece, with its completion.
    request = Request.of("When is your shop open?", system=faq.SYSTEM)

    async def pieces() -> list[Completion | None]:
        return [chunk.completion async for chunk in stream(shop.model, request)]

    (whole,) = wait(pieces())
    assert whole is not None
    assert whole == wait(shop.model.complete(request))
    assert whole.model == f"{shop.task}@1"
    # What the shop says changes: the alarm comes, and the next version says the new thing.
    shop.large.era = "-new"
    for seed in range(30, 60):
        shop.send(150, seed)
        shop.round()
        if shop.kinds.count("promoted") == 2:
            break
    assert shop.kinds[3:] == ["alarm", "shadow", "canary", "promoted"]
    shop.right.clear()
    shop.send(200, 99)
    small = [right for small, right in shop.right if small]
    assert len(small) > 0.5 * len(shop.right)
    assert sum(small) >= 0.95 * len(small)
    # Every paid call is in the store once: users' answers, checks and lessons, verdicts.
    shop.round()
    users = sum(row.model == "large" for row in shop.store.ledger.traffic_since(0.0))
    assert shop.large.answers + shop.large.verdicts == users + shop.store.count()
    days = shop.store.ledger.days(shop.task)
    assert sum(day.judge_cost for day in days) > 0
    assert sum(day.checks for day in days) == len(shop.store.checks.recent(10_000))


def test_what_is_forgotten_is_given_out_no_more(shop: Shop) -> None:
    learned(shop)
    version = shop.store.versions.version(shop.task, 1)
    small = shop.model._loaded[shop.task, 1]
    assert small is not None
    victim = small.small.ids[0]  # type: ignore[attr-defined]
    said = small.small.answers[0]  # type: ignore[attr-defined]
    gone = shop.store.ledger.forget(request_id=victim)
    assert gone.versions == [(shop.task, 1)]
    assert withdraw_reused(shop.store, gone.versions) == [f"{shop.task}@1"]
    assert withdraw_reused(shop.store, gone.versions) == [f"{shop.task}@1"]  # again: nothing new
    assert shop.kinds.count("withdrawn") == 1
    assert not Path(version.artifact).exists()
    shop.look()
    shop.right.clear()
    shop.send(50, 7)
    assert not [small for small, _ in shop.right if small]
    # No stored verdict holds it, and the next version is made without it, at once.
    shop.round()
    shop.round()
    assert "shadow" in shop.kinds[shop.kinds.index("withdrawn") :]
    after = shop.store.versions.version(shop.task, 2)
    text = (Path(after.artifact) / "student.json").read_text()
    assert victim not in text
    about = [
        request_id
        for batch in shop.store.calls()
        for request in batch.column("request").to_pylist()
        for request_id in ([victim] if victim in request else [])
    ]
    assert not about
    assert said  # it was something


def test_marks_close_a_version_in_service(shop: Shop) -> None:
    learned(shop)
    task = shop.task
    request = Request.of("When is your shop open?", system=faq.SYSTEM)
    assert wait(shop.model.complete(request)).model == f"{task}@1"
    drawn = dataclasses.replace(request, params={"temperature": 0.9})
    answer = wait(shop.model.complete(drawn))
    assert (answer.model, answer.decisions[0].reason) == ("large", "sampled")
    shop.store.versions.keep_task(task, marks={"reuse": "user"})
    shop.look()
    answer = wait(shop.model.complete(request))
    assert (answer.model, answer.decisions[0].reason) == ("large", "not-shared")
