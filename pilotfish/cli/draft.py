"""``pilotfish draft``: a small model that guesses what a local one says next."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pilotfish.distill.draft import DraftReport
    from pilotfish.distill.draft_estimate import DraftEstimate


def draft(
    model: Annotated[
        str, typer.Argument(help="The model: a pulled name, a .gguf file, or a folder.")
    ],
    prompts: Annotated[Path, typer.Argument(help="Prompts: JSONL, CSV or Parquet.")],
    prompt: Annotated[
        str, typer.Option(help="What the model is sent, with {column} places.")
    ] = "{text}",
    out: Annotated[Path, typer.Option(help="Folder of the draft.")] = Path("draft"),
    layers: Annotated[int, typer.Option(min=1, help="Its first layers, from which it starts.")] = 2,
    head: Annotated[
        int, typer.Option(min=1, help="Tokens that it can guess, the most frequent.")
    ] = 8192,
    tokens: Annotated[
        int, typer.Option(min=1, help="Tokens of the model's own answers to learn from.")
    ] = 100_000,
    prompt_tokens: Annotated[
        int, typer.Option(min=0, help="Tokens of the prompts to learn from as well.")
    ] = 100_000,
    answer: Annotated[int, typer.Option(min=2, help="Longest answer, in tokens.")] = 128,
    epochs: Annotated[int, typer.Option(min=1, help="Times that each answer is seen.")] = 6,
    learning_rate: Annotated[float, typer.Option(min=0.0, help="At its highest.")] = 1e-3,
    divergence: Annotated[
        str,
        typer.Option(
            help="What it learns to make small: forward-kl, reverse-kl, jensen-shannon, "
            "skew-forward-kl, skew-reverse-kl or total-variation."
        ),
    ] = "forward-kl",
    held_out: Annotated[int, typer.Option(min=1, help="Prompts that it is measured on.")] = 20,
    seed: Annotated[int, typer.Option(min=0, help="Of every random choice.")] = 0,
    threads: Annotated[int, typer.Option(min=0, help="Default: as torch chooses.")] = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only estimate time and size.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON.")] = False,
) -> None:
    """Distil a draft for kind = "speculative" from a model that runs here; needs the torch extra.

    The model answers the prompts, and a few of its own layers learn to say the same. A killed run
    goes on where it was: repeat the same command.

    Example: pilotfish draft smollm2-135m questions.jsonl --prompt "{question}" --out draft
    """
    from pilotfish.cli.progress import TerminalProgress
    from pilotfish.config import load_config
    from pilotfish.loop.rows import read_rows
    from pilotfish.loop.template import Template
    from pilotfish.models.load import load_model
    from pilotfish.records import Request

    _need_torch()
    from pilotfish.distill.draft import DraftSettings, distill_draft
    from pilotfish.distill.draft_estimate import estimate_draft
    from pilotfish.distill.language_model import Tuning

    template = Template(prompt)
    rows = read_rows(prompts, fields=template.fields)
    requests = [Request.of(template.render(rows.row(i))) for i in range(len(rows))]
    config = load_config()
    teacher: Any = load_model(
        f"transformers:{model}", config, **({"threads": threads} if threads else {})
    )
    writer: Any = teacher
    if teacher.path.suffix == ".gguf":
        writer = load_model(f"llama.cpp:{teacher.path}", config)
    settings = DraftSettings(
        layers=layers,
        head=head,
        tokens=tokens,
        prompts=prompt_tokens,
        answer=answer,
        held_out=held_out,
        divergence=divergence,
        tuning=Tuning(epochs=epochs, batch=8, learning_rate=learning_rate, seed=seed),
    )
    if dry_run:
        estimate = estimate_draft(teacher, requests, settings, writer=writer)
        typer.echo(json.dumps(estimate.to_dict()) if as_json else _expected(estimate))
        return
    report = distill_draft(
        teacher, requests, out, settings, writer=writer, progress=TerminalProgress()
    )
    typer.echo(json.dumps(report.to_dict()) if as_json else _measured(report, model))


def _need_torch() -> None:
    from pilotfish.distill.transformer import unavailable_library
    from pilotfish.errors import MissingExtra

    if unavailable_library():
        raise MissingExtra("pilotfish draft", "torch")


def _expected(estimate: DraftEstimate) -> str:
    from pilotfish.figures import duration

    parts = {
        "the model answers": estimate.write_seconds,
        "it reads its answers": estimate.read_seconds,
        "the draft learns": estimate.learn_seconds,
    }
    lines = [f"{estimate.prompts} prompts, up to {estimate.tokens} tokens of answers"]
    lines += [f"{what}: about {duration(seconds)}" for what, seconds in parts.items()]
    lines.append(f"in all: about {duration(estimate.seconds)}, {estimate.bytes / 1e6:.0f} MB kept")
    lines.append(f"a step of the draft reads {estimate.size_share:.1%} of the model's weights")
    return "\n".join(lines)


def _measured(report: DraftReport, model: str) -> str:
    lines = []
    for before, after in zip(report.before, report.after, strict=True):
        shares = after.by_position
        positions = " ".join("-" if share is None else f"{share:.2f}" for share in shares)
        lines.append(
            f"temperature {after.temperature:g}: {after.rate:.1%} of its guesses hold "
            f"({before.rate:.1%} before it learned); in a row: {positions}"
        )
    lines += [
        f"a step reads {report.size_share:.1%} of the model's weights",
        "",
        "[models.draft]",
        'backend = "transformers"',
        f"model = {json.dumps(str(report.folder.resolve()))}",
        "",
        "[models.fast]",
        'kind = "speculative"',
        f'models = ["transformers:{model}", "draft"]',
    ]
    return "\n".join(lines)
