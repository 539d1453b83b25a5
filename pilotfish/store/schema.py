"""The tables of the store, and the steps that bring an older database up to date.

Names carry the prefix ``pilotfish_``, so that the tables can share a PostgreSQL database with others.
:data:`STEPS` is the history of the schema: the version of a database is the number of steps applied to
it, each recorded with the Pilotfish version that applied it. All missing steps run in one transaction
(both databases roll back DDL), so a failed upgrade leaves the database as it was.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime

import sqlalchemy as sa

from pilotfish import __version__
from pilotfish.errors import StoreError
from pilotfish.store import gateway_schema, loop_schema
from pilotfish.store.columns import Id, Text, Time

# PostgreSQL indexes at most 2,704 bytes a row: two names, at six bytes for an escaped character.
MAX_NAME = 200


def check_names(**names: str) -> None:
    """Refuse names that are too long for an index.

    Raises:
        StoreError: Says which one.
    """
    for what, name in names.items():
        if len(name) > MAX_NAME:
            raise StoreError(
                f"Got a {what} of {len(name)} characters, but expected at most {MAX_NAME}.",
                remedy="Use a hash of it, or a shorter name.",
            )


METADATA = sa.MetaData()

SCHEMA = sa.Table(
    "pilotfish_schema",
    METADATA,
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("pilotfish", Text, nullable=False),
    sa.Column("applied", Time, nullable=False),
)

CALLS = sa.Table(
    "pilotfish_calls",
    METADATA,
    sa.Column("id", Id, primary_key=True),
    sa.Column("key", Text, nullable=False, unique=True),
    sa.Column("time", Time, nullable=False),
    sa.Column("task", Text, nullable=False),
    sa.Column("run", Text, nullable=False),
    sa.Column("model", Text, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.Double),
    sa.Column("latency", sa.Double, nullable=False),
    sa.Column("cached", sa.Boolean, nullable=False),
    sa.Column("request", sa.LargeBinary, nullable=False),
    sa.Column("completion", sa.LargeBinary, nullable=False),
)

# Reading goes page by page in id order, so each filter needs the id behind it.
sa.Index("pilotfish_calls_task", CALLS.c.task, CALLS.c.id)
sa.Index("pilotfish_calls_run", CALLS.c.run, CALLS.c.id)

RUNS = sa.Table(
    "pilotfish_runs",
    METADATA,
    sa.Column("id", Text, primary_key=True),
    sa.Column("kind", Text, nullable=False),
    sa.Column("key", Text, nullable=False),
    sa.Column("settings", sa.LargeBinary, nullable=False),
    sa.Column("status", Text, nullable=False),
    sa.Column("summary", sa.LargeBinary),
    sa.Column("started", Time, nullable=False),
    sa.Column("owner", Text),  # JSON of the process that holds the lease, NULL when none does
    sa.Column("token", Text),
    sa.Column("beat", Time),
    sa.UniqueConstraint("kind", "key", name="pilotfish_runs_kind_key"),
)

STATES = sa.Table(
    "pilotfish_run_states",
    METADATA,
    sa.Column("run", Text, primary_key=True),
    sa.Column("name", Text, primary_key=True),
    sa.Column("time", Time, nullable=False),
    sa.Column("value", sa.LargeBinary, nullable=False),
)

DECISIONS = sa.Table(
    "pilotfish_decisions",
    METADATA,
    sa.Column("id", Id, primary_key=True),
    sa.Column("time", Time, nullable=False),
    sa.Column("task", Text, nullable=False),
    sa.Column("run", Text, nullable=False),
    sa.Column("key", Text, nullable=False),
    sa.Column("by", Text, nullable=False),
    sa.Column("chose", Text, nullable=False),
    sa.Column("reason", Text, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("threshold", sa.Double),
    sa.Column("rejected", sa.LargeBinary, nullable=False),
)

sa.Index("pilotfish_decisions_task", DECISIONS.c.task, DECISIONS.c.id)
sa.Index("pilotfish_decisions_run", DECISIONS.c.run, DECISIONS.c.id)


def _create_tables(connection: sa.Connection) -> None:
    METADATA.create_all(connection)


def _create_gateway_tables(connection: sa.Connection) -> None:
    gateway_schema.METADATA.create_all(connection)


def _create_loop_tables(connection: sa.Connection) -> None:
    loop_schema.METADATA.create_all(connection)


def _count_unpriced(connection: sa.Connection) -> None:
    """Add the column to a database that has the table without it."""
    table = loop_schema.DAYS
    there = {column["name"] for column in sa.inspect(connection).get_columns(table.name)}
    if "unpriced" not in there:
        connection.exec_driver_sql(
            f"ALTER TABLE {table.name} ADD COLUMN unpriced BIGINT NOT NULL DEFAULT 0"
        )


Step = Callable[[sa.Connection], None]
STEPS: tuple[Step, ...] = (
    _create_tables,
    _create_gateway_tables,
    _create_loop_tables,
    _count_unpriced,
)


def version_of(connection: sa.Connection) -> int:
    """The schema version of a database; 0 when it holds none of our tables."""
    if not sa.inspect(connection).has_table(SCHEMA.name):
        return 0
    return connection.execute(sa.select(sa.func.max(SCHEMA.c.version))).scalar() or 0


def check_version(connection: sa.Connection, where: str, steps: Sequence[Step] = STEPS) -> bool:
    """Whether a database needs no step.

    Raises:
        StoreError: It was written by a newer Pilotfish; names the version to install.
    """
    version = version_of(connection)
    if version > len(steps):
        newest = sa.select(SCHEMA.c.pilotfish).where(SCHEMA.c.version == version)
        wanted = connection.execute(newest).scalar_one()
        raise StoreError(
            f"The store {where} has schema version {version}, but this Pilotfish ({__version__}) "
            f"knows versions up to {len(steps)}.",
            remedy=f'pip install "pilotfish>={wanted}"',
        )
    return version == len(steps)


def migrate(connection: sa.Connection, where: str, steps: Sequence[Step] = STEPS) -> None:
    """Apply the steps that are missing; the caller's transaction makes it all or nothing."""
    if connection.dialect.name == "postgresql":
        # Two processes that open an empty database at once must not both create the tables.
        connection.exec_driver_sql("SELECT pg_advisory_xact_lock(7091623848)")
    if check_version(connection, where, steps):
        return
    for number, step in enumerate(steps[version_of(connection) :], version_of(connection) + 1):
        step(connection)
        connection.execute(
            sa.insert(SCHEMA).values(
                version=number, pilotfish=__version__, applied=datetime.now(UTC)
            )
        )
