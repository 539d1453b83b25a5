"""Kill the gateway under load, again and again: is every answer that a client got in the store?

Each round starts `pilotfish serve --durable` on the same folder and store, lets 12 clients ask as fast as
they can (every other one streaming), and kills the gateway with SIGKILL, its workers with it, at a random
moment. Then the store is opened as after any crash: SQLite's integrity check must pass, every answer that
a client received to its end must have its record, and the minutes must add up to the requests. Rounds
alternate between one worker process and two.

SIGKILL takes the process, not the machine: what the disk's own cache would lose at a power cut is not
tested here; SQLite's synchronous=FULL is what guards against that.

    python -m benchmarks.kill --rounds 50 --out benchmarks/results/kill.json
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import os
import platform
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path
from urllib.parse import urlsplit

from pilotfish.store.store import open_store

SERVE = "import sys; from pilotfish.cli.main import main; main()"
TOML = '[models.fake]\nbackend = "fake"\n'
CLIENTS = 12


@dataclass(frozen=True)
class Round:
    """What one kill came to; ids are those of this round alone.

    Attributes:
        workers: Worker processes.
        seconds: From the first request to the kill.
        answered: Answers that clients received to their end.
        missing: Of those, how many have no record: must be 0.
        recorded: Records that this round added; may be more than were answered.
        integrity: What SQLite's check says: must be "ok".
        minutes_match: Whether the sums by minute are those of the requests.
        reopen_seconds: To open the store after the kill.
    """

    workers: int
    seconds: float
    answered: int
    missing: int
    recorded: int
    integrity: str
    minutes_match: bool
    reopen_seconds: float

    @property
    def good(self) -> bool:
        """Whether nothing was lost and nothing is damaged."""
        return not self.missing and self.integrity == "ok" and self.minutes_match


def ask_until_it_dies(address: tuple[str, int], number: int, answered: list[str]) -> None:
    """One client: asks, reads the answer to its end, notes its id."""
    stream = number % 2 == 1
    connection = http.client.HTTPConnection(*address, timeout=30)
    try:
        for i in itertools.count():
            question = f"client {number}, question {i}: " + "what now? " * 30
            body = {"model": "fake", "messages": [{"role": "user", "content": question}]}
            connection.request(
                "POST",
                "/v1/chat/completions",
                json.dumps({**body, "stream": stream}),
                {"content-type": "application/json"},
            )
            response = connection.getresponse()
            said = response.read()
            complete = said.endswith(b"data: [DONE]\n\n") if stream else said.endswith(b"}")
            if response.status == 200 and complete:
                answered.append(str(response.headers["x-request-id"]))
    except (OSError, http.client.HTTPException):
        return  # it was killed
    finally:
        connection.close()


def kill_once(folder: Path, workers: int, seconds: float, mode: str = "--durable") -> Round:
    """One round in a folder, whose store may hold earlier rounds."""
    store_path = folder / "pilotfish.db"
    before = count(store_path)
    (folder / "pilotfish.toml").write_text(TOML)
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-c", SERVE, "serve", mode, "--json"),
                *("--port", "0", "--workers", str(workers)),
            ],
            cwd=folder,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            start_new_session=True,  # so that its workers can be killed with it
        )
    assert process.stdout is not None
    with process.stdout:
        line = process.stdout.readline()
        if not line:
            raise SystemExit(f"The gateway did not start: {(folder / 'log').read_text()}")
        url = urlsplit(json.loads(line)["url"])
        wait_for(address := (str(url.hostname), int(url.port or 0)))
        notes: list[list[str]] = [[] for _ in range(CLIENTS)]
        threads = [
            threading.Thread(target=ask_until_it_dies, args=(address, i, notes[i]))
            for i in range(CLIENTS)
        ]
        began = time.perf_counter()
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        os.killpg(process.pid, signal.SIGKILL)
        took = time.perf_counter() - began
        process.wait()
    for thread in threads:
        thread.join()
    answered = [identity for note in notes for identity in note]
    return look(store_path, answered, before, workers, took)


def wait_for(address: tuple[str, int]) -> None:
    """Return when a worker answers."""
    deadline = time.monotonic() + 60
    while True:
        connection = http.client.HTTPConnection(*address, timeout=30)
        try:
            connection.request("GET", "/healthz")
            if connection.getresponse().status == 200:
                return
        except (OSError, http.client.HTTPException):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        finally:
            connection.close()


def count(path: Path) -> int:
    if not path.exists():
        return 0
    with open_store(f"sqlite:///{path}") as store:
        return store.traffic.count()


def look(path: Path, answered: list[str], before: int, workers: int, took: float) -> Round:
    began = time.perf_counter()
    with open_store(f"sqlite:///{path}") as store:
        reopened = time.perf_counter() - began
        recorded = store.traffic.count()
        sums = sum(minute.requests for minute in store.traffic.minutes(0, 1e11))
        for row in store.traffic.recent(100):  # they can be read whole
            assert row.status != 200 or (row.request and row.completion), row
    connection = sqlite3.connect(path)
    try:
        integrity = connection.execute("PRAGMA integrity_check").fetchone()[0]
        there = {row[0] for row in connection.execute("SELECT request_id FROM pilotfish_traffic")}
    finally:
        connection.close()
    return Round(
        workers,
        round(took, 3),
        len(answered),
        len(set(answered) - there),
        recorded - before,
        integrity,
        sums == recorded,
        round(reopened, 3),
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    draw = random.Random(options.seed)
    rounds = []
    with tempfile.TemporaryDirectory(dir=".") as folder:
        for number in range(options.rounds):
            rounds.append(kill_once(Path(folder), 1 + number % 2, draw.uniform(0.2, 1.5)))
            print(number + 1, rounds[-1], file=sys.stderr, flush=True)
    result = {
        "date": date.today().isoformat(),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "sqlite": sqlite3.sqlite_version,
        "clients": CLIENTS,
        "kills": len(rounds),
        "good": sum(r.good for r in rounds),
        "answered": sum(r.answered for r in rounds),
        "missing": sum(r.missing for r in rounds),
        "slowest_reopen_seconds": max(r.reopen_seconds for r in rounds),
        "rounds": [asdict(r) for r in rounds],
    }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)
    sys.exit(0 if all(r.good for r in rounds) else 1)


if __name__ == "__main__":
    main()
