"""Formats and places: every format to every other, columns of any shape, memory URLs and HTTP."""

from __future__ import annotations

import csv
import gzip
import http.server
import io
import json
import re
import subprocess
import sys
import threading
import types
import zipfile
from pathlib import Path
from typing import Any, ClassVar

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pilotfish.curate import Pipeline
from pilotfish.curate.scores.length import Length
from pilotfish.errors import ConfigError, InputError
from tests.curate.corpus import Upper, as_lines, documents
from tests.curate.runs import counted, rows


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
    pipeline = Pipeline([Length(min_chars=6, column="chars")])
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
    pipeline = Pipeline([Length(min_chars=2, column="chars"), Upper()], text="body")
    pipeline.run(tmp_path / "a.parquet", tmp_path / "out")
    found = pq.read_table(tmp_path / "out/part-00000.parquet")
    assert found.schema.names == ["body", "row", "when", "deep", "kind", "chars"]
    assert found.drop_columns(["chars", "body"]).equals(table.slice(0, 1).drop_columns(["body"]))
    assert found["body"].to_pylist() == ["SOME TEXT"]


def test_times_beyond_pythons_own_become_json(tmp_path: Path) -> None:
    """pandas writes nanoseconds; they are shown where a row is refused, and written as JSON."""
    ns = pa.timestamp("ns", "UTC")
    table = pa.table(
        {
            "text": ["first", None, "third"],
            "whole": pa.array([0, 1000, None], ns),
            "split": pa.array([1, None, 1_700_000_000_123_456_789], ns),
            "took": pa.array([5, None, 7], pa.duration("ns")),
            "deep": pa.array([[{"at": 1}], None, []], pa.list_(pa.struct({"at": ns}))),
            "far": pa.array([10**9, 0, None], pa.date32()),
        }
    )
    pq.write_table(table, tmp_path / "a.parquet")
    Pipeline([Length()]).run(tmp_path / "a.parquet", tmp_path / "out", format="jsonl")
    first, third = read_table(tmp_path / "out")
    assert (first["whole"], third["whole"]) == ("1970-01-01T00:00:00Z", None)
    assert first["split"].startswith("1970-01-01T00:00:00.000000001")
    assert third["split"].startswith("2023-11-14T22:13:20.123456789")
    assert (first["took"], third["took"]) == ("5 ns", "7 ns")
    assert first["deep"][0]["at"].startswith("1970-01-01 00:00:00.000000001")
    assert "1000000000" in first["far"]
    refused = json.loads((tmp_path / "out/_rejects.jsonl").read_text())
    assert refused["reason"] == "missing-field:text"
    assert "1970-01-01T00:00:00.000001Z" in refused["text"]


def test_parquet_that_others_would_not_read(tmp_path: Path) -> None:
    """Names that occur twice, and a text of another column that is no UTF-8."""
    bad = pa.array([b"caf\xe9", b"tea"], pa.binary()).view(pa.string())
    columns = [pa.array(["one", "two"]), pa.array([1, 2]), bad, pa.array([3, 4])]
    pq.write_table(pa.table(columns, ["text", "n", "drink", "n"]), tmp_path / "a.parquet")
    Pipeline([Length()]).run(tmp_path / "a.parquet", tmp_path / "out", format="jsonl")
    assert read_table(tmp_path / "out") == [
        {"text": "one", "n": 1, "drink": "caf\ufffd", "n_2": 3},
        {"text": "two", "n": 2, "drink": "tea", "n_2": 4},
    ]


def test_a_number_that_fits_no_column_is_kept_as_text(tmp_path: Path) -> None:
    digits = "9" * 5000
    (tmp_path / "a.jsonl").write_text(f'{{"text": "a", "n": {digits}}}\n{{"text": "b", "n": 1}}\n')
    Pipeline([Length()]).run(tmp_path / "a.jsonl", tmp_path / "out", format="parquet")
    assert [row["n"] for row in read_table(tmp_path / "out")] == [digits, "1"]


@pytest.mark.parametrize("name", ["a.jsonl", "a.parquet", "a.csv"])
def test_a_first_row_that_is_too_long_costs_itself_alone(tmp_path: Path, name: str) -> None:
    texts = ["x" * 3_000_000, "short"]
    if name == "a.jsonl":
        (tmp_path / name).write_bytes(as_lines([{"text": text} for text in texts]))
    elif name == "a.csv":
        (tmp_path / name).write_text("\n".join(["text,n", *(f"{text},1" for text in texts)]))
    else:
        pq.write_table(pa.table({"text": texts}), tmp_path / name)
    result = Pipeline([Length()]).run(tmp_path / name, tmp_path / "out", max_row_bytes=1_000_000)
    assert (result.rows_kept, result.rejected) == (1, {"too-long": 1})


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


def test_files_in_an_archive_and_urls_of_ones_own_files(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        archive.writestr("a.jsonl", as_lines(documents(100)))
        archive.writestr("deep/b.jsonl", as_lines(documents(50, seed=1)))
    inside = f"::file://{tmp_path}/all.zip"
    for i, (pattern, wanted) in enumerate([("a.jsonl", 100), ("*.jsonl", 100), ("deep/", 50)]):
        result = Pipeline([Length()]).run(f"zip://{pattern}{inside}", f"file://{tmp_path}/{i}")
        assert result.rows_read == wanted, pattern
        assert (tmp_path / str(i) / "part-00000.jsonl").exists()
    with pytest.raises(InputError, match="No file at"):
        Pipeline([Length()]).run(f"zip://none.jsonl{inside}", tmp_path / "none")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/a.jsonl").write_bytes(as_lines(documents(10)))
    with pytest.raises(ConfigError, match="lies in the output folder"):
        Pipeline([Length()]).run(tmp_path / "in/a.jsonl", f"file://{tmp_path}/in")


def test_what_a_cloud_librarys_own_errors_say_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of S3 without credentials: no OSError, and no library of it here."""
    import fsspec
    from fsspec.implementations.memory import MemoryFileSystem

    class NoCredentials(Exception):
        pass

    class Cloud(MemoryFileSystem):
        protocol = "cloud"

        def info(self, path: str, **options: Any) -> dict[str, Any]:
            raise NoCredentials("Unable to locate credentials")

        def makedirs(self, path: str, exist_ok: bool = False) -> None:
            self.info(path)

        def exists(self, path: str, **options: Any) -> bool:
            return False

    module = types.ModuleType("botocore.exceptions")
    module.BotoCoreError = NoCredentials  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "botocore.exceptions", module)
    fsspec.register_implementation("cloud", Cloud)
    with pytest.raises(InputError, match=r"Cannot read 'cloud://a\.jsonl': Unable to locate"):
        Pipeline([Length()]).run("cloud://a.jsonl", tmp_path / "out")
    (tmp_path / "a.jsonl").write_bytes(as_lines(documents(3)))
    with pytest.raises(InputError, match=r"Cannot write 'cloud://out': Unable to locate"):
        Pipeline([Length()]).run(tmp_path / "a.jsonl", "cloud://out")


class _Ranges(http.server.BaseHTTPRequestHandler):
    """Serves bytes as object stores do: with sizes and ranges."""

    files: ClassVar[dict[str, bytes]] = {}
    sent_whole: ClassVar[list[str]] = []

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        data = self.files.get(self.path)
        if data is None:
            return self.send_error(404)
        if self.path.startswith("/secret"):
            return self.send_error(403)
        if self.path.startswith("/broken") and self.command == "GET":
            return self.send_error(503)
        if self.path.startswith(("/whole", "/short", "/plain")):  # no ranges; some without a size
            self.send_response(200)
            if self.path.startswith("/plain"):
                self.send_header("Content-Length", str(len(data)))
            if self.path.startswith("/short"):
                self.send_header("Content-Length", str(len(data)))
                data = data[:1000]
            self.end_headers()
            self.wfile.write(data if self.command == "GET" else b"")
            return None
        if self.command == "GET" and "Range" not in self.headers:
            self.sent_whole.append(self.path)
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
        "/whole.jsonl.gz": gzip.compress(as_lines(wanted[500:600])),
        "/plain.jsonl": as_lines(wanted),
        "/plain.parquet": parquet.getvalue(),
    }
    served = list(_Ranges.files)
    wrong = {"broken": "503", "short": "not completed", "secret": "403"}
    _Ranges.files |= {f"/{name}.jsonl": as_lines(wanted) for name in wrong}
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
        failed = [curate(f"/{name}.jsonl") for name in wrong]
        done = curate(*served)
    finally:
        server.shutdown()
        server.server_close()
    assert missing.returncode == 2
    assert f"No file at '{address}/none.jsonl'" in missing.stderr
    failed.append(curate("/a.jsonl"))  # the server is gone
    for one, word in zip(failed, [*wrong.values(), "Connect"], strict=True):
        assert one.returncode == 2, one.stderr
        assert re.search(f"Cannot read '{address}/.*{word}", one.stderr), one.stderr
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["rows_read"] == 7600
    assert not _Ranges.sent_whole, "memory would not be flat"
    assert len(result["shards"]) > 4
    left = [row["id"] for row in wanted if len(row["text"]) >= 30]
    assert [row["id"] for row in rows(tmp_path / "out")][: len(left)] == left


def test_length_tags_like_other_steps() -> None:
    texts = pa.RecordBatch.from_pydict({"text": ["ab", "abcd", "abcdefgh"]})
    tagged = Length(3, 6, tag=True, column="n").apply(texts)
    dropped = Length(3, 6).apply(texts)
    reasons = ["length.too_short", None, "length.too_long"]
    assert tagged.reasons is None
    assert tagged.columns["length"].to_pylist() == reasons
    assert tagged.columns["n"].to_pylist() == [2, 4, 8]
    assert dropped.reasons.to_pylist() == reasons
    assert not dropped.columns
