"""Curation beside the tools that do the same step: time for each CPU, memory, and the same decisions.

    python benchmarks/curate.py filters --datatrove /path/to/python --corpus FOLDER

Every part is a module ``curate_PART.py`` with ``add_arguments(parser)`` and ``measure(options)``; what it
returns is stored under its name in ``results/curate.json``. The corpus is made by ``corpus.py``.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
from datetime import date
from pathlib import Path

RESULT = Path(__file__).parent / "results" / "curate.json"
PARTS = {"filters": "curate_filters"}


def processor() -> str:
    """What the machine calls its processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (x.partition(":")[2].strip() for x in lines if x.startswith("model name")), "unknown"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    commands = parser.add_subparsers(dest="part", required=True)
    parts = {name: importlib.import_module(module) for name, module in PARTS.items()}
    for name, module in parts.items():
        command = commands.add_parser(name, help=module.__doc__.split("\n")[0])
        command.add_argument(
            "--corpus", type=Path, required=True, help="folder; made if it is not there"
        )
        command.add_argument(
            "--megabytes", type=int, default=1100, help="size, where it must be made"
        )
        command.add_argument("--note", default="", help="what else the machine was doing")
        module.add_arguments(command)
    options = parser.parse_args()
    busy = os.getloadavg()
    measured = parts[options.part].measure(options)
    stored = json.loads(RESULT.read_text()) if RESULT.exists() else {}
    stored[options.part] = {
        "date": date.today().isoformat(),
        "hardware": f"{processor()}, {os.cpu_count()} cores, one thread used",
        "load before and after": [round(busy[0], 1), round(os.getloadavg()[0], 1)],
        "note": options.note,
        **measured,
    }
    RESULT.parent.mkdir(exist_ok=True)
    RESULT.write_text(json.dumps(stored, indent=1, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()
