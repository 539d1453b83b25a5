"""Which requests belong to tasks whose texts must not be kept.

The gateway's recorder asks before it writes, whatever model was asked for and whether it answered or
failed. The marks are read again when they are half a second old; while the store cannot be read, those
known last hold.
"""

from __future__ import annotations

import time

from pilotfish.errors import StoreError
from pilotfish.loop.tasks import Matcher
from pilotfish.records import Request
from pilotfish.store.store import Store
from pilotfish.store.versions import POLL_SECONDS


class Unrecorded:
    """Tells whether a request's texts may be kept; for one thread.

    Args:
        store: Knows the tasks and their marks.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read = -float("inf")
        self._tasks: dict[str, tuple[str, str]] = {}
        self._matcher = Matcher({})

    def __call__(self, request: Request) -> bool:
        """Whether the request's texts must not be kept."""
        if time.monotonic() - self._read >= POLL_SECONDS:
            self._refresh()
        return bool(self._tasks) and self._matcher.match(request) is not None

    def _refresh(self) -> None:
        try:
            known = self._store.versions.tasks()
        except StoreError:
            return
        self._read = time.monotonic()
        marked = {
            name: (str(task.definition.get("system", "")), str(task.definition.get("prompt", "")))
            for name, task in known.items()
            if task.marks.get("unrecorded") and task.definition.get("prompt")
        }
        if marked != self._tasks:
            self._tasks, self._matcher = marked, Matcher(marked)
