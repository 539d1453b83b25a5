"""``pilotfish run``: apply an artifact to new inputs."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Annotated

import typer


def run(
    artifact: Annotated[Path, typer.Argument(help="Folder that `pilotfish offload` made.")],
    inputs: Annotated[Path, typer.Argument(help="New inputs with the same columns.")],
    out: Annotated[
        Path | None,
        typer.Option(help="Where answers go (.jsonl, .csv, .parquet). Default: stdout."),
    ] = None,
    large: Annotated[
        str, typer.Option(help="Another large model; the certificate is not about it.")
    ] = "",
    no_large: Annotated[
        bool, typer.Option("--no-large", help="Leave open what the small model must not answer.")
    ] = False,
    budget: Annotated[str, typer.Option(help="Most to spend: calls (500) or money ($5).")] = "",
    rejects: Annotated[
        Path | None, typer.Option(help="Where rows that cannot be used go, with line and reason.")
    ] = None,
    store: Annotated[str, typer.Option(help="URL of the store. Default: pilotfish.db here.")] = "",
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the summary as JSON (on stderr when answers go to stdout)."
        ),
    ] = False,
) -> None:
    """Answer new inputs: small where certified, the large model for the rest.

    One JSON line per input: its columns, `answer`, `by` (small or large) and `score`.
    """
    from pilotfish.cli.progress import TerminalProgress
    from pilotfish.loop.apply import apply

    progress = TerminalProgress()
    done = apply(
        artifact,
        inputs,
        out=out or sys.stdout,
        large=large or None,
        use_large=not no_large,
        budget=budget or None,
        rejects=rejects,
        store=store or None,
        progress=progress,
    )
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(done)), err=out is None)
        return
    share = done.small / done.rows if done.rows else 0.0
    cost = "unknown" if done.cost is None else f"${done.cost:.4f}"
    progress.say(
        f"{done.rows} rows: {done.small} answered small ({share:.0%}), {done.large} by the large model "
        f"({done.calls} calls, {done.cached} of them paid for before, cost {cost}), "
        f"{done.unanswered} left open, {done.rejected} rejected."
    )
