"""Ten times the rows cost ten times the time and the same memory.

Small here, so that the suite stays fast; benchmarks/curate.py does it at full size. Time is processor
time of a process of its own, less what a run on ten rows costs; memory is the peak of that process.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPOSITORY
from tests.curate.corpus import as_lines, documents

SCRIPT = """
import json, re, sys, time
from pilotfish.curate import Pipeline
from pilotfish.curate.scores.length import Length
from tests.curate.corpus import Quality, Unique


def timed(corpus, out):
    start = time.process_time()
    result = Pipeline([Length(min_chars=30), Quality(), Unique()]).run(
        corpus, out, shard_bytes=2 << 20
    )
    return result.rows_read, time.process_time() - start


tiny, corpus, out = sys.argv[1:]
timed(tiny, out + "-warm")
_, least = timed(tiny, out + "-tiny")
rows, seconds = timed(corpus, out)
# Not ru_maxrss, which a process inherits from the one that started it.
peak = int(re.search(r"VmHWM:\\s+(\\d+) kB", open("/proc/self/status").read())[1]) / 1024
print(json.dumps([rows, seconds - least, peak]))
"""


def measured(corpus: Path) -> tuple[int, float, float]:
    """Rows, processor seconds beyond those of a run on nothing, and peak megabytes."""
    tiny = corpus.with_name("tiny.jsonl")
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(tiny), str(corpus), str(corpus.with_suffix(".out"))],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
    )
    assert done.returncode == 0, done.stderr
    rows, seconds, megabytes = json.loads(done.stdout)
    return rows, seconds, megabytes


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from /proc")
def test_ten_times_the_rows_cost_ten_times_the_time_and_no_memory(tmp_path: Path) -> None:
    part = documents(20_000, longest=120)
    (tmp_path / "tiny.jsonl").write_bytes(as_lines(part[:10]))
    for name, times in (("one", 1), ("ten", 10)):
        rows = [row | {"text": f"{i} {row['text']}"} for i in range(times) for row in part]
        (tmp_path / f"{name}.jsonl").write_bytes(as_lines(rows))
    one, seconds, megabytes = measured(tmp_path / "one.jsonl")
    ten, more_seconds, more_megabytes = measured(tmp_path / "ten.jsonl")
    assert ten == 10 * one
    assert more_megabytes < 1.2 * megabytes + 10, f"{megabytes:.0f} to {more_megabytes:.0f} MB"
    ratio = more_seconds / seconds
    assert 6 < ratio < 15, f"{ratio:.1f} times the time: {seconds:.2f} s to {more_seconds:.2f} s"
