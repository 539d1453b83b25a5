"""What a draft is: it sees the tokens that are certain, and guesses those that come.

Guesses are the nodes of a tree: a node says what comes after its parent, and the nodes of one parent are
tried in turn. A draft that sees one way on gives a chain, the tree without branches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pilotfish.models.sampling import Doubles
from pilotfish.models.worker import Check
from pilotfish.records import Request

Worth = Callable[[Sequence["Node"]], bool]


@dataclass(frozen=True, slots=True)
class Node:
    """A guess.

    Attributes:
        token: The token.
        parent: Place among the nodes of the guess that it follows; -1: the certain tokens.
        probabilities: The distribution ``[vocab]`` that it was drawn from, without the older nodes of the
            same parent; None where it was certain.
        kind: A class of guesses that are about equally often right; acceptance is tracked for each.
        rank: How many nodes of the same parent are tried before it.
    """

    token: int
    parent: int = -1
    probabilities: Doubles | None = None
    kind: int = 0
    rank: int = 0


class Draft(Protocol):
    """Guesses tokens for one answer at a time.

    Attributes:
        name: For the figures.
    """

    name: str

    def cost(self, tokens: int) -> float:
        """Seconds to read so many tokens; 0 where it costs next to nothing."""
        ...

    @property
    def behind(self) -> int:
        """How many of the certain tokens it has yet to read before it can guess."""
        ...

    def begin(self, request: Request, prompt: Sequence[int]) -> None:
        """A new answer to ``request``, which the target reads as ``prompt``."""
        ...

    def extend(self, token: int) -> None:
        """This token is certain now."""
        ...

    def propose(self, most: int, branches: int, worth: Worth, check: Check) -> list[Node]:
        """Guesses of what comes next, parents before children.

        Args:
            most: Longest path.
            branches: Most children of a node.
            worth: Whether one more guess at the end of these is worth its cost.
            check: Called between steps; raises to end the work.
        """
        ...
