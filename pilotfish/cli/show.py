"""``pilotfish show``: print an artifact's card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def show(
    artifact: Annotated[Path, typer.Argument(help="Folder that `pilotfish offload` made.")],
    as_json: Annotated[bool, typer.Option("--json", help="Print card and result as JSON.")] = False,
) -> None:
    """Print what an artifact is, what it learned from and what it promises."""
    from pilotfish.loop.result import OffloadResult
    from pilotfish.store.artifacts import load_artifact

    loaded = load_artifact(artifact)
    if as_json:
        whole = {"card": loaded.card.to_json(), "result": loaded.json("result.json")}
        typer.echo(json.dumps(whole, ensure_ascii=False))
        return
    from rich.console import Console

    from pilotfish.loop.table import print_result

    card = loaded.card
    size = sum(int(entry["bytes"]) for entry in card.files.values())
    console = Console()
    console.print(
        f"[bold]{card.name}[/]: {card.extra['student']} student, {size / 1e6:.1f} MB in {artifact}"
    )
    console.print(
        f"made {card.created} by Pilotfish {card.pilotfish}, all {len(card.files)} files verified"
    )
    console.print(f"learned from {card.learned_from['large']}", end="\n\n")
    if card.task.get("kind") == "text":
        for name, value in loaded.json("result.json").items():
            console.print(f"{name}: {value}")
        return
    print_result(OffloadResult.from_json(loaded.path("result.json").read_bytes()), console)
