"""Which guesses the target should read: those with the highest expected speed, down to none.

A guess is right with the acceptance of its kind, given that all before it were, so a set of guesses gives
``1 + sum(chances)`` tokens (Leviathan et al. 2023, equation 1, is the case of one kind and no branches)
for the time of reading ``1 + n`` tokens at once. Taking them by falling chance gives the best tree of
each size (Chen et al. 2024, Sequoia; Li et al. 2024, EAGLE-2); the size follows from the measured costs.

Three things keep it from being slower than no speculation. Acceptance is tracked live, for each kind of
guess, and of guesses that cost nothing also where they were not used; what is known from few outcomes
is taken for somewhat less. Costs are corrected by what the
readings really take; a size that costs alone forbid is tried now and then, in case it was measured at a
bad moment. And what speculation won and lost is counted: while it lost more than a small share of all
time, nothing is guessed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from pilotfish.infer.speculate.drafts import Node

LONGEST = 16
FORGET = 0.97  # weight of what was known, with each new outcome
PRIOR = 2.0  # outcomes that the guess before any outcome is worth
CARRIED = 6.0  # outcomes that all earlier answers are worth when one begins: some copy, some do not
CAUTION = 0.5  # standard errors of an acceptance by which a guess is taken for less likely
MARGIN = 1.1  # expected speed-up below which nothing is drafted: estimates have errors
TREE_MARGIN = 1.02  # expected speed-up over the best chain below which no tree is read
CREDIT = 8.0  # tokens' time that speculation may lose before it won anything
LOSS = 0.005  # share of all time that it may lose later
KEEP = (
    0.9995  # of what was won, lost and spent, with each step: old gains must not pay for new losses
)
FOLLOW, RESHAPE = (
    0.1,
    0.03,
)  # weight of a new timing, for the machine's speed and for this size alone
RETRY = 32  # likely guesses that were left for their cost until some are read all the same; doubles
FIRST, BURST = (
    24,
    6,
)  # steps in a row that a draft is tried at first, and again where it does not pay
ANY = -1  # the kind of every guess of a draft that costs something


class Acceptance:
    """The share of guesses that are right, of late.

    Args:
        guess: What it is taken for before anything was seen.
        weight: Outcomes that this is worth.

    >>> a = Acceptance()
    >>> for _ in range(200): a.tell(True)
    >>> a.rate > 0.98
    True
    """

    def __init__(self, guess: float = 0.5, weight: float = PRIOR) -> None:
        self._accepted, self._tried = weight * guess, weight

    @property
    def rate(self) -> float:
        """In (0, 1)."""
        return self._accepted / self._tried

    @property
    def cautious(self) -> float:
        """The rate less :data:`CAUTION` standard errors, in [0, 1)."""
        rate = self.rate
        return max(0.0, rate - CAUTION * math.sqrt(rate * (1 - rate) / (self._tried + 1)))

    def fade(self) -> None:
        """Another answer begins."""
        share = min(1.0, CARRIED / self._tried)
        self._accepted, self._tried = share * self._accepted, share * self._tried

    def tell(self, accepted: bool) -> None:
        """One more outcome: of a guess all of whose predecessors were right."""
        self._accepted = FORGET * self._accepted + accepted
        self._tried = FORGET * self._tried + 1


def expected_tokens(rate: float, k: int) -> float:
    """Tokens from ``k`` guesses in a chain with acceptance ``rate`` in [0, 1], the target's own included.

    >>> expected_tokens(0.5, 2), expected_tokens(1.0, 3)
    (1.75, 4.0)
    """
    return float(sum(rate**i for i in range(k + 1)))


class Length:
    """Chooses what to draft and to read.

    Args:
        verify: Seconds to read ``k`` tokens at once.
        draft_cost: Seconds to draft one.
        longest: Never more guesses.

    Attributes:
        rates: Acceptance by kind and rank.
        balance: Seconds that speculation won (lost, where negative) over reading token by token.
    """

    def __init__(
        self, verify: Callable[[int], float], draft_cost: float = 0.0, longest: int = LONGEST
    ) -> None:
        self.draft_cost = draft_cost
        self.longest = longest
        self.rates: dict[tuple[int, int], Acceptance] = {}
        self.balance = 0.0
        self._costs = [0.0, *(verify(k) for k in range(1, longest + 2))]
        self._scale = 1.0  # how much slower this machine is now than it was when it was measured
        self._timings = [0] * len(self._costs)
        self._left, self._retry = 0, RETRY  # likely guesses that were left for their cost
        self._total = 0.0  # seconds
        self._idle = math.inf  # seconds since a draft that does not pay was tried
        self._burst = 0
        self._won, self._took = 0.0, 0.0  # of late, by a draft that costs: seconds of plain reading

    @property
    def plain(self) -> float:
        """Seconds to read one token."""
        return self._scale * self._costs[1]

    def cost(self, k: int) -> float:
        """Seconds to read ``k`` tokens at once, as things are now."""
        return self._scale * self._costs[k]

    def rate(self, kind: int, rank: int = 0) -> float:
        """The acceptance of a kind of guesses; one that was never seen is like the next lower one."""
        return self._acceptance(kind, rank).rate

    def _acceptance(self, kind: int, rank: int) -> Acceptance:
        known = self.rates.get((kind, rank))
        if known is None:
            below = self.rates.get((kind - 1, rank))
            guess = below.rate if below else (0.2 if rank else 0.5)
            known = self.rates[kind, rank] = Acceptance(guess)
        return known

    def chances(self, nodes: Sequence[Node], *, cautious: bool = False) -> list[float]:
        """The probability of each guess to be right together with those before it."""
        found: list[float] = []
        left: dict[int, float] = {}  # what the older children of a node leave
        for node in nodes:
            before = left.get(node.parent, found[node.parent] if node.parent >= 0 else 1.0)
            known = self._acceptance(node.kind, node.rank)
            found.append(before * (known.cautious if cautious else known.rate))
            left[node.parent] = before - found[-1]
        return found

    def best(self, nodes: Sequence[Node], most: int, *, sunk: bool = False) -> list[int]:
        """Places of the guesses to be read, ascending; none unless some are clearly faster.

        Args:
            nodes: Parents before children.
            most: At most so many.
            sunk: They were paid for, so that any gain counts.
        """
        most = min(most, self.longest)
        if not nodes or most <= 0:
            return []
        chances = self.chances(nodes, cautious=not sunk)
        trunk = [i for i, node in enumerate(nodes) if not node.rank and node.parent == i - 1]
        needed = (1.0 if sunk else MARGIN) / self._costs[1]
        chain, speed = self._fastest([chances[i] for i in trunk[:most]], needed)
        if not chain and sum(chances[i] for i in trunk[:3]) > 1:
            self._left += 1
            if self._left >= self._retry:
                self._left, self._retry = 0, 2 * self._retry
                return trunk[: min(3, most)]
        if len(trunk) == len(nodes):
            return trunk[:chain]
        order = sorted(range(len(nodes)), key=lambda i: -chances[i])[:most]  # stable
        size, _ = self._fastest([chances[i] for i in order], TREE_MARGIN * max(speed, needed))
        return sorted(order[:size]) if size else trunk[:chain]

    def _fastest(self, chances: Sequence[float], needed: float) -> tuple[int, float]:
        """How many of these to read for the most tokens in a second; 0 if ``needed`` is not reached."""
        chosen, fastest, tokens = 0, needed, 1.0
        for n, chance in enumerate(chances, 1):
            tokens += chance
            speed = tokens / self._costs[n + 1]
            if speed > fastest:
                chosen, fastest = n, speed
        return chosen, fastest

    def may(self) -> bool:
        """Whether speculation has not lost too much so far."""
        return self.balance > -(CREDIT * self.plain + LOSS * self._total)

    def begins(self, catch_up: float, left: float) -> bool:
        """Whether a draft that costs something should guess now.

        Args:
            catch_up: Seconds until it has read what is certain.
            left: Tokens that the answer is expected to have yet.
        """
        if self._burst:
            self._burst -= 1
            return True
        saved = self.plain - 1 / self._expected_speed()
        if saved * left > catch_up and self.may():
            return True
        trial = catch_up + BURST * (self.draft_cost + self.cost(2) - self.plain)
        if LOSS * self._idle > trial and self.may():
            self._burst = (FIRST if self._idle == math.inf else BURST) - 1
            self._idle = 0.0
            return True
        return False

    def _expected_speed(self) -> float:
        """Tokens in a second with a draft that costs something; as it was of late, once that is known."""
        plain = 1 / self.plain
        if self._took > 16 * self.plain:
            speed = plain * self._won / self._took
            return speed if speed > 1.01 * plain else plain
        rate, fastest = self.rate(ANY), MARGIN * plain
        chance = tokens = 1.0
        for k in range(1, self.longest + 1):
            chance *= rate
            tokens += chance
            fastest = max(fastest, tokens / (self.cost(k + 1) + k * self.draft_cost))
        return fastest if fastest > MARGIN * plain else plain

    def worth(self, nodes: Sequence[Node]) -> bool:
        """Whether one more guess, or some more, at the end of a chain raises the expected speed."""
        n = len(nodes)
        if n >= self.longest:
            return False
        rate = self.rate(ANY)
        chance = 1.0
        tokens = 1.0
        for node in nodes:
            chance *= self.rate(node.kind)
            tokens += chance
        now = tokens / (self.cost(n + 1) + n * self.draft_cost)
        for m in range(1, self.longest - n + 1):
            chance *= rate
            tokens += chance
            if tokens / (self.cost(n + m + 1) + (n + m) * self.draft_cost) > now:
                return True
        return False

    def begin(self) -> None:
        """Another answer begins, which may be one of another sort."""
        for acceptance in self.rates.values():
            acceptance.fade()

    def tell(self, node: Node, accepted: bool) -> None:
        """Whether a guess was right, all before it having been and its elders not."""
        self._acceptance(node.kind, node.rank).tell(accepted)
        if not node.rank:
            self._acceptance(ANY, 0).tell(accepted)

    def timed(self, k: int, seconds: float) -> None:
        """What reading ``k`` tokens at once really took.

        The very first timing says how fast the machine is now; after that the first timings of a size
        count for that size alone, as the curve may be of another hour, and later ones mostly for all.
        """
        if k >= len(self._costs):
            return
        ratio = min(max(seconds / self.cost(k), 0.5), 2.0)
        first = not any(self._timings)
        self._timings[k] += 1
        if first:
            self._scale *= ratio
            return
        own = max(RESHAPE, 1 / self._timings[k])
        self._scale *= ratio ** (FOLLOW * (1 - own))
        self._costs[k] *= ratio**own
        for size in range(k // 2 + 1, min(2 * k, len(self._costs))):  # these learn, too
            if size != k:
                near = 1 - abs(math.log2(size / k))
                self._costs[size] *= ratio ** (near * max(RESHAPE, 1 / (2 + self._timings[size])))

    def account(self, tokens: int, seconds: float, *, drafted: bool) -> None:
        """What a step gave and took, its drafting included."""
        self._total = KEEP * self._total + seconds
        self.balance *= KEEP
        self._idle += seconds
        if drafted:
            plain = tokens * self.plain
            self.balance += plain - seconds
            self._won = FORGET * self._won + plain
            self._took = FORGET * self._took + seconds
