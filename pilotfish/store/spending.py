"""What the calls of a model came to: tokens, and US dollars where the price is known."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Spending:
    """What the calls of one model came to.

    Attributes:
        model: The model that answered.
        calls: How many answers were paid for; those marked ``cached`` do not count again.
        prompt_tokens: Sum over the calls, and so on.
        completion_tokens: See above.
        cached_tokens: See above.
        known_cost: US dollars of the calls whose price is known.
        unpriced: How many calls have an unknown price.
    """

    model: str
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    known_cost: float
    unpriced: int

    @property
    def cost(self) -> float | None:
        """US dollars of all calls; None as soon as one price is unknown."""
        return None if self.unpriced else self.known_cost
