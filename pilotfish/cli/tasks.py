"""``pilotfish tasks``: the recurring tasks of the recorded traffic, ranked by money."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pilotfish.loop.tasks import FoundTask
    from pilotfish.store.store import Store
    from pilotfish.store.versions import Pointer


def tasks(
    name: Annotated[str, typer.Argument(help="One task: its versions and what happened.")] = "",
    local_only: Annotated[
        bool | None,
        typer.Option("--local-only/--may-leave", help="Never send this task to the large model."),
    ] = None,
    redact: Annotated[
        str | None,
        typer.Option(
            help="Redact its texts before they leave: 'patterns' or MODULE:FUNCTION; '' for no more."
        ),
    ] = None,
    record: Annotated[
        bool | None,
        typer.Option("--record/--no-record", help="Whether its texts are kept in the store."),
    ] = None,
    reuse: Annotated[
        str,
        typer.Option(
            help="Who may get a recorded answer again: never, user (who got it; the default), key (same "
            "API key) or all."
        ),
    ] = "",
    fewest: Annotated[int, typer.Option(help="Requests that make a task.")] = 20,
    estimate: Annotated[
        bool, typer.Option(help="Try a quick student on each; --no-estimate is faster.")
    ] = True,
    store: Annotated[str, typer.Option(help="URL of the store. Default: pilotfish.db here.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """List the recurring tasks in the recorded traffic, the most expensive first.

    With a name: its versions and events. With a mark, for a task that is known: how private it is.

    Example: pilotfish tasks which-team-handle --local-only
    """
    from pilotfish.config import load_config
    from pilotfish.store.store import open_store

    config = load_config()
    with open_store(store or config.store) as database:
        marks = _marks(local_only, redact, record, reuse)
        if name or marks:
            if marks:
                _mark(database, name, marks)
            _show(database, name, as_json)
            return
        from pilotfish.loop.tasks import find_tasks
        from pilotfish.models.load import load_encoder

        known_prompts = {
            task: (str(row.definition.get("system", "")), str(row.definition.get("prompt", "")))
            for task, row in database.versions.tasks().items()
            if row.definition.get("prompt")
        }
        found = find_tasks(
            database.ledger.traffic_since(0.0),
            encoder=load_encoder("static", config),
            fewest=fewest,
            known=known_prompts,
            estimate=estimate,
        )
        pointers = database.versions.pointers()
    if as_json:
        typer.echo(json.dumps([task.to_dict() for task in found]))
        return
    _table(found, pointers)


def _marks(
    local_only: bool | None, redact: str | None, record: bool | None, reuse: str
) -> dict[str, Any]:
    marks: dict[str, Any] = {}
    if reuse:
        from pilotfish.loop.reuse_scope import check_scope

        marks["reuse"] = check_scope(reuse)
    if local_only is not None:
        marks["local_only"] = local_only
    if redact is not None:
        from pilotfish.models.redaction import find_redactor

        find_redactor(redact)  # a wrong name is refused now, not when a request comes
        marks["redact"] = redact
    if record is not None:
        marks["unrecorded"] = not record
    return marks


def _mark(database: Store, name: str, marks: dict[str, Any]) -> None:
    known = database.versions.tasks()
    before = known[name].marks if name in known else {}
    database.versions.keep_task(name, marks={**before, **marks})


def _table(found: list[FoundTask], pointers: dict[str, Pointer]) -> None:
    from rich.console import Console
    from rich.table import Table

    from pilotfish.cli.whole_table import print_whole

    if not found:
        typer.echo("No recurring tasks yet: the traffic is too little, or each request is another.")
        return
    table = Table(box=None, pad_edge=False)
    for head in ("task", "kind", "requests", "cost", "small now", "could be small", "version"):
        table.add_column(
            head, justify="left" if head in ("task", "kind") else "right", no_wrap=True
        )
    for task in found:
        pointer = pointers.get(task.name)
        version = "" if pointer is None or pointer.serving is None else f"@{pointer.serving}"
        table.add_row(
            task.name,
            task.kind,
            f"{task.requests:,}",
            "unknown" if task.unpriced == task.requests else f"${task.cost:,.2f}",
            f"{task.small / task.requests:.0%}",
            "no" if task.note else "" if task.servable is None else f"{task.servable:.0%}",
            version,
        )
    print_whole(table)
    console = Console()
    for task in found:
        if task.note:
            console.print(f"{task.name}: {task.note}", markup=False, highlight=False)


def _show(database: Store, name: str, as_json: bool) -> None:
    from dataclasses import asdict
    from datetime import UTC, datetime

    from pilotfish.errors import UnknownName

    known = database.versions.tasks()
    if name not in known:
        raise UnknownName("task", name, known)
    task = known[name]
    pointer = database.versions.pointers().get(name)
    versions, events = database.versions.versions(name), database.versions.events(name)
    if as_json:
        whole = {
            "name": name,
            "definition": dict(task.definition),
            "marks": dict(task.marks),
            "pointer": None if pointer is None else asdict(pointer),
            "versions": [asdict(version) for version in versions],
            "events": [asdict(event) for event in events],
        }
        typer.echo(json.dumps(whole, default=dict))
        return
    typer.echo(f"{name}: {task.definition.get('kind')}, answered by {task.definition.get('large')}")
    typer.echo(f"  prompt:  {str(task.definition.get('prompt'))[:200]!r}")
    if task.marks:
        typer.echo(f"  marks:   {dict(task.marks)}")
    serving = (
        "the large model"
        if pointer is None or pointer.serving is None
        else (f"{name}@{pointer.serving}")
    )
    typer.echo(f"  serving: {serving}")
    if pointer is not None and pointer.canary is not None:
        typer.echo(f"  canary:  {name}@{pointer.canary}, of {pointer.share:.0%} of the traffic")
    if pointer is not None and pointer.shadow is not None:
        typer.echo(f"  shadow:  {name}@{pointer.shadow}")
    for version in versions:
        coverage = float(version.certificate.get("coverage") or 0.0)
        typer.echo(f"  {version.name}: may answer {coverage:.0%}; {version.artifact}")
    for event in events:
        when = datetime.fromtimestamp(event.time, UTC).isoformat(sep=" ", timespec="seconds")
        told = _told(event.evidence)
        typer.echo(f"  {when} {event.kind} {event.version or ''} {told}".rstrip())


def _told(evidence: Mapping[str, Any]) -> str:
    """What an event says of its evidence: counts, p-values, and when a drift seems to have begun."""
    from datetime import UTC, datetime

    parts = []
    if evidence.get("compared"):
        parts.append(f"{evidence['disagreed']} of {evidence['compared']} differed")
        parts.append(f"p={evidence['p_value']:.2g}")
    if evidence.get("drift_from"):
        since = datetime.fromtimestamp(evidence["drift_from"], UTC)
        parts.append(f"since about {since.isoformat(sep=' ', timespec='seconds')}")
    if evidence.get("inputs"):
        parts.append(f"the inputs changed: p={evidence['inputs']['p_value']:.2g}")
    if evidence.get("why"):
        parts.append(str(evidence["why"]))
    return f"({'; '.join(parts)})" if parts else ""
