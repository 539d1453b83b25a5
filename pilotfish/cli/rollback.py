"""``pilotfish rollback``: return a task to the version before, or to the large model."""

from __future__ import annotations

from typing import Annotated

import typer


def rollback(
    task: Annotated[str, typer.Argument(help="The task.")],
    why: Annotated[str, typer.Option(help="Noted with the change.")] = "asked for",
    store: Annotated[str, typer.Option(help="URL of the store. Default: pilotfish.db here.")] = "",
) -> None:
    """Return a task to the version before the one in service; without one, to the large model.

    Every worker follows within a second. After an alarm it returns to the version that raised it.
    """
    from pilotfish.config import load_config
    from pilotfish.store.store import open_store

    with open_store(store or load_config().store, create=not store) as database:
        pointer = database.versions.roll_back(task, why)
    now = "the large model" if pointer.serving is None else f"{task}@{pointer.serving}"
    typer.echo(f"{task} is answered by {now}.")
