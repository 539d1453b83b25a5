"""Drives the closed loop over sockets: scripted large model, gateway, ``learn --watch``, clients."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from pilotfish.models.fake_server import FakeServer
from pilotfish.store.store import Store, open_store
from pilotfish.store.versions import Event
from tests.loop import traffic
from tests.loop.traffic import large_answer

TASK = "which-team-handle"
CLIENTS = 8
CONFIG = """
store = "sqlite:///{store}"

[models.auto]
kind = "learned"
models = ["large"]

[models.large]
backend = "openai"
model = "scripted"
base_url = "{url}"
price = {{input = 2.0, output = 8.0, date = "2026-11-01"}}
"""


@dataclass
class Sent:
    """One request: which task, what came back, what the large model would have said then."""

    number: int
    label: bool
    affected: bool
    small: bool
    agreed: bool
    ended: float


@dataclass
class Report:
    """What the run showed."""

    requests: int = 0
    failed: int = 0
    recorded: int = 0
    agreement: float = 0.0
    settled: tuple[float, float] = (0.0, 0.0)
    last: tuple[float, float] = (0.0, 0.0)
    affected_until_alarm: int | None = None
    events: list[Event] = field(default_factory=list)
    saving: float = 0.0
    paid_twice: int = 0
    counted: int = 0
    kills: int = 0
    large_calls: int = 0
    seconds: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = {name: value for name, value in vars(self).items() if name != "events"}
        return plain | {"events": Counter(event.kind for event in self.events)}


class Large:
    """The scripted large model; from some moment on, what was billing is shipping."""

    def __init__(self) -> None:
        self.drifted = False
        self.asked: Counter[str] = Counter()
        self._lock = threading.Lock()

    def says(self, prompt: str) -> str:
        """What it says now."""
        said = large_answer(prompt)
        return "shipping" if self.drifted and said == "billing" else said

    def __call__(self, body: dict[str, Any]) -> str:
        prompt = str(body["messages"][-1]["content"])
        with self._lock:
            self.asked[prompt] += 1
        return self.says(prompt)


def drive(
    folder: Path,
    before: int,
    after: int,
    options: tuple[str, ...] = (),
    pace: float = 0.0,
    kill_every: float = 0.0,
) -> Report:
    """Run the whole story.

    Args:
        folder: Where configuration, store and artifacts go.
        before: Requests before the meaning of a label changes; more are sent until the version is in
            service and a fifth of these has followed.
        after: Requests after it; more are sent until the next version is in service.
        options: For ``pilotfish learn --watch``.
        pace: Seconds that each client waits between two requests.
        kill_every: Seconds after which the learning process is killed and started again; 0: never.
    """
    began = time.monotonic()
    large, report = Large(), Report()
    sent: list[Sent] = []
    with ExitStack() as stack:
        upstream = stack.enter_context(FakeServer(large, keep=False))
        store_file = folder / "loop.db"
        text = CONFIG.format(store=store_file, url=upstream.base_url)
        (folder / "pilotfish.toml").write_text(text)
        store = stack.enter_context(open_store(f"sqlite:///{store_file}"))
        url = stack.enter_context(gateway(folder))
        keeper = Keeping(folder, options)
        stack.callback(keeper.stop)
        clients = stack.enter_context(Clients(url, large, sent, pace))
        if kill_every:
            stack.enter_context(keeper.killed(kill_every))
        clients.send_until(lambda: serving(store) is not None, least=before)
        clients.send(before // 5)
        report.settled = shares(sent[-(before // 5) :])
        large.drifted = True
        drift_at = len(sent)
        clients.send_until(lambda: bool(store.versions.events(TASK, kind="alarm")), least=1)
        alarm_at = store.versions.events(TASK, kind="alarm")[0].time
        clients.send_until(lambda: serving(store) is not None, least=after)
        clients.send(after // 5)
        report.last = shares(sent[-(after // 5) :])
        wait_until(lambda: store.traffic.count() >= len(sent) + clients.failed)
        wait_until(lambda: counted(store) >= len(sent))
        keeper.stop()
        report.requests, report.failed = len(sent) + clients.failed, clients.failed
        report.recorded = store.traffic.count()
        report.counted = counted(store)
        report.events = store.versions.events(TASK)
        report.saving = sum(day.saving for day in store.ledger.days())
        report.agreement = sum(one.agreed for one in sent) / len(sent)
        report.affected_until_alarm = sum(
            one.affected for one in sent[drift_at:] if one.ended <= alarm_at
        )
        report.large_calls = upstream.count
        report.paid_twice = upstream.count - paid(store)
        report.kills = keeper.kills
    report.seconds = time.monotonic() - began
    return report


def command(folder: Path, *words: str, **pipes: Any) -> subprocess.Popen[str]:
    """A process of the command line, in the folder."""
    environment = {**os.environ, "PILOTFISH_CONFIG": str(folder / "pilotfish.toml")}
    return subprocess.Popen(
        [sys.executable, "-m", "pilotfish.cli.main", *words],
        cwd=folder, env=environment, text=True, **pipes,
    )  # fmt: skip


@contextmanager
def gateway(folder: Path) -> Iterator[str]:
    """A gateway process; gives its URL."""
    log = folder / "serve.log"
    with (
        log.open("w") as errors,
        command(
            folder, "serve", "--port", "0", "--json", stdout=subprocess.PIPE, stderr=errors
        ) as process,
    ):
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line, log.read_text()
        try:
            yield json.loads(line)["url"]
        finally:  # or a failing test would wait for it for ever
            process.send_signal(signal.SIGTERM)
            process.wait(30)


class Keeping:
    """``pilotfish learn --watch`` as a process, which may be killed and started again."""

    def __init__(self, folder: Path, options: tuple[str, ...]) -> None:
        self.kills = 0
        self._folder = folder
        self._options = options
        self._lock = threading.Lock()
        self._log = (folder / "learn.log").open("w")
        self._process: subprocess.Popen[str] | None = self._start()

    def _start(self) -> subprocess.Popen[str]:
        return command(self._folder, "learn", "--watch", *self._options, stderr=self._log)

    @contextmanager
    def killed(self, every: float) -> Iterator[None]:
        """Kill -9 it each so many seconds, at whatever it is doing, and start it again."""
        over = threading.Event()

        def work() -> None:
            while not over.wait(every):
                with self._lock:
                    if self._process is not None:
                        self._process.kill()
                        self._process.wait()
                        self.kills += 1
                        self._process = self._start()

        thread = threading.Thread(target=work)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()

    def stop(self) -> None:
        """Ask it to stop, and wait."""
        with self._lock:
            if self._process is not None:
                self._process.send_signal(signal.SIGTERM)
                self._process.wait(60)
                self._process = None
                self._log.close()


class Clients:
    """Several clients that send mixed requests at once."""

    def __init__(self, url: str, large: Large, sent: list[Sent], pace: float) -> None:
        self.failed = 0
        self._url = url
        self._large = large
        self._sent = sent
        self._pace = pace
        self._rng = random.Random(7)
        self._http = httpx.Client(timeout=30, limits=httpx.Limits(max_connections=CLIENTS))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def send_until(self, done: Any, *, least: int, most: int = 30_000) -> None:
        """Send at least so many, and on until it is done."""
        count = 0
        while count < least or not done():
            count += self.send(100)
            assert count < most, "the loop did not get on"

    def send(self, count: int) -> int:
        """Send so many requests of the four tasks."""
        prompts = []
        for _ in range(count):
            (template,) = self._rng.choices(list(traffic.SCRIPT), weights=(0.55, 0.15, 0.15, 0.15))
            team = self._rng.choice(list(traffic.TEAMS))
            prompts.append((template, template.format(traffic.ticket(self._rng, team))))
        with ThreadPoolExecutor(CLIENTS) as pool:
            for one in pool.map(self._one, prompts):
                if one is None:
                    self.failed += 1
                else:
                    self._sent.append(one)
        return count

    def _one(self, prompt: tuple[str, str]) -> Sent | None:
        template, text = prompt
        body = {"model": "auto", "messages": [{"role": "user", "content": text}]}
        if self._pace:
            time.sleep(self._pace)
        reply = self._http.post(f"{self._url}/chat/completions", json=body)
        if reply.status_code != 200:
            return None
        said = reply.json()
        label = template == traffic.TEAM_PROMPT
        return Sent(
            number=len(self._sent),
            label=label,
            affected=self._large.drifted and label and large_answer(text) == "billing",
            small="@" in said["model"],
            agreed=said["choices"][0]["message"]["content"] == self._large.says(text),
            ended=time.time(),
        )


def serving(store: Store) -> int | None:
    """The version of the closed-label task that is in service."""
    pointer = store.versions.pointers().get(TASK)
    return None if pointer is None else pointer.serving


def counted(store: Store) -> int:
    """Requests that the keeper has read and counted."""
    return sum(day.requests for day in store.ledger.days())


def paid(store: Store) -> int:
    """Calls of the large model that the store accounts for: answers to users, checks and lessons."""
    users = sum(row.model == "large" for row in store.ledger.traffic_since(0.0))
    return users + store.count()


def shares(sent: list[Sent]) -> tuple[float, float]:
    """Share of closed-label requests answered small, and their agreement with the large model."""
    labels = [one for one in sent if one.label]
    return (
        sum(one.small for one in labels) / len(labels),
        sum(one.agreed for one in labels) / len(labels),
    )


def wait_until(done: Any, seconds: float = 20.0) -> None:
    """Wait for it, but not for ever."""
    ends = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < ends
        time.sleep(0.05)
