"""The gateway's tables: what was asked of it, who may ask, and how much they have used.

Times are seconds since 1970 (UTC) as double precision: a gateway writes thousands of rows a second, and
a number costs neither a conversion nor a parse. Requests are not answers paid for once (that is
``pilotfish_calls``): the same question asked twice is two rows here.
"""

from __future__ import annotations

import sqlalchemy as sa

from pilotfish.store.columns import Id, Text

METADATA = sa.MetaData()

# Names that callers choose are cut here: three of them, at six bytes for an escaped character, must fit
# the 2,704 bytes that PostgreSQL indexes of a row.
MAX_LABEL = 128

TRAFFIC = sa.Table(
    "pilotfish_traffic",
    METADATA,
    sa.Column("id", Id, primary_key=True),
    sa.Column("request_id", Text, nullable=False, unique=True),
    sa.Column("time", sa.Double, nullable=False),  # when it came in
    sa.Column("caller", Text, nullable=False),  # id of the API key, "" without one
    sa.Column("task", Text, nullable=False),
    sa.Column("asked", Text, nullable=False),
    sa.Column("endpoint", Text, nullable=False),
    sa.Column("model", Text, nullable=False),  # who answered, "" when nobody did
    sa.Column("streamed", sa.Boolean, nullable=False),
    sa.Column("status", sa.Integer, nullable=False),
    sa.Column("error", Text, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("cached_tokens", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.Double),  # US dollars, NULL when unknown
    sa.Column("baseline", sa.Double),
    sa.Column("latency", sa.Double, nullable=False),  # seconds
    sa.Column("first_byte", sa.Double),
    sa.Column("decided", Text, nullable=False),  # by|chose|reason of the outermost decision
    sa.Column("request", sa.LargeBinary),  # NULL where texts are not kept
    sa.Column("completion", sa.LargeBinary),
)

sa.Index("pilotfish_traffic_time", TRAFFIC.c.time)
# Most requests name no task, and then the index costs nothing.
sa.Index(
    "pilotfish_traffic_task",
    TRAFFIC.c.task,
    TRAFFIC.c.id,
    sqlite_where=TRAFFIC.c.task != "",
    postgresql_where=TRAFFIC.c.task != "",
)

# For the codes of the newest errors; a success is not in it and costs nothing.
sa.Index(
    "pilotfish_traffic_errors",
    TRAFFIC.c.time,
    sqlite_where=TRAFFIC.c.error != "",
    postgresql_where=TRAFFIC.c.error != "",
)

# Written in the transaction of the requests that it sums up, so that the two cannot differ.
TRAFFIC_MINUTES = sa.Table(
    "pilotfish_traffic_minutes",
    METADATA,
    sa.Column("minute", sa.BigInteger, primary_key=True, autoincrement=False),  # seconds // 60
    sa.Column("asked", Text, primary_key=True),
    sa.Column("model", Text, primary_key=True),
    sa.Column("task", Text, primary_key=True),
    sa.Column("status", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("errors", sa.BigInteger, nullable=False),
    sa.Column("escalated", sa.BigInteger, nullable=False),
    sa.Column("prompt_tokens", sa.BigInteger, nullable=False),
    sa.Column("completion_tokens", sa.BigInteger, nullable=False),
    sa.Column("cost", sa.Double, nullable=False),  # sum where known
    sa.Column("unpriced", sa.BigInteger, nullable=False),  # answers of unknown cost
    sa.Column("baseline", sa.Double, nullable=False),  # sum where known
    sa.Column("baseline_unknown", sa.BigInteger, nullable=False),
    sa.Column("compared", sa.BigInteger, nullable=False),  # both cost and baseline known:
    sa.Column("compared_cost", sa.Double, nullable=False),
    sa.Column("compared_baseline", sa.Double, nullable=False),
    sa.Column("latency", sa.Double, nullable=False),  # sum
    sa.Column("latency_histogram", sa.LargeBinary, nullable=False),
    sqlite_with_rowid=False,
)

FEEDBACK = sa.Table(
    "pilotfish_feedback",
    METADATA,
    sa.Column("id", Id, primary_key=True),
    sa.Column("time", sa.Double, nullable=False, index=True),
    sa.Column("request_id", Text, nullable=False, index=True),
    sa.Column("caller", Text, nullable=False),
    sa.Column("label", Text, nullable=False),
    sa.Column("score", sa.Double),
    sa.Column("comment", Text, nullable=False),
)

CHECKS = sa.Table(
    "pilotfish_checks",
    METADATA,
    sa.Column("id", Id, primary_key=True),
    sa.Column("time", sa.Double, nullable=False, index=True),
    sa.Column("request_id", Text, nullable=False, index=True),
    sa.Column("asked", Text, nullable=False),
    sa.Column("small", Text, nullable=False),
    sa.Column("large", Text, nullable=False),
    sa.Column("small_answer", Text),  # NULL where texts are not kept
    sa.Column("large_answer", Text),
    sa.Column("agreed", sa.Boolean, nullable=False),
    sa.Column("cost", sa.Double),
)

KEYS = sa.Table(
    "pilotfish_keys",
    METADATA,
    sa.Column("id", Text, primary_key=True),
    sa.Column("name", Text, nullable=False),
    sa.Column("hash", Text, nullable=False, unique=True),  # SHA-256 of the key, hexadecimal
    sa.Column("admin", sa.Boolean, nullable=False),
    sa.Column("models", sa.LargeBinary),  # JSON list, NULL for all
    sa.Column("rate", Text, nullable=False),  # "60/min", "" for none
    sa.Column("spend", Text, nullable=False),  # "5/day" in US dollars
    sa.Column("created", sa.Double, nullable=False),
    sa.Column("revoked", sa.Double),
)

METERS = sa.Table(
    "pilotfish_meters",
    METADATA,
    sa.Column("name", Text, primary_key=True),
    sa.Column("ends", sa.Double, nullable=False),  # the window's end; then it counts from 0 again
    sa.Column("used", sa.Double, nullable=False),
    sqlite_with_rowid=False,
)
