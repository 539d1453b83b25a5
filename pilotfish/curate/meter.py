"""Progress of a pass: megabytes in the first one, rows in the others, and how fast."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from typing import Any

from pilotfish.curate.formats.pieces import Piece
from pilotfish.curate.tally import PieceTally
from pilotfish.curate.work import Job
from pilotfish.progress import Progress

MEGABYTE = 1_000_000
NOTE_SECONDS = 0.5


class Meter:
    """Reports one pass.

    Args:
        progress: Where to.
        job: The pass.
        passes: How many there are.
        pieces: All pieces.
        done: Those that were done before, by number.
        before: Tallies of the pass before, by piece number.
    """

    def __init__(
        self,
        progress: Progress,
        job: Job,
        passes: int,
        pieces: Sequence[Piece],
        done: Mapping[int, PieceTally],
        before: Mapping[int, PieceTally],
    ) -> None:
        names = ", ".join(job.labels) or "read"
        part = f" ({job.number + 1} of {passes})" if passes > 1 else ""
        self._in_rows = job.number > 0
        size = {p.number: p.size for p in pieces} if not before else {}
        rows = {number: tally.rows_out for number, tally in before.items()}
        work = rows if self._in_rows else size
        self._unit = 1 if self._in_rows else MEGABYTE
        self._title = f"{names}{part}, {'rows' if self._in_rows else 'MB'}"
        self._total = -(-sum(work.values()) // self._unit)
        self._carry = sum(work[number] for number in done)
        self._progress = progress
        self._stack = ExitStack()
        self._rows = 0
        self._started = self._noted = time.monotonic()

    def __enter__(self) -> Meter:
        self._stage = self._stack.enter_context(self._progress.stage(self._title, self._total))
        self._advance(0)
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.__exit__(*error)

    def beat(self, size: int, rows: int) -> None:
        """So many more bytes and rows were read."""
        self._rows += rows
        self._advance(rows if self._in_rows else size)
        now = time.monotonic()
        if now - self._noted > NOTE_SECONDS and self._rows:
            self._noted = now
            self._stage.note(f"{self._rows / (now - self._started):,.0f} rows/s")

    def _advance(self, work: int) -> None:
        self._carry += work
        whole = self._carry // self._unit
        if whole > 0:
            self._stage.advance(whole)
            self._carry -= whole * self._unit
