"""Grades from 0 to 5 by a large model, and answers by any: asked once, kept in the store.

What steps of curation ask is kept under the store of pilotfish.toml (:class:`~pilotfish.models.cached.
CachedModel`), so a run that was stopped, and another run over the same rows, pay for nothing twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilotfish.config import load_config
from pilotfish.errors import ModelError
from pilotfish.figures import count
from pilotfish.models.cached import CachedModel
from pilotfish.models.calls import complete_many, wait
from pilotfish.models.labels import LabelModel
from pilotfish.models.load import load_model
from pilotfish.models.protocols import Model
from pilotfish.records import Completion, Request, Usage
from pilotfish.store.store import open_store

GRADES = ("0", "1", "2", "3", "4", "5")
GRADE_TOKENS = 2  # of an answer that is a grade
CHARS_PER_TOKEN = 4  # of English; of other scripts each character is taken for a token
BYTES_PER_TOKEN = 4  # that another model reads of one that was written, at most: a rough bound
AROUND = 16  # tokens that a chat template writes around a message, at most


@dataclass(frozen=True)
class Answers:
    """What a model said to some requests.

    Attributes:
        texts: Its answers, or None where it failed.
        failed: One of the errors; "" for none.
    """

    texts: list[str | None]
    failed: str


def answers(
    model: str, prompts: Sequence[str], task: str, concurrency: int, tokens: int
) -> Answers:
    """Ask a model, at temperature 0.

    Args:
        model: A name or spec as everywhere.
        prompts: What to ask.
        task: What the store should say these answers are for.
        concurrency: Requests under way at once.
        tokens: Of an answer, at most.

    Raises:
        StoreError: The store cannot be opened or written.
    """
    requests = [Request.of(prompt, temperature=0, max_tokens=tokens) for prompt in prompts]
    found = _ask(model, requests, task, concurrency, as_labels=False)
    errors = [str(answer) for answer in found if not isinstance(answer, Completion)]
    texts = [answer.text if isinstance(answer, Completion) else None for answer in found]
    return Answers(texts, errors[0] if errors else "")


def grades(
    model: str, prompts: Sequence[str], task: str, concurrency: int
) -> tuple[NDArray[np.float64], str]:
    """Ask for grades from 0 to 5.

    Args:
        model: A name or spec as everywhere.
        prompts: Each asks for one of :data:`GRADES` and nothing else.
        task: What the store should say these answers are for.
        concurrency: Requests under way at once.

    Returns:
        The grades, NaN where there is none, and an answer that was none.

    Raises:
        StoreError: The store cannot be opened or written.
    """
    requests = [
        Request.of(prompt, temperature=0, answer="rating", labels=list(GRADES))
        for prompt in prompts
    ]
    found, wrong = np.full(len(prompts), np.nan), ""
    for i, answer in enumerate(_ask(model, requests, task, concurrency, as_labels=True)):
        label = answer.extra.get("label") if isinstance(answer, Completion) else None
        if label is None:
            wrong = answer.text if isinstance(answer, Completion) else str(answer)
        else:
            found[i] = float(label)
    return found, wrong


def _ask(
    model: str, requests: Sequence[Request], task: str, concurrency: int, as_labels: bool
) -> list[Completion | ModelError]:
    config = load_config()
    with open_store(config.store) as store:
        kept: Model = CachedModel(load_model(model, config), store, task=task)
        return wait(_gather(LabelModel(kept) if as_labels else kept, requests, concurrency))


async def _gather(
    model: Model, requests: Sequence[Request], concurrency: int
) -> list[Completion | ModelError]:
    found: dict[int, Completion | ModelError] = {}
    async for i, answer in complete_many(model, requests, concurrency=concurrency):
        found[i] = answer
    return [found[i] for i in range(len(requests))]


def estimate(
    model: str, requests: int, prompts: Sequence[str], answer_tokens: int, *, unknown: int = 0
) -> str:
    """What asking would come to, for people; before anything is asked.

    About so many tokens as English takes, a token for four characters, and one for each character of
    other scripts; at most so many as there are bytes, since no tokenizer in use makes more.

    Args:
        model: Whom.
        requests: How many.
        prompts: Some of them, for their size.
        answer_tokens: Of one answer, at most.
        unknown: Tokens of each request that are not known yet, such as an answer to grade; at most.
    """
    config = load_config()
    text = "".join(prompts)
    plain = len(text.encode("ascii", "ignore"))
    share = requests / max(1, len(prompts))
    about = share * (len(text) - plain + plain / CHARS_PER_TOKEN) + requests * unknown
    most = share * len(text.encode("utf-8", "replace"))
    most += requests * (AROUND + BYTES_PER_TOKEN * unknown)
    written = requests * answer_tokens
    price = config.prices.get(model) or getattr(load_model(model, config), "price", None)
    said = f"{count(requests)} requests to {model}, about {count(round(about))} tokens to read"
    if price is None:
        return f"{said}; its price is not known ([prices] in pilotfish.toml)"
    low, high = (
        price.cost(Usage(prompt_tokens=round(read), completion_tokens=written))
        for read in (about, most)
    )
    return f"{said}, about ${low:,.2f} with the answers and at most ${high:,.2f}"
