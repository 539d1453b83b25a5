"""``pilotfish offload``: a prompt and inputs in, a certified small model out."""

from __future__ import annotations

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from pilotfish.errors import InputError


def offload(
    inputs: Annotated[Path, typer.Argument(help="Inputs: JSONL, CSV or Parquet.")],
    prompt: Annotated[
        str,
        typer.Option(
            help="What is sent to the large model, with {column} places; @FILE reads a file."
        ),
    ],
    large: Annotated[
        str,
        typer.Option(
            help="The large model: a pulled name, openai:MODEL, or one of pilotfish.toml."
        ),
    ],
    labels: Annotated[
        str,
        typer.Option(help="The closed answer set: a,b,c or @FILE (a line each). Default: found."),
    ] = "",
    multi: Annotated[
        bool, typer.Option("--multi", help="Several labels may hold at once.")
    ] = False,
    rating: Annotated[str, typer.Option(help="Answers are numbers on a scale, such as 1-5.")] = "",
    tolerance: Annotated[float, typer.Option(help="Ratings this close count as the same.")] = 0.0,
    agree: Annotated[
        float, typer.Option(help="Share of answers that must be what the large model would say.")
    ] = 0.95,
    agree_on: Annotated[
        str, typer.Option(help="'all' answers, or those 'served' by the small model.")
    ] = "all",
    precision: Annotated[
        list[str] | None, typer.Option(help="LABEL=0.9: so many small answers LABEL must be right.")
    ] = None,
    recall: Annotated[
        list[str] | None, typer.Option(help="LABEL=0.9: so many inputs with LABEL must be found.")
    ] = None,
    delta: Annotated[float, typer.Option(help="Probability that the promise may fail.")] = 0.05,
    budget: Annotated[
        str, typer.Option(help="Most to spend on the large model: calls (500) or money ($5).")
    ] = "",
    horizon: Annotated[
        int | None,
        typer.Option(help="Inputs that will profit from the result. Default: the file's rows."),
    ] = None,
    student: Annotated[
        list[str] | None, typer.Option(help="Let only these students race. Default: all that fit.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Encoder for the students.")] = "static",
    gold: Annotated[
        str, typer.Option(help="Column with true labels, to compare everyone with the truth.")
    ] = "",
    system: Annotated[str, typer.Option(help="System prompt.")] = "",
    param: Annotated[
        list[str] | None,
        typer.Option(help="NAME=VALUE sent to the large model; VALUE may be JSON."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the artifact. Default: FILE-offload.")
    ] = None,
    name: Annotated[str, typer.Option(help="Name of the small model. Default: the folder's.")] = "",
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    store: Annotated[str, typer.Option(help="URL of the store. Default: pilotfish.db here.")] = "",
    resume: Annotated[
        bool, typer.Option(help="Use answers that were paid for earlier; --no-resume asks anew.")
    ] = True,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate calls and cost.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole result as JSON.")
    ] = False,
) -> None:
    """Make a small model that answers this prompt like the large one, with a certificate.

    A killed run goes on where it was: repeat the same command. Nothing is paid twice.

    Example: pilotfish offload tickets.jsonl --prompt "Is this ticket urgent? {text}" --labels yes,no
    --large openai:gpt-4.1-mini
    """
    from pilotfish.cli.progress import TerminalProgress
    from pilotfish.loop.task import parse_scale

    values, scale = parse_scale(rating) if rating else ((), None)
    settings: dict[str, Any] = {
        "labels": values or _names(labels),
        "kind": _kind(multi, rating),
        "rating": scale,
        "tolerance": tolerance,
        "agree": agree,
        "on": agree_on,
        "precision": _shares("precision", precision),
        "recall": _shares("recall", recall),
        "delta": delta,
        "budget": budget or None,
        "horizon": horizon,
        "students": student,
        "encoder": encoder,
        "gold": gold,
        "system": system,
        "params": dict(_parameter(text) for text in param or ()),
        "seed": seed,
    }
    text = _text(prompt)
    if dry_run:
        _estimate(text, inputs, large, settings, as_json)
        return
    from pilotfish.loop.offload import offload as run

    result = run(
        text,
        inputs,
        large=large,
        out=out,
        name=name,
        store=store or None,
        resume=resume,
        command=shlex.join(["pilotfish", *sys.argv[1:]]),
        progress=TerminalProgress(),
        **settings,
    )
    if as_json:
        typer.echo(result.to_json())
        return
    from rich.console import Console

    from pilotfish.loop.table import print_result

    print_result(result, Console())


def _estimate(
    prompt: str, inputs: Path, large: str, settings: dict[str, Any], as_json: bool
) -> None:
    from pilotfish.cli.progress import TerminalProgress
    from pilotfish.config import load_config
    from pilotfish.loop.plan import estimate, plan_of

    config = load_config()
    price = config.prices.get(large.partition(":")[2] or large)
    guess = estimate(plan_of(prompt, **settings), inputs, price, TerminalProgress())
    if as_json:
        typer.echo(json.dumps(guess.to_dict()))
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for head in ("", "calls", "cost", "share of always large"):
        table.add_column(head, justify="right" if head else "left")
    for name in ("low", "expected", "high", "always_large"):
        calls = getattr(guess, name)
        cost = "unknown" if guess.cost_per_call is None else f"${calls * guess.cost_per_call:,.2f}"
        share = f"{calls / guess.always_large:.0%}"
        table.add_row(name.replace("_", " "), f"{calls:,}", cost, share)
    console = Console()
    console.print(f"{guess.rows:,} rows, {guess.unique:,} different, {guess.rejected:,} rejected")
    console.print(
        f"about {guess.tokens_per_call:,.0f} tokens a call; to train and certify it takes:"
    )
    console.print(table)


def _kind(multi: bool, rating: str) -> str:
    if multi and rating:
        raise InputError("Got both --multi and --rating, but a task is one of them.")
    return "rating" if rating else "labels" if multi else "label"


def _text(value: str) -> str:
    if not value.startswith("@"):
        return value
    try:
        return Path(value[1:]).read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"Cannot read {value[1:]!r}: {error}.") from error


def _names(value: str) -> tuple[str, ...]:
    text = _text(value)
    parts = text.splitlines() if value.startswith("@") else text.split(",")
    return tuple(part.strip() for part in parts if part.strip())


def _shares(option: str, values: list[str] | None) -> dict[str, float]:
    shares = {}
    for value in values or ():
        label, equals, share = value.rpartition("=")
        try:
            shares[label] = float(share)
        except ValueError:
            equals = ""
        if not equals or not label:
            raise InputError(
                f"Got --{option} {value!r}, but expected LABEL=SHARE.",
                remedy=f"For example: --{option} spam=0.9",
            )
    return shares


def _parameter(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise InputError(f"Got --param {text!r}, but expected NAME=VALUE.")
    try:
        return name, json.loads(value)
    except json.JSONDecodeError:
        return name, value
