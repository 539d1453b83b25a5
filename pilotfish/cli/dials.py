"""The dials that ``pilotfish replay`` and ``pilotfish route`` share, in the user's terms."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pilotfish.infer.operating import Dials, Measured
    from pilotfish.infer.scoreboard import Interval

MaxCost = Annotated[
    float | None, typer.Option(help="Most that a request may cost in the mean, as in the outcomes.")
]
StrongShare = Annotated[
    float | None,
    typer.Option(help="Share of requests on which the large model may be asked, 0 to 1."),
]
MinQuality = Annotated[
    float | None, typer.Option(help="Least mean quality, reached at the least cost, 0 to 1.")
]
MaxLatency = Annotated[
    float | None, typer.Option(help="Most seconds that an answer may take in the mean.")
]
Agree = Annotated[
    float | None,
    typer.Option(
        help="Promise that this share of requests, e.g. 0.95, is answered as well as by the large model."
    ),
]
AgreeOn = Annotated[
    str,
    typer.Option(help="With --agree: quality (as good as the large model's) or answer (the same)."),
]
Pattern = Annotated[
    str,
    typer.Option(
        help="With --agree-on answer: a regular expression that finds the final answer in a text."
    ),
]
Large = Annotated[str, typer.Option(help="The large model. Default: the best of those recorded.")]


def dials_from(
    max_cost: float | None,
    strong_share: float | None,
    min_quality: float | None,
    max_latency: float | None,
    agree: float | None,
    agree_on: str,
    pattern: str,
) -> Dials:
    """The dials; those that exclude one another are refused."""
    from pilotfish.infer.operating import Dials

    wanted: Any = agree_on
    return Dials(
        max_cost=max_cost,
        strong_share=strong_share,
        min_quality=min_quality,
        max_latency=max_latency,
        agree=agree,
        agree_on=wanted,
        pattern=pattern,
    )


def as_values(measured: Measured) -> dict[str, Any]:
    """For ``--json``: each measure with its interval."""
    return {
        "questions": measured.questions,
        **{
            name: {"value": one.value, "low": one.low, "high": one.high}
            for name, one in measured.measures.items()
        },
    }


def cell(found: Interval, *, bare: bool = False) -> str:
    """A value and half the width of its interval; ``bare``: the value alone."""
    half = (found.high - found.low) / 2
    plain = abs(found.value) >= 0.01 or found.value == 0
    value, width = (
        (f"{found.value:.3f}", f"{half:.3f}") if plain else (f"{found.value:.2e}", f"{half:.0e}")
    )
    return value if bare else f"{value} ±{width}"
