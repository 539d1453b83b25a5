"""``pilotfish keys``: who may use the gateway."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pilotfish.store.keys import Key
    from pilotfish.store.store import Store

keys = typer.Typer(
    name="keys",
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Create, list and revoke the API keys of the gateway.",
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


@keys.command()
def create(
    name: Annotated[str, typer.Argument(help="What you call it, e.g. the application's name.")],
    models: Annotated[
        str | None, typer.Option(help="Served models it may ask, with commas; default: all.")
    ] = None,
    rate: Annotated[
        str | None, typer.Option(help="Requests it may make, e.g. 60/min; default: any number.")
    ] = None,
    spend: Annotated[
        str | None, typer.Option(help="US dollars it may spend, e.g. 5/day; default: any sum.")
    ] = None,
    admin: Annotated[
        bool, typer.Option("--admin", help="For dashboard and metrics; such a key asks no models.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Create a key and print it: it is shown this once, and only its hash is kept."""
    from pilotfish.store.keys import Limit

    allowed = None if models is None else [part.strip() for part in models.split(",")]
    limits = {
        "rate": None if rate is None else Limit.parse(rate, whole=True),
        "spend": None if spend is None else Limit.parse(spend),
    }
    with _store() as store:
        secret, key = store.keys.create(name, models=allowed, admin=admin, **limits)
    if as_json:
        typer.echo(json.dumps({"key": secret, **_plain(key)}, ensure_ascii=False))
        return
    typer.echo(secret)
    typer.echo(f"Copy it now: it cannot be shown again. It is {key.id} ({_may(key)}).", err=True)


@keys.command("list")
def list_keys(as_json: AsJson = False) -> None:
    """List the keys that were made, and what each may do; never the keys themselves."""
    with _store() as store:
        rows = store.keys.all()
    if as_json:
        typer.echo(json.dumps([_plain(key) for key in rows], indent=2, ensure_ascii=False))
        return
    if not rows:
        typer.echo("There are no keys. Make one: pilotfish keys create NAME", err=True)
        return
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 160  # a pipe has no edge to wrap at
    table = Table(box=None, pad_edge=False)
    for heading in ("id", "name", "created", "state", "may"):
        table.add_column(heading, no_wrap=heading in ("id", "created", "state"))
    for key in rows:
        state = "valid" if key.revoked is None else f"revoked {_day(key.revoked)}"
        table.add_row(key.id, key.name, _day(key.created), state, _may(key))
    console.print(table, markup=False)


@keys.command()
def revoke(
    key: Annotated[str, typer.Argument(help="The key's id or name, as `keys list` shows it.")],
    as_json: AsJson = False,
) -> None:
    """End a key's validity; running gateways refuse it within 5 seconds."""
    with _store() as store:
        ended = store.keys.revoke(key)
    if as_json:
        typer.echo(json.dumps(_plain(ended), ensure_ascii=False))
        return
    typer.echo(f"Revoked {ended.id} ({ended.name}).")


def _store() -> Store:
    from pilotfish.config import load_config
    from pilotfish.store import open_store

    return open_store(load_config().store)


def _plain(key: Key) -> dict[str, Any]:
    return {
        "id": key.id,
        "name": key.name,
        "admin": key.admin,
        "models": None if key.models is None else sorted(key.models),
        "rate": None if key.rate is None else str(key.rate),
        "spend": None if key.spend is None else str(key.spend),
        "created": _moment(key.created),
        "revoked": None if key.revoked is None else _moment(key.revoked),
    }


def _may(key: Key) -> str:
    if key.admin:
        return "dashboard and metrics, no models"
    said = "all models" if key.models is None else ", ".join(sorted(key.models))
    if key.rate is not None:
        said += f"; {key.rate}"
    if key.spend is not None:
        said += f"; {key.spend} US dollars"
    return said


def _moment(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _day(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")
