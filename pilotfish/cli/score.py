"""``pilotfish score``: how likely each text of a file is to a language model that runs here."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, TextIO

import typer

AT_ONCE = 256  # texts; they share what they begin with, and progress is seen


def score(
    model: Annotated[
        str, typer.Argument(help="A model that runs here: of pilotfish.toml or the catalogue.")
    ],
    inputs: Annotated[Path, typer.Argument(help="Texts: JSONL, CSV, TSV or Parquet.")],
    text: Annotated[str, typer.Option(help="Column of the text.")] = "text",
    given: Annotated[
        str, typer.Option(help="Column of what comes before the text and is not scored.")
    ] = "",
    max_tokens: Annotated[
        int | None, typer.Option(help="Score so many tokens of each text, from its beginning.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Where the scores go (.jsonl). Default: stdout.")
    ] = None,
    rejects: Annotated[
        Path | None, typer.Option(help="Where rows that cannot be used go, with line and reason.")
    ] = None,
    as_json: Annotated[
        bool,
        typer.Option(
            "--json", help="Print the summary as JSON (on stderr when scores go to stdout)."
        ),
    ] = False,
) -> None:
    """Score texts: perplexity, bits per byte and log-likelihood (nats) of each, and of all together.

    One JSON line per text: its columns and the scores; null where no token can be scored.
    """
    from pilotfish.cli.progress import TerminalProgress
    from pilotfish.loop.rows import read_rows, write_rejects
    from pilotfish.models.scoring import Scored, token_model, total_perplexity
    from pilotfish.models.scoring import score as score_texts
    from pilotfish.sources import writable

    for file_to_write in (out, rejects):
        if file_to_write is not None:
            writable(file_to_write)
    rows = read_rows(inputs, fields=[text, given] if given else [text])
    if rejects is not None:
        write_rejects(rows, rejects)
    loaded = token_model(model)
    progress = TerminalProgress()
    done: list[Scored] = []
    with _opened(out) as file, progress.stage("Scoring", len(rows)) as stage:
        for at in range(0, len(rows), AT_ONCE):
            part = [rows.row(i) for i in range(at, min(at + AT_ONCE, len(rows)))]
            scored = score_texts(
                loaded,
                [str(row[text]) for row in part],
                given=[str(row[given]) for row in part] if given else "",
                max_tokens=max_tokens,
            )
            for row, found in zip(part, scored, strict=True):
                values = {
                    "tokens": found.scored,
                    "log_likelihood": found.log_likelihood if found.scored else None,
                    "perplexity": _known(found.perplexity),
                    "bits_per_byte": _known(found.bits_per_byte),
                }
                file.write(json.dumps({**row, **values}, ensure_ascii=False, default=str) + "\n")
            done += scored
            stage.advance(len(part))
    summary = {
        "texts": len(done),
        "tokens": sum(found.scored for found in done),
        "perplexity": _known(total_perplexity(done)),
        "rejected": len(rows.rejects),
    }
    if as_json:
        typer.echo(json.dumps(summary), err=out is None)
        return
    progress.say(
        f"{summary['texts']} texts, {summary['tokens']} tokens: perplexity "
        f"{total_perplexity(done):.4g}; {summary['rejected']} rows rejected."
    )


@contextmanager
def _opened(out: Path | None) -> Iterator[TextIO]:
    if out is None:
        yield sys.stdout
        return
    from pilotfish.sources import writing

    part = out.with_name(out.name + ".part")  # the inputs may be overwritten, but not by half
    with writing(out):
        with part.open("w", encoding="utf-8") as file:
            yield file
        part.replace(out)


def _known(value: float) -> float | None:
    return value if math.isfinite(value) else None
