"""Every format, packing and bad input: what is usable is read, the rest is told by line and reason."""

from __future__ import annotations

import gzip
import json
import random
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.curate.formats.files import find_files
from pilotfish.curate.formats.json_lines import JsonLines, merged
from pilotfish.curate.formats.pieces import plan
from pilotfish.curate.formats.reading import ReadOptions, read_piece
from pilotfish.curate.step import ROW, SOURCE, TEXT
from pilotfish.errors import ConfigError, InputError
from tests.curate.corpus import as_lines, documents

BAD_LINES = {
    b'{"text": "ok", "stars": 1}': "",
    b"no json": "not-json",
    b'{"text": "cut o': "not-json",
    b'{"text": "a"} x': "not-json",
    b"[1, 2]": "not-an-object",
    b'"text"': "not-an-object",
    b"{}": "missing-field:text",
    b'{"text": null}': "missing-field:text",
    b'{"text": 5}': "not-text",
    b'{"text": ["a"]}': "not-text",
    b'{"text": "a\\u0000b"}': "not-text",
    b'{"text": "a\x00b"}': "not-json",
    b'{"text": "caf\xe9"}': "bad-encoding",
    b'{"text": "a", "other": "caf\xe9"}': "bad-encoding",
    b'{"text": "\\ud800"}': "bad-encoding",
    b'{"text": "a", "stars": "many"}': "wrong-type:stars",
    b'{"text": "' + b"x" * 5000 + b'"}': "too-long",
    b'{"text": "NaN is taken", "x": NaN}': "",
    b'{"text": "", "stars": null}': "",
    b"[" * 100_000: "too-long",
    b"[" * 1500: "not-json",
}
READS = {"stars": pa.float64()}


def read(*paths: str | Path, **options: Any) -> tuple[list[dict[str, Any]], list[tuple[int, str]]]:
    """Rows, and line (from 1, of the piece's part) and reason of the others."""
    rows, rejects, lines = [], [], 0
    piece_bytes = options.pop("piece_bytes", 64 << 20)
    for piece in plan(find_files(paths, options.pop("format", None)), piece_bytes):
        lines = 0
        for chunk in read_piece(piece, ReadOptions(reads=READS, **options)):
            rows += chunk.batch.to_pylist()
            rejects += [(lines + reject.line + 1, reject.reason) for reject in chunk.rejects]
            lines += chunk.lines
    return rows, rejects


def test_each_bad_line_costs_itself_and_says_why(tmp_path: Path) -> None:
    order = list(BAD_LINES) * 3
    random.Random(0).shuffle(order)
    (tmp_path / "bad.jsonl").write_bytes(b"\n".join(order))
    rows, rejects = read(tmp_path / "bad.jsonl", longest=4096)
    wanted = [(i, BAD_LINES[line]) for i, line in enumerate(order, 1) if BAD_LINES[line]]
    assert rejects == wanted
    assert [row[TEXT] for row in rows] == [
        json.loads(line)["text"] for line in order if not BAD_LINES[line]
    ]
    assert [row[ROW] for row in rows] == [i for i, line in enumerate(order) if not BAD_LINES[line]]


@given(st.lists(st.sampled_from([line for line in BAD_LINES if len(line) < 9000]), max_size=30))
def test_a_block_and_its_lines_one_by_one_agree(lines: list[bytes]) -> None:
    parser = JsonLines("text", READS, 4096)
    whole = parser.parse(b"".join(line + b"\n" for line in lines) or b"\n")
    alone = [parser.parse(line + b"\n") for line in lines]
    assert whole.columns[TEXT].to_pylist() == [
        text for one in alone for text in one.columns[TEXT].to_pylist()
    ]
    assert [reject.reason for reject in whole.rejects] == [
        reject.reason for one in alone for reject in one.rejects
    ]


@pytest.mark.parametrize("packing", ["", ".gz", ".zst"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_json_lines_however_packed(tmp_path: Path, packing: str, end: bytes) -> None:
    wanted = documents(500)
    data = as_lines(wanted).replace(b"\n", end)
    path = tmp_path / f"a.jsonl{packing}"
    codec = {".gz": "gzip", ".zst": "zstd"}.get(packing)
    path.write_bytes(pa.Codec(codec).compress(data, asbytes=True) if codec else data)
    rows, rejects = read(path)
    assert not rejects
    assert [row[TEXT] for row in rows] == [row["text"] for row in wanted]
    assert [row["stars"] for row in rows] == [row["stars"] for row in wanted]
    assert [json.loads(row[SOURCE]) for row in rows] == wanted


def test_the_cut_into_pieces_loses_and_doubles_nothing(tmp_path: Path) -> None:
    wanted = documents(1000)
    (tmp_path / "a.jsonl").write_bytes(as_lines(wanted[:900]))
    (tmp_path / "b.jsonl").write_bytes(as_lines(wanted[900:]))
    for piece_bytes in (1000, 7777, 50_000, 1 << 20):
        rows, _ = read(tmp_path, piece_bytes=piece_bytes)
        assert [json.loads(row[SOURCE])["id"] for row in rows] == [row["id"] for row in wanted]
        assert len({row[ROW] for row in rows}) == 1000
        assert sorted(row[ROW] for row in rows) == [row[ROW] for row in rows]


def test_a_row_keeps_its_bytes() -> None:
    line = b'{ "text":"a",  "n": 1.10, "big": 12345678901234567890123, "d":"2020-01-01" }\n'
    parsed = JsonLines("text", {}, 4096).parse(line * 2)
    assert merged(parsed.columns[SOURCE], {}) == line * 2
    added = merged(parsed.columns[SOURCE], {"x": pa.array([1, 2])})
    assert added.startswith(line.rstrip()[:-1])
    assert [json.loads(one)["x"] for one in added.splitlines()] == [1, 2]
    replaced = merged(parsed.columns[SOURCE], {"text": pa.array(["A", "B"])})
    assert b'"n":1.10,"big":12345678901234567890123' in replaced
    assert [json.loads(one)["text"] for one in replaced.splitlines()] == ["A", "B"]


def test_a_cut_off_archive_gives_what_it_holds(tmp_path: Path) -> None:
    wanted = documents(3000)
    data = gzip.compress(as_lines(wanted))
    (tmp_path / "cut.jsonl.gz").write_bytes(data[: len(data) * 2 // 3])
    (tmp_path / "next.jsonl").write_bytes(as_lines(wanted[:3]))
    rows, rejects = read(tmp_path)
    assert [reason for _, reason in rejects] == ["damaged-file"]
    held = len(rows) - 3
    assert held > 1500
    assert [row[TEXT] for row in rows] == [row["text"] for row in [*wanted[:held], *wanted[:3]]]


def test_utf16_and_names_that_lie(tmp_path: Path) -> None:
    wanted = documents(50)
    text = as_lines(wanted).decode()
    (tmp_path / "a.jsonl").write_bytes(text.encode("utf-16"))
    (tmp_path / "b.jsonl").write_bytes(gzip.compress(text.encode()))
    (tmp_path / "c.jsonl.gz").write_bytes(text.encode())
    (tmp_path / "d.jsonl").write_bytes(b"\xef\xbb\xbf" + text.encode())
    rows, rejects = read(tmp_path)
    assert not rejects
    assert [row[TEXT] for row in rows] == [row["text"] for row in wanted] * 4


def test_plain_text_by_lines_and_by_files(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(
        b"one\n\n  \ntwo\r\nnul\x00\ncaf\xe9\n" + b"x" * 5000 + b"\nlast"
    )
    rows, rejects = read(tmp_path, longest=4096)
    assert [row[TEXT] for row in rows] == ["one", "two", "last"]
    assert rejects == [(5, "not-text"), (6, "bad-encoding"), (7, "too-long")]
    (tmp_path / "a.txt").write_text("one\ntwo\n")
    (tmp_path / "b.txt").write_bytes(b"\xff")
    rows, rejects = read(tmp_path, format="documents")
    assert [row[TEXT] for row in rows] == ["one\ntwo\n"]
    assert [reason for _, reason in rejects] == ["bad-encoding"]


def test_csv_with_every_fault(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(
        b'text,stars\n"two\nlines",3\nplain,many\nwrong\n"unclosed,4\ncaf\xe9,1\nempty,\nlast,5\n'
    )
    rows, rejects = read(tmp_path)
    assert [(row[TEXT], row["stars"]) for row in rows] == [
        ("two\nlines", 3.0),
        ("empty", None),
        ("last", 5.0),
    ]
    assert rejects == [
        (4, "wrong-type:stars"),
        (5, "wrong-columns"),
        (6, "unclosed-quote"),
        (7, "bad-encoding"),
    ]


def test_parquet_with_every_fault(tmp_path: Path) -> None:
    broken = pa.array([b"good", b"caf\xe9", None, b"nul\x00"]).view(pa.string())
    pq.write_table(
        pa.table({"text": broken, "row": [1, 2, 3, 4], "_source": list("abcd")}),
        tmp_path / "a.parquet",
    )
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "b.parquet")
    pq.write_table(pa.table({"body": ["a"]}), tmp_path / "c.parquet")
    (tmp_path / "d.parquet").write_bytes(b"PAR1 no")
    rows, rejects = read(tmp_path)
    assert [row[TEXT] for row in rows] == ["good"]
    assert rows[0][SOURCE]["row"] == 1
    assert [reason for _, reason in rejects] == [
        *("bad-encoding", "missing-field:text", "not-text"),
        *("not-text", "not-text", "missing-field:text", "damaged-file"),
    ]


def test_parquet_by_row_groups(tmp_path: Path) -> None:
    wanted = documents(5000)
    table = pa.Table.from_pylist(wanted)
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=400)
    size = (tmp_path / "a.parquet").stat().st_size
    pieces = plan(find_files([tmp_path]), size // 4)
    assert len(pieces) > 3
    rows, _ = read(tmp_path, piece_bytes=size // 4)
    assert [row[SOURCE] for row in rows] == wanted


def test_files_are_found_in_order_and_once(tmp_path: Path) -> None:
    for name in (
        "b.jsonl",
        "a.jsonl",
        "deep/c.jsonl.gz",
        "_rejects.jsonl",
        ".hidden.jsonl",
        "x.bin",
    ):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"{}")
    found = find_files([tmp_path, tmp_path / "*.jsonl"])
    # A pattern that matches a hidden name means it.
    assert [Path(file.url).name for file in found] == [
        "a.jsonl",
        "b.jsonl",
        "c.jsonl.gz",
        "_rejects.jsonl",
        ".hidden.jsonl",
    ][:4]
    with pytest.raises(InputError, match="No file matches"):
        find_files([tmp_path / "*.nothing"])
    with pytest.raises(InputError, match="does not say which format"):
        find_files([tmp_path / "x.bin"])
    assert find_files([tmp_path / "x.bin"], "text")[0].format == "text"
    with pytest.raises(ConfigError, match="Got format 'jsn'"):
        find_files([tmp_path], "jsn")
    with pytest.raises(ConfigError, match="nosuch"):
        find_files(["nosuch://bucket/x.jsonl"])


@pytest.mark.parametrize("name", ["a.jsonl", "a.csv", "a.parquet", "a.txt"])
def test_a_batch_is_bounded_in_bytes_whatever_its_rows(tmp_path: Path, name: str) -> None:
    texts = [f"{i} " + "x" * 200_000 for i in range(150)]
    path = tmp_path / name
    if name == "a.jsonl":
        path.write_bytes(as_lines({"text": text} for text in texts))
    elif name == "a.parquet":
        pq.write_table(pa.table({"text": texts}), path)
    else:
        path.write_text("\n".join(["text", *texts] if name == "a.csv" else texts))
    [piece] = plan(find_files([path]))
    batches = [chunk.batch for chunk in read_piece(piece, ReadOptions())]
    assert [text for batch in batches for text in batch.column(TEXT).to_pylist()] == texts
    # The text and the row as it was read; a block is 4 MB, and a row more.
    assert max(batch.nbytes for batch in batches) < 2 * (4 << 20) + 500_000
