"""What learning costs those who are served: the gateway alone, and with `pilotfish learn` beside it.

A fixed answer from nginx on loopback is the large model. The store holds recorded traffic of eight tasks
of 40 classes with wrong answers in them, so that the race of all students goes on for the whole
measurement; another task is in service. Half of the requests are of that task and answered small, half
go through. They come evenly at a fixed rate and are timed from when each was due; then as fast as 16
clients can ask. Rounds alternate between no learning, learning as it is, and learning without giving way
(``--nice 0``). All processes and the client share the cores that are stated with the result.

    apt-get install wrk nginx-light
    python benchmarks/beside.py --out benchmarks/results/beside.json
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import uvloop
from gateway import as_fast_as_it_can, paced
from gateway_servers import ANSWER, free_port, nginx_config, running, wait_for

from pilotfish.records import Completion, Request
from pilotfish.store.store import Store, open_store
from pilotfish.store.traffic import Exchange

SERVED = "sort-note"
SERVED_PROMPT = "Sort this note as alpha or omega: {}"
KEEPER = {"none": None, "learning": (), "not giving way": ("--nice", "0")}
CONFIG = """
store = "sqlite:///{folder}/beside.db"

[models.auto]
kind = "learned"
models = ["large"]

[models.large]
backend = "openai"
model = "large"
base_url = "http://127.0.0.1:{nginx}/v1"

[serve]
port = {port}
"""
CLASSES = [f"{a}{b}" for a in ("red", "blue", "green", "grey", "pink") for b in range(8)]
VERBS = ("file", "route", "tag", "grade", "shelve", "queue", "rank", "store")


def words(rng: random.Random) -> str:
    return " ".join("".join(rng.choices("abcdefghiklmnoprstu", k=4)) for _ in range(15))


def recorded(store: Store, name: str, prompt: str, classes: list[str], count: int) -> None:
    """Traffic of one task: the class is among the words, and one answer in ten is another."""
    rng = random.Random(name)
    exchanges = []
    for i in range(count):
        label = rng.choice(classes)
        said = label if rng.random() < 0.9 else rng.choice(classes)
        exchanges.append(
            Exchange(
                id=f"req_{rng.getrandbits(96):024x}", time=time.time() - 1e5 + i, caller="", task="",
                asked="auto", endpoint="chat", streamed=False, status=200, error="", latency=0.2,
                first_byte=None, request=Request.of(prompt.format(f"{words(rng)} {label} {words(rng)}")),
                completion=Completion(said, "large", cost=0.001), baseline=0.001,
            )
        )  # fmt: skip
    store.traffic.add(exchanges)


def prepare(folder: Path) -> None:
    """A task in service, and others to be learned."""
    command = [sys.executable, "-m", "pilotfish.cli.main", "learn", "--agree", "0.8"]
    with open_store(f"sqlite:///{folder}/beside.db") as store:
        recorded(store, SERVED, SERVED_PROMPT, ["alpha", "omega"], 700)
        subprocess.run(
            [*command, "--student", "tfidf-embedding-linear"],
            check=True, cwd=folder, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        (task,) = store.versions.pointers()
        store.versions.move(task, "promoted", version=1, evidence={}, serving=1, shadow=None)
        for verb in VERBS:
            prompt = f"Please {verb} the following item under one of the colours: {{}}"
            recorded(store, verb, prompt, CLASSES, 4000)


@contextlib.contextmanager
def learning(folder: Path, options: tuple[str, ...] | None) -> Iterator[None]:
    """``pilotfish learn --watch`` beside, and well into a race; nothing where there are no options."""
    if options is None:
        yield
        return
    # Each round learns from the beginning.
    store = open_store(f"sqlite:///{folder}/beside.db")
    with contextlib.closing(store), store._database.write() as connection:
        for table in ("pilotfish_loop_states", "pilotfish_task_days"):
            connection.exec_driver_sql(f"DELETE FROM {table}")
    command = [sys.executable, "-m", "pilotfish.cli.main", "learn", "--watch", "--agree", "0.8"]
    log = folder / "learn.out"
    with log.open("w") as out:
        learner = subprocess.Popen([*command, *options], stdout=out, stderr=out, cwd=folder)
    pid = learner.pid
    try:
        with contextlib.closing(open_store(f"sqlite:///{folder}/beside.db")) as store:
            ends = time.monotonic() + 300
            while not store.versions.tasks() or not any(
                (store.ledger.state(f"task {name}") or {}).get("attempt")
                for name in store.versions.tasks()
            ):
                assert time.monotonic() < ends, log.read_text()
                time.sleep(0.2)
        before = cpu_seconds(pid)
        began = time.monotonic()
        yield
        share = (cpu_seconds(pid) - before) / (time.monotonic() - began)
        print(f"    the learner had {share:.0%} of a core", file=sys.stderr)
        SHARES.append(share)
    finally:
        learner.kill()  # it would finish what it is learning first
        learner.wait()


SHARES: list[float] = []


def cpu_seconds(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(folder: Path, port: int, rate: int, seconds: float) -> dict[str, float]:
    """Latencies of both kinds of request at a steady rate, then the throughput of 16 clients."""
    url = f"http://127.0.0.1:{port}/v1/chat/completions"
    rng = random.Random(1)

    def body(prompt: str) -> str:
        return json.dumps({"model": "auto", "messages": [{"role": "user", "content": prompt}]})

    small = body(SERVED_PROMPT.format(f"{words(rng)} alpha {words(rng)}"))
    large = body(f"Hello, {words(rng)}")
    found: dict[str, float] = {}

    async def both() -> list[tuple[list[float], int]]:
        every = [2 * i / rate for i in range(int(rate * seconds / 2))]
        shifted = [moment + 1 / rate for moment in every]
        return list(await asyncio.gather(paced(url, small, every), paced(url, large, shifted)))

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        for name, (took, failed) in zip(("small", "large"), runner.run(both()), strict=True):
            took.sort()
            found[f"{name}_p50_ms"] = took[len(took) // 2]
            found[f"{name}_p99_ms"] = took[int(0.99 * len(took))]
            found[f"{name}_failed"] = failed
    for name, data in (("small", small), ("large", large)):
        got = as_fast_as_it_can(folder, url, data, 16, max(2, seconds // 4))
        found[f"{name}_per_second"] = got["requests_per_second"]
        found[f"{name}_p99_at_16_clients_ms"] = got["p99_ms"]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=12.0, help="Of each measurement.")
    parser.add_argument("--rate", type=int, default=100, help="Requests a second.")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--out", type=Path, help="Where the results go. Default: stdout.")
    options = parser.parse_args()
    for needed in ("wrk", "nginx"):
        if shutil.which(needed) is None:
            sys.exit(f"{needed} is not here: apt-get install wrk nginx-light")
    taken: dict[str, list[dict[str, float]]] = {name: [] for name in KEEPER}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)  # nginx's worker is another user
        nginx, port = free_port(), free_port()
        (folder / "nginx.conf").write_text(nginx_config(folder, nginx))
        (folder / "answers" / "v1" / "chat").mkdir(parents=True)
        (folder / "answers" / "v1" / "chat" / "completions").write_text(json.dumps(ANSWER))
        (folder / "pilotfish.toml").write_text(CONFIG.format(folder=folder, nginx=nginx, port=port))
        prepare(folder)
        command = ["nginx", "-c", f"{folder}/nginx.conf", "-e", f"{folder}/nginx.log"]
        stack.enter_context(running(command, folder / "nginx.out"))
        command = [sys.executable, "-m", "pilotfish.cli.main", "serve"]
        stack.enter_context(running(command, folder / "serve.out"))
        wait_for(f"http://127.0.0.1:{port}/healthz", folder / "serve.out")
        measure(folder, port, options.rate, 2.0)  # warms up
        for _ in range(options.rounds):
            for who, words_ in KEEPER.items():
                with learning(folder, words_):
                    got = measure(folder, port, options.rate, options.seconds)
                if words_ is not None:
                    got["learner_cores"] = SHARES.pop()
                taken[who].append(got)
                print(who, json.dumps(got), file=sys.stderr)
    result = {
        "date": date.today().isoformat(),
        "machine": f"{platform.processor() or platform.machine()}, {os.cpu_count()} cores",
        "python": platform.python_version(),
        "load_average_at_the_end": os.getloadavg(),
        "requests_per_second": options.rate,
        "seconds": options.seconds,
        "rounds": options.rounds,
        "median_of_rounds": {
            who: {key: round(statistics.median(row[key] for row in rows), 3) for key in rows[0]}
            for who, rows in taken.items()
        },
        "all_rounds": taken,
    }
    text = json.dumps(result, indent=1) + "\n"
    if options.out:
        options.out.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
