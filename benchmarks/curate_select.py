"""Importance resampling beside the authors' package, and what redaction finds of what is there.

    python benchmarks/curate_select.py --reference /path/to/python --corpus FOLDER

``--reference`` is a Python with ``data-selection`` 1.0.3. Raw data are the first rows of the corpus of
``corpus.py`` up to ``--megabytes``; the target, rows of the kind ``documentation``, which are taken out
of the raw data. Texts with a NUL, which Pilotfish rejects, are left out of both. Both draw as many rows
as asked for with the same seed. Time is that of one CPU. The
personal data is generated (``tests/curate/personal_texts.py``).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
from curate import processor

sys.path.insert(0, str(Path(__file__).parent.parent))

from pilotfish.curate.dsir import kl_divergence
from pilotfish.curate.hashed_ngrams import hashed_ngrams
from pilotfish.curate.personal_data import PersonalData
from pilotfish.models.redaction import find_personal
from tests.curate.personal_texts import EASY, HARD, labelled

RESULT = Path(__file__).parent / "results" / "curate_select.json"
BUCKETS = 10_000
REFERENCE = """
import json, resource, sys, time
import numpy as np
from data_selection import HashedNgramDSIR
raw, target, cache, seed, k = sys.argv[1:]
start = time.process_time()
dsir = HashedNgramDSIR([raw], [target], cache_dir=cache, num_proc=1)
dsir.fit_importance_estimator()
dsir.compute_importance_weights()
np.random.seed(int(seed))
dsir.resample(out_dir=cache + "/out", num_to_sample=int(k), cache_dir=cache + "/draft")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([time.process_time() - start, peak]))
"""
OURS = """
import json, resource, sys, time
from pilotfish.curate import Pipeline
from pilotfish.curate.dsir import DSIR
raw, target, out, seed, k = sys.argv[1:]
start = time.process_time()
step = DSIR(target, rows=int(k), seed=int(seed), scores=True, tag=True)
Pipeline([step]).run(raw, out)
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps([time.process_time() - start, peak]))
"""


def split(corpus: Path, folder: Path, megabytes: float) -> None:
    """Raw data and target, as JSON lines."""
    size, targets = 0, 0
    with (folder / "raw.jsonl").open("w") as raw, (folder / "target.jsonl").open("w") as target:
        for path in sorted(corpus.glob("*.parquet")):
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
    command = [python, "-c", program, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    seconds, peak = json.loads(done.stdout.splitlines()[-1])
    return round(seconds, 2), round(peak)


def counts(texts: list[str]) -> np.ndarray:
    return np.bincount(hashed_ngrams(texts, 2, BUCKETS)[0], minlength=BUCKETS)


def texts_of(paths: list[Path]) -> list[str]:
    return [
        json.loads(line)["text"] for path in paths for line in path.read_text().strip().split("\n")
    ]


def measure_dsir(options: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        split(options.corpus, folder, options.megabytes)
        files = folder / "raw.jsonl", folder / "target.jsonl"
        more = options.seed, options.keep
        theirs = measured(options.reference, REFERENCE, *files, folder / "theirs", *more)
        ours = measured(sys.executable, OURS, *files, folder / "ours", *more)
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
        target, raw = counts(texts_of([files[1]])), counts([row["text"] for row in rows])
        rng = np.random.default_rng(options.seed)
        long = [row["text"] for row in rows if row["dsir"] != "dsir.too_short"]
        kept["random"] = [long[i] for i in rng.permutation(len(long))[: options.keep]]
        before = kl_divergence(target, raw)
        return {
            "raw rows": len(rows),
            "raw MB": round(files[0].stat().st_size / 1e6, 1),
            "target rows": len(texts_of([files[1]])),
            "rows kept": options.keep,
            "seed": options.seed,
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


def measure_personal(texts: int, seed: int) -> dict[str, Any]:
    """Recall (every character covered) and precision (touches something personal), by kind."""
    result: dict[str, Any] = {"texts": texts, "seed": seed}
    for name, kinds in {"usual forms": EASY, "forms no pattern looks for": HARD}.items():
        known: Counter[str] = Counter()
        hit: Counter[str] = Counter()
        found: Counter[str] = Counter()
        right: Counter[str] = Counter()
        for text, labels in labelled(texts, seed, kinds):
            places = find_personal(text)
            for start, end, kind in labels:
                known[kind] += 1
                covered = sum(max(0, min(f.end, end) - max(f.start, start)) for f in places)
                hit[kind] += covered == end - start
            for f in places:
                found[f.kind] += 1
                right[f.kind] += any(f.start < e and f.end > s for s, e, _ in labels)
        result[name] = {
            kind: {
                "known": known[kind],
                "recall": round(hit[kind] / known[kind], 4) if known[kind] else None,
                "precision": round(right[kind] / found[kind], 4) if found[kind] else None,
            }
            for kind in sorted(set(known) | set(found))
        }
    return result


def measure_speed(options: argparse.Namespace) -> dict[str, float]:
    table = pq.ParquetFile(next(iter(sorted(options.corpus.glob("*.parquet"))))).read_row_group(0)
    table = table.slice(0, 500)
    batch = table.combine_chunks().to_batches()[0]
    start = time.process_time()
    PersonalData("tag").apply(batch)
    return {
        "MB per CPU-second": round(table["text"].nbytes / 1e6 / (time.process_time() - start), 2)
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--reference", required=True, help="a Python that has data-selection")
    parser.add_argument("--corpus", type=Path, required=True, help="folder made by corpus.py")
    parser.add_argument("--megabytes", type=float, default=30)
    parser.add_argument("--keep", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--texts", type=int, default=5000)
    options = parser.parse_args()
    busy = os.getloadavg()
    measured_now = {
        "dsir": measure_dsir(options),
        "personal data": measure_personal(options.texts, options.seed)
        | {"speed": measure_speed(options)},
    }
    result = {
        "date": date.today().isoformat(),
        "hardware": f"{processor()}, {os.cpu_count()} cores, one thread used",
        "load before and after": [round(busy[0], 1), round(os.getloadavg()[0], 1)],
        **measured_now,
    }
    RESULT.write_text(json.dumps(result, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
