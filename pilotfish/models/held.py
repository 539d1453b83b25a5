"""A session that keeps the last prompt: the next one costs only what differs from it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from pilotfish.models.protocols import Floats, TokenModel
from pilotfish.models.worker import Check

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
        """
        kept = min(common_prefix(self.session.tokens, tokens), len(tokens) - 1)
        self.session.rewind(kept)
        for at in range(kept, len(tokens), _PIECE):
            check()
            part = tokens[at : at + _PIECE]
            row = self.session.feed(part, last=1 if at + len(part) == len(tokens) else 0)
        return np.asarray(row[0]), kept


def common_prefix(first: Sequence[int], second: Sequence[int]) -> int:
    """How many tokens two sequences begin with together.

    >>> common_prefix([1, 2, 3], [1, 2, 4, 5])
    2
    """
    for at, (a, b) in enumerate(zip(first, second, strict=False)):
        if a != b:
            return at
    return min(len(first), len(second))
