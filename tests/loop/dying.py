"""``pilotfish learn --watch`` that is killed at given points and started again each time.

    python -m tests.loop.dying '[["move:alarm", "before"], ["commit", "after"]]' OPTIONS...

Each life is a process of its own, forked from this one, which has imported everything. It kills itself
with SIGKILL just before or just after the first call of its point; the point's name and the time go to
stdout as JSON. Where the point is "short", a life ends with the second student that it would fit, or when
it has stored as many answers as the second word says. When all deaths have been died, the last life goes
on until SIGTERM.
"""

from __future__ import annotations

import itertools
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import sklearn.linear_model  # noqa: F401
import wordllama  # noqa: F401

import pilotfish.loop.keeper  # noqa: F401
from pilotfish.cli.main import app
from pilotfish.loop import race
from pilotfish.records import Completion, Request
from pilotfish.store.ledger import Ledger
from pilotfish.store.store import Store
from pilotfish.store.versions import Versions

POINTS = {
    "put": (Store, "put"),  # a paid answer is stored
    "commit": (Ledger, "commit"),  # the evidence of a round
    "add": (Versions, "add"),  # a new version
    "move": (Versions, "move"),  # a pointer; "move:KIND" for one kind of step
}


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arm(point: str, when: str) -> None:
    """Make the first call of a point deadly."""
    if point == "short":
        limit_fits(2)
        limit_answers(int(when))
        return
    name, _, kind = point.partition(":")
    owner, method = POINTS[name]
    whole: Callable[..., Any] = getattr(owner, method)

    def deadly(self: Any, *arguments: Any, **options: Any) -> Any:
        meant = not kind or arguments[1] == kind
        if meant and when == "before":
            die()
        result = whole(self, *arguments, **options)
        if meant and when == "after":
            die()
        return result

    setattr(owner, method, deadly)


def limit_fits(most: int) -> None:
    """Make the fit of a student of this number deadly."""
    fit, calls = race.try_student, itertools.count(1)

    def deadly(*arguments: Any, **options: Any) -> Any:
        if next(calls) == most:
            die()
        return fit(*arguments, **options)

    race.try_student = deadly


def limit_answers(most: int) -> None:
    """Make it deadly to have stored so many answers; they come in groups of any size."""
    put, stored = Store.put, itertools.count(1)

    def deadly(
        self: Store, entries: Iterable[tuple[str, Request, Completion]], **labels: Any
    ) -> None:
        entries = list(entries)
        put(self, entries, **labels)
        if any(next(stored) >= most for _ in entries):
            die()

    Store.put = deadly  # type: ignore[method-assign]


def live(options: list[str], death: list[str] | None) -> int:
    """One life; gives its exit status, negative for a signal."""
    child = os.fork()
    if not child:
        if death is not None:
            arm(*death)
        app(["learn", "--watch", *options])
        os._exit(0)
    signal.signal(signal.SIGTERM, lambda *_: os.kill(child, signal.SIGTERM))
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main() -> None:
    deaths, options = json.loads(sys.argv[1]), sys.argv[2:]
    for death in deaths:
        status = live(options, death)
        if not status:
            return  # it was asked to stop
        if status != -signal.SIGKILL:
            sys.exit(f"It should have died at {death}, but ended with {status}.")
        print(json.dumps({"death": death, "time": time.time()}), flush=True)
    sys.exit(live(options, None))


if __name__ == "__main__":
    main()
