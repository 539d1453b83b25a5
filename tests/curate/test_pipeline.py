"""Pipelines end to end: the funnel, the report, samples, and the same rows on every engine."""

from __future__ import annotations

import gzip
import json
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pilotfish.curate import Pipeline
from pilotfish.curate.dedup.exact import Exact
from pilotfish.curate.scores.length import Length
from pilotfish.errors import InputError, MissingExtra
from pilotfish.figures import duration
from tests.curate.corpus import Quality, SlowToFit, Unique, documents
from tests.curate.runs import STEPPED, by_hand, counted, on_ray, rows, shards


def test_rows_and_funnel_are_those_of_plain_python(corpus: Path, tmp_path: Path) -> None:
    result = Pipeline(STEPPED).run(corpus, tmp_path / "out", shard_bytes=100_000)
    wanted = by_hand(documents(3000))
    assert 500 < len(wanted) < 2000
    assert rows(tmp_path / "out") == wanted
    assert (result.rows_read, result.rows_kept) == (3000, len(wanted))
    assert (result.files, result.empty_files) == (4, 1)
    assert result.rejected == {"missing-field:text": 1, "not-json": 1}
    assert [step.name for step in result.steps] == [
        *("length", "quality", "unique", "length (2)", "upper")
    ]
    for before, after in zip(result.steps, result.steps[1:], strict=False):
        assert before.rows_out == after.rows_in
    for step in result.steps:
        assert sum(step.reasons.values()) == step.rows_in - step.rows_out
        assert step.bytes_out <= step.bytes_in
    assert sum(result.reasons.values()) == 3000 - len(wanted)
    assert set(result.reasons) == {"length.too_short", "quality.too_low", "unique.again"}
    rejects = [json.loads(x) for x in (tmp_path / "out/_rejects.jsonl").read_bytes().splitlines()]
    assert [(Path(r["file"]).name, r["line"], r["reason"]) for r in rejects] == [
        ("b.jsonl.gz", 901, "not-json"),
        ("c.jsonl", 1, "missing-field:text"),
    ]
    assert not (tmp_path / "out/_work").exists()


def test_processor_time_counts_the_fit_too(corpus: Path, tmp_path: Path) -> None:
    """What burns the processor in map and in reduce stands with the step that was fitted."""
    result = Pipeline([Length(min_chars=30), SlowToFit(0.05, 0.3)]).run(
        corpus, tmp_path / "out", shard_bytes=100_000
    )
    plain, fitted = result.steps
    batches = len(result.shards)
    assert plain.fit_seconds == 0
    assert fitted.fit_seconds >= 0.3 + 0.05 * batches
    assert fitted.seconds < 0.3
    page = (tmp_path / "out/_report.html").read_text()
    assert f"{duration(fitted.seconds + fitted.fit_seconds)} CPU" in page


def test_files_without_a_byte_are_refused_whatever_the_steps(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").write_bytes(b"")
    for i, steps in enumerate(([Length(min_chars=3)], [Length(min_chars=3), Unique()])):
        with pytest.raises(InputError, match="holds no usable row"):
            Pipeline(steps).run(tmp_path / "empty.jsonl", tmp_path / str(i))


def test_what_the_examples_and_histograms_show(corpus: Path, tmp_path: Path) -> None:
    result = Pipeline([Quality()]).run(corpus, tmp_path / "out", shard_bytes=100_000)
    [step] = result.steps
    scores = {row["text"]: row["quality"] for row in rows(tmp_path / "out")}
    closest = sorted(scores.values())[:1]
    assert [e.distance for e in step.examples[""][:1]] == [pytest.approx(closest[0] - 0.3)]
    assert all(example.margin and example.text in scores for example in step.examples[""])
    assert len(step.examples["quality.too_low"]) == 3
    assert sum(step.scores["quality"].kept.values()) == step.rows_out
    assert sum(step.scores["quality"].dropped.values()) == step.rows_in - step.rows_out
    assert sum(step.tags["grade"].values()) == step.rows_in


def test_worker_processes_give_every_row_the_same(corpus: Path, tmp_path: Path) -> None:
    alone = Pipeline(STEPPED).run(corpus, tmp_path / "local", shard_bytes=50_000)
    spread = Pipeline(STEPPED).run(
        corpus, tmp_path / "out", engine="processes", workers=2, shard_bytes=50_000
    )
    assert len(alone.shards) > 3
    assert shards(tmp_path / "out") == shards(tmp_path / "local")
    assert rows(tmp_path / "out") == by_hand(documents(3000))
    assert counted(spread) == counted(alone)


def test_ray_gives_every_row_the_same(corpus: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason='needs Ray: pip install "pilotfish[scale]"')
    alone = Pipeline(STEPPED).run(corpus, tmp_path / "local", shard_bytes=50_000)
    found = on_ray("tests.curate.runs:STEPPED", corpus, tmp_path / "ray", 50_000)
    assert shards(tmp_path / "ray") == shards(tmp_path / "local")
    assert found == counted(alone)


def test_without_ray_the_extra_is_named(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra, match=r"pilotfish\[scale\]"):
        Pipeline([Quality()]).run(corpus, tmp_path / "out", engine="ray")


def test_order_and_number_of_pieces_do_not_matter_to_the_rows(corpus: Path, tmp_path: Path) -> None:
    for size in (20_000, 64 << 20):
        Pipeline(STEPPED).run(corpus, tmp_path / str(size), shard_bytes=size)
    assert rows(tmp_path / "20000") == rows(tmp_path / str(64 << 20))


def test_untouched_rows_are_written_byte_for_byte(tmp_path: Path) -> None:
    lines = [b'{"text":"keep  me", "n":1.10,"d":"2020-01-01"}', b'{"text":"","x":1}']
    (tmp_path / "a.jsonl").write_bytes(b"\n".join(lines))
    Pipeline([Length(min_chars=3)]).run(tmp_path / "a.jsonl", tmp_path / "out")
    assert shards(tmp_path / "out") == {"part-00000.jsonl": lines[0] + b"\n"}


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.csv", "a.parquet", "a.txt"])
def test_a_sample_that_holds_all_rows_is_the_whole(tmp_path: Path, name: str) -> None:
    """Whatever of a file's bytes come after the last row."""
    texts = [f"the text of row {i}" for i in range(300)]
    if name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), tmp_path / name)
    elif name == "a.jsonl.gz":
        lines = "".join(json.dumps({"text": text}) + "\n" for text in texts)
        (tmp_path / name).write_bytes(gzip.compress(lines.encode()))
    else:
        (tmp_path / name).write_text("\n".join(["text", *texts]) + "\n" * 5)
    result = Pipeline([Exact()]).sample(tmp_path / name)
    assert (result.rows_read >= 300, result.sample, result.notes) == (True, 1.0, [])


def test_a_sample_writes_nothing_and_guesses_well(corpus: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    pipeline = Pipeline([Length(min_chars=100), Unique()])
    guess = pipeline.sample(corpus, rows=600)
    assert sorted(tmp_path.rglob("*")) == before
    whole = pipeline.run(corpus, tmp_path / "out")
    assert guess.rows_read <= whole.rows_read
    share = guess.rows_kept / guess.rows_read
    assert share == pytest.approx(whole.rows_kept / whole.rows_read, abs=0.1)
