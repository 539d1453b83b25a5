"""``pilotfish replay``: replay routing and cascade policies on recorded outcomes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotfish.cli.dials import (
    Agree,
    AgreeOn,
    Large,
    MaxCost,
    MaxLatency,
    MinQuality,
    Pattern,
    StrongShare,
    cell,
    dials_from,
)
from pilotfish.cli.outcomes import (
    AnswerTokens,
    Column,
    Encoder,
    Models,
    Price,
    Prompt,
    Source,
    recorded_in,
)

if TYPE_CHECKING:
    from pilotfish.infer.outcomes import Outcomes
    from pilotfish.infer.replay import Score

_SHOWN = (
    "quality",
    "cost",
    "latency",
    "strong_share",
    "agreement",
    "large_quality",
    "large_cost",
    "quality_at_single_cost",
    "aiq",
    "apgr",
    "cpt50",
    "cpt80",
)

_HINDSIGHT = {
    False: "\nWithout a dial, quality, cost, latency and strong share are those of each policy's best "
    "setting, in hindsight.",
    True: "\nQuality at single cost, aiq and the like are of the curve of all settings, in hindsight; "
    "all else is of the setting that the dial chose beforehand.",
}


def replay(
    outcomes: Source,
    policy: Annotated[
        list[str] | None,
        typer.Option(
            help="A predictor (kernel, knn:k=5); cascade, synergy, cascade-routing, reservation or "
            "verification-pomdp with a judge (cascade:learned, cascade:SIGNAL); single, random or "
            "oracle; repeat to compare. Default: single, knn, stacked, oracle."
        ),
    ] = None,
    max_cost: MaxCost = None,
    strong_share: StrongShare = None,
    min_quality: MinQuality = None,
    max_latency: MaxLatency = None,
    agree: Agree = None,
    agree_on: AgreeOn = "quality",
    pattern: Pattern = "",
    large: Large = "",
    models: Models = "",
    prompt: Prompt = "",
    column: Column = None,
    price: Price = None,
    answer_tokens: AnswerTokens = 0.0,
    fit: Annotated[
        float, typer.Option(help="Share (below 1) or number of the questions to fit on.")
    ] = 0.5,
    seeds: Annotated[int, typer.Option(help="Splits; the same for all policies.")] = 3,
    samples: Annotated[int, typer.Option(help="Bootstrap draws for the 95% intervals.")] = 200,
    encoder: Encoder = "static",
    plot: Annotated[
        Path | None, typer.Option(help="Where the curves go (.svg, .png or .pdf).")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print all measures as JSON.")] = False,
) -> None:
    """Replay policies on recorded outcomes: quality, cost, APGR, CPT, AIQ with 95% intervals.

    With a dial (--max-cost, --strong-share, --min-quality, --max-latency, --agree), each policy's
    setting is chosen on questions that are fitted on, and measured on the others.

    Example: pilotfish replay outcomes.parquet --policy knn --policy stacked --plot curves.svg
    """
    from pilotfish.infer.predictors.joined import load_joined
    from pilotfish.infer.replay import replay as run
    from pilotfish.loop.routing_plot import ENDINGS, check_costs, draw_curves
    from pilotfish.sources import writable

    if plot is not None:  # before the work, not after it
        writable(plot, ENDINGS)
    dials = dials_from(max_cost, strong_share, min_quality, max_latency, agree, agree_on, pattern)
    recorded = recorded_in(outcomes, models, prompt, column, price, answer_tokens)
    if plot is not None:
        check_costs(recorded)
    wanted = policy or ["single", "knn", "stacked", "oracle"]
    scores = run(
        recorded,
        wanted,
        dials=dials,
        large=large,
        fit=fit,
        seeds=seeds,
        samples=samples,
        encoder=load_joined(encoder),
    )
    if plot is not None:
        draw_curves(scores, recorded, plot)
    _say_unknown(scores, recorded, filled=bool(dials))
    if as_json:
        typer.echo(json.dumps([_row(score) for score in scores]))
        return
    _print(scores, recorded, seeds, samples)
    typer.echo(_HINDSIGHT[bool(dials)])


def _row(score: Score) -> dict[str, Any]:
    measures = {
        name: {"value": found.value, "low": found.low, "high": found.high}
        for name, found in score.measures.items()
    }
    curve = [
        {"cost": cost, "quality": None if quality != quality else quality}
        for cost, quality in score.curve.tolist()
    ]
    point = (
        None if score.point is None else dict(zip(("cost", "quality"), score.point, strict=True))
    )
    return {"policy": score.policy, "measures": measures, "point": point, "curve": curve}


def _say_unknown(scores: list[Score], outcomes: Outcomes, *, filled: bool) -> None:
    """On stderr: how much was not recorded, and which measures there are not for that reason."""
    import numpy as np

    columns = {"quality": outcomes.quality, "cost": outcomes.cost, "latency": outcomes.latency}
    unknown = {
        name: int(np.isnan(values).sum()) for name, values in columns.items() if values is not None
    }
    size = outcomes.quality.size
    partly = {name: count for name, count in unknown.items() if 0 < count < size}
    if not partly:
        return
    curves = {
        "quality_at_single_cost",
        "aiq",
        *(("apgr", "cpt50", "cpt80") if len(outcomes.models) == 2 else ()),
    }
    missing = [
        name.replace("_", " ")
        for name in _SHOWN
        if (name in curves or name in partly)
        and not any(name in score.measures for score in scores)
    ]
    counts = ", ".join(f"{name} of {count:,}" for name, count in partly.items())
    said = [f"Unknown of {size:,} answers: {counts}."]
    if filled and {"cost", "latency"} & set(partly):
        said.append("An unknown cost or latency counts as its model's mean.")
    if missing:
        said.append(f"Left out for that: {', '.join(missing)}.")
    typer.echo(" ".join(said), err=True)


def _short(names: list[str]) -> list[str]:
    """Names without their settings, where they can be told apart without."""
    bare = [name.partition(",")[0] for name in names]
    return [
        short if bare.count(short) == 1 else name for short, name in zip(bare, names, strict=True)
    ]


def _print(scores: list[Score], outcomes: Outcomes, seeds: int, samples: int) -> None:
    from rich.console import Console
    from rich.table import Table

    shown = [name for name in _SHOWN if any(name in score.measures for score in scores)]
    table = Table(box=None, pad_edge=False)
    table.add_column("")
    for name in _short([score.policy for score in scores]):
        table.add_column(name, justify="right", no_wrap=True)
    for name in shown:
        found = [score.measures.get(name) for score in scores]
        cells = ["" if one is None else cell(one, bare=not samples) for one in found]
        table.add_row(name.replace("_", " "), *cells)
    console = Console(width=max(80, 32 * (len(scores) + 1)))  # a cell that is broken cannot be read
    console.print(
        f"{len(outcomes):,} questions, {len(outcomes.models)} models, {seeds} split{'s' * (seeds > 1)}"
        + ("; value and half the width of its 95% interval" if samples else ""),
        end="\n\n",
    )
    console.print(table)
