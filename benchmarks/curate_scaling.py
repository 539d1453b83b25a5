"""The corpus of a gigabyte, and what it costs more than the first tenth of its rows.

The four filter sets in a chain, and MinHash, each with default settings as a user would run it: one
process, Parquet in, Parquet out.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from curate_filters import CHAIN
from curate_pipeline import curated


def filters(options: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    """Time and memory of the filters on a tenth and on all, and how they grow."""
    return grown(CHAIN, options.tenth, files)


def minhash(options: argparse.Namespace, files: list[Path]) -> dict[str, Any]:
    """The same of MinHash."""
    return grown("minhash", options.tenth, files)


def grown(steps: str, tenth: list[Path], whole: list[Path]) -> dict[str, Any]:
    """Both runs, and the one by the other."""
    small, large = curated(steps, tenth), curated(steps, whole)
    more = large["peak_megabytes"] - small["peak_megabytes"]
    rows = large["documents"] - small["documents"]
    return {
        "a tenth": small,
        "the corpus": large,
        "times the documents": round(large["documents"] / small["documents"], 2),
        "times the CPU time": round(large["cpu_seconds"] / small["cpu_seconds"], 2),
        "peak megabytes more": more,
        "for each million documents more": round(more / rows * 1e6, 1),
    }
