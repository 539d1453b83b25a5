"""The report as text in the terminal: the same words and figures, down to 60 columns.

Colour only where the console has it; without a terminal this is plain text that can be piped.
"""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from pilotfish.figures import count, duration, money, percent
from pilotfish.loop import wording
from pilotfish.loop.result import OffloadResult

COLOURS = {"good": "green", "warn": "yellow", "bad": "red"}
WIDEST = 100
NARROW = 76


def print_result(result: OffloadResult, console: Console) -> None:
    """Print the outcome on a console; nothing is printed anywhere else."""
    width = min(console.width, WIDEST)
    console.print()
    console.print(Text(wording.headline(result), style="bold"), width=width)
    console.print()
    console.print(_tiles(result), width=width)
    for note in wording.notes(result):
        text = Text.assemble((f"{note.title}. ", f"bold {COLOURS[note.level]}"), note.text)
        console.print(Padding(text, (1, 0, 0, 0)), width=width)
    for title, table in (
        ("Students", _race(result, width)),
        ("Right by your own labels", _gold(result)),
        ("What it takes, net", _waterfall(result)),
    ):
        if table is not None:
            console.print()
            console.print(Text(title, style="bold"), width=width)
            console.print(table, width=width)
    if result.warnings:
        console.print()
        console.print(Text("Warnings", style="bold"), width=width)
        for warning in result.warnings:
            console.print(Text.assemble(("! ", "yellow"), warning), width=width)
    if result.artifact:
        console.print()
        console.print(Text(f"Artifact: {result.artifact}"), width=width, soft_wrap=True)


def _grid(heads: Sequence[str], *, header: bool = True) -> Table:
    """A borderless table; a head that starts with ``>`` is of figures and aligned to the right."""
    table = Table(
        box=None, show_header=header, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim"
    )
    for head in heads:
        right = head.startswith(">")
        table.add_column(
            Text(head.lstrip(">")),
            justify="right" if right else "left",
            no_wrap=right,
            overflow="fold",
        )
    return table


def _tiles(result: OffloadResult) -> Table:
    table = _grid(["", ">", ""], header=False)
    for tile in wording.tiles(result):
        style = f"bold {COLOURS[tile.level]}"
        table.add_row(Text(tile.label), Text(tile.value, style=style), Text(tile.detail, "dim"))
    return table


def _race(result: OffloadResult, width: int) -> Table | None:
    if not result.race:
        return None
    wide = width >= NARROW
    heads = ["student", ">served", ">agree", *([">fit", ">a second"] if wide else []), "why"]
    table = _grid(heads)
    if wide:
        table.columns[0].no_wrap = True
    for entry in result.race:
        figures = [percent(entry.coverage), percent(entry.agreement, 1)]
        if wide:
            figures += [duration(entry.fit_seconds), count(entry.per_second)]
        known = [
            "–" if value is None else figure
            for value, figure in zip(
                (entry.coverage, entry.agreement, entry.fit_seconds, entry.per_second),
                figures,
                strict=False,
            )
        ]
        name = f"* {entry.student}" if entry.chosen else f"  {entry.student}"
        cells = [name, *known, wording.race_note(entry, result.race)]
        style = "bold" if entry.chosen else ""
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table


def _gold(result: OffloadResult) -> Table | None:
    gold = result.gold
    if gold is None:
        return None
    table = _grid(["", ">", ""], header=False)
    for name, share, about in (
        (result.large.name, gold.large, f"{count(gold.n)} rows, column {gold.column}"),
        ("cascade", gold.cascade, ""),
        ("small alone", gold.student, ""),
        ("majority label", gold.baseline, "always the most frequent"),
    ):
        table.add_row(Text(name), Text(percent(share, 1)), Text(about, style="dim"))
    return table


def _waterfall(result: OffloadResult) -> Table | None:
    if not result.waterfall:
        return None
    local = result.large.local
    table = _grid(["", ">calls", *([] if local else [">cost"]), ">model time"])
    for item in result.waterfall:
        last = item.item == "net"
        sign = -1 if item.item in wording.REDUCTIONS else 1
        cells = [
            "paid in all" if last else item.item,
            count(sign * item.calls),
            *([] if local else [money(None if item.cost is None else sign * item.cost)]),
            duration(item.seconds),
        ]
        style = "bold" if last else ""
        table.add_row(*(Text(cell, style=style) for cell in cells))
    return table
