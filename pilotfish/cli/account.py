"""``pilotfish account``: what each task came to per day, net of learning, checks and judges."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def account(
    task: Annotated[str, typer.Argument(help="One task. Default: all.")] = "",
    days: Annotated[int, typer.Option(help="So many days back.")] = 30,
    store: Annotated[str, typer.Option(help="URL of the store. Default: pilotfish.db here.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show the net saving of each task and day: what always large would have cost, less everything.

    It is what `pilotfish learn` has read so far. Requests of unknown price are counted, not guessed.
    """
    import time
    from datetime import UTC, datetime

    from pilotfish.config import load_config
    from pilotfish.store.store import open_store

    since = int(time.time() // 86_400) - days + 1
    with open_store(store or load_config().store) as database:
        rows = database.ledger.days(task or None, since)
    if as_json:
        typer.echo(json.dumps([row.to_dict() for row in rows]))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in ("day", "task", "asked", "small", "if large", "answers", "extra", "saved"):
        table.add_column(head, justify="left" if head in ("day", "task") else "right")
    for row in rows:
        extra = row.checks_cost + row.lessons_cost + row.judge_cost
        table.add_row(
            datetime.fromtimestamp(row.day * 86_400, UTC).date().isoformat(),
            row.task[:24],
            f"{row.requests:,}",
            f"{row.small / row.requests:.0%}" if row.requests else "",
            *(f"${amount:,.2f}" for amount in (row.baseline, row.spent, extra, row.saving)),
        )
    Console().print(table)
    typer.echo(
        f"Saved in all: ${sum(row.saving for row in rows):,.2f} (extra: checks, lessons, judges)"
    )
    unknown = sum(row.unknown for row in rows)
    if unknown:
        typer.echo(f"{unknown:,} requests have an unknown price and are in no sum.")
