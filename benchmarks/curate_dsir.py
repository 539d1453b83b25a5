"""Importance resampling beside the authors' package: the same rows for the same seed, time and memory.

``--reference`` is a Python with ``data-selection`` 1.0.3. Raw data are the first pages of the corpus; the
target, rows of the kind ``documentation``, which are taken out of the raw data. Texts with a NUL, which
Pilotfish rejects, are left out of both. Both read JSON lines and draw as many rows with the same seed.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from curate_pipeline import finished

from pilotfish.curate.selection.dsir import kl_divergence
from pilotfish.curate.selection.hashed_ngrams import hashed_ngrams

BUCKETS = 10_000
SEED, KEEP = 5, 1000
REFERENCE = """
import json, sys, time
import numpy as np
from data_selection import HashedNgramDSIR
raw, target, cache, seed, k = sys.argv[1:]
start = time.process_time()
dsir = HashedNgramDSIR([raw], [target], cache_dir=cache, num_proc=1)
dsir.fit_importance_estimator()
dsir.compute_importance_weights()
np.random.seed(int(seed))
dsir.resample(out_dir=cache + "/out", num_to_sample=int(k), cache_dir=cache + "/draft")
seconds = time.process_time() - start
status = open("/proc/self/status").read()
print(json.dumps([seconds, int(status.partition("VmHWM:")[2].split()[0]) / 1024]))
"""
OURS = """
import json, sys, time
from pilotfish.curate import Pipeline
from pilotfish.curate.selection.dsir import DSIR
raw, target, out, seed, k = sys.argv[1:]
start = time.process_time()
step = DSIR(target, rows=int(k), seed=int(seed), scores=True, tag=True)
Pipeline([step]).run(raw, out)
seconds = time.process_time() - start
status = open("/proc/self/status").read()
print(json.dumps([seconds, int(status.partition("VmHWM:")[2].split()[0]) / 1024]))
"""


def split(files: list[Path], folder: Path, megabytes: float) -> None:
    """Raw data and target, as JSON lines."""
    size, targets = 0, 0
    with (folder / "raw.jsonl").open("w") as raw, (folder / "target.jsonl").open("w") as target:
        for path in files:
            for batch in pq.ParquetFile(path).iter_batches(1000, columns=["kind", "text"]):
                for row in batch.to_pylist():
                    if "\0" in row["text"]:
                        continue
                    line = json.dumps({"text": row["text"]}) + "\n"
                    if row["kind"] == "documentation" and len(row["text"]) < 20_000:
                        target.write(line)
                        targets += 1
                    else:
                        raw.write(line)
                        size += len(line)
                if size > megabytes * 1e6 and targets:
                    return


def measured(python: str, program: str, *arguments: object) -> tuple[float, float]:
    """CPU seconds and peak MB of a program."""
    command = [python, "-c", program, *arguments]
    printed = finished(command, OMP_NUM_THREADS="1")
    seconds, peak = json.loads(printed.splitlines()[-1])
    return round(seconds, 2), round(peak)


def counts(texts: list[str]) -> np.ndarray:
    return np.bincount(hashed_ngrams(texts, 2, BUCKETS)[0], minlength=BUCKETS)


def texts_of(paths: list[Path]) -> list[str]:
    return [
        json.loads(line)["text"] for path in paths for line in path.read_text().strip().split("\n")
    ]


def measure(options: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    """Both on the same rows."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split(files, folder, options.dsir)
        given = folder / "raw.jsonl", folder / "target.jsonl"
        more = SEED, KEEP
        theirs = measured(options.reference, REFERENCE, *given, folder / "theirs", *more)
        ours = measured(sys.executable, OURS, *given, folder / "ours", *more)
        rows = [
            json.loads(line)
            for path in sorted((folder / "ours").glob("part-*"))
            for line in path.read_text().strip().split("\n")
        ]
        weights = np.array([row["dsir.log_weight"] for row in rows])
        expected = np.load(folder / "theirs" / "log_importance_weights" / "0.npy")
        kept = {
            "data-selection 1.0.3": texts_of(list((folder / "theirs" / "out").rglob("*.jsonl"))),
            "pilotfish": [row["text"] for row in rows if row["dsir"] is None],
        }
        target, raw = counts(texts_of([given[1]])), counts([row["text"] for row in rows])
        rng = np.random.default_rng(SEED)
        long = [row["text"] for row in rows if row["dsir"] != "dsir.too_short"]
        kept["random"] = [long[i] for i in rng.permutation(len(long))[:KEEP]]
        before = kl_divergence(target, raw)
        return {
            "raw rows": len(rows),
            "raw MB": round(given[0].stat().st_size / 1e6, 1),
            "target rows": len(texts_of([given[1]])),
            "rows kept": KEEP,
            "seed": SEED,
            "KL(target || raw), nats": before,
            "KL reduction, nats": {
                name: before - kl_divergence(target, counts(texts)) for name, texts in kept.items()
            },
            "same rows kept": sorted(kept["pilotfish"]) == sorted(kept["data-selection 1.0.3"]),
            "log-weights, largest difference": float(np.abs(weights - expected).max()),
            "log-weights, largest": float(np.abs(expected).max()),
            "CPU seconds": {"data-selection 1.0.3": theirs[0], "pilotfish": ours[0]},
            "peak MB": {"data-selection 1.0.3": theirs[1], "pilotfish": ours[1]},
        }
