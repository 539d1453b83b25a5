"""``pilotfish learn``: from recorded answers to versions in service, once or beside the gateway."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from pilotfish.errors import InputError


def learn(
    task: Annotated[list[str] | None, typer.Argument(help="Tasks to learn. Default: all.")] = None,
    above: Annotated[
        float, typer.Option(help="Only tasks that have cost at least so many US dollars.")
    ] = 0.0,
    watch: Annotated[
        bool,
        typer.Option("--watch/--once", help="Stay beside the gateway, or read what is there."),
    ] = False,
    agree: Annotated[
        float, typer.Option(help="Share of answers that must be what the large model would say.")
    ] = 0.95,
    delta: Annotated[
        float, typer.Option(help="Probability that a promise may fail, or an alarm be false.")
    ] = 0.05,
    check_share: Annotated[
        float, typer.Option(help="Share of a task's requests on which its version is checked.")
    ] = 0.05,
    canary: Annotated[
        float, typer.Option(help="Share of the traffic that a canary answers.")
    ] = 0.2,
    trial: Annotated[
        int, typer.Option(help="Requests on which a version must prove itself at each step.")
    ] = 100,
    fewest: Annotated[int, typer.Option(help="Requests of a task before it is learned.")] = 300,
    budget: Annotated[
        str, typer.Option(help="Most to spend on one version: calls (500) or money ($5).")
    ] = "",
    student: Annotated[
        list[str] | None, typer.Option(help="Let only these students race. Default: all that fit.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Encoder for the students.")] = "static",
    judge: Annotated[
        str, typer.Option(help="Model that compares free texts. Default: the task's large model.")
    ] = "",
    nice: Annotated[
        int,
        typer.Option(min=0, max=19, help="How far it gives way to the gateway on a busy machine."),
    ] = 10,
    out: Annotated[Path, typer.Option(help="Folder of the artifacts.")] = Path("learned"),
    store: Annotated[str, typer.Option(help="URL of the store. Default: pilotfish.db here.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print the outcome as JSON.")] = False,
) -> None:
    """Learn recurring tasks from their recorded answers; new versions enter in shadow.

    With --watch it goes on: shadow, canary, service, checks, alarm, and learning again. What the
    large model has answered is used; only what is missing is bought, and nothing twice.

    Example: pilotfish learn --watch --above 5
    """
    import asyncio

    from pilotfish.cli.progress import TerminalProgress
    from pilotfish.config import load_config
    from pilotfish.loop.following import Shares
    from pilotfish.loop.keeper import Keeper, KeeperSettings
    from pilotfish.loop.learn import LearnSettings
    from pilotfish.loop.teacher import Budget
    from pilotfish.store.store import open_store

    _give_way(nice)
    _check_shares(("check-share", check_share), ("canary", canary))
    config = load_config()
    settings = KeeperSettings(
        learn=LearnSettings(
            agree=agree,
            delta=delta,
            students=tuple(student) if student else None,
            encoder=encoder,
            judge=judge,
            budget=Budget.parse(budget) if budget else Budget(),
            folder=out,
        ),
        shares=Shares(serving=check_share, canary=max(0.5, check_share), verdicts=trial),
        canary_share=canary,
        trial_rows=trial,
        fewest=fewest,
        above=above,
        only=tuple(task or ()),
    )
    with open_store(store or config.store) as database:
        keeper = Keeper(database, config, settings, TerminalProgress())
        if watch:
            asyncio.run(_watch(keeper))
            return
        done = asyncio.run(keeper.once())
    if as_json:
        plain = {n: o if isinstance(o, str) else o.to_dict() for n, o in done}
        typer.echo(json.dumps(plain))
        return
    for name, outcome in done:
        if isinstance(outcome, str):
            typer.echo(f"{name}: {outcome}")
        elif outcome.version is None:
            typer.echo(f"{name}: nothing new ({outcome.reason}); {outcome.asked} answers bought")
        else:
            typer.echo(
                f"{outcome.version.name}: may answer {outcome.coverage:.0%}; learned from "
                f"{outcome.recorded} recorded answers and {outcome.asked} bought; now in shadow"
            )
    if not done:
        typer.echo("No task is due: there are too few requests, or each has its version.")


async def _watch(keeper: object) -> None:
    import asyncio
    import signal

    from pilotfish.loop.keeper import Keeper

    assert isinstance(keeper, Keeper)
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    await keeper.run(stop)


def _give_way(nice: int) -> None:
    """Lower this process' priority, where the system knows such a thing."""
    import os

    if nice and hasattr(os, "nice"):
        os.nice(nice)


def _check_shares(*shares: tuple[str, float]) -> None:
    for name, share in shares:
        if not 0 < share <= 1:
            raise InputError(f"Got --{name} {share:g}, but expected a share in (0, 1].")
