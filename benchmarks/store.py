"""How fast the store takes answers, and whether it stays so with a million of them.

Writes ROWS answers of a classification task in batches of 256 (each batch one transaction), and at
several sizes looks up random keys, one at a time and 256 at once. Then reads everything back as Arrow
batches, adds up the spending, and times single answers with and without a disk sync. The rates are
those of one process on one file; the answers are made before the clock starts.

    python benchmarks/store.py --rows 1000000 --out benchmarks/results/store.json
    python benchmarks/store.py --url postgresql://user@host/empty_database
"""

from __future__ import annotations

import argparse
import json
import platform
import random
import resource
import sqlite3
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from circumstances import load_now

from pilotfish.loop.account import hardware
from pilotfish.records import Completion, Request, Usage
from pilotfish.store.store import Store, open_store

BATCH = 256
Entry = tuple[str, Request, Completion]


def entry(i: int) -> Entry:
    request = Request.of(
        f"Customer message {i}: my card was charged twice for the same hotel in Lisbon last week.",
        system="You label messages of a bank's customers. Answer with one label.",
        temperature=0,
        max_tokens=8,
    )
    probabilities = {"card_payment_fee": 0.7, "transaction_charged_twice": 0.2, "other": 0.1}
    completion = Completion(
        "transaction_charged_twice", "m", Usage(92, 6), 0.00021, 0.4, label_probs=probabilities
    )
    return request.key("m"), request, completion


def seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def lookups(store: Store, size: int, draw: random.Random) -> dict[str, float]:
    """Milliseconds for one key (median of 300), microseconds a key for 256 at once (median of 20)."""
    keys = [entry(draw.randrange(size))[0] for _ in range(300)]
    single = statistics.median(seconds(lambda key=key: store.get([key])) for key in keys)
    many = []
    for _ in range(20):
        keys = [entry(draw.randrange(size))[0] for _ in range(BATCH)]
        many.append(seconds(lambda keys=keys: store.get(keys)))
    each = statistics.median(many) / BATCH
    return {"rows": size, "one_ms": round(single * 1e3, 3), "of_256_us": round(each * 1e6, 1)}


def write(store: Store, rows: int) -> list[dict[str, float]]:
    """Fill the store; the write rate of each tenth and look-up times after it."""
    draw = random.Random(0)
    points = []
    part = -(-rows // (10 * BATCH)) * BATCH
    for start in range(0, rows, part):
        end = min(start + part, rows)
        taken = busy = 0.0
        for at in range(start, end, BATCH):
            batch = [entry(i) for i in range(at, min(at + BATCH, end))]
            before = time.process_time()
            taken += seconds(lambda batch=batch: store.put(batch, task="bank", run="benchmark"))
            busy += time.process_time() - before
        rates = {
            "writes_per_second": round((end - start) / taken),
            "writes_per_cpu_second": round((end - start) / busy),  # what a busy machine hides
        }
        points.append({**rates, **lookups(store, end, draw)})
        print(points[-1], file=sys.stderr)
    return points


def read(store: Store) -> dict[str, float]:
    """Stream every call; seconds, rate, and how much the peak memory grew after the first batches."""
    count = 0
    before = 0
    start = time.perf_counter()
    for number, batch in enumerate(store.calls()):
        count += batch.num_rows
        if number == 20:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = time.perf_counter() - start
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    return {
        "rows": count,
        "rows_per_second": round(count / taken),
        "memory_growth_mb": grown // 1024,
    }


def single_puts(url: str, durable: str) -> float:
    """Median milliseconds to keep one answer."""
    with open_store(url, durable=durable) as store:
        entries = [entry(-i) for i in range(1, 201)]
        return round(
            statistics.median(seconds(lambda e=e: store.put([e])) for e in entries) * 1e3, 3
        )


def facts() -> dict[str, str | int | float]:
    found = hardware()
    return {
        "cpu": found["cpu"],
        "cores": found["cores"],
        "load_at_start": load_now(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument(
        "--url", help="an empty database; default: a SQLite file, deleted afterwards"
    )
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    result: dict[str, object] = {"date": date.today().isoformat(), "hardware": facts()}
    with tempfile.TemporaryDirectory(dir=".") as folder:
        url = options.url or f"sqlite:///{folder}/store.db"
        with open_store(url) as store:
            result["database"] = "sqlite" if url.startswith("sqlite") else "postgresql"
            result["growing"] = write(store, options.rows)
            result["reading"] = read(store)
            result["spending_seconds"] = round(seconds(store.spending), 2)
        if not options.url:
            size = Path(folder, "store.db").stat().st_size
            result["bytes_per_call"] = round(size / options.rows)
            result["one_put_ms"] = {
                durable: single_puts(f"sqlite:///{folder}/{durable}.db", durable)
                for durable in ("process", "full")
            }
    text = json.dumps(result, indent=1)
    if options.out:
        options.out.write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
