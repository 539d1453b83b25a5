"""Progress on stderr: bars with time left in a terminal, a plain line per stage elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from pilotfish.figures import duration
from pilotfish.progress import Progress, Stage

QUIET_SECONDS = 10.0  # without a terminal a long stage speaks this often


class _Bar(Stage):
    """A stage as a bar of rich."""

    def __init__(self, bars: object, task: int, title: str) -> None:
        self._bars = bars
        self._task = task
        self._title = title

    def advance(self, steps: int = 1) -> None:
        """Move the bar."""
        self._bars.advance(self._task, steps)  # type: ignore[attr-defined]

    def note(self, text: str) -> None:
        """Show the text behind the title."""
        self._bars.update(self._task, description=f"{self._title}: {text}")  # type: ignore[attr-defined]

    def expect(self, total: int) -> None:
        """The bar's full length."""
        self._bars.update(self._task, total=total)  # type: ignore[attr-defined]


class _Lines(Stage):
    """A stage as plain lines: one now and then while it runs, one at its end."""

    def __init__(self, title: str, total: int | None) -> None:
        self._title = title
        self._total = total
        self._done = 0
        self._note = ""
        self._spoke = time.monotonic()
        self._began: tuple[float, int] | None = None  # when the first step was done, and how many

    def advance(self, steps: int = 1) -> None:
        """Count; say how many from time to time."""
        self._done += steps
        if self._began is None:
            self._began = (time.monotonic(), self._done)
        if time.monotonic() - self._spoke > QUIET_SECONDS:
            self._spoke = time.monotonic()
            of = f" of {self._total}" if self._total else ""
            note = f", {self._note}" if self._note else ""
            _say(f"{self._title}: {self._done}{of}{self._left()}{note}")

    def _left(self) -> str:
        """The time left at the pace so far; what was there at the start does not count."""
        now = time.monotonic()
        if self._began is None or not self._total or self._done <= self._began[1]:
            return ""
        pace = (self._done - self._began[1]) / max(1e-9, now - self._began[0])
        return f", {duration((self._total - self._done) / pace)} left"

    def note(self, text: str) -> None:
        """Kept for the last line."""
        self._note = text

    def expect(self, total: int) -> None:
        """Steps in all."""
        self._total = total

    def close(self, seconds: float) -> None:
        """Say that it is done and how long it took."""
        done = f" {self._done}" if self._done else ""
        note = f", {self._note}" if self._note else ""
        _say(f"{self._title}:{done} done in {seconds:.1f} s{note}")


class TerminalProgress(Progress):
    """Shows stages on stderr; nothing reaches stdout."""

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage; see :class:`~pilotfish.progress.Progress`."""
        if not sys.stderr.isatty():
            lines = _Lines(title, total)
            started = time.monotonic()
            yield lines
            lines.close(time.monotonic() - started)
            return
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            SpinnerColumn,
            TextColumn,
            TimeElapsedColumn,
            TimeRemainingColumn,
        )
        from rich.progress import Progress as Bars

        columns = (
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        with Bars(*columns, console=Console(stderr=True)) as bars:
            task = bars.add_task(title, total=total)
            yield _Bar(bars, task, title)
            if total is None and not bars.tasks[0].total:
                bars.update(task, total=1, completed=1)

    def say(self, text: str) -> None:
        """Print one line on stderr."""
        _say(text)


def _say(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
