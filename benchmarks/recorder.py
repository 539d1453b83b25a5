"""What recording costs the gateway: processor time of the writer per exchange, and writes a second.

Through the recorder, as the gateway uses it, on an event loop of its own: exchanges of a 1 KB question
handed over at fixed rates (relaxed), and by 1, 16 and 64 clients that each wait for their record
(durable: one sync of the disk a group). The store holds STORED exchanges before. The processor time is
that of the writing thread; while it holds the interpreter's lock, the event loop waits.

    python benchmarks/recorder.py --out benchmarks/results/recorder.json
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import sqlite3
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path
from typing import Any

from pilotfish.gateway.recorder import Recorder
from pilotfish.records import Completion, Decision, Request, Usage
from pilotfish.store.store import Store, open_store
from pilotfish.store.traffic import Exchange
from pilotfish.store.traffic_rows import new_request_id

TEXT = "the customer wrote that a card was charged twice for one hotel in Lisbon last week"
DECIDED = (
    Decision("both", "", "score<threshold", 0.5, 0.9, ("small",)),
    Decision("both", "large", "last"),
)


def exchange(draw: random.Random) -> Exchange:
    now = time.time()
    text = " ".join(draw.choices(TEXT.split(), k=220))[:1000]
    answer = Completion(
        "transaction charged twice",
        "large",
        Usage(250, 20),
        0.001,
        0.4,
        decisions=DECIDED,
        extra={"id": "chatcmpl-123", "created": 1790000000},
    )
    return Exchange(
        *(new_request_id(now), now, "key_1", "", "both", "chat", False, 200, ""),
        *(draw.lognormvariate(-1, 1), 0.1, Request.of(text, temperature=0), answer, 0.002),
    )


class Watch:
    """Adds up the processor time that the recorder's thread spends writing."""

    def __init__(self, recorder: Recorder) -> None:
        self.seconds = 0.0
        write: Callable[..., Any] = recorder._write

        def timed(*arguments: Any) -> Any:
            began = time.thread_time()
            try:
                return write(*arguments)
            finally:
                self.seconds += time.thread_time() - began

        recorder._write = timed  # type: ignore[method-assign]


async def relaxed(store: Store, rate: int, seconds: float, draw: random.Random) -> dict[str, Any]:
    recorder = Recorder(store, durable=False)
    watch = Watch(recorder)
    recorder.start()
    exchanges = [exchange(draw) for _ in range(int(rate * seconds))]
    done, began = 0, time.perf_counter()
    while done < len(exchanges):
        due = min(len(exchanges), int((time.perf_counter() - began) * rate) + 1)
        for each in exchanges[done:due]:
            await recorder.room()
            recorder.put(each)
        done = due
        await asyncio.sleep(0.001)
    while recorder.waiting:
        await asyncio.sleep(0.005)
    took = time.perf_counter() - began
    await recorder.aclose()
    return {
        "offered_per_second": rate,
        "written_per_second": round(len(exchanges) / took),
        "writer_microseconds": round(watch.seconds / len(exchanges) * 1e6, 1),
        "lost": recorder.lost,
    }


async def durable(store: Store, clients: int, each: int, draw: random.Random) -> dict[str, Any]:
    recorder = Recorder(store, durable=True)
    watch = Watch(recorder)
    recorder.start()
    latencies: list[float] = []

    async def client() -> None:
        for _ in range(each):
            made = exchange(draw)
            began = time.perf_counter()
            await recorder.written(made)
            latencies.append(time.perf_counter() - began)

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - began
    await recorder.aclose()
    latencies.sort()
    return {
        "clients": clients,
        "written_per_second": round(len(latencies) / took),
        "writer_microseconds": round(watch.seconds / len(latencies) * 1e6, 1),
        "wait_ms_p50": round(latencies[len(latencies) // 2] * 1e3, 2),
        "wait_ms_p99": round(latencies[int(len(latencies) * 0.99)] * 1e3, 2),
    }


def filled(folder: str, name: str, rows: int, mode: Any, draw: random.Random) -> Store:
    store = open_store(f"sqlite:///{folder}/{name}.db", durable=mode)
    for _ in range(rows // 2000):
        store.traffic.add([exchange(draw) for _ in range(2000)])
    return store


async def run(stored: int) -> dict[str, Any]:
    draw = random.Random(0)
    sys.setswitchinterval(0.0005)  # as the gateway does
    with tempfile.TemporaryDirectory(dir=".") as folder:
        with filled(folder, "relaxed", stored, "process", draw) as store:
            rates = [await relaxed(store, rate, 3, draw) for rate in (100, 500, 2600, 20_000)]
        with filled(folder, "durable", stored, "full", draw) as store:
            groups = [await durable(store, n, 3000 // n + 50, draw) for n in (1, 16, 64)]
    return {"relaxed": rates, "durable": groups}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--stored", type=int, default=200_000)
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result = {
        "date": date.today().isoformat(),
        "hardware": f"{os.cpu_count()} cores, {platform.machine()}, {platform.system()}",
        "load_before": round(os.getloadavg()[0], 1),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "stored_before": options.stored,
        **asyncio.run(run(options.stored)),
    }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
