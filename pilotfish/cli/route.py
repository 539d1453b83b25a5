"""``pilotfish route fit`` and ``route tune``: make a policy from outcomes or the gateway's store."""

from __future__ import annotations

import itertools
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
    as_values,
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
    is_store,
    recorded_in,
)
from pilotfish.errors import ConfigError, InputError

if TYPE_CHECKING:
    from pilotfish.infer.outcomes import Outcomes
    from pilotfish.infer.routing import Routing

route = typer.Typer(
    name="route",
    help="Fit a policy on recorded outcomes, or tune one to another budget.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

_Seed = Annotated[int, typer.Option(help="Seed of every random choice.")]
_Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON.")]


@route.command()
def fit(
    outcomes: Source,
    out: Annotated[Path, typer.Option(help="Folder of the artifact.")],
    policy: Annotated[
        str,
        typer.Option(
            help="A quality predictor with its settings (knn:k=20), or a policy that judges answers "
            "with its judge (cascade:learned); as for pilotfish replay."
        ),
    ] = "stacked",
    max_cost: MaxCost = None,
    strong_share: StrongShare = None,
    min_quality: MinQuality = None,
    max_latency: MaxLatency = None,
    agree: Agree = None,
    agree_on: AgreeOn = "quality",
    pattern: Pattern = "",
    large: Large = "",
    held_out: Annotated[
        float,
        typer.Option(help="Share of the questions held out: half sets the dial, half measures."),
    ] = 0.4,
    narrow: Annotated[
        int,
        typer.Option(
            help="For closed labels: a model that is asked after another one chooses from that one's "
            "likeliest N labels. 0: from all."
        ),
    ] = 0,
    hint: Annotated[
        bool, typer.Option(help="With --narrow: it is told their probabilities as well.")
    ] = False,
    models: Models = "",
    prompt: Prompt = "",
    column: Column = None,
    price: Price = None,
    answer_tokens: AnswerTokens = 0.0,
    encoder: Encoder = "static",
    seed: _Seed = 0,
    as_json: _Json = False,
) -> None:
    """Fit a policy; `[models.NAME] kind = "policy", by = "FOLDER"` serves it.

    A store is split by time: the newest questions are held out. A file is split at random.

    Example: pilotfish route fit outcomes.parquet --out router --max-cost 0.001
    """
    from pilotfish.infer.predictors.joined import load_joined
    from pilotfish.infer.routing import Narrowing, fit_routing

    dials = dials_from(max_cost, strong_share, min_quality, max_latency, agree, agree_on, pattern)
    sizes = (1 - held_out, held_out / 2, held_out / 2)
    learn, choose, check = _parts(
        outcomes, sizes, seed, models, prompt, column, price, answer_tokens
    )
    made = fit_routing(
        learn,
        choose,
        check,
        policy=policy,
        dials=dials,
        large=large,
        encoder=load_joined(encoder),
        narrowing=Narrowing(narrow, hint) if narrow else None,
        seed=seed,
    )
    source = {"outcomes": _shown(outcomes), "fitted_on": len(learn), "tuned_on": len(choose)}
    made.save(out, learned_from=source)
    _say(made, out, as_json)
    _say_unservable(made)


@route.command()
def tune(
    artifact: Annotated[Path, typer.Argument(help="Folder that `pilotfish route fit` made.")],
    outcomes: Source,
    max_cost: MaxCost = None,
    strong_share: StrongShare = None,
    min_quality: MinQuality = None,
    max_latency: MaxLatency = None,
    agree: Agree = None,
    agree_on: AgreeOn = "quality",
    pattern: Pattern = "",
    models: Models = "",
    prompt: Prompt = "",
    column: Column = None,
    price: Price = None,
    answer_tokens: AnswerTokens = 0.0,
    seed: _Seed = 0,
    as_json: _Json = False,
) -> None:
    """Set other dials, on outcomes that the policy was not fitted on: half sets, half measures.

    Example: pilotfish route tune router newer.parquet --strong-share 0.2
    """
    from pilotfish.infer.predictors.joined import load_joined
    from pilotfish.infer.routing import Routing, tune_routing
    from pilotfish.store.artifacts import load_artifact

    dials = dials_from(max_cost, strong_share, min_quality, max_latency, agree, agree_on, pattern)
    card = load_artifact(artifact).card
    routing = Routing.load(artifact, load_joined)
    choose, check = _parts(outcomes, (0.5, 0.5), seed, models, prompt, column, price, answer_tokens)
    tuned = tune_routing(routing, choose, check, dials, seed=seed)
    source = {**card.learned_from, "tuned_on": len(choose), "tuned_with": _shown(outcomes)}
    tuned.save(artifact, name=card.name, learned_from=source)
    _say(tuned, artifact, as_json)


def _say_unservable(made: Routing) -> None:
    """Tell now what ``serve`` would tell later: nobody knows how to score new answers."""
    from pilotfish.infer.stored_judges import ASKING, RecordedJudge

    judge = made.family.judge
    if isinstance(judge, RecordedJudge) and judge.name not in ASKING:
        try:
            judge.live(None)
        except ConfigError as error:
            typer.echo(f"It can be replayed and tuned, but not served. {error}", err=True)


def _shown(source: str) -> str:
    """Without the password of a URL."""
    if not is_store(source):
        return source
    import sqlalchemy as sa

    return sa.make_url(source).render_as_string(hide_password=True)


def _parts(source: str, sizes: tuple[float, ...], seed: int, *options: Any) -> list[Outcomes]:
    """A store by time, the oldest first; a file at random."""
    from pilotfish.infer.replay import shares

    if not all(0 < size < 1 for size in sizes):
        raise InputError(f"Got --held-out {1 - sizes[0]:g}, but expected a share between 0 and 1.")
    found = recorded_in(source, *options)
    if not is_store(source):
        return shares(found, sizes, seed)
    cuts = [0, *(round(sum(sizes[: i + 1]) * len(found)) for i in range(len(sizes)))]
    if any(b - a < 2 for a, b in itertools.pairwise(cuts)):
        raise InputError(
            f"The store holds {len(found)} judged answers, but each of the {len(sizes)} parts needs 2."
        )
    return [found.take(slice(a, b)) for a, b in itertools.pairwise(cuts)]


def _say(made: Routing, folder: Path, as_json: bool) -> None:
    from pilotfish.infer.operating import certificate_of

    measured = made.measured
    assert measured is not None  # both commands have measured it
    certificate = certificate_of(made.policy)
    if as_json:
        values: dict[str, Any] = {
            "artifact": str(folder),
            "policy": made.family.name,
            "models": list(made.classes),
            "large": made.large,
            **as_values(measured),
        }
        if certificate is not None:
            values["certificate"] = json.loads(certificate.to_json())
        typer.echo(json.dumps(values))
        return
    got = measured.measures
    typer.echo(
        f"{folder}: measured on {measured.questions:,} questions that nothing was chosen on (value and "
        "half the width of its 95% interval):"
        if certificate is None
        else f"{folder}: on the {measured.questions:,} questions that certify it:"
    )
    alone = {"quality": "large_quality", "cost": "large_cost"}
    for name in ("quality", "cost", "latency", "strong_share", "agreement"):
        if name not in got:
            continue
        line = f"  {name.replace('_', ' '):13} {cell(got[name])}"
        if alone.get(name) in got:
            line += f"   ({made.large} alone: {cell(got[alone[name]])})"
        typer.echo(line)
    if certificate is not None and certificate.threshold is None:
        typer.echo(
            f"  nothing could be certified ({certificate.reason}): all requests go to {made.large}",
            err=True,
        )
    elif certificate is not None:
        promised = certificate.constraints[0].target
        how = "the same as" if made.dials.agree_on == "answer" else "at least as well as"
        typer.echo(
            f"  promise       {promised:.0%} answered {how} by {made.large}; at most "
            f"{certificate.bound:.1%} are not, with {1 - certificate.delta:.0%} confidence"
        )
