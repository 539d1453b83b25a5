"""What a run wrote and counted, but for times and places; and five steps with their rows by hand."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from pilotfish.curate.result import CurateResult
from pilotfish.curate.scores.length import Length
from tests.conftest import REPOSITORY
from tests.curate.corpus import Quality, Unique, Upper


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


STEPPED = [Length(min_chars=30, column="chars"), Quality(), Unique(), Length(min_chars=40), Upper()]


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
