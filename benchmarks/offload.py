"""Claim: offload takes < 60 s and < 2 GB for 100,000 short inputs, and time grows linearly to 1M.

The large model is a fake that answers at once, so that only Pilotfish's own work is timed: reading,
deduplicating, selecting, racing, certifying, scoring every input, packaging, reporting. Texts are
generated: ten topics with their own words, 6 to 14 words each. Every size runs in a process of its own,
so that peak memory is its own.

    python benchmarks/offload.py [--sizes 10000 100000 1000000]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

RESULTS = Path(__file__).parent / "results" / "offload.json"
TOPICS = 10


def write_inputs(path: Path, n: int, seed: int = 0) -> None:
    import numpy as np

    rng = np.random.default_rng(seed)
    letters = np.array(list("bcdfghklmnprstvw"))
    vowels = np.array(list("aeiou"))

    def word() -> str:
        return "".join(
            c + v for c, v in zip(rng.choice(letters, 3), rng.choice(vowels, 3), strict=True)
        )

    shared = np.array([word() for _ in range(5_000)])
    topical = np.array([[word() for _ in range(200)] for _ in range(TOPICS)])
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, n, 10_000):
            for _ in range(min(10_000, n - start)):
                topic = rng.integers(TOPICS)
                length = rng.integers(6, 15)
                words = rng.choice(shared, length)
                topics = topical[topic][rng.integers(0, 200, length)]
                mixed = np.where(rng.random(length) < 0.35, topics, words)
                file.write(json.dumps({"text": " ".join(mixed), "topic": f"t{topic}"}) + "\n")


def one(path: Path) -> None:
    import pilotfish as pf

    truth = {}
    with path.open(encoding="utf-8") as file:
        for line in file:
            row = json.loads(line)
            truth[row["text"]] = row["topic"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    large = pf.FakeModel(lambda request: truth[request.prompt.removeprefix("Topic? ")])
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = pf.offload(
            "Topic? {text}",
            path,
            large=large,
            labels=[f"t{i}" for i in range(TOPICS)],
            out=Path(folder) / "artifact",
            store=f"sqlite:///{folder}/store.db",
        )
    seconds = time.perf_counter() - started
    print(
        json.dumps(
            {
                "rows": result.rows.read,
                "seconds": round(seconds, 1),
                "peak_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10),
                "of_which_the_fake_mb": round(before),
                "answers": result.asked.calls,
                "coverage": round(result.certificate["coverage"], 3),
                "student": next(e.student for e in result.race if e.chosen),
                "stages": result.seconds,
            }
        )
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--one", type=Path)
    options = parser.parse_args()
    if options.one:
        one(options.one)
        return
    from pilotfish.loop.account import hardware

    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            path = Path(folder) / f"{size}.jsonl"
            write_inputs(path, size)
            done = subprocess.run(
                [sys.executable, __file__, "--one", str(path)],
                check=True,
                capture_output=True,
                text=True,
            )
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(rows[-1], flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    stored = {"date": time.strftime("%Y-%m-%d"), "hardware": hardware(), "rows": rows}
    RESULTS.write_text(json.dumps(stored, indent=2) + "\n")


if __name__ == "__main__":
    main()
