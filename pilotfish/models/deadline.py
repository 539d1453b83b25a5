"""How long the caller will wait: a deadline that everything asked on its behalf keeps.

A gateway's client says how long it waits; a cascade asks one model after the other; a remote model
retries. None of them knows the others' limits, so the moment by which the whole must be done travels
with the task, as a context variable. Whoever waits takes the sooner of it and its own limit, and passes
what is left on downstream, so that no one works on an answer that nobody waits for any more.

>>> with deadline(10), deadline(60):
...     round(remaining())
10
>>> remaining() is None
True
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

TICK = 0.005  # seconds; an event loop's timers may ring early by a part of this

_ends: ContextVar[float | None] = ContextVar("pilotfish_deadline", default=None)


@contextmanager
def deadline(seconds: float | None) -> Iterator[None]:
    """Within it, what is asked must be done in so many seconds; nested ones only shorten.

    Args:
        seconds: From now; None changes nothing.
    """
    if seconds is None:
        yield
        return
    ends, outer = time.monotonic() + seconds, _ends.get()
    _ends.set(ends if outer is None else min(ends, outer))
    try:
        yield
    finally:
        # Not by token: a generator that is closed elsewhere ends in another context than it began in.
        _ends.set(outer)


def remaining() -> float | None:
    """Seconds that are left, 0 when they are over; None when nobody set a deadline."""
    ends = _ends.get()
    if ends is None:
        return None
    left = ends - time.monotonic()
    return left if left > TICK else 0.0
