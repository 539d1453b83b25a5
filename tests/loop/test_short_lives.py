"""A keeper that never lives long enough to learn in peace learns all the same, and pays nothing twice."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pilotfish.loop.keeper import KeeperSettings
from pilotfish.models.fake_server import FakeServer
from pilotfish.records import Completion, Request
from pilotfish.store.artifacts import load_artifact
from pilotfish.store.store import open_store
from pilotfish.store.traffic import Exchange
from tests.loop.closing import CONFIG, TASK, wait_until
from tests.loop.test_killed import UNDER_WAY, Large
from tests.loop.traffic import TEAM_PROMPT, TEAMS, large_answer, ticket

ROWS = 1200
LIVES = 60  # at most; it takes about a dozen
ANSWERS = 10  # stored in a life, and then it ends
MOST_STORED = (
    ANSWERS - 1 + 16
)  # by a life whose last answers came as one group of all that were under way
OPTIONS = ("--fewest", "150", "--nice", "0")


def fill(folder: Path, upstream: str) -> None:
    """Recorded traffic of one task; to four in five requests the large model's answer is missing."""
    text = CONFIG.format(store=f"{folder}/loop.db", url=upstream)
    (folder / "pilotfish.toml").write_text(text)
    rng = random.Random(0)
    exchanges = []
    for i in range(ROWS):
        prompt = TEAM_PROMPT.format(f"{ticket(rng, rng.choice(list(TEAMS)))} {i}")
        missing = bool(i % 5)
        model = f"{TASK}@9" if missing else "large"
        exchanges.append(
            Exchange(
                id=f"req_{i:024x}", time=1_700_000_000.0 + i, caller="", task="", asked="auto",
                endpoint="chat", streamed=False, status=200, error="", latency=0.2, first_byte=None,
                request=Request.of(prompt), baseline=0.001,
                completion=Completion(large_answer(prompt), model, cost=0.0 if missing else 0.001),
            )
        )  # fmt: skip
    with open_store(f"sqlite:///{folder}/loop.db") as store:
        store.traffic.add(exchanges)


@contextmanager
def keeping(folder: Path) -> Iterator[list[float]]:
    """The keeper with its short lives; gives the times of its deaths, in the end."""
    words = ("-m", "tests.loop.dying", json.dumps([["short", str(ANSWERS)]] * LIVES), *OPTIONS)
    deaths: list[float] = []
    with (
        (folder / "learn.log").open("w") as log,
        (folder / "deaths").open("w") as said,
        subprocess.Popen(
            [sys.executable, *words, "--out", str(folder)],
            env={**os.environ, "PILOTFISH_CONFIG": str(folder / "pilotfish.toml")},
            stdout=said,
            stderr=log,
        ) as process,
    ):
        try:
            yield deaths
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(60)
    deaths += [json.loads(line)["time"] for line in (folder / "deaths").read_text().splitlines()]


def test_it_learns_in_lives_that_are_too_short_for_a_race(tmp_path: Path) -> None:
    """Each life is long enough for one student of the race, or for a few answers of the large model."""
    large = Large()
    with FakeServer(large) as upstream:
        fill(tmp_path, upstream.base_url)
        with open_store(f"sqlite:///{tmp_path}/loop.db") as store:
            with keeping(tmp_path) as deaths:
                wait_until(lambda: bool(store.versions.events(TASK, kind="shadow")), 120)
                wait_until(lambda: sum(day.requests for day in store.ledger.days()) == ROWS)
            calls = sum(map(len, large.asked.values()))
            assert calls - len(large.again()) == store.count() >= 50
            assert store.count() / MOST_STORED - 1 <= len(deaths) < LIVES
            (version,) = store.versions.versions(TASK)
            rows = load_artifact(Path(version.artifact)).card.learned_from["rows"]
            # All that had been read when the first life began to learn; the other rows came too late.
            assert rows == KeeperSettings().batch
            assert sum(day.lessons for day in store.ledger.days()) == store.count()
    for first, _ in large.again():
        assert any(0 <= at - first < UNDER_WAY for at in deaths)
