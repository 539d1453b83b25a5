"""``pilotfish serve``: the gateway."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pilotfish.config import Config
    from pilotfish.gateway.served import Served
    from pilotfish.gateway.settings import ServeSettings


def serve(
    host: Annotated[
        str | None, typer.Option(help="Where to listen. Default: 127.0.0.1, this machine only.")
    ] = None,
    port: Annotated[
        int | None, typer.Option(help="TCP port; 0 takes a free one. Default: 8080.")
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Processes that share the port. Default: 1.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(help="Configuration. Default: pilotfish.toml here, if there is one."),
    ] = None,
    durable: Annotated[
        bool | None,
        typer.Option("--durable/--relaxed", help="End no answer before its record is on disk."),
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the URL and the models as JSON.")
    ] = False,
) -> None:
    """Serve models behind an OpenAI-compatible API: those of pilotfish.toml, or else what is pulled.

    Point a client's base URL at it. Stop with Ctrl-C; answers under way are finished.
    """
    from pilotfish.gateway import serve as gateway

    gateway.serve(
        config,
        ready=_tell_json if as_json else _tell,
        host=host,
        port=port,
        workers=workers,
        durable=durable,
    )


def _tell(url: str, config: Config, settings: ServeSettings, served: Served) -> None:
    from pilotfish.gateway.access import is_loopback

    names = [row.name for row in served.names() if row.kind != "encoder"]
    encoders = [row.name for row in served.names() if row.kind == "encoder"]
    for reason in served.skipped:
        typer.echo(f"Skipped {reason}", err=True)
    typer.echo(f"Pilotfish serves {url}", err=True)
    typer.echo(
        f"  models:    {', '.join(names) or 'none; try: pilotfish pull qwen2.5-coder-1.5b'}",
        err=True,
    )
    typer.echo(f"  encoders:  {', '.join(encoders)}", err=True)
    typer.echo(
        f"  records:   {config.store}" + (" (durable)" if settings.durable else ""), err=True
    )
    for name, table in config.models.items():
        variable = table.get("api_key_env", "OPENAI_API_KEY")
        own = table.get("backend") == "openai" and "base_url" not in table
        if own and not os.environ.get(variable):
            typer.echo(f"  warning:   {name} needs a key, but {variable} is not set", err=True)
    if settings.keys == "required" or (settings.keys == "auto" and not is_loopback(settings.host)):
        typer.echo("  keys:      demanded; make one: pilotfish keys create NAME", err=True)
    typer.echo(f"  dashboard: {url.removesuffix('/v1')}/dashboard", err=True)
    typer.echo("Try:", err=True)
    if names:
        said = '[{"role": "user", "content": "Hello"}]'
        asked = f'{{"model": "{served.default or names[0]}", "messages": {said}}}'
        typer.echo(f"curl {url}/chat/completions -H 'content-type: application/json' -d '{asked}'")
    else:
        asked = f'{{"model": "{encoders[0]}", "input": "Hello"}}'
        typer.echo(f"curl {url}/embeddings -H 'content-type: application/json' -d '{asked}'")


def _tell_json(url: str, config: Config, settings: ServeSettings, served: Served) -> None:
    import json

    models = [{"id": row.name, "kind": row.kind} for row in served.names()]
    typer.echo(json.dumps({"url": url, "models": models, "durable": settings.durable}))
