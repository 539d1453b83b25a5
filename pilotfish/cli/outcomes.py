"""Recorded outcomes as ``pilotfish replay`` and ``pilotfish route`` read them, and the options for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pilotfish.errors import InputError, UnknownName

if TYPE_CHECKING:
    from pilotfish.infer.outcomes import Outcomes

Source = Annotated[
    str,
    typer.Argument(
        help="Recorded outcomes (.parquet, .jsonl, .csv), or the URL of the gateway's store "
        "(sqlite:///...)."
    ),
]
Models = Annotated[str, typer.Option(help="Models to use, comma-separated.")]
Prompt = Annotated[str, typer.Option(help="Column of the question.")]
Column = Annotated[
    list[str] | None,
    typer.Option(
        help="KIND=PATTERN for files with other names, e.g. 'quality={}'; {} is the model."
    ),
]
Price = Annotated[
    list[str] | None,
    typer.Option(
        help="MODEL=INPUT,OUTPUT: dollars per million tokens, for costs that are not recorded."
    ),
]
AnswerTokens = Annotated[
    float, typer.Option(help="With --price: tokens of an answer without text. 0: unknown.")
]
Encoder = Annotated[
    str, typer.Option(help="Encoder of predictors that embed; several with + between.")
]


_FOR_FILES = ("--prompt", "--column", "--price", "--answer-tokens")


def is_store(source: str) -> bool:
    """Whether outcomes are to be read from the gateway's store."""
    return "://" in source


def recorded_in(source: str, models: str, *options: Any) -> Outcomes:
    """Outcomes of a file, or of the gateway's store in the order in which they came."""
    if not is_store(source):
        return read(Path(source), models, *options)
    for name, given in zip(_FOR_FILES, options, strict=True):
        if given:
            raise InputError(
                f"Got {name} with a store, which says itself what was asked and what it cost.",
                remedy="Leave it out; it is for files.",
            )
    from pilotfish.infer.stored_outcomes import read_stored_outcomes
    from pilotfish.store import open_store

    store = open_store(source, create=False)  # a misspelt name must not become an empty file
    try:
        found = read_stored_outcomes(store)[0]
    finally:
        store.close()
    names = [name.strip() for name in models.split(",") if name.strip()]
    return found.select(names).recorded() if names else found


def read(
    path: Path,
    models: str,
    prompt: str,
    column: list[str] | None,
    price: list[str] | None,
    answer_tokens: float,
) -> Outcomes:
    """Outcomes as the options say; prices fill in the costs that were not recorded."""
    from pilotfish.infer.outcome_files import read_outcomes

    names = [name.strip() for name in models.split(",") if name.strip()]
    columns = dict(_pair(text, "--column KIND=PATTERN") for text in column or ())
    recorded = read_outcomes(path, models=names, prompt=prompt, columns=columns or None).recorded()
    if price:
        recorded = _filled(recorded, dict(_price(text) for text in price), answer_tokens)
    return recorded


def _filled(recorded: Outcomes, prices: dict[str, Any], answer_tokens: float) -> Outcomes:
    import numpy as np

    unknown = np.isnan(recorded.cost)
    for name in prices:
        if name not in recorded.models:
            raise UnknownName("model", name, recorded.models)
        if not unknown[:, recorded.models.index(name)].any():
            raise InputError(
                f"Got --price of {name}, but the file holds what every answer of {name} cost.",
                remedy="Leave out the price, or the file's cost column.",
            )
    priced = recorded.priced(prices, answer_tokens=answer_tokens or np.nan).cost
    return replace(recorded, cost=np.where(unknown, priced, recorded.cost))


def _pair(text: str, form: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not (name and equals and value):
        raise InputError(f"Got {text!r}, but expected {form}.")
    return name, value


def _price(text: str) -> tuple[str, Any]:
    from pilotfish.config import Price

    name, equals, value = text.rpartition("=")
    rates = value.split(",")
    try:
        asked, said = (float(rate) for rate in (rates * 2)[:2])
    except ValueError:
        equals = ""
    if not equals or not name or len(rates) > 2 or min(asked, said) < 0:
        raise InputError(
            f"Got --price {text!r}, but expected MODEL=INPUT,OUTPUT.",
            remedy="For example: --price gpt-4.1-mini=0.4,1.6",
        )
    return name, Price(asked, said)
