"""The command: results on stdout, progress on stderr, errors that say what helps."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pilotfish.cli.curate import _size
from pilotfish.errors import InputError
from tests.curate.corpus import as_lines, documents

PIPELINE = """
[[steps]]
step = "length"
min_chars = 100

[[steps]]
step = "length"
max_chars = 300
"""


@pytest.fixture(autouse=True)
def files() -> None:
    Path("pipeline.toml").write_text(PIPELINE)
    Path("corpus").mkdir()
    Path("corpus/a.jsonl").write_bytes(as_lines(documents(300)))
    Path("corpus/b.jsonl").write_bytes(as_lines(documents(300, seed=1)) + b"no json\n")


def run(*words: str, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pilotfish.cli.main", "curate", *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code, done.stderr
    return done


def test_from_files_to_shards_and_the_same_command_again() -> None:
    done = run("pipeline.toml", "corpus/*.jsonl", "out", "--compression", "zstd")
    assert "of 600 rows stayed" in done.stdout
    assert "length (2)" in done.stdout
    assert "Not usable: not-json 1" in done.stdout
    assert "_report.html" in done.stdout
    assert "done in" in done.stderr
    assert sorted(path.name for path in Path("out").iterdir()) == [
        *("_rejects.jsonl", "_report.html", "_report.json", "part-00000.jsonl.zst"),
    ]
    again = run("pipeline.toml", "corpus/*.jsonl", "out", "--compression", "zstd", "--json")
    assert "finished already" in again.stderr
    assert json.loads(again.stdout)["rows_read"] == 600


def test_two_inputs_and_all_options() -> None:
    done = run(
        *("pipeline.toml", "corpus/b.jsonl,corpus/a.jsonl", "out", "--json", "--engine", "local"),
        *("--format", "parquet", "--shard-size", "20k", "--max-row-size", "1M", "--text", "text"),
        *("--input-format", "jsonl", "--work", "unfinished", "--workers", "1"),
    )
    result = json.loads(done.stdout)
    assert result["rows_read"] == 600
    assert result["shards"][0] == "part-00000.parquet"
    assert len(result["shards"]) > 3
    assert result["engine"] == "local"
    assert not Path("unfinished").exists()


def test_an_input_may_have_a_comma_in_its_name() -> None:
    Path("one, two.jsonl").write_text('{"text": "a text of some length, long enough to stay"}\n')
    done = run("pipeline.toml", "one, two.jsonl", "out", "--json", "--workers", "1")
    assert json.loads(done.stdout)["rows_read"] == 1


def test_a_dry_run_writes_nothing() -> None:
    done = run("pipeline.toml", "corpus", "out", "--dry-run", "--sample", "100")
    assert "rows of a sample stayed" in done.stdout
    assert "dropped here" in done.stdout
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("change", "words", "said"),
    [
        (("length", "lenght"), (), "Did you mean 'length'?"),
        (("min_chars", "min_char"), (), "Did you mean 'min_chars'?"),
        ((), ("--engine", "rya"), "Did you mean 'ray'?"),
        ((), ("--shard-size", "lots"), "expected a size such as 64M"),
        ((), ("--shard-size", "inf"), "expected a size such as 64M"),
        ((), ("--text", "txt"), 'Did you mean text = "text"?'),
    ],
)
def test_mistakes_are_told_in_a_sentence(
    change: tuple[str, ...], words: tuple[str, ...], said: str
) -> None:
    if change:
        Path("pipeline.toml").write_text(PIPELINE.replace(*change, 1))
    done = run("pipeline.toml", "corpus", "out", *words, code=2)
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "size"), [("64M", 64_000_000), ("1.5g", 1_500_000_000), ("10KB", 10_000), ("7", 7)]
)
def test_sizes(text: str, size: int) -> None:
    assert _size("--x", text) == size
    with pytest.raises(InputError, match="--x '7X'"):
        _size("--x", "7X")
