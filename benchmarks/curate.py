"""Curation beside the tools that do the same step: time for each CPU, memory, and the same decisions.

    python benchmarks/curate.py all --corpus FOLDER --datatrove PYTHON --reference PYTHON
    python benchmarks/curate.py filters minhash --corpus FOLDER --datatrove PYTHON

``--datatrove`` is a Python with datatrove, rensa and datasketch; ``--reference`` one with data-selection:

    pip install "datatrove[processing]" spacy orjson "xxhash<4" rensa datasketch
    pip install data-selection==1.0.3

Parts are functions of modules ``curate_PART.py``; what each returns is stored under its name in
``results/curate.json``, with the hardware, the versions and the state of the code. The corpus is made by
``corpus.py``. Pilotfish reads all of it and the other tools samples whose size is stored with their
results. Several parts run at once (``--at-once``): every process has one thread and a session of its own,
so that a machine that is shared gives it a share, and time is that of the CPU.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import date
from importlib.metadata import version
from pathlib import Path
from typing import Any

import corpus
import pyarrow.parquet as pq
from circumstances import load_now, machine

RESULT = Path(__file__).parent / "results" / "curate.json"
PARTS = {
    "filters at scale": "curate_scaling:filters",
    "minhash at scale": "curate_scaling:minhash",
    "filters": "curate_filters:measure",
    "minhash": "curate_dedup:measure",
    "dsir": "curate_dsir:measure",
    "semantic": "curate_dedup:measure_semantic",
}
ALL = ("filters at scale", "minhash at scale", "filters", "minhash", "dsir")
"""What ``all`` runs; the others need more installed."""


def tenth(files: list[Path], folder: Path) -> list[Path]:
    """The first tenth of the corpus's rows, in files that are as large as those of the whole."""
    left = sum(pq.ParquetFile(file).metadata.num_rows for file in files) // 10
    chosen: list[Path] = []
    for file in files:
        rows = pq.read_table(file).slice(0, left)
        if left := left - len(rows):
            chosen.append(file)
            continue
        chosen.append(folder / file.name)
        pq.write_table(rows, chosen[-1], compression="zstd", row_group_size=2000)
        break
    return chosen


def versions(options: argparse.Namespace) -> dict[str, Any]:
    """Of everything that is measured, and of what it stands on."""
    asked = "import importlib.metadata as m, json; print(json.dumps({n: m.version(n) for n in %r}))"
    others = {
        "datatrove": ["datatrove", "spacy", "rensa", "datasketch", "numpy", "pyarrow"],
        "reference": ["data-selection", "numpy"],
    }
    found: dict[str, Any] = {
        "pilotfish": {name: version(name) for name in ("pilotfish", "numpy", "pyarrow")}
    }
    for name, packages in others.items():
        if python := getattr(options, name):
            command = [python, "-c", asked % packages]
            shown = subprocess.run(command, check=True, capture_output=True, text=True)
            found[name] = json.loads(shown.stdout)
    return found


def code() -> str:
    """The commit that is measured, and whether the package differs from it."""
    here = Path(__file__).parent
    at = ["git", "-C", str(here.parent)]
    commit = subprocess.run([*at, "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    names = ["pilotfish/curate", "benchmarks/curate*.py"]
    changed = subprocess.run(
        [*at, "diff", "--name-only", "HEAD", "--", *names], capture_output=True, text=True
    )
    return commit.stdout.strip() + (
        f" with changes in {', '.join(changed.stdout.split())}" if changed.stdout else ""
    )


def measured(part: str, options: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    """A part's result, and how long it took."""
    module, _, name = PARTS[part].partition(":")
    measure = getattr(importlib.import_module(module), name)
    began, before = time.monotonic(), load_now()
    result = measure(options, files)
    print(f"{part}: {time.monotonic() - began:.0f} s", flush=True)
    return {
        "minutes": round((time.monotonic() - began) / 60, 1),
        "load before and after": [before, load_now()],
        **result,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("parts", nargs="+", choices=["all", *PARTS], metavar="PART")
    parser.add_argument("--corpus", type=Path, required=True, help="made if it is not there")
    parser.add_argument("--megabytes", type=int, default=1100, help="size, where it is made")
    parser.add_argument("--datatrove", type=Path, help="a Python with datatrove and others")
    parser.add_argument("--reference", type=Path, help="a Python with data-selection")
    parser.add_argument("--shipped", type=int, default=1200, help="documents, datatrove as shipped")
    parser.add_argument("--pattern", type=int, default=3000, help="documents, with our words")
    parser.add_argument("--few", type=int, default=2000, help="the same of MinHash")
    parser.add_argument("--more", type=int, default=8000, help="the same of MinHash")
    parser.add_argument("--semantic", type=int, default=15_000, help="documents")
    parser.add_argument("--dsir", type=float, default=30, help="megabytes")
    parser.add_argument("--scratch", type=Path, help="where files may be large; default: /tmp")
    parser.add_argument("--at-once", type=int, default=2, help="parts that run at once")
    parser.add_argument("--note", default="", help="what else the machine was doing")
    parser.add_argument("--out", type=Path, default=RESULT)
    options = parser.parse_args()
    parts = list(ALL) if "all" in options.parts else options.parts
    began, state = time.monotonic(), code()
    if options.scratch:
        tempfile.tempdir = str(options.scratch)
    made = corpus.build(options.corpus, options.megabytes)
    files = sorted(options.corpus.glob("*.parquet"))
    with ThreadPoolExecutor(options.at_once) as pool, tempfile.TemporaryDirectory() as folder:
        options.tenth = tenth(files, Path(folder))
        running = {pool.submit(measured, part, options, files): part for part in parts}
        results: dict[str, Any] = {}
        for future in as_completed(running):
            if future.exception() is None:
                results[running[future]] = future.result()
    run = {
        "date": date.today().isoformat(),
        "hardware": f"{machine()}, one thread a process, {options.at_once} processes at once",
        "minutes": round((time.monotonic() - began) / 60, 1),
        "note": options.note,
        "code": state,
        "versions": versions(options),
        "corpus": made,
    }
    stored = {"run": run, **{part: results[part] for part in parts if part in results}}
    if "all" not in options.parts and options.out.exists():
        for result in results.values():
            result["run"] = run
        stored = json.loads(options.out.read_text()) | results
    options.out.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")
    for future in running:
        future.result()  # raises what a part raised


if __name__ == "__main__":
    main()
