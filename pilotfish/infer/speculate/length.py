"""How many tokens a draft should guess: what is expected to be fastest, down to none.

With acceptance ``a``, ``k`` guesses give ``1 + a + ... + a^k`` tokens (Leviathan et al. 2023, equation 1)
for the time of reading ``k + 1`` at once and of drafting ``k``. Acceptance is tracked live, for each kind
of guess; guesses that cost nothing are compared with what came even when they were not used, so that a
draft that is useless is never paid for, and one that becomes useful is noticed.
"""

from __future__ import annotations

from collections.abc import Callable

LONGEST = 16
FORGET = 0.97  # weight of what was known, with each new outcome
PRIOR = (1.0, 2.0)  # accepted and tried, before anything was seen
MARGIN = 1.05  # expected speed-up below which nothing is drafted: estimates have errors
PROBE_FIRST, PROBE_LAST = 32, 2048  # tokens until a draft that does not pay is tried again


class Acceptance:
    """The share of guesses that are right, of late.

    >>> a = Acceptance()
    >>> for _ in range(200): a.tell(True)
    >>> a.rate > 0.98
    True
    """

    def __init__(self) -> None:
        self._accepted, self._tried = PRIOR

    @property
    def rate(self) -> float:
        """In (0, 1)."""
        return self._accepted / self._tried

    def tell(self, accepted: bool) -> None:
        """One more outcome: of a guess all of whose predecessors were right."""
        self._accepted = FORGET * self._accepted + accepted
        self._tried = FORGET * self._tried + 1


def expected_tokens(rate: float, k: int) -> float:
    """Tokens from ``k`` guesses with acceptance ``rate`` in [0, 1], the target's own one included.

    >>> expected_tokens(0.5, 2), expected_tokens(1.0, 3)
    (1.75, 4.0)
    """
    return float(sum(rate**i for i in range(k + 1)))


class Length:
    """Chooses how many tokens to draft.

    Args:
        verify: Seconds to read ``k`` tokens at once.
        draft_cost: Seconds to draft one.
        longest: Never more.

    Attributes:
        rates: Acceptance by kind.
    """

    def __init__(
        self, verify: Callable[[int], float], draft_cost: float, longest: int = LONGEST
    ) -> None:
        self.verify = verify
        self.draft_cost = draft_cost
        self.longest = longest
        self.rates: dict[int, Acceptance] = {}
        self._idle = 0
        self._patience = PROBE_FIRST

    def rate(self, kind: int) -> float:
        """The acceptance of a kind of guesses."""
        return self.rates.setdefault(kind, Acceptance()).rate

    def best(self, kind: int) -> int:
        """The number of guesses with the highest expected speed; 0 unless one is clearly faster."""
        rate = self.rate(kind)
        plain = 1 / self.verify(1)
        chosen, fastest = 0, MARGIN * plain
        for k in range(1, self.longest + 1):
            speed = expected_tokens(rate, k) / (self.verify(k + 1) + k * self.draft_cost)
            if speed > fastest:
                chosen, fastest = k, speed
        return chosen

    def choose(self, kind: int = 0) -> int:
        """As :meth:`best`; a draft that costs something and does not pay is tried now and then."""
        chosen = self.best(kind)
        if chosen or not self.draft_cost:
            self._idle, self._patience = 0, PROBE_FIRST
            return chosen
        self._idle += 1
        if self._idle < self._patience:
            return 0
        self._idle, self._patience = 0, min(2 * self._patience, PROBE_LAST)
        return 1

    def tell(self, kind: int, accepted: bool) -> None:
        """Whether a guess was right, all before it having been."""
        self.rates.setdefault(kind, Acceptance()).tell(accepted)
        if accepted:  # one that begins to hold is tried again at once
            self._idle = self._patience
