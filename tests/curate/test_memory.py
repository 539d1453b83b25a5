"""What a run holds in memory beside the data: whose allocator, and no library that it does not need."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from pilotfish.curate.memory import system_memory
from tests.conftest import REPOSITORY

RUN = """
import json, sys
from pilotfish.curate import Pipeline
from pilotfish.curate.dedup.exact import Exact
from pilotfish.curate.dedup.minhash import MinHash
from pilotfish.curate.scores.length import Length
from pilotfish.curate.rules.c4 import C4
from pilotfish.curate.rules.gopher_quality import GopherQuality
import pyarrow as pa

steps = [Length(3), GopherQuality(min_words=2), C4(min_sentences=1), Exact(), MinHash()]
kept = Pipeline(steps).run(sys.argv[1], sys.argv[2]).rows_kept
heavy = sorted({"pandas", "scipy", "pyarrow.parquet", "ssl"} & set(sys.modules))
print(json.dumps([kept, heavy, pa.default_memory_pool().backend_name]))
"""


def run(folder: Path, **environment: str) -> Any:
    text = "The fish that swims under the cold water is with the other of the fish today."
    rows = [json.dumps({"text": text}), json.dumps({"text": f"{text} {text}"}), "no JSON"]
    (folder / "corpus.jsonl").write_text("\n".join(rows))
    inherited = {k: v for k, v in os.environ.items() if k != "ARROW_DEFAULT_MEMORY_POOL"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, str(folder / "corpus.jsonl"), str(folder / "out")],
        capture_output=True,
        text=True,
        cwd=REPOSITORY,
        env=inherited | environment,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_run_loads_nothing_heavy_and_allocates_from_the_system(tmp_path: Path) -> None:
    assert run(tmp_path) == [1, [], "system"]


def test_an_allocator_that_was_asked_for_is_left(tmp_path: Path) -> None:
    assert run(tmp_path, ARROW_DEFAULT_MEMORY_POOL="mimalloc") == [1, [], "mimalloc"]


def test_the_pool_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("ARROW_DEFAULT_MEMORY_POOL", raising=False)
    before = pa.default_memory_pool()
    try:
        pa.set_memory_pool(pa.mimalloc_memory_pool())
        with system_memory():
            assert pa.default_memory_pool().backend_name == "system"
        assert pa.default_memory_pool().backend_name == "mimalloc"
    finally:
        pa.set_memory_pool(before)
