"""How long work tells its watcher where it is.

Library code reports stages through this silent default; the command line passes one that draws bars on
stderr. Nothing here prints.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


class Stage:
    """One stage under way."""

    def advance(self, steps: int = 1) -> None:
        """So many more steps are done."""

    def note(self, text: str) -> None:
        """Say what is going on now, in a few words."""

    def expect(self, total: int) -> None:
        """The stage turned out to take this many steps in all."""


class Progress:
    """Silent progress; subclass it to show something."""

    @contextmanager
    def stage(self, title: str, total: int | None = None) -> Iterator[Stage]:
        """Open a stage.

        Args:
            title: What is being done, as the user would say it.
            total: How many steps it takes, None when unknown.
        """
        yield Stage()

    def say(self, text: str) -> None:
        """One line worth keeping."""
