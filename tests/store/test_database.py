"""Opening: URLs, versions of the schema, and failures that say what mends them."""

from __future__ import annotations

import sqlite3
import stat
import subprocess
import sys

import pytest
import sqlalchemy as sa

from pilotfish import __version__
from pilotfish.errors import MissingExtra, StoreError
from pilotfish.store import database, gateway_schema, schema
from pilotfish.store.database import Database, parse_url, shown
from pilotfish.store.ledger import Day
from pilotfish.store.store import open_store
from tests.store.test_store import entry


@pytest.mark.parametrize("scheme", ["postgresql", "postgresql+psycopg", "postgres"])
def test_postgres_urls(postgres, scheme):
    url = postgres.new_database().replace("postgresql", scheme, 1)
    with open_store(url) as store:
        store.put([entry(1)])
        assert store.count() == 1


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("pilotfish.db", "expected a URL"),
        ("", "expected a URL"),
        ("mysql://u@h/db", "'mysql'"),
        ("sqlite+aiosqlite:///x.db", "'sqlite+aiosqlite'"),
    ],
)
def test_other_urls_are_refused(url, said):
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert said in str(caught.value)
    assert "sqlite:///" in caught.value.remedy


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://me:s3cret@localhost:1/db",
        "postgresql://me@localhost:1/db?password=s3cret",
        "postgresql://me@localhost:1/db?sslpassword=s3cret",
        "me:s3cret@localhost/db",
        "postgresql://me:s3cret@localhost:port/db",
        "mysql://me:s3cret@localhost/db",
    ],
)
def test_the_password_is_never_shown(url):
    with pytest.raises(StoreError) as caught:
        open_store(url, timeout=2)
    assert "s3cret" not in str(caught.value)
    assert "s3cret" not in repr(caught.value.__context__)


def test_the_password_is_not_in_repr(tmp_path):
    assert shown(parse_url("postgresql://me:s3cret@h/db")) == "postgresql+psycopg://me:***@h/db"
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        assert repr(store) == f"Store('sqlite:///{tmp_path}/a.db')"


def test_a_relative_file_stays_where_it_was_opened(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open_store("sqlite:///a.db") as store:
        monkeypatch.chdir("/")
        store.put([entry(1)])
        assert store.url == f"sqlite:///{tmp_path}/a.db"
    assert (tmp_path / "a.db").exists()


def test_the_file_is_private_and_left_alone(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        store.put([entry(1)])
        for path in tmp_path.iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
    assert [path.name for path in tmp_path.iterdir()] == ["a.db"], "closing folds the WAL back"


@pytest.mark.parametrize(("durable", "level"), [("process", 1), ("full", 2)])
def test_sqlite_settings(tmp_path, durable, level):
    url = f"sqlite:///{tmp_path}/a.db"
    with open_store(url, durable=durable, timeout=7) as store, store._database.read() as connection:
        values = [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar()
            for name in ("journal_mode", "synchronous", "busy_timeout")
        ]
    assert values == ["wal", level, 7000]


def test_postgres_full_durability(postgres):
    url = postgres.new_database()
    with open_store(url, durable="full") as store, store._database.read() as connection:
        assert connection.exec_driver_sql("SHOW synchronous_commit").scalar() == "on"


def test_an_empty_file_becomes_a_store(tmp_path):
    (tmp_path / "empty.db").touch()
    with open_store(f"sqlite:///{tmp_path}/empty.db") as store:
        store.put([entry(1)])
        assert store.count() == 1


@pytest.mark.parametrize("content", [b"%PDF-1.7 hello", b"x" * 10_000, b"SQLite format 3\0" * 400])
def test_a_file_that_is_no_database(tmp_path, content):
    path = tmp_path / "notes.txt"
    path.write_bytes(content)
    with pytest.raises(StoreError, match=r"no SQLite database|damaged") as caught:
        open_store(f"sqlite:///{path}")
    assert caught.value.remedy
    assert path.read_bytes() == content, "it is left as it was"


def test_a_folder_and_a_missing_folder(tmp_path):
    with pytest.raises(StoreError, match="cannot be opened"):
        open_store(f"sqlite:///{tmp_path}")
    with pytest.raises(StoreError, match="No such file or directory") as caught:
        open_store(f"sqlite:///{tmp_path}/missing/a.db")
    assert f"mkdir -p {tmp_path}/missing" in caught.value.remedy


def _fill(connection):
    connection.exec_driver_sql("ALTER TABLE pilotfish_calls ADD COLUMN stars INTEGER DEFAULT 5")


def test_an_old_store_is_brought_up_to_date(url, monkeypatch):
    with open_store(url) as store:
        store.put([entry(1)])
    monkeypatch.setattr(schema, "STEPS", (*schema.STEPS, _fill))
    with open_store(url) as store:
        with store._database.read() as connection:
            rows = connection.execute(sa.select(schema.SCHEMA).order_by("version")).all()
            stars = connection.exec_driver_sql("SELECT stars FROM pilotfish_calls").scalar()
        steps = range(1, len(schema.STEPS) + 1)
        assert [(row.version, row.pilotfish) for row in rows] == [(n, __version__) for n in steps]
        assert stars == 5
        assert store.get([entry(1)[0]])
    open_store(url).close()


def test_a_store_without_the_count_of_unpriced_calls_gets_it(url, monkeypatch):
    steps = schema.STEPS
    monkeypatch.setattr(schema, "STEPS", steps[:3])
    with open_store(url) as store:
        store.ledger.commit({}, [Day("task", 20_000, requests=4, checks=1, unpriced=1)])
        with store._database.write() as connection:
            connection.exec_driver_sql("ALTER TABLE pilotfish_task_days DROP COLUMN unpriced")
    monkeypatch.setattr(schema, "STEPS", steps)
    with open_store(url) as store:
        store.ledger.commit({}, [Day("task", 20_000, requests=4, checks=1, unpriced=1)])
        assert store.ledger.days() == [Day("task", 20_000, requests=8, checks=2, unpriced=1)]


def test_a_store_of_the_first_release_gets_the_gateways_tables(url, monkeypatch):
    steps = schema.STEPS
    monkeypatch.setattr(schema, "STEPS", steps[:1])
    with open_store(url) as store:
        store.put([entry(1)])
        with store._database.read() as connection:
            assert not sa.inspect(connection).has_table("pilotfish_traffic")
    monkeypatch.setattr(schema, "STEPS", steps)
    with open_store(url) as store:
        assert store.count() == 1
        for table in gateway_schema.METADATA.sorted_tables:
            with store._database.read() as connection:
                assert connection.execute(sa.select(table)).all() == [], table


def test_a_failed_step_leaves_the_store_as_it_was(url, monkeypatch):
    with open_store(url) as store:
        store.put([entry(1)])

    def fails(connection):
        _fill(connection)
        connection.exec_driver_sql("ALTER TABLE no_such_table ADD COLUMN x INTEGER")

    old = schema.STEPS
    monkeypatch.setattr(schema, "STEPS", (*old, fails))
    with pytest.raises(StoreError, match="no_such_table"):
        open_store(url)
    monkeypatch.setattr(schema, "STEPS", old)
    with open_store(url) as store, store._database.read() as connection:
        assert schema.version_of(connection) == len(old)
        columns = {c["name"] for c in sa.inspect(connection).get_columns("pilotfish_calls")}
        assert "stars" not in columns
        assert store.count() == 1


def test_a_newer_store_says_what_to_install(url):
    with open_store(url) as store, store._database.write() as connection:
        connection.execute(
            sa.insert(schema.SCHEMA).values(
                version=7, pilotfish="3.2.1", applied=store._database.now(connection)
            )
        )
    with pytest.raises(StoreError) as caught:
        open_store(url)
    assert "schema version 7" in str(caught.value)
    assert caught.value.remedy == 'pip install "pilotfish>=3.2.1"'


def test_other_tables_in_the_database_are_left_alone(url):
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE calls (mine INTEGER)")
        connection.exec_driver_sql("INSERT INTO calls VALUES (1)")
    with open_store(url) as store:
        store.put([entry(1)])
    with engine.connect() as connection:
        assert connection.exec_driver_sql("SELECT mine FROM calls").all() == [(1,)]
    engine.dispose()


def test_locked(tmp_path):
    path = tmp_path / "a.db"
    with open_store(f"sqlite:///{path}", timeout=0.1) as store:
        other = sqlite3.connect(path, isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        assert store.count() == 0, "reading goes on"
        with pytest.raises(StoreError, match="another process is writing") as caught:
            store.put([entry(1)])
        assert caught.value.retryable
        assert "postgresql://" in caught.value.remedy
        other.close()
        store.put([entry(1)])
        assert store.count() == 1


def test_disk_full(tmp_path):
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        store.put([entry(1)])
        with store._database.read() as connection:  # one thread: the pool gives the same one again
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 2}")
        with pytest.raises(StoreError, match="the disk is full") as caught:
            store.put([entry(i, "x" * 10_000) for i in range(2, 50)])
        assert "Free some space" in caught.value.remedy
        assert store.count() == 1


def test_a_real_write_error(tmp_path):
    code = f"""
import resource
from pilotfish.store.store import open_store
from pilotfish.records import Completion, Request
store = open_store("sqlite:///{tmp_path}/a.db")
store.put([("kept", Request.of("q"), Completion("a", "m"))])
resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))
store.put([(str(i), Request.of("q"), Completion("x" * 10_000, "m")) for i in range(99)])
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "StoreError: Cannot use the store" in done.stderr
    assert "Check the disk's space" in done.stderr
    with open_store(f"sqlite:///{tmp_path}/a.db") as store:
        assert list(store.get(["kept", "0", "98"])) == ["kept"]


def _as_nobody(code):
    """Run as a user who is not root, whom permissions bind."""
    start = """
import os
from pilotfish.store.store import open_store
open_store("sqlite://").close()  # imports what it needs while it may read it
if os.geteuid() == 0:
    os.setgroups([]), os.setgid(65534), os.setuid(65534)
"""
    done = subprocess.run(
        [sys.executable, "-c", start + code], capture_output=True, text=True, check=False
    )
    return done.stderr


def test_read_only_file_and_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readonly")
    for parent in (folder, *folder.parents):
        if "pytest-" in str(parent):  # pytest's own, closed to others
            parent.chmod(0o755)
    path = folder / "a.db"
    with open_store(f"sqlite:///{path}") as store:
        store.put([entry(1)])
    path.chmod(0o444)
    folder.chmod(0o555)
    use = "open_store('sqlite:///{}').{}"
    said = _as_nobody(use.format(path, "put([('k', None, None)])"))
    assert "StoreError: Cannot use the store" in said
    assert "folder" in said
    said = _as_nobody(use.format(folder / "new.db", "count()"))
    assert "StoreError: Cannot create the store" in said
    assert "PILOTFISH_STORE=" in said
    folder.chmod(0o755)


def test_postgres_failures(postgres):
    with pytest.raises(StoreError, match="cannot be reached") as caught:
        open_store("postgresql://me@localhost:1/db", timeout=2)
    assert caught.value.retryable
    with pytest.raises(StoreError, match='database "missing" does not exist'):
        open_store(postgres.url("missing"))


def test_postgres_comes_back(postgres):
    """A server that dropped every connection (a restart) costs nothing but a reconnect."""
    url = postgres.new_database()
    with open_store(url) as store:
        store.put([entry(1)])
        admin = sa.create_engine(postgres.url("postgres", "postgresql+psycopg"))
        with admin.connect() as connection:
            connection.exec_driver_sql(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> "
                "pg_backend_pid() AND application_name = 'pilotfish'"
            )
        admin.dispose()
        store.put([entry(2)])
        assert store.count() == 2


def test_a_missing_driver_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "psycopg", None)
    with pytest.raises(MissingExtra, match=r"pilotfish\[postgres\]"):
        open_store("postgresql://me@localhost/db")


def test_one_writer_lock_per_file(tmp_path):
    one, two = (Database(f"sqlite:///{tmp_path}/a.db") for _ in range(2))
    other = Database(f"sqlite:///{tmp_path}/b.db")
    assert one._writer is two._writer is not other._writer
    for opened in (one, two, other):
        opened.close()
    assert database._locks
