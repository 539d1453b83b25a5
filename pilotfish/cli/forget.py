"""``pilotfish forget``: delete a user's, a request's or old data, and say what has learned from it."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Annotated

import typer

from pilotfish.errors import InputError


def forget(
    user: Annotated[
        str, typer.Option(help="The `user` of the requests, or the id of an API key.")
    ] = "",
    request: Annotated[str, typer.Option(help="The id of one request: req_...")] = "",
    before: Annotated[
        datetime | None,
        typer.Option(
            formats=["%Y-%m-%d"], help="What came in before this day, UTC: of all, or of --user."
        ),
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    store: Annotated[str, typer.Option(help="URL of the store. Default: pilotfish.db here.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Delete what the store has of a user, a request or the time before a day; sums without texts stay.

    Versions that give out recorded answers, and have one of these, are withdrawn and deleted. Other
    artifacts are not changed: those that learned from the data are named, so that they can be deleted
    and learned again without it.
    """
    from dataclasses import asdict

    from pilotfish.config import load_config
    from pilotfish.loop.forgetting import withdraw_reused
    from pilotfish.store.store import open_store

    _check(user, request, before)
    what = (
        f"the request {request}"
        if request
        else f"everything of the user {user!r}"
        if user
        else "all"
    )
    what += f" that came in before {before:%Y-%m-%d}" if before else ""
    until = before.replace(tzinfo=UTC).timestamp() if before else None
    if not yes:
        typer.confirm(f"Delete {what} from the store?", abort=True)
    with open_store(store or load_config().store, create=not store) as database:
        gone = database.ledger.forget(user=user, request_id=request, before=until)
        withdrawn = withdraw_reused(database, gone.versions)
        folders = {
            f"{task}@{number}": database.versions.version(task, number).artifact
            for task, number in gone.versions
        }
    if as_json:
        plain = {**asdict(gone), "artifacts": folders, "withdrawn": withdrawn}
        typer.echo(json.dumps(plain))
        return
    typer.echo(
        f"Deleted {gone.requests} requests, {gone.calls} stored answers and {gone.remarks} checks "
        "and remarks."
    )
    for name, folder in folders.items():
        if name in withdrawn:
            typer.echo(f"{name} could give them out: withdrawn, and {folder} is deleted")
        else:
            typer.echo(f"{name} has learned from them: {folder}")


def _check(user: str, request: str, before: datetime | None) -> None:
    if bool(request) == bool(user or before):
        raise InputError(
            "Expected --request, or --user, --before or both of these.",
            remedy="Give one: --user NAME",
        )
