"""Pipelines end to end: the funnel, formats, the same rows on every engine, and what is refused."""

from __future__ import annotations

import ast
import csv
import gzip
import http.server
import io
import json
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, ClassVar

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import pilotfish as pf
from pilotfish.curate import STEPS, Pipeline, Verdict
from pilotfish.curate.length import Length
from pilotfish.curate.result import CurateResult
from pilotfish.errors import ConfigError, InputError, MissingExtra, UnknownName
from pilotfish.figures import duration
from tests.conftest import REPOSITORY
from tests.curate.corpus import Quality, SlowToFit, Unique, Upper, as_lines, documents


def shards(folder: Path) -> dict[str, bytes]:
    """Everything that a run wrote, but for its reports, which hold times."""
    return {
        path.name: path.read_bytes()
        for path in sorted(folder.iterdir())
        if not path.name.startswith("_report")
    }


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        json.loads(line)
        for name, data in shards(folder).items()
        if name.startswith("part")
        for line in data.splitlines()
    ]


def counted(result: CurateResult) -> dict[str, Any]:
    """The result without times and places."""
    facts = msgspec.to_builtins(result)
    for name in ("seconds", "output", "engine", "created", "resumed"):
        del facts[name]
    for step in facts["steps"]:
        del step["seconds"], step["fit_seconds"]
    return facts


def on_ray(steps: str, corpus: Path, output: Path, shard_bytes: int) -> dict[str, Any]:
    """What :func:`counted` says of a run on Ray of ``"module:name"``, a list of steps or a function."""
    command = [sys.executable, "-m", "tests.curate.ray_run", steps, str(corpus), str(output)]
    command.append(str(shard_bytes))
    done = subprocess.run(command, capture_output=True, text=True, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr[-3000:]
    found: dict[str, Any] = ast.literal_eval(done.stdout.splitlines()[-1])
    return found


STEPPED = [Length(min_chars=30, tag=True), Quality(), Unique(), Length(min_chars=40), Upper()]


def by_hand(wanted: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """What the steps of ``STEPPED`` leave, in plain Python."""
    import hashlib

    seen: set[str] = set()
    left = []
    for row in wanted:
        text = row["text"]
        digest = hashlib.md5(text.encode()).digest()
        score = int.from_bytes(digest[:4], "big") / 2**32 + 0.01 * row["stars"]
        if len(text) < 30 or score < 0.3 or text in seen:
            continue
        seen.add(text)
        if len(text) >= 40:
            grade = "good" if score > 0.6 else "fair"
            added = {"chars": len(text), "quality": pytest.approx(score), "grade": grade}
            left.append({**row, "text": text.upper(), **added})
    return left


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    folder = tmp_path / "corpus"
    folder.mkdir()
    wanted = documents(3000)
    (folder / "a.jsonl").write_bytes(as_lines(wanted[:2000]))
    (folder / "b.jsonl.gz").write_bytes(gzip.compress(as_lines(wanted[2000:2900]) + b"no json\n"))
    (folder / "c.jsonl").write_bytes(b'{"body": 1}\n' + as_lines(wanted[2900:]))
    (folder / "d.jsonl").write_bytes(b"")
    return folder


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
    found = on_ray("tests.curate.test_pipeline:STEPPED", corpus, tmp_path / "ray", 50_000)
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


# Formats


def read_table(folder: Path) -> list[dict[str, Any]]:
    [path] = folder.glob("part-*")
    if path.suffix == ".parquet":
        found: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return found
    data = path.read_bytes()
    if path.suffix in (".gz", ".zst"):
        kind = {".gz": "gzip", ".zst": "zstd"}[path.suffix]
        data = pa.CompressedInputStream(pa.BufferReader(data), kind).read()
    if path.name.startswith("part-00000.csv"):
        return list(csv.DictReader(io.StringIO(data.decode())))
    return [json.loads(line) for line in data.splitlines()]


@pytest.mark.parametrize("packing", ["none", "gzip", "zstd"])
@pytest.mark.parametrize("format", ["jsonl", "parquet", "csv"])
@pytest.mark.parametrize("source", ["a.jsonl", "a.parquet", "a.csv", "a.txt"])
def test_from_every_format_to_every_other(
    tmp_path: Path, source: str, format: str, packing: str
) -> None:
    texts = ['first, "quoted"', "second größe 日本語", "third"]
    wanted = [{"text": text, "n": i} for i, text in enumerate(texts)]
    path = tmp_path / source
    if path.suffix == ".jsonl":
        path.write_bytes(as_lines(wanted))
    elif path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(wanted), path)
    elif path.suffix == ".csv":
        with path.open("w", newline="") as file:
            writer = csv.DictWriter(file, ["text", "n"])
            writer.writeheader()
            writer.writerows(wanted)
    else:
        path.write_text("\n".join(texts))
    out = tmp_path / "out"
    pipeline = Pipeline([Length(min_chars=6, tag=True)])
    pipeline.run(path, out, format=format, compression=packing)
    found = read_table(out)
    assert [row["text"] for row in found] == texts[:2]
    assert [int(row["chars"]) for row in found] == [len(text) for text in texts[:2]]
    if source != "a.txt":
        assert [int(row["n"]) for row in found] == [0, 1]
        typed = source in ("a.jsonl", "a.parquet") and format != "csv"
        assert isinstance(found[0]["n"], int) is typed


def test_json_of_any_shape_fits_into_columns(tmp_path: Path) -> None:
    lines = [
        {"text": "a", "n": 1, "f": 1, "s": "x", "deep": {"k": [1]}, "b": True},
        {"text": "b", "n": 2, "f": 2.5, "s": None, "deep": [2], "b": None},
    ]
    (tmp_path / "a.jsonl").write_bytes(as_lines(lines))
    late = [
        {"text": "c", "n": "three", "f": 10**30, "s": 5, "new": [1]},
        {"text": "d", "n": 10**30},
    ]
    (tmp_path / "b.jsonl").write_bytes(as_lines(late) + b'{"text": "e", "f": NaN}\n')
    Pipeline([Length()]).run(tmp_path, tmp_path / "out", format="parquet")
    table = pq.read_table(tmp_path / "out/part-00000.parquet")
    assert {field.name: str(field.type) for field in table.schema} == {
        "text": "string",
        "n": "int64",
        "f": "double",
        "s": "string",
        "deep": "string",
        "b": "bool",
        "other_fields": "string",
    }
    found = table.to_pylist()
    assert json.loads(found[0]["deep"]) == {"k": [1]}
    assert found[2]["n"] is None
    assert json.loads(found[2]["other_fields"]) == {"n": "three", "new": [1]}
    assert (found[2]["s"], found[2]["f"]) == ("5", 1e30)
    assert json.loads(found[3]["other_fields"]) == {"n": 10**30}
    assert [row["text"] for row in found] == list("abcde")


def test_parquet_keeps_columns_types_and_names_of_ours(tmp_path: Path) -> None:
    table = pa.table(
        {
            "body": ["some text", "x"],
            "row": pa.array([7, 8], pa.int8()),
            "when": pa.array([0, 1], pa.timestamp("us")),
            "deep": [[{"a": 1}], []],
            "kind": pa.array(["p", "q"]).dictionary_encode(),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    pipeline = Pipeline([Length(min_chars=2, tag=True), Upper()], text="body")
    pipeline.run(tmp_path / "a.parquet", tmp_path / "out")
    found = pq.read_table(tmp_path / "out/part-00000.parquet")
    assert found.schema.names == ["body", "row", "when", "deep", "kind", "chars"]
    assert found.drop_columns(["chars", "body"]).equals(table.slice(0, 1).drop_columns(["body"]))
    assert found["body"].to_pylist() == ["SOME TEXT"]


def test_memory_urls_go_in_and_out(tmp_path: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.pipe("/corpus/a.jsonl", as_lines(documents(100)))
    memory.pipe("/corpus/deep/b.jsonl.gz", gzip.compress(as_lines(documents(50, seed=1))))
    pipeline = Pipeline([Length(min_chars=30)])
    for pattern in ("memory://corpus/*.jsonl", "memory://corpus"):
        result = pipeline.run(pattern, f"memory://out-{len(pattern)}")
        wanted = 100 if "*" in pattern else 150
        assert result.rows_read == wanted
        written = b"".join(memory.cat_file(f"/out-{len(pattern)}/{name}") for name in result.shards)
        assert len(written.splitlines()) == result.rows_kept
        assert memory.exists(f"/out-{len(pattern)}/_report.html")
        again = pipeline.run(pattern, f"memory://out-{len(pattern)}")
        assert counted(again) == counted(result)
    memory.rm("/", recursive=True)


class _Ranges(http.server.BaseHTTPRequestHandler):
    """Serves bytes as object stores do: with sizes and ranges."""

    files: ClassVar[dict[str, bytes]] = {}

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        data = self.files.get(self.path)
        if data is None:
            return self.send_error(404)
        first, last = 0, len(data) - 1
        if asked := re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")):
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        self.send_response(206 if asked else 200)
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Range", f"bytes {first}-{last}/{len(data)}")
        self.send_header("Content-Length", str(last - first + 1))
        self.send_header("ETag", f'"{hash(data)}"')
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data[first : last + 1])
        return None

    def log_message(self, *words: Any) -> None:
        pass


def test_files_are_read_over_http_by_ranges(tmp_path: Path) -> None:
    pytest.importorskip("aiohttp", reason="fsspec reads http with it: pip install aiohttp")
    wanted = documents(3000)
    parquet = io.BytesIO()
    pq.write_table(pa.Table.from_pylist(wanted[:500]), parquet)
    _Ranges.files = {
        "/a.jsonl": as_lines(wanted),
        "/b.jsonl.gz": gzip.compress(as_lines(wanted[:500])),
        "/c.parquet": parquet.getvalue(),
    }
    (tmp_path / "p.toml").write_text('[[steps]]\nstep = "length"\nmin_chars = 30\n')
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Ranges)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"

    def curate(*paths: str) -> subprocess.CompletedProcess[str]:
        # A process of its own: the library leaves its connections to the end of the process.
        command = [sys.executable, "-m", "pilotfish.cli.main", "curate", str(tmp_path / "p.toml")]
        urls = ",".join(address + path for path in paths)
        words = ["--json", "--workers", "2", "--shard-size", "200k"]
        return subprocess.run(
            [*command, urls, str(tmp_path / "out"), *words], capture_output=True, text=True
        )

    try:
        missing = curate("/none.jsonl")
        done = curate(*_Ranges.files)
    finally:
        server.shutdown()
        server.server_close()
    assert missing.returncode == 2
    assert f"No file at '{address}/none.jsonl'" in missing.stderr
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["rows_read"] == 4000
    assert len(result["shards"]) > 4
    left = [row["id"] for row in wanted if len(row["text"]) >= 30]
    assert [row["id"] for row in rows(tmp_path / "out")][: len(left)] == left


# Samples


def test_a_sample_writes_nothing_and_guesses_well(corpus: Path, tmp_path: Path) -> None:
    before = sorted(tmp_path.rglob("*"))
    pipeline = Pipeline([Length(min_chars=100), Unique()])
    guess = pipeline.sample(corpus, rows=600)
    assert sorted(tmp_path.rglob("*")) == before
    whole = pipeline.run(corpus, tmp_path / "out")
    assert guess.rows_read <= whole.rows_read
    share = guess.rows_kept / guess.rows_read
    assert share == pytest.approx(whole.rows_kept / whole.rows_read, abs=0.1)


# What is refused


@pytest.mark.parametrize(
    ("toml", "error", "words"),
    [
        ('[[steps]]\nstep = "lenght"', UnknownName, "Did you mean 'length'"),
        ('[[steps]]\nstep = "length"\nmin_char = 5', UnknownName, "Did you mean 'min_chars'"),
        ('[[steps]]\nstep = "length"\nmin_chars = "5"', ConfigError, "Expected `int`, got `str`"),
        ('[[steps]]\nstep = "length"\nmin_chars = -5', ConfigError, "min_chars=-5"),
        ("[[steps]]\nmin_chars = 5", ConfigError, "step = "),
        ('[[step]]\nstep = "length"', UnknownName, "Did you mean 'steps'"),
        ('txt = "a"', UnknownName, "Did you mean 'text'"),
        ("text = 5", ConfigError, "without steps|expected a column"),
        ("steps = 3", ConfigError, r"\[\[steps\]\] tables"),
        ("", ConfigError, "without steps"),
        ("[[steps", ConfigError, "not TOML"),
    ],
)
def test_a_wrong_pipeline_file_is_told(
    tmp_path: Path, toml: str, error: type[Exception], words: str
) -> None:
    (tmp_path / "p.toml").write_text(toml)
    with pytest.raises(error, match=words):
        Pipeline.from_file(tmp_path / "p.toml")


def test_a_pipeline_file_makes_the_steps(tmp_path: Path) -> None:
    (tmp_path / "p.toml").write_text(
        'text = "body"\n[[steps]]\nstep = "length"\nmin_chars = 5\n[[steps]]\nstep = "length"\n'
    )
    pipeline = Pipeline.from_file(tmp_path / "p.toml")
    assert pipeline.text == "body"
    assert pipeline.labels == ("length", "length (2)")
    assert [vars(step)["min_chars"] for step in pipeline.steps] == [5, 1]
    with pytest.raises(ConfigError, match="Cannot read"):
        Pipeline.from_file(tmp_path / "none.toml")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"engine": "rey"}, "Did you mean 'ray'"),
        ({"format": "josnl"}, "Did you mean 'jsonl'"),
        ({"compression": "zst"}, "Did you mean 'zstd'"),
        ({"input_format": "xml"}, "Got format 'xml'"),
        ({"workers": 0}, "workers=0"),
    ],
)
def test_wrong_settings_are_told(
    corpus: Path, tmp_path: Path, settings: dict[str, Any], words: str
) -> None:
    with pytest.raises(ConfigError, match=words):
        Pipeline([Length()]).run(corpus, tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.jsonl", b'{"content": "a", "id": 1}\n', 'Did you mean text = "content"'),
        ("a.jsonl", b"", "no usable row"),
        ("a.jsonl", b"\n\n", "no usable row"),
        ("a.json", b'[{"text": "a"},\n {"text": "b"}]', "jq -c"),
        ("a.csv", b"content,id\na,1\n", 'Did you mean text = "content"'),
        ("a.parquet", b"PAR1", "damaged-file"),
    ],
)
def test_unusable_input_is_refused_before_anything_is_written(
    tmp_path: Path, name: str, data: bytes, words: str
) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(InputError, match=words):
        Pipeline([Length()]).run(tmp_path / name, tmp_path / "out")
    assert not list((tmp_path / "out").glob("part-*"))


def test_places_that_cannot_be_written(corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(InputError, match="is a file"):
        Pipeline([Length()]).run(corpus, tmp_path / "file")
    with pytest.raises(InputError, match="Cannot write"):
        Pipeline([Length()]).run(corpus, tmp_path / "file" / "out")
    with pytest.raises(InputError, match="Cannot write '/proc"):
        Pipeline([Length()]).run(corpus, "/proc/pilotfish")
    with pytest.raises(ConfigError, match="lies in the output folder"):
        Pipeline([Length()]).run(corpus, corpus)


def test_a_disk_that_fills_up_is_told_and_what_is_finished_is_kept(
    corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from pilotfish.curate import writing

    real = writing.merged
    calls = 0

    def full(*given: Any) -> bytes:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise OSError(28, "No space left on device")
        return real(*given)

    monkeypatch.setattr(writing, "merged", full)
    with pytest.raises(InputError, match=r"No space left on device(?s:.*)same command again"):
        Pipeline(STEPPED).run(corpus, tmp_path / "out", shard_bytes=50_000)
    assert len(list((tmp_path / "out").glob("part-*"))) == 2
    assert not list((tmp_path / "out").glob(".writing-*"))
    result = Pipeline(STEPPED).run(corpus, tmp_path / "out", shard_bytes=50_000)
    assert result.resumed > 2
    assert rows(tmp_path / "out") == by_hand(documents(3000))


class _Wrong:
    name = "wrong"

    def __init__(self, verdict: Any) -> None:
        self.verdict = verdict

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        return self.verdict(batch)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("verdict", "words"),
    [
        (lambda batch: Verdict({"x": pa.array([1])}), "1 column 'x' values for 2 rows"),
        (lambda batch: Verdict({}, pa.array(["a"])), "1 reasons values for 2 rows"),
        (lambda batch: Verdict({}, None, pa.array([0.5])), "1 margin values for 2 rows"),
        (lambda batch: Verdict({"row": batch["row"]}), "reserved"),
        (lambda batch: Verdict({"text": pa.array([1, 2])}), "texts of type int64"),
    ],
)
def test_a_step_that_breaks_its_promise_is_named(tmp_path: Path, verdict: Any, words: str) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n{"text": "b"}\n')
    with pytest.raises(ConfigError, match=f"'wrong'.*{words}"):
        Pipeline([_Wrong(verdict)]).run(tmp_path / "a.jsonl", tmp_path / "out")


def test_an_error_in_a_step_says_where(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text('{"text": "a"}\n')
    with pytest.raises(ZeroDivisionError) as raised:
        Pipeline([_Wrong(lambda batch: 1 // 0)]).run(tmp_path / "a.jsonl", tmp_path / "out")
    assert raised.value.__notes__ == ["In the step 'wrong', on 1 rows from 0 to 0."]


def test_things_that_are_no_steps() -> None:
    with pytest.raises(ConfigError, match="as a step"):
        Pipeline([np.mean])  # type: ignore[list-item]
    assert pf.curate.Pipeline is Pipeline
    assert "length" in STEPS
