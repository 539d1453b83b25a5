"""A session that keeps the last prompt: the next one costs only what differs from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pilotfish.config import Price
from pilotfish.errors import RequestRefused
from pilotfish.models.protocols import Floats, TokenModel
from pilotfish.models.sampling import Proposal
from pilotfish.models.worker import Check
from pilotfish.records import Request, Usage

_PIECE = 512  # tokens that are read between two looks at whether anybody still waits


class Held:
    """A session that keeps the last prompt, so that the next one costs what differs.

    Args:
        model: Whose.
    """

    def __init__(self, model: TokenModel) -> None:
        self.model = model
        self.session = model.session()

    def hold(self, tokens: Sequence[int], check: Check) -> tuple[Floats, int]:
        """Make the session hold these tokens (at least one).

        Returns:
            Logits ``[vocab]`` after the last one, and how many of them were there already.

        Raises:
            RequestRefused: They do not fit.
        """
        most = getattr(self.model, "context", None)
        if most is not None:
            check_prompt(len(tokens), most)  # before they are read, not after
        kept = min(common_prefix(self.session.tokens, tokens), len(tokens) - 1)
        self.session.rewind(kept)
        # A cache that others needed reads its tokens again: those are not there.
        there = int(getattr(self.session, "held", kept))
        for at in range(kept, len(tokens), _PIECE):
            check()
            part = tokens[at : at + _PIECE]
            row = self.session.feed(part, last=1 if at + len(part) == len(tokens) else 0)
        return np.asarray(row[0]), there

    def usage(self, tokens: Sequence[int], kept: int) -> Usage:
        """A prompt of these tokens, ``kept`` of which were there; a composite counts in its own way."""
        count = getattr(self.model, "prompt_usage", None)
        found: Usage = count(tokens, kept) if count else Usage(len(tokens), 0, kept)
        return found


class HeldSource:
    """Logits of one answer of one model: the plainest :class:`~pilotfish.models.generate.Source`.

    Args:
        held: The model's session.
    """

    def __init__(self, held: Held) -> None:
        self.proposal: Proposal | None = None
        self._held = held
        self._prompt = Usage()

    def begin(self, request: Request, check: Check) -> tuple[Floats, Usage]:
        """Logits ``[vocab]`` after the request, and its prompt's tokens."""
        tokens = self._held.model.prompt_tokens(request)
        row, kept = self._held.hold(tokens, check)
        self._prompt = self._held.usage(tokens, kept)
        return row, self._prompt

    def next(self, token: int, check: Check) -> Floats:
        """Logits ``[vocab]`` after one more token."""
        return np.asarray(self._held.session.feed([token])[0])

    @property
    def room(self) -> int:
        """How many tokens surely fit after those that were read, at least 1."""
        return max(1, self._held.session.room)

    def written(self, steps: int) -> int:
        """A token for each step."""
        return steps

    def cost(self, tokens: int) -> float | None:
        """US dollars for this answer with so many tokens written, None when unknown."""
        price: Price | None = getattr(self._held.model, "price", None)
        return price.cost(self._prompt + Usage(0, tokens)) if price else None


def check_prompt(length: int, context: int, *, answer: int = 0) -> None:
    """Refuse a prompt that a model's context cannot hold, with so many tokens of an answer.

    Raises:
        RequestRefused: So it is.
    """
    if length + answer > context:
        raise RequestRefused(
            f"The prompt has {length} tokens, but the context holds {context}.",
            remedy=f"Shorten the input, or set context = {2 ** length.bit_length()}",
        )


def common_prefix(first: Sequence[object], second: Sequence[object]) -> int:
    """How many tokens two sequences begin with together.

    >>> common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    for at, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return at
    return min(len(first), len(second))
