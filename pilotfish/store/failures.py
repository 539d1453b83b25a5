"""Database failures in the user's words: what happened, and what mends it.

SQLite says what happened with a result code (sqlite.org/rescode.html), PostgreSQL with an SQLSTATE (its
manual, appendix A); both are stable, their texts are not.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

import sqlalchemy as sa

from pilotfish.errors import StoreError

# Primary result code: what happened, remedy, whether trying again can help.
_SQLITE: dict[int, tuple[str, str, bool]] = {
    sqlite3.SQLITE_BUSY: (
        "another process is writing to it and did not finish in time",
        "Wait for the other process, or use PostgreSQL for many writers: "
        "PILOTFISH_STORE=postgresql://user@host/database",
        True,
    ),
    sqlite3.SQLITE_LOCKED: ("it is locked", "Wait for the other process.", True),
    sqlite3.SQLITE_READONLY: (
        "the file or its folder is read-only",
        "chmod u+w the file and its folder, or set PILOTFISH_STORE to a file elsewhere.",
        False,
    ),
    sqlite3.SQLITE_CANTOPEN: (
        "the file cannot be opened",
        "Check that it is a file, that its folder exists, and that you may write to both.",
        False,
    ),
    sqlite3.SQLITE_FULL: (
        "the disk is full",
        "Free some space and run the command again; everything written before is kept.",
        False,
    ),
    sqlite3.SQLITE_IOERR: (
        "the disk failed, or a quota or size limit was reached",
        "Check the disk's space, quota and health, then run the command again.",
        False,
    ),
    sqlite3.SQLITE_NOTADB: (
        "the file is no SQLite database",
        "Name another file, or move this one away.",
        False,
    ),
    sqlite3.SQLITE_CORRUPT: (
        "the file is damaged",
        'Recover what is readable: sqlite3 FILE ".recover" | sqlite3 RECOVERED.db',
        False,
    ),
}

# SQLSTATE or its class (two characters); "" is what psycopg gives when there is no connection.
_POSTGRES: dict[str, tuple[str, str, bool]] = {
    "": (
        "the server cannot be reached",
        "Check the host and port of the URL, and that the server runs: pg_isready -h HOST",
        True,
    ),
    "08": ("the connection broke", "Check that the server runs: pg_isready -h HOST", True),
    "3D000": ("there is no such database", "Create it: createdb NAME", False),
    "28": ("the server refused the user or password", "Check both in the URL.", False),
    "42501": (
        "the user may not do this",
        "GRANT CREATE, USAGE ON SCHEMA public TO the user; once, as the database's owner.",
        False,
    ),
    "25006": ("the server is read-only", "Name the primary server, not a replica.", False),
    "53100": ("the server's disk is full", "Free some space on the server.", False),
    "53": ("the server is out of resources", "Free resources on the server, then retry.", True),
    "57": ("the server is shutting down or starting", "Run the command again.", True),
    "40": ("another transaction got in the way", "Run the command again.", True),
    "55": ("it is locked by another transaction", "Run the command again.", True),
}


@contextmanager
def explain(where: str) -> Iterator[None]:
    """Turn the drivers' errors into :class:`StoreError`; ``where`` names the store."""
    try:
        yield
    except sa.exc.TimeoutError as error:
        failure = StoreError(
            f"The store {where} is busy: no connection was free in time.",
            remedy="Use fewer threads at once.",
        )
        failure.retryable = True
        raise failure from error
    except OverflowError as error:
        raise StoreError(f"Cannot write to the store {where}: {error}.") from error
    except (sa.exc.DBAPIError, sqlite3.Error) as error:
        raise _explained(where, error) from error


def _explained(where: str, error: sa.exc.DBAPIError | sqlite3.Error) -> StoreError:
    cause = error.orig if isinstance(error, sa.exc.DBAPIError) else error
    if isinstance(cause, sqlite3.Error):
        code = getattr(cause, "sqlite_errorcode", 0) & 0xFF
        what, remedy, again = _SQLITE.get(code, ("an unexpected error", "", False))
    else:
        state = getattr(cause, "sqlstate", None) or ""
        unknown = ("an unexpected error", "", False)
        what, remedy, again = _POSTGRES.get(state) or _POSTGRES.get(state[:2], unknown)
    detail = " ".join(str(cause).split())
    failure = StoreError(f"Cannot use the store {where}: {what} ({detail}).", remedy=remedy)
    failure.retryable = again
    return failure
