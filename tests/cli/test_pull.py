"""The commands as a user runs them: paths on stdout, everything else on stderr."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.models.index_server import IndexServer, serving, wheel

SETS = {
    "train": b"text\tlabel\nhello\tgreeting\nbye\tfarewell\n",
    "test": b"text\tlabel\nhi\tgreeting\n",
}

# The same program with one more catalogue entry: the real ones are not on this machine's index.
PROGRAM = """
import hashlib, sys
from pilotfish.models.catalogue import CATALOGUE, Entry, File, Part
sets = eval(sys.argv.pop(1))
files = tuple(
    File(f"raw/{s}.tsv", len(c), hashlib.sha256(c).hexdigest(), None,
         (Part("tiny", "1.0", f"data/{s}.tsv"),), s)
    for s, c in sets.items()
)
CATALOGUE._entries["tiny"] = Entry("tiny", "data", "Tiny set", "CC0-1.0", "", files, 500, "tsv")
import typer
from pilotfish.cli.models import models
from pilotfish.cli.pull import pull
from pilotfish.errors import PilotfishError
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(pull)
app.command()(models)
try:
    app()
except PilotfishError as error:
    sys.exit(f"Error: {error}")
"""


@pytest.fixture
def server() -> Iterator[IndexServer]:
    with serving() as server:
        members = {f"data/{split}.tsv": content for split, content in SETS.items()}
        server.add_archive("tiny", *wheel("tiny", "1.0", members))
        yield server


def command(server: IndexServer, *arguments: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("PIP_NO_INDEX", "PIP_FIND_LINKS")}
    env |= {
        "PIP_CONFIG_FILE": os.devnull,
        "UV_NO_CONFIG": "1",
        "PIP_INDEX_URL": f"{server.url}/simple",
    }
    return subprocess.run(
        [sys.executable, "-c", PROGRAM, repr(SETS), *arguments],
        capture_output=True,
        text=True,
        env=env,
        timeout=60,
        check=False,
    )


def test_pull_prints_paths_that_can_be_passed_on(server: IndexServer) -> None:
    done = command(server, "pull", "tiny")
    assert done.returncode == 0, done.stderr
    train, test = (Path(line) for line in done.stdout.splitlines())
    rows = [json.loads(line) for line in train.read_text("utf-8").splitlines()]
    assert rows == [{"text": "hello", "label": "greeting"}, {"text": "bye", "label": "farewell"}]
    assert test.name == "test.jsonl"
    assert done.stderr == ""
    hits = len(server.hits)
    assert command(server, "pull", "tiny").stdout == done.stdout
    assert len(server.hits) == hits


def test_pull_to_a_folder_and_as_json(server: IndexServer, tmp_path: Path) -> None:
    done = command(server, "pull", "tiny", "--to", str(tmp_path), "--json")
    (result,) = json.loads(done.stdout)
    assert result["paths"] == [str(tmp_path / "tiny" / f"{s}.jsonl") for s in SETS]
    assert all(Path(path).exists() for path in result["paths"])
    assert result["name"] == "tiny"
    assert result["bytes"] == sum(map(len, SETS.values()))


def test_a_typo_fetches_nothing(server: IndexServer) -> None:
    done = command(server, "pull", "tiny", "tinny")
    assert done.returncode == 1
    assert "Did you mean 'tiny'" in done.stderr
    assert done.stdout == ""
    assert server.hits == []


def test_a_failure_exits_with_the_reason(server: IndexServer) -> None:
    server.projects.clear()
    done = command(server, "pull", "tiny")
    assert done.returncode == 1
    assert "package index" in done.stderr
    assert "Traceback" not in done.stderr


def test_models_lists_what_is_here(server: IndexServer) -> None:
    def row() -> dict[str, object]:
        listed = json.loads(command(server, "models", "--json").stdout)["catalogue"]
        return next(entry for entry in listed if entry["name"] == "tiny")

    assert row()["here"] is False
    command(server, "pull", "tiny")
    assert row()["here"] is True
    table = command(server, "models").stdout
    assert "qwen2.5-coder-1.5b" in table
    assert "1.12 GB" in table
    assert "pilotfish pull NAME" in table
    assert "llama.cpp" in table


def test_models_of_one_kind(server: IndexServer) -> None:
    listed = json.loads(command(server, "models", "--kind", "encoder", "--json").stdout)
    assert {entry["kind"] for entry in listed["catalogue"]} == {"encoder"}
    assert {row["name"] for row in listed["backends"]} >= {"static", "onnx"}
    wrong = command(server, "models", "--kind", "encodr")
    assert wrong.returncode == 1
    assert "Did you mean 'encoder'" in wrong.stderr


def test_help_needs_nothing_heavy(server: IndexServer) -> None:
    code = (
        "import sys, pilotfish.cli.pull, pilotfish.cli.models;"
        "print([m for m in ('numpy', 'rich', 'httpx2', 'unearth') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
    assert "goes on from there" in " ".join(command(server, "pull", "--help").stdout.split())
