"""``pilotfish curate``: run a pipeline of curation steps on files of any size."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pilotfish.errors import InputError

if TYPE_CHECKING:
    from pilotfish.curate.result import CurateResult

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9}


def curate(
    pipeline: Annotated[
        Path, typer.Argument(help="The pipeline file (TOML): the steps and their settings.")
    ],
    inputs: Annotated[
        str,
        typer.Argument(
            help="A file, folder, glob or URL; several with commas between. JSONL, Parquet, CSV, "
            "TSV or plain text, also .gz and .zst."
        ),
    ],
    output: Annotated[
        str, typer.Argument(help="Folder for the shards, the report and the rejects; path or URL.")
    ],
    engine: Annotated[
        str,
        typer.Option(help="local, processes, or ray. Default: processes with several workers."),
    ] = "",
    workers: Annotated[
        int | None, typer.Option(help="Processes or actors at once. Default: all cores.")
    ] = None,
    format: Annotated[
        str, typer.Option(help="jsonl, parquet, csv or text (a line a row). Default: as the input.")
    ] = "",
    compression: Annotated[
        str, typer.Option(help="none, gzip or zstd. Default: as the input.")
    ] = "",
    input_format: Annotated[
        str,
        typer.Option(
            help="jsonl, parquet, csv, tsv, text (a line a row) or documents (a file a row). "
            "Default: by the names."
        ),
    ] = "",
    text: Annotated[
        str, typer.Option(help="Column of the text. Default: as the pipeline file says.")
    ] = "",
    shard_size: Annotated[
        str, typer.Option(help="Input that makes one shard, as stored, such as 64M.")
    ] = "64M",
    max_row_size: Annotated[
        str, typer.Option(help="Longer rows are refused, such as 16M.")
    ] = "16M",
    work: Annotated[
        Path | None,
        typer.Option(help="Folder for unfinished work. Default: _work in the output folder."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Write nothing: show the funnel of a sample.")
    ] = False,
    sample: Annotated[int, typer.Option(help="With --dry-run: rows to look at.")] = 10_000,
    ask: Annotated[
        bool,
        typer.Option(
            "--ask",
            help="With --dry-run: ask models for the sample, which costs, not only say what.",
        ),
    ] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print the whole result as JSON.")
    ] = False,
) -> None:
    """Filter, deduplicate and score text data with small models and rules.

    A killed run goes on where it was: repeat the same command. Rows that cannot be read are counted and
    written to _rejects.jsonl; the page _report.html shows what was dropped and why.

    Example: pilotfish curate pipeline.toml "corpus/*.jsonl.zst" curated
    """
    from pilotfish.cli.progress import TerminalProgress
    from pilotfish.curate.pipeline import Pipeline

    steps = Pipeline.from_file(pipeline)
    if text:
        steps = Pipeline(steps.steps, text=text)
    paths = [part.strip() for part in inputs.split(",") if part.strip()]
    if Path(inputs).expanduser().exists():  # one whose name has a comma
        paths = [inputs]
    longest = _size("--max-row-size", max_row_size)
    if dry_run:
        result = steps.sample(
            paths,
            rows=sample,
            ask=ask,
            input_format=input_format or None,
            max_row_bytes=longest,
            progress=TerminalProgress(),
        )
    else:
        result = steps.run(
            paths,
            output,
            engine=engine or ("local" if workers == 1 else "processes"),
            workers=workers,
            format=format or None,
            compression=compression or None,
            input_format=input_format or None,
            work=work,
            shard_bytes=_size("--shard-size", shard_size),
            max_row_bytes=longest,
            progress=TerminalProgress(),
        )
    if as_json:
        typer.echo(result.to_json())
    else:
        _print(result)


def _size(option: str, text: str) -> int:
    """Bytes of a size such as ``64M``."""
    digits = text.rstrip("kKmMgGbB")
    unit = text[len(digits) :].lower().removesuffix("b")
    try:
        return int(float(digits) * _UNITS[unit])
    except (ValueError, KeyError, OverflowError):
        raise InputError(f"Got {option} {text!r}, but expected a size such as 64M.") from None


def _print(result: CurateResult) -> None:
    from rich.console import Console
    from rich.table import Table

    from pilotfish.curate.report import funnel, headline
    from pilotfish.figures import count, duration, percent

    console = Console()
    console.print(headline(result), highlight=False)
    table = Table(box=None, pad_edge=False)
    for head in ("step", "rows left", "of all", "dropped here", "processor"):
        table.add_column(head, justify="left" if head == "step" else "right")
    for level in funnel(result):
        table.add_row(
            level.name,
            count(level.rows),
            percent(level.share, 1),
            percent(level.lost_share, 1) if level.seconds is not None else "",
            duration(level.seconds) if level.seconds is not None else "",
        )
    console.print(table)
    for title, found in (("Dropped", result.reasons), ("Not usable", result.rejected)):
        if found:
            named = ", ".join(f"{name} {count(number)}" for name, number in found.items())
            console.print(f"{title}: {named}", highlight=False, markup=False)
    if result.sample < 1:
        console.print(f"A sample: {percent(result.sample, 1)} of the input.", highlight=False)
    for note in result.notes:
        console.print(note, highlight=False, markup=False)
    if result.output:
        page = f"{result.output.rstrip('/')}/_report.html"
        console.print(f"Report: {page}", highlight=False, markup=False, soft_wrap=True)
