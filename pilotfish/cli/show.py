"""``pilotfish show``: print an artifact's card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer


def show(
    artifact: Annotated[
        Path, typer.Argument(help="Folder that `offload`, `learn` or `route fit` made.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Print card and result as JSON.")] = False,
) -> None:
    """Print what an artifact is, what it learned from and what it promises."""
    from pilotfish.loop.artifact import KIND as OFFLOAD
    from pilotfish.loop.result import OffloadResult
    from pilotfish.store.artifacts import load_artifact

    loaded = load_artifact(artifact)
    card = loaded.card
    if as_json:
        result = loaded.json("result.json") if "result.json" in card.files else None
        whole = {"card": card.to_json(), "result": result}
        typer.echo(json.dumps(whole, ensure_ascii=False))
        return
    from rich.console import Console

    from pilotfish.loop.table import print_result

    size = sum(int(entry["bytes"]) for entry in card.files.values())
    console = Console()
    what = f"{card.extra['student']} student" if card.kind == OFFLOAD else card.kind
    console.print(f"[bold]{card.name}[/]: {what}, {size / 1e6:.1f} MB in {artifact}")
    console.print(
        f"made {card.created} by Pilotfish {card.pilotfish}, all {len(card.files)} files verified"
    )
    if card.kind != OFFLOAD:
        for facts in (card.learned_from, card.extra, card.quality):
            for name, value in facts.items():
                console.print(f"{name.replace('_', ' ')}: {_shown(value)}", markup=False)
        return
    console.print(f"learned from {card.learned_from['large']}", end="\n\n")
    if card.task.get("kind") == "text":
        for name, value in loaded.json("result.json").items():
            console.print(f"{name}: {value}")
        return
    print_result(OffloadResult.from_json(loaded.path("result.json").read_bytes()), console)


def _shown(value: Any) -> str:
    """A fact of a card, for people."""
    if isinstance(value, dict) and value.keys() == {"value", "low", "high"}:
        return f"{value['value']:.4g} ({value['low']:.4g} to {value['high']:.4g})"
    if isinstance(value, dict):
        return ", ".join(f"{name} {_shown(one)}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
