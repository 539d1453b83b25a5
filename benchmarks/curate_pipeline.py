"""Pilotfish's own runs for curate.py: a pipeline on files with default settings, in a process of its own.

    python benchmarks/curate_pipeline.py STEP,STEP INPUT...

Prints CPU seconds (reading and writing included), peak memory and the funnel as JSON.
"""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def peak_megabytes() -> float:
    """The most memory this process has held. Not ``ru_maxrss``, which begins with that of the parent."""
    try:
        status = Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def curate(steps: str, inputs: list[str]) -> dict[str, Any]:
    """Run registered steps with their default settings, and measure."""
    from pilotfish.curate import Pipeline
    from pilotfish.curate.step import build_step

    pipeline = Pipeline([build_step({"step": name}) for name in steps.split(",")])
    pipeline.sample(inputs[:1], rows=50)  # what is loaded once
    with tempfile.TemporaryDirectory() as folder:
        began = time.process_time()
        result = pipeline.run(inputs, f"{folder}/out")
        seconds = time.process_time() - began
        written = sum(path.stat().st_size for path in Path(folder).rglob("part-*"))
    text = result.steps[0].bytes_in / 1e6
    return {
        "documents": result.rows_read + sum(result.rejected.values()),
        "megabytes": round(text, 1),
        "cpu_seconds": round(seconds, 2),
        "documents_per_cpu_second": round(result.rows_read / seconds),
        "megabytes_per_cpu_second": round(text / seconds, 1),
        "cpu_seconds_of_each": {step.name: round(step.seconds, 2) for step in result.steps},
        "peak_megabytes": round(peak_megabytes()),
        "kept": result.rows_kept,
        "dropped": dict(sorted(result.reasons.items(), key=lambda item: -item[1])),
        "rejected": result.rejected,
        "written_megabytes": round(written / 1e6, 1),
    }


def finished(command: Sequence[object], **environment: str) -> str:
    """What a program prints; run in a session of its own."""
    done = subprocess.run(
        list(map(str, command)),
        capture_output=True,
        text=True,
        env=os.environ | environment,
        start_new_session=True,
    )
    if done.returncode:
        raise SystemExit(done.stderr)
    return done.stdout


def curated(steps: str, inputs: Sequence[Path]) -> dict[str, Any]:
    """:func:`curate` in a process of its own, so that its memory is nobody else's."""
    return dict(json.loads(finished([sys.executable, __file__, steps, *inputs])))


if __name__ == "__main__":
    print(json.dumps(curate(sys.argv[1], sys.argv[2:])))
