"""``pilotfish route fit`` and ``route tune``: make a router from outcomes or the gateway's store."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotfish.errors import InputError

if TYPE_CHECKING:
    from pilotfish.infer.outcomes import Outcomes
    from pilotfish.infer.routing import Tuned

route = typer.Typer(
    name="route",
    help="Fit a router on recorded outcomes, or tune one to another budget.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Source = Annotated[
    str,
    typer.Argument(help="A file of outcomes, or the URL of the gateway's store (sqlite:///...)."),
]
_Cost = Annotated[float | None, typer.Option(help="Most that a request may cost in the mean.")]
_Share = Annotated[
    float | None, typer.Option(help="Share of requests that may go to the best model.")
]
_Quality = Annotated[float | None, typer.Option(help="Least mean quality, at the least cost.")]
_Models = Annotated[str, typer.Option(help="Models to use, comma-separated.")]
_Prompt = Annotated[str, typer.Option(help="Column of the question.")]
_Column = Annotated[
    list[str] | None, typer.Option(help="KIND=PATTERN for files with other names; {} is the model.")
]
_Price = Annotated[
    list[str] | None, typer.Option(help="MODEL=INPUT,OUTPUT: dollars per million tokens.")
]
_Tokens = Annotated[float, typer.Option(help="With --price: tokens of an answer without text.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@route.command()
def fit(
    outcomes: _Source,
    out: Annotated[Path, typer.Option(help="Folder of the artifact.")],
    predictor: Annotated[
        str, typer.Option(help="A quality predictor with its settings, e.g. knn:k=20.")
    ] = "stacked",
    max_cost: _Cost = None,
    strong_share: _Share = None,
    min_quality: _Quality = None,
    held_out: Annotated[
        float, typer.Option(help="Share of the questions that the dial is set on.")
    ] = 0.3,
    models: _Models = "",
    prompt: _Prompt = "",
    column: _Column = None,
    price: _Price = None,
    answer_tokens: _Tokens = 0.0,
    encoder: Annotated[
        str, typer.Option(help="Encoder of predictors that embed; several with + between.")
    ] = "static",
    seed: Annotated[int, typer.Option(help="Seed of every random choice.")] = 0,
    as_json: _Json = False,
) -> None:
    """Fit a router; `[models.NAME] kind = "router", by = "FOLDER"` serves it.

    A store is split by time: the newest questions set the dial. A file is split at random.

    Example: pilotfish route fit outcomes.parquet --out router --max-cost 0.001
    """
    from pilotfish.infer.predictors.joined import load_joined
    from pilotfish.infer.replay import parse_settings
    from pilotfish.infer.routing import fit_routing

    learn, tune = _parts(outcomes, 1 - held_out, seed, models, prompt, column, price, answer_tokens)
    name, _, rest = predictor.partition(":")
    made = fit_routing(
        learn,
        tune,
        predictor=name,
        settings=parse_settings(rest),
        encoder=load_joined(encoder),
        seed=seed,
        max_cost=max_cost,
        strong_share=strong_share,
        min_quality=min_quality,
    )
    source = {"outcomes": _shown(outcomes), "fitted_on": len(learn), "tuned_on": len(tune)}
    made.save(out, learned_from=source)
    _say(made.tuned, out, as_json)


@route.command()
def tune(
    artifact: Annotated[Path, typer.Argument(help="Folder that `pilotfish route fit` made.")],
    outcomes: _Source,
    max_cost: _Cost = None,
    strong_share: _Share = None,
    min_quality: _Quality = None,
    models: _Models = "",
    prompt: _Prompt = "",
    column: _Column = None,
    price: _Price = None,
    answer_tokens: _Tokens = 0.0,
    as_json: _Json = False,
) -> None:
    """Set another dial, on outcomes that the router was not fitted on.

    Example: pilotfish route tune router newer.parquet --strong-share 0.2
    """
    from pilotfish.infer.predictors.joined import load_joined
    from pilotfish.infer.routing import Routing, tune_routing
    from pilotfish.store.artifacts import load_artifact

    card = load_artifact(artifact).card
    routing = Routing.load(artifact, load_joined)
    recorded = _recorded(outcomes, models, prompt, column, price, answer_tokens)
    tuned = tune_routing(
        routing,
        recorded,
        max_cost=max_cost,
        strong_share=strong_share,
        min_quality=min_quality,
    )
    source = {**card.learned_from, "tuned_on": len(recorded), "tuned_with": _shown(outcomes)}
    tuned.save(artifact, name=card.name, learned_from=source)
    _say(tuned.tuned, artifact, as_json)


def _is_store(source: str) -> bool:
    return "://" in source


def _shown(source: str) -> str:
    """Without the password of a URL."""
    if not _is_store(source):
        return source
    import sqlalchemy as sa

    return sa.make_url(source).render_as_string(hide_password=True)


def _recorded(source: str, *options: Any) -> Outcomes:
    from pilotfish.cli.replay import read

    if not _is_store(source):
        return read(Path(source), *options)
    from pilotfish.infer.stored_outcomes import read_stored_outcomes
    from pilotfish.store import open_store

    store = open_store(source)
    try:
        return read_stored_outcomes(store)[0]
    finally:
        store.close()


def _parts(source: str, share: float, seed: int, *options: Any) -> tuple[Outcomes, Outcomes]:
    if not 0 < share < 1:
        raise InputError(f"Got --held-out {1 - share:g}, but expected a share between 0 and 1.")
    found = _recorded(source, *options)
    if not _is_store(source):
        return found.split(seed, fit=share)
    cut = round(share * len(found))
    if not 2 <= cut < len(found):
        raise InputError(f"The store holds {len(found)} judged answers, but 4 at least are needed.")
    return found.take(slice(0, cut)), found.take(slice(cut, None))


def _say(tuned: Tuned, folder: Path, as_json: bool) -> None:
    if as_json:
        values = dataclasses.asdict(tuned)
        clean = {k: None if v != v else v for k, v in values.items()}
        typer.echo(json.dumps({**clean, "artifact": str(folder)}))
        return
    cost = "unknown" if tuned.cost != tuned.cost else f"{tuned.cost:.6g}"
    best = "unknown" if tuned.best_cost != tuned.best_cost else f"{tuned.best_cost:.6g}"
    typer.echo(
        f"{folder}: quality {tuned.quality:.4f} at a mean cost of {cost} on {tuned.questions:,} "
        f"questions held out; {tuned.strong_share:.0%} go to {tuned.best_single}, which alone has "
        f"{tuned.best_quality:.4f} at {best}."
    )
