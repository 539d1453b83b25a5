"""All deduplications in one pipeline: the same rows on every engine, and after a run that was stopped."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow as pa
import pytest

from pilotfish.curate import Pipeline
from pilotfish.curate.dedup.exact import Exact
from pilotfish.curate.dedup.minhash import MinHash
from pilotfish.curate.dedup.semantic import Semantic
from pilotfish.errors import InputError
from tests.curate.corpus import Killed, as_lines
from tests.curate.dedup.texts import near_duplicates
from tests.curate.runs import on_ray, shards

SHARD = 40_000
STEPS = (
    Exact(ignore_case=True),
    MinHash(words=3, bands=20, rows=5, keep="longest"),
    Semantic(0.98, cluster_size=100, keep="highest", column="stars", tag=True),
)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    texts = near_duplicates(900, seed=5)
    path.write_bytes(
        as_lines({"id": i, "text": text, "stars": i % 7} for i, text in enumerate(texts))
    )
    return path


@pytest.fixture(scope="module")
def whole(corpus: Path) -> Path:
    out = corpus.parent / "whole"
    result = Pipeline(STEPS).run(corpus, out, shard_bytes=SHARD)
    assert len(result.shards) >= 5
    assert min(result.reasons.values()) > 20
    rows = [json.loads(line) for data in shards(out).values() for line in data.splitlines()]
    assert any(row["semantic"] == "semantic.duplicate" for row in rows)
    kept = {row["semantic_group"] for row in rows if row["semantic"] is None}
    assert {row["semantic_group"] for row in rows if row["semantic"]} <= kept
    return out


def test_worker_processes_keep_the_same_rows(corpus: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    Pipeline(STEPS).run(corpus, out, engine="processes", workers=2, shard_bytes=SHARD)
    assert shards(out) == shards(whole)


def test_ray_keeps_the_same_rows(corpus: Path, whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "pilotfish[scale]"')
    on_ray("tests.curate.dedup.test_pipeline:STEPS", corpus, tmp_path / "r", SHARD)
    assert shards(tmp_path / "r") == shards(whole)


def test_a_sample_says_that_it_has_fewer_duplicates(corpus: Path, tmp_path: Path) -> None:
    assert not Pipeline(STEPS).sample(corpus).notes, "all of the file was looked at"
    texts = pa.RecordBatch.from_pydict(
        {"row": pa.array([0, 1], pa.uint64()), "text": ["a b c", "a b c"], "stars": [1.0, 2.0]}
    )
    for step in STEPS:
        ready, note = step.rehearse([step.map(texts)], tmp_path, 0.1, ask=False)
        verdict = ready.apply(texts)
        found = verdict.columns[step.name] if step.tag else verdict.reasons
        assert found is not None
        assert found.null_count == 1
        assert "the whole input has more" in note


@pytest.mark.parametrize("after", [1, 3])
def test_a_run_that_stops_goes_on(after: int, corpus: Path, tmp_path: Path) -> None:
    """Stopped in the second and in the last pass; the fit is made again and decides the same."""
    armed = tmp_path / "armed"
    steps = [*STEPS[:after], Killed(2 << 40 | 9, str(armed)), *STEPS[after:]]
    whole = tmp_path / "whole"
    Pipeline(steps).run(corpus, whole, shard_bytes=SHARD)
    armed.touch()
    out = tmp_path / "out"
    with pytest.raises(InputError, match="worker process was killed"):
        Pipeline(steps).run(corpus, out, engine="processes", workers=2, shard_bytes=SHARD)
    armed.unlink()
    assert Pipeline(steps).run(corpus, out, shard_bytes=SHARD).resumed >= 5
    assert shards(out) == shards(whole)
