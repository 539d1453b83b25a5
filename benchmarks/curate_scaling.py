"""The corpus of a gigabyte, and what it costs more than its first tenth.

The four filter sets in a chain, and MinHash, each with default settings as a user would run it: one
process, Parquet in, Parquet out.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from curate_filters import CHAIN
from curate_pipeline import curated


def measure(tenth: list[Path], whole: list[Path]) -> dict[str, Any]:
    """Time and memory of both, and how they grow."""
    result: dict[str, Any] = {}
    for name, steps in (("filters", CHAIN), ("minhash", "minhash")):
        small, large = curated(steps, tenth), curated(steps, whole)
        times = large["documents"] / small["documents"]
        more = large["peak_megabytes"] - small["peak_megabytes"]
        result[name] = {
            "a tenth": small,
            "the corpus": large,
            "times the documents": round(times, 2),
            "times the CPU time": round(large["cpu_seconds"] / small["cpu_seconds"], 2),
            "peak megabytes more": more,
            "for each million documents more": round(
                more / (large["documents"] - small["documents"]) * 1e6, 1
            ),
        }
    return result
