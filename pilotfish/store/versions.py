"""Tasks, their learned versions, and the one row per task that says who answers.

A version never changes once it is there; what changes is the *pointer* of its task: which version is
watched in shadow, which answers a share of the traffic, which answers all that it is sure about. Every
change is one row, written together with the event that says why, in one transaction. Roll-back is such
a change too. Workers read all pointers with one small query (:class:`Pointers`), at most every
:data:`POLL_SECONDS`, so that a change reaches each of them within a second.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from pilotfish.errors import StoreError, UnknownName
from pilotfish.store.database import Database
from pilotfish.store.encoding import pack_json, unpack_json
from pilotfish.store.loop_schema import EVENTS, LESSONS, POINTERS, TASKS, VERSIONS
from pilotfish.store.schema import check_names

POLL_SECONDS = 0.5
_ROWS = 500


@dataclass(frozen=True, slots=True)
class Pointer:
    """Who answers a task.

    Attributes:
        task: Its name.
        serial: Grows with every change.
        shadow: Version that is compared and answers nobody.
        canary: Version that answers a share.
        share: That share, in [0, 1].
        serving: Version in service; None: everything goes to the large model.
        previous: Version that a roll-back returns to.
    """

    task: str
    serial: int = 0
    shadow: int | None = None
    canary: int | None = None
    share: float = 0.0
    serving: int | None = None
    previous: int | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One learned version of a task.

    Attributes:
        task: The task's name.
        version: 1, 2, ...
        time: When it was made, seconds since 1970.
        artifact: Its folder.
        certificate: What is promised, as JSON values.
        settings: What else its makers want to know again, as JSON values.
    """

    task: str
    version: int
    time: float
    artifact: str
    certificate: Mapping[str, Any]
    settings: Mapping[str, Any]

    @property
    def name(self) -> str:
        """As it appears in answers: ``TASK@VERSION``."""
        return f"{self.task}@{self.version}"


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to a task: a step of a version, an alarm, a roll-back."""

    time: float
    task: str
    version: int | None
    kind: str
    evidence: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class KnownTask:
    """A task as the store knows it: its definition and its privacy marks, as JSON values."""

    name: str
    definition: Mapping[str, Any]
    marks: Mapping[str, Any]


class Versions:
    """Reads and changes them; safe to share between threads and processes."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def tasks(self) -> dict[str, KnownTask]:
        """All tasks by name, in order of their names."""
        query = sa.select(TASKS.c.name, TASKS.c.definition, TASKS.c.marks).order_by(TASKS.c.name)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return {r.name: KnownTask(r.name, unpack_json(r[1]), unpack_json(r[2])) for r in rows}

    def keep_task(
        self,
        name: str,
        definition: Mapping[str, Any] | None = None,
        marks: Mapping[str, Any] | None = None,
    ) -> None:
        """Add a task or change what is given of it; the rest stays.

        Raises:
            StoreError: The name is too long.
            UnknownName: A new task comes without its definition.
        """
        check_names(task=name)
        changes = {
            key: pack_json(dict(value))
            for key, value in (("definition", definition), ("marks", marks))
            if value is not None
        }
        with self._database.write() as connection:
            at = TASKS.c.name == name
            if connection.execute(sa.select(TASKS.c.name).where(at)).first() is None:
                if definition is None:
                    raise UnknownName("task", name, self._names(connection))
                row = {"name": name, "time": time.time(), "marks": pack_json({}), **changes}
                connection.execute(sa.insert(TASKS).values(row))
            elif changes:
                connection.execute(sa.update(TASKS).where(at).values(changes))

    def add(
        self,
        task: str,
        key: str,
        artifact: str,
        certificate: Mapping[str, Any],
        settings: Mapping[str, Any],
        lessons: Iterable[str] = (),
    ) -> Version:
        """Add a version, once for each key; a known key gives the version that is there.

        Args:
            task: Whose.
            key: Identifies what it was made from.
            artifact: Its folder.
            certificate: JSON values.
            settings: JSON values.
            lessons: Ids of the requests that it learned from.
        """
        check_names(task=task, key=key)
        with self._database.write() as connection:
            if not self._database.is_sqlite:
                connection.execute(
                    sa.select(TASKS.c.name).where(TASKS.c.name == task).with_for_update()
                )
            known = sa.select(VERSIONS.c.version).where(VERSIONS.c.task == task)
            number = connection.execute(known.where(VERSIONS.c.key == key)).scalar()
            if number is None:
                highest = sa.select(sa.func.max(VERSIONS.c.version)).where(VERSIONS.c.task == task)
                number = (connection.execute(highest).scalar() or 0) + 1
                connection.execute(
                    sa.insert(VERSIONS).values(
                        task=task, version=number, time=time.time(), key=key, artifact=artifact,
                        certificate=pack_json(dict(certificate)), settings=pack_json(dict(settings)),
                    )
                )  # fmt: skip
                rows = [
                    {"request_id": r, "task": task, "version": number}
                    for r in dict.fromkeys(lessons)
                ]
                for start in range(0, len(rows), _ROWS):
                    connection.execute(sa.insert(LESSONS), rows[start : start + _ROWS])
        return self.version(task, number)

    def version(self, task: str, number: int) -> Version:
        """One version.

        Raises:
            StoreError: There is none of that number.
        """
        for found in self.versions(task):
            if found.version == number:
                return found
        raise StoreError(
            f"The task {task!r} has no version {number}.", remedy=f"pilotfish tasks {task}"
        )

    def versions(self, task: str | None = None) -> list[Version]:
        """All versions, of one task or of all, oldest first."""
        columns = ("task", "version", "time", "artifact", "certificate", "settings")
        query = sa.select(*(VERSIONS.c[c] for c in columns)).order_by(
            VERSIONS.c.task, VERSIONS.c.version
        )
        if task is not None:
            query = query.where(VERSIONS.c.task == task)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [Version(r[0], r[1], r[2], r[3], unpack_json(r[4]), unpack_json(r[5])) for r in rows]

    def pointers(self) -> dict[str, Pointer]:
        """Who answers, by task; a task that was never learned has no pointer."""
        names = ("task", "serial", "shadow", "canary", "share", "serving", "previous")
        with self._database.read() as connection:
            rows = connection.execute(sa.select(*(POINTERS.c[name] for name in names))).all()
        return {row.task: Pointer(*row) for row in rows}

    def move(
        self,
        task: str,
        kind: str,
        *,
        version: int | None,
        evidence: Mapping[str, Any],
        serial: int | None = None,
        **places: Any,
    ) -> bool:
        """Change a task's pointer and log why, in one transaction.

        Args:
            task: Whose.
            kind: ``"shadow"``, ``"canary"``, ``"promoted"``, ``"refused"``, ``"alarm"``,
                ``"rolled-back"``, ...
            version: The version it is about.
            evidence: JSON values.
            serial: The serial that the decision was made on; another one means that somebody else
                has changed the pointer since, and nothing is done. None: whatever it is.
            places: New values of ``shadow``, ``canary``, ``share``, ``serving``, ``previous``.

        Returns:
            Whether it was done.
        """
        now = time.time()
        with self._database.write() as connection:
            insert = self._database.insert(POINTERS).values(
                task=task, serial=0, time=now, share=0.0
            )
            connection.execute(insert.on_conflict_do_nothing())
            where = [POINTERS.c.task == task]
            if serial is not None:
                where.append(POINTERS.c.serial == serial)
            changed = connection.execute(
                sa.update(POINTERS)
                .where(*where)
                .values(serial=POINTERS.c.serial + 1, time=now, **places)
            )
            if changed.rowcount == 0:
                return False
            connection.execute(
                sa.insert(EVENTS).values(
                    time=now,
                    task=task,
                    version=version,
                    kind=kind,
                    evidence=pack_json(dict(evidence)),
                )
            )
        return True

    def roll_back(self, task: str, why: str = "asked for") -> Pointer:
        """Return to the version before the one in service; without one, to the large model.

        Raises:
            UnknownName: The task has no pointer.
        """
        pointer = self.pointer(task)
        self.move(
            task, "rolled-back", version=pointer.serving, evidence={"why": why},
            shadow=None, canary=None, share=0.0, serving=pointer.previous, previous=None,
        )  # fmt: skip
        return self.pointer(task)

    def pointer(self, task: str) -> Pointer:
        """One task's.

        Raises:
            UnknownName: It was never learned.
        """
        known = self.pointers()
        if task not in known:
            raise UnknownName("learned task", task, known)
        return known[task]

    def events(self, task: str | None = None, *, kind: str | None = None) -> list[Event]:
        """What happened, oldest first."""
        query = sa.select(EVENTS).order_by(EVENTS.c.id)
        if task is not None:
            query = query.where(EVENTS.c.task == task)
        if kind is not None:
            query = query.where(EVENTS.c.kind == kind)
        with self._database.read() as connection:
            rows = connection.execute(query).all()
        return [Event(r.time, r.task, r.version, r.kind, unpack_json(r.evidence)) for r in rows]

    def learned_from(self, request_ids: Iterable[str]) -> list[tuple[str, int]]:
        """Task and version of everything that learned from one of these requests."""
        ids = list(dict.fromkeys(request_ids))
        found: set[tuple[str, int]] = set()
        for start in range(0, len(ids), _ROWS):
            page = ids[start : start + _ROWS]
            query = sa.select(LESSONS.c.task, LESSONS.c.version).where(
                LESSONS.c.request_id.in_(page)
            )
            with self._database.read() as connection:
                found |= {(row.task, row.version) for row in connection.execute(query.distinct())}
        return sorted(found)

    def _names(self, connection: sa.Connection) -> list[str]:
        return [row.name for row in connection.execute(sa.select(TASKS.c.name))]


class Pointers:
    """What a worker knows of the pointers: read again when it is older than half a second.

    Args:
        versions: Where they are.
        every: Seconds between two looks.
    """

    def __init__(self, versions: Versions, every: float = POLL_SECONDS) -> None:
        self._versions = versions
        self._every = every
        self._lock = threading.Lock()
        self._read = -float("inf")
        self._known: dict[str, Pointer] = {}

    @property
    def stale(self) -> bool:
        """Whether it is time to look again."""
        return time.monotonic() - self._read >= self._every

    @property
    def known(self) -> Mapping[str, Pointer]:
        """What was read last."""
        return self._known

    def refresh(self) -> Mapping[str, Pointer]:
        """Read, if it is time; blocks for the database."""
        with self._lock:
            if self.stale:
                began = time.monotonic()  # what is written while it reads may be missing from it
                self._known = self._versions.pointers()
                self._read = began
        return self._known
