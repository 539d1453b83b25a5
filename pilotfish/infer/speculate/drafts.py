"""What a draft is: it sees the tokens that are certain, and guesses those that come."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pilotfish.models.sampling import Proposal
from pilotfish.models.worker import Check
from pilotfish.records import Request


@dataclass(frozen=True, slots=True)
class Drafted:
    """Guesses, and a class of guesses that are about equally often right.

    Attributes:
        proposals: The next tokens, in order.
        kind: Acceptance is tracked for each kind by itself.
    """

    proposals: list[Proposal]
    kind: int = 0


class Draft(Protocol):
    """Guesses tokens for one answer at a time.

    Attributes:
        name: For the figures.
        cost: Seconds for one token; 0 where it costs next to nothing, so that it may guess for practice.
    """

    name: str
    cost: float

    def begin(self, request: Request, prompt: Sequence[int]) -> None:
        """A new answer to ``request``, which the target reads as ``prompt``."""
        ...

    def extend(self, tokens: Sequence[int]) -> None:
        """These tokens are certain now."""
        ...

    def propose(self, most: int, check: Check) -> Drafted:
        """At most ``most`` guesses of what comes next."""
        ...
