"""How many threads a batch gets: the number that has been fastest lately on this machine.

llama.cpp's threads spin while they wait for one another. On an idle machine all cores are fastest; beside
one busy process the same setting halves the speed, and the best number changes while a long job runs.
So the two sensible numbers, all cores and all but one, are timed on the job's own batches, and the
faster one is used. Timing costs nothing but the batches that run at the slower setting: one in
:data:`EXPLORE`.
"""

from __future__ import annotations

import math
import os

EXPLORE = 12  # batches between two looks at the other number
RECENT = 0.5  # weight of the newest batch in the remembered speed
FEWEST_TOKENS = 16  # shorter batches are bound by memory, not by threads, and tell nothing


class ThreadChoice:
    """Picks thread counts and learns from how long batches took.

    Args:
        fixed: Always this number; None chooses between all cores and all but one.

    >>> choice = ThreadChoice(None, cores=4)
    >>> for _ in range(40):
    ...     threads = choice.pick()
    ...     choice.tell(threads, tokens=100, seconds=1.0 if threads == 3 else 3.0)
    >>> choice.best
    3
    """

    def __init__(self, fixed: int | None, *, cores: int | None = None) -> None:
        cores = cores or os.cpu_count() or 1
        self.candidates = [fixed] if fixed else sorted({max(1, cores - 1), cores})
        self._speed: dict[int, float] = {}
        self._batches = 0

    @property
    def best(self) -> int:
        """The fastest number so far; one that was never timed counts as fastest."""
        return max(self.candidates, key=lambda n: self._speed.get(n, math.inf))

    def pick(self) -> int:
        """The number of threads for the next batch."""
        self._batches += 1
        if self._batches % EXPLORE == 0:
            return min(self.candidates, key=lambda n: n == self.best)
        return self.best

    def tell(self, threads: int, tokens: int, seconds: float) -> None:
        """Note how long a batch took."""
        speed = tokens / max(seconds, 1e-9)
        known = self._speed.get(threads, speed)
        self._speed[threads] = (1 - RECENT) * known + RECENT * speed
