"""A promotion is one row: every worker process of every gateway follows it within a second."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections import defaultdict
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

from pilotfish.config import Config
from pilotfish.loop.learn import LearnSettings, learn
from pilotfish.loop.lessons import Definition, lessons
from pilotfish.models.fake import FakeModel
from pilotfish.store.store import Store, open_store
from tests.gateway.running import serving
from tests.loop.closing import wait_until
from tests.loop.traffic import TEAM_PROMPT, mixed, recorded

TOML = """
store = {store!r}
[models.auto]
kind = "learned"
models = ["large"]
[models.large]
backend = "fake"
"""
GATEWAYS, WORKERS, MOVES = 2, 2, 4
WITHIN = 1.0  # seconds
PROMPT = TEAM_PROMPT.format("hello my invoice and the refund of the payment please")
ASK = json.dumps({"model": "auto", "messages": [{"role": "user", "content": PROMPT}]})


@dataclass
class Client:
    """One connection, and so one worker process, which is asked all the time.

    Attributes:
        worker: Its process id.
        seen: When each question was sent, and which model answered it.
    """

    connection: http.client.HTTPConnection
    worker: str
    seen: list[tuple[float, str]] = field(default_factory=list)

    @classmethod
    def of(cls, url: str) -> Client:
        address = urlsplit(url)
        connection = http.client.HTTPConnection(str(address.hostname), address.port, timeout=30)
        connection.request("GET", "/metrics")
        said = connection.getresponse().read().decode()
        found = re.search(r'pilotfish_start_time_seconds\{worker="(\d+)"', said)
        assert found is not None
        return cls(connection, found[1])

    def warm_up(self) -> None:
        """Wait until the worker has loaded its first version: that imports the libraries."""
        wait_until(lambda: "@" in self._answered_by(), 60)

    def _answered_by(self) -> str:
        self.connection.request("POST", "/v1/chat/completions", ASK)
        return str(json.loads(self.connection.getresponse().read())["model"])

    def ask(self, over: threading.Event) -> None:
        while not over.is_set():
            sent = time.monotonic()
            self.seen.append((sent, self._answered_by()))
            over.wait(0.03)
        self.connection.close()


def one_of_each_worker(url: str) -> list[Client]:
    """A client of each worker of a gateway; the system decides which worker takes a connection."""
    clients: dict[str, Client] = {}
    for _ in range(200):
        client = Client.of(url)
        if client.worker in clients:
            client.connection.close()
        clients.setdefault(client.worker, client)
        if len(clients) == WORKERS:
            break
    return list(clients.values())


def two_versions(store: Store, folder: Path) -> None:
    """One artifact, twice."""
    rows = [recorded(i, p, a) for i, (p, a) in enumerate(mixed(600, shares=(1, 0, 0, 0)))]
    definition = Definition("teams", TEAM_PROMPT.replace("{}", "{text}"), "", "large")
    store.versions.keep_task("teams", {"prompt": definition.prompt, "system": "", "kind": "label"})
    settings = LearnSettings(students=("tfidf-embedding-linear",), folder=folder)
    large = FakeModel("?", name="large")
    known = lessons(definition, rows)
    version = learn(definition, known, store, large, settings, config=Config()).version
    assert version is not None
    store.versions.add("teams", "again", version.artifact, {}, {})


def followed(store: Store, clients: list[Client]) -> dict[str, list[float]]:
    """Per worker, the seconds after each move in which it still let the old version answer."""
    store.versions.move("teams", "promoted", version=None, evidence={}, serving=2)
    for client in clients:
        client.warm_up()
    over = threading.Event()
    threads = [threading.Thread(target=client.ask, args=(over,)) for client in clients]
    for thread in threads:
        thread.start()
    moves: list[tuple[float, str]] = []
    for number in range(MOVES + 1):
        serving_now = 1 + number % 2
        store.versions.move("teams", "promoted", version=None, evidence={}, serving=serving_now)
        moves.append((time.monotonic(), f"teams@{serving_now}"))
        time.sleep(WITHIN + 0.2)
        new = moves[-1][1]
        wait_until(lambda new=new: all(client.seen[-1][1] == new for client in clients))  # type: ignore[misc]
    over.set()
    for thread in threads:
        thread.join()
    late: defaultdict[str, list[float]] = defaultdict(list)
    ends = [*(moved for moved, _ in moves[2:]), time.monotonic()]
    for (moved, _), (_, old), end in zip(moves[1:], moves[:-1], ends, strict=True):
        for client in clients:
            after = [(sent - moved, who) for sent, who in client.seen if moved < sent < end]
            late[client.worker].append(max((t for t, who in after if who == old), default=0.0))
    return late


def test_every_worker_follows_within_a_second(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/s.db"
    with open_store(url) as store, ExitStack() as stack:
        two_versions(store, tmp_path)
        toml = TOML.format(store=url)
        gateways = [
            stack.enter_context(serving(toml, "--workers", str(WORKERS))) for _ in range(GATEWAYS)
        ]
        clients = [client for gateway in gateways for client in one_of_each_worker(gateway.url)]
        late = followed(store, clients)
    assert len(late) == GATEWAYS * WORKERS
    print(sorted(round(max(times), 3) for times in late.values()))
    assert all(seconds < WITHIN for times in late.values() for seconds in times)
