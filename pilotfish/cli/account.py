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

    It is what `pilotfish learn` has read so far. What has no known price is called unknown, never 0;
    the calls avoided are those of the large model, less the ones that checked and taught.
    """
    import time
    from datetime import UTC, datetime

    from pilotfish.config import load_config
    from pilotfish.store.store import open_store

    since = int(time.time() // 86_400) - days + 1
    with open_store(store or load_config().store, create=not store) as database:
        rows = database.ledger.days(task or None, since)
    if as_json:
        typer.echo(json.dumps([row.to_dict() for row in rows]))
        return
    from rich.table import Table

    from pilotfish.cli.whole_table import print_whole
    from pilotfish.figures import money
    from pilotfish.store.ledger import total

    table = Table(box=None, pad_edge=False)
    heads = ("day", "task", "asked", "small", "if large", "answers", "extra", "saved", "avoided")
    for head in heads:
        table.add_column(head, justify="left" if head in ("day", "task") else "right", no_wrap=True)
    for row in rows:
        known = (row.baseline, row.spent) if row.priced else (None, None)
        table.add_row(
            datetime.fromtimestamp(row.day * 86_400, UTC).date().isoformat(),
            row.task,
            f"{row.requests:,}",
            f"{row.small / row.requests:.0%}" if row.requests else "",
            *(money(amount) for amount in (*known, row.extra, row.saving)),
            f"{row.avoided:,}",
        )
    print_whole(table)
    whole = total(rows)
    typer.echo(
        f"Saved in all: {money(whole.saving)}; {whole.avoided:,} calls of the large model avoided "
        "(extra: checks, lessons, judges)"
    )
    if whole.unknown:
        typer.echo(f"{whole.unknown:,} requests have an unknown price and are in no sum.")
    if whole.unpriced:
        typer.echo(f"{whole.unpriced:,} checks, lessons or judges have an unknown price.")
