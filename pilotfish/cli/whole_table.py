"""Tables whose words are typed again: no name is cut short, however narrow the terminal is."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.table import Table

WIDEST = 500  # columns of text


def print_whole(table: Table) -> None:
    """Print a table at its own width, even where that is more than the terminal has."""
    from rich.console import Console
    from rich.measure import Measurement

    console = Console()
    own = Measurement.get(console, console.options.update(max_width=WIDEST), table).maximum
    Console(width=max(own, console.width)).print(table, soft_wrap=True)
