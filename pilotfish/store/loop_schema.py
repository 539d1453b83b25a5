"""The loop's tables: recurring tasks, their learned versions, who answers now, and what it came to.

Times are seconds since 1970 (UTC), as in the gateway's tables. JSON values are binary columns.
"""

from __future__ import annotations

import sqlalchemy as sa

from pilotfish.store.columns import Id, Text

METADATA = sa.MetaData()

TASKS = sa.Table(
    "pilotfish_tasks",
    METADATA,
    sa.Column("name", Text, primary_key=True),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("definition", sa.LargeBinary, nullable=False),  # JSON: prompt, kind, labels, ...
    sa.Column("marks", sa.LargeBinary, nullable=False),  # JSON: what privacy asks for
)

VERSIONS = sa.Table(
    "pilotfish_versions",
    METADATA,
    sa.Column("task", Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("key", Text, nullable=False),  # what it was made from: the same twice is one version
    sa.Column("artifact", Text, nullable=False),
    sa.Column("certificate", sa.LargeBinary, nullable=False),
    sa.Column("settings", sa.LargeBinary, nullable=False),
    sa.UniqueConstraint("task", "key", name="pilotfish_versions_task_key"),
)

# One row a task, changed by one UPDATE: that is what makes a promotion atomic.
POINTERS = sa.Table(
    "pilotfish_pointers",
    METADATA,
    sa.Column("task", Text, primary_key=True),
    sa.Column("serial", sa.BigInteger, nullable=False),  # grows by one with every change
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("shadow", sa.Integer),
    sa.Column("canary", sa.Integer),
    sa.Column("share", sa.Double, nullable=False),  # of the traffic, for the canary
    sa.Column("serving", sa.Integer),  # NULL: everything goes to the large model
    sa.Column("previous", sa.Integer),  # what a roll-back returns to
)

EVENTS = sa.Table(
    "pilotfish_events",
    METADATA,
    sa.Column("id", Id, primary_key=True),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("task", Text, nullable=False),
    sa.Column("version", sa.Integer),
    sa.Column("kind", Text, nullable=False),
    sa.Column("evidence", sa.LargeBinary, nullable=False),
)
sa.Index("pilotfish_events_task", EVENTS.c.task, EVENTS.c.id)

# Which recorded requests a version has learned from, so that forgetting one can name the version.
LESSONS = sa.Table(
    "pilotfish_lessons",
    METADATA,
    sa.Column("request_id", Text, primary_key=True),
    sa.Column("task", Text, primary_key=True),
    sa.Column("version", sa.Integer, primary_key=True, autoincrement=False),
)

DAYS = sa.Table(
    "pilotfish_task_days",
    METADATA,
    sa.Column("task", Text, primary_key=True),
    sa.Column("day", sa.Integer, primary_key=True, autoincrement=False),  # seconds // 86400
    sa.Column("requests", sa.BigInteger, nullable=False),
    sa.Column("small", sa.BigInteger, nullable=False),
    sa.Column("spent", sa.Double, nullable=False),  # on the answers themselves, where known
    sa.Column("baseline", sa.Double, nullable=False),  # what always large would have cost
    sa.Column("unknown", sa.BigInteger, nullable=False),  # requests with no price for one of both
    sa.Column("checks", sa.BigInteger, nullable=False),
    sa.Column("disagreed", sa.BigInteger, nullable=False),
    sa.Column("checks_cost", sa.Double, nullable=False),
    sa.Column("judge_cost", sa.Double, nullable=False),
    # Checks and judges of unknown cost; older databases get it by a step of their own.
    sa.Column("unpriced", sa.BigInteger, nullable=False, server_default="0"),
)

STATES = sa.Table(
    "pilotfish_loop_states",
    METADATA,
    sa.Column("name", Text, primary_key=True),
    sa.Column("time", sa.Double, nullable=False),
    sa.Column("value", sa.LargeBinary, nullable=False),
)
