"""What was said about answers afterwards: by callers (feedback), and by a second model (checks)."""

from __future__ import annotations

import math
import time
from collections.abc import Iterable
from dataclasses import astuple, dataclass, field, fields

import sqlalchemy as sa

from pilotfish.errors import InputError
from pilotfish.store.database import Database
from pilotfish.store.gateway_schema import CHECKS, FEEDBACK, MAX_LABEL


@dataclass(frozen=True, slots=True)
class Feedback:
    """A caller's word on an earlier answer.

    Attributes:
        request_id: The answer's request.
        label: What would have been right, or "".
        score: How good it was, in [0, 1], or None.
        comment: Free text, or "".
        caller: Id of the API key, or "".
        time: Seconds since 1970.
    """

    request_id: str
    label: str = ""
    score: float | None = None
    comment: str = ""
    caller: str = ""
    time: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Check:
    """An answer of a small model held against the large one's.

    Attributes:
        request_id: The request that both answered.
        asked: The name of the model that was asked for.
        small: Who had answered.
        large: Who answered for comparison.
        agreed: Whether the two answers agree.
        small_answer: Its text; None where texts are not kept.
        large_answer: Its text; None where texts are not kept.
        cost: US dollars of the second answer, None when unknown.
        time: Seconds since 1970.
    """

    request_id: str
    asked: str
    small: str
    large: str
    agreed: bool
    small_answer: str | None = None
    large_answer: str | None = None
    cost: float | None = None
    time: float = field(default_factory=time.time)


_FEEDBACK = [FEEDBACK.c[f.name] for f in fields(Feedback)]
_CHECK = [CHECKS.c[f.name] for f in fields(Check)]


class FeedbackLog:
    """The feedback in a store; ``Store.feedback`` is one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, entry: Feedback) -> None:
        """Append feedback, durable on return; a later word on the same answer does not replace it.

        Raises:
            InputError: The score is not in [0, 1], or the id is too long.
            StoreError: It could not be written.
        """
        if entry.score is not None and not 0 <= entry.score <= 1:  # NaN too
            raise InputError(f"Got a score of {entry.score}, but expected 0 to 1.")
        if len(entry.request_id) > MAX_LABEL:  # it is indexed
            raise InputError(
                f"Got a request id of {len(entry.request_id)} characters, but expected at most "
                f"{MAX_LABEL}."
            )
        with self._database.write() as connection:
            row = zip((column.name for column in _FEEDBACK), astuple(entry), strict=True)
            connection.execute(sa.insert(FEEDBACK).values(dict(row)))

    def about(self, request_ids: Iterable[str]) -> list[Feedback]:
        """All feedback on these requests (at most some hundreds), oldest first."""
        query = sa.select(*_FEEDBACK).where(FEEDBACK.c.request_id.in_(list(request_ids)))
        with self._database.read() as connection:
            return [Feedback(*row) for row in connection.execute(query.order_by(FEEDBACK.c.id))]

    def recent(self, limit: int = 50) -> list[Feedback]:
        """The newest feedback, newest first."""
        query = sa.select(*_FEEDBACK).order_by(FEEDBACK.c.id.desc()).limit(limit)
        with self._database.read() as connection:
            return [Feedback(*row) for row in connection.execute(query)]


class CheckLog:
    """The checks in a store; ``Store.checks`` is one."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, check: Check) -> None:
        """Append a check, durable on return.

        Raises:
            StoreError: It could not be written.
        """
        row = dict(zip((column.name for column in _CHECK), astuple(check), strict=True))
        for name in ("asked", "small", "large"):
            row[name] = row[name][:MAX_LABEL]
        if row["cost"] is not None and not math.isfinite(row["cost"]):
            row["cost"] = None
        with self._database.write() as connection:
            connection.execute(sa.insert(CHECKS).values(row))

    def recent(self, limit: int = 50, *, asked: str | None = None) -> list[Check]:
        """The newest checks, newest first; of one model that was asked for, or of all."""
        query = sa.select(*_CHECK).order_by(CHECKS.c.id.desc()).limit(limit)
        if asked is not None:
            query = query.where(CHECKS.c.asked == asked[:MAX_LABEL])
        with self._database.read() as connection:
            return [Check(*row) for row in connection.execute(query)]
