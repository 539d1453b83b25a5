"""Circuit breaker: a model that keeps failing is left alone for a while.

Asking a dead endpoint costs each request the time that it takes to fail, and the endpoint the load that
may keep it down. So the recent attempts are counted: when enough of them failed, the breaker *opens*
and everything is refused at once; after a time it lets a few probes through (*half-open*); the first
that succeeds *closes* it again, the first that fails opens it for twice as long.

The pattern is M. Nygard's ("Release It!", 2007); share, window and minimum count as in Resilience4j. One
difference: a result counts only for the phase in which the attempt was admitted, so attempts that hang
from before cannot decide the fate of a probe; and a probe that hangs itself does not hold the door for
ever: after ``open_seconds`` another one is let through.

State is per process: each worker finds out for itself, which takes it ``minimum`` attempts.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Literal

from pilotfish.errors import Unavailable
from pilotfish.models.settings import BreakerSettings

State = Literal["closed", "open", "half-open"]
SLOTS = 10  # the window moves in tenths


class Breaker:
    """Counts attempts and says whether another one makes sense; safe to use from several threads.

    Args:
        settings: When it opens, and for how long.
        clock: Monotonic seconds.

    Attributes:
        opened: How often it has opened since the start.
    """

    def __init__(
        self, settings: BreakerSettings, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.settings = settings
        self.opened = 0
        self._clock = clock
        self._lock = threading.Lock()
        self._phase = 0  # grows with every change of state
        self._state: State = "closed"
        self._good, self._bad = [0] * SLOTS, [0] * SLOTS
        self._slot = int(clock() / settings.window * SLOTS)
        self._until = 0.0  # open: when probing begins; half-open: when another probe may go
        self._open_seconds = settings.open_seconds
        self._closed_at = float("-inf")
        self._probes = 0

    @property
    def state(self) -> str:
        """``"closed"``: all goes through; ``"open"``: nothing; ``"half-open"``: probes."""
        if self._state == "open" and self._clock() >= self._until:
            return "half-open"
        return self._state

    @property
    def wait(self) -> float:
        """Seconds until the next attempt may be admitted, as far as is known."""
        return 0.0 if self._state == "closed" else max(0.0, self._until - self._clock())

    def admit(self) -> int:
        """Begin an attempt; give what it returns to :meth:`record`.

        Raises:
            Unavailable: It is open; ``retry_after`` says for how long.
        """
        ticket = self.try_admit()
        if ticket is None:
            raise Unavailable(
                f"Not asked: it has failed too often of late; next attempt in {self.wait:.3g} s.",
                retry_after=self.wait,
            )
        return ticket

    def try_admit(self) -> int | None:
        """Begin an attempt; None when it must not be made."""
        if self._state == "closed":
            return self._phase
        with self._lock:
            now = self._clock()
            if self._state == "open" and now >= self._until:
                self._change("half-open")
                self._probes = 0
            if self._state == "half-open":
                if self._probes >= self.settings.probes and now < self._until:
                    return None
                self._probes += 1
                self._until = now + self.settings.open_seconds
            return None if self._state == "open" else self._phase

    def record(self, ticket: int, good: bool | None) -> None:
        """End an attempt: it succeeded, failed, or (None) says nothing."""
        with self._lock:
            if ticket != self._phase:
                return
            if self._state == "half-open":
                self._probes -= 1
                if good:
                    self._close()
                elif good is not None:
                    self._open()
                else:
                    self._until = self._clock()
            elif good is not None:
                self._count(good)

    def note_failure(self) -> None:
        """An attempt failed and its request goes on, so that :meth:`record` is yet to come."""
        with self._lock:
            if self._state == "half-open":
                self._open()
            elif self._state == "closed":
                self._count(False)

    def rest(self, seconds: float) -> None:
        """Leave it alone for so long, because it asked for that; at most ``max_open_seconds``."""
        with self._lock:
            if self._state != "open":
                self._change("open")
            until = self._clock() + min(seconds, self.settings.max_open_seconds)
            self._until = max(self._until, until)

    def _count(self, good: bool) -> None:
        slot = int(self._clock() / self.settings.window * SLOTS)
        for passed in range(max(self._slot + 1, slot - SLOTS + 1), slot + 1):
            self._good[passed % SLOTS] = self._bad[passed % SLOTS] = 0
        self._slot = slot
        (self._good if good else self._bad)[slot % SLOTS] += 1
        if good:
            return
        bad = sum(self._bad)
        total = bad + sum(self._good)
        if total >= self.settings.minimum and bad >= self.settings.failure_share * total:
            # Opening again soon after closing goes on where the doubling had stopped.
            if self._clock() - self._closed_at > self.settings.window:
                self._open_seconds = self.settings.open_seconds
            self._open()

    def _open(self) -> None:
        self._change("open")
        self.opened += 1
        self._until = self._clock() + self._open_seconds
        self._open_seconds = min(2 * self._open_seconds, self.settings.max_open_seconds)

    def _close(self) -> None:
        self._change("closed")
        self._closed_at = self._clock()
        self._good, self._bad = [0] * SLOTS, [0] * SLOTS

    def _change(self, state: State) -> None:
        self._state = state
        self._phase += 1
