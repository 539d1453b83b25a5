"""The ``pilotfish`` command: one verb per file, errors on stderr, results on stdout."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

import pilotfish
from pilotfish.cli.account import account
from pilotfish.cli.curate import curate
from pilotfish.cli.draft import draft
from pilotfish.cli.forget import forget
from pilotfish.cli.keys import keys
from pilotfish.cli.learn import learn
from pilotfish.cli.models import models
from pilotfish.cli.offload import offload
from pilotfish.cli.pull import pull
from pilotfish.cli.replay import replay
from pilotfish.cli.rollback import rollback
from pilotfish.cli.route import route
from pilotfish.cli.run import run
from pilotfish.cli.score import score
from pilotfish.cli.serve import serve
from pilotfish.cli.show import show
from pilotfish.cli.tasks import tasks
from pilotfish.errors import ConfigError, InputError, PilotfishError

app = typer.Typer(
    name="pilotfish",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,  # drawing help with rich takes twice as long as all else together
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (
    offload,
    curate,
    run,
    score,
    serve,
    replay,
    show,
    pull,
    models,
    tasks,
    learn,
    draft,
    rollback,
    account,
    forget,
):
    app.command()(verb)
app.add_typer(route)
app.add_typer(keys)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"pilotfish {pilotfish.__version__}")
        raise typer.Exit


@app.callback()
def pilotfish_command(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """Small models that work with a large one."""


def main() -> None:
    """Run the command line; exit 1 on failure, 2 on wrong input or settings, 130 on Ctrl-C."""
    try:
        app()
    except PilotfishError as error:
        typer.echo(f"Error: {error}", err=True)
        sys.exit(2 if isinstance(error, ConfigError | InputError) else 1)
    except SystemExit as end:
        if end.code == 130:  # what typer makes of Ctrl-C
            typer.echo("Stopped. Run the same command again to go on from here.", err=True)
        raise
    except BrokenPipeError:
        sys.stderr.close()
        sys.exit(0)


if __name__ == "__main__":
    main()
