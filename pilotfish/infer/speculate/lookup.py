"""Drafts without a model: what followed the same words before.

Prompt lookup decoding (Saxena 2023), as n-gram drafts also in LLMA (Yang et al. 2023): answers that
quote, edit or summarise repeat long pieces of their prompt. The last ``n`` tokens are looked up in all
that was read so far, the longest ``n`` first, and the tokens that followed are proposed. Where several
places go on differently, the one that agrees with the most tokens before it is tried first and the others
as branches. One pass over the prompt, constant time for each token after it.

How much agrees tells how likely a guess is: two words that came before are chance, twenty are a
quotation. So it is the kind of a guess, and grows along a chain.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pilotfish.infer.speculate.drafts import Node, Worth
from pilotfish.models.worker import Check
from pilotfish.records import Request

_PLACES = 8  # of one n-gram that are remembered, the last ones
_COMPARED = 32  # tokens before a place that are looked at


class LookupDraft:
    """Looks the last tokens up in the prompt and the answer.

    Args:
        longest: Longest n-gram that is looked up.
        shortest: Shortest one; below 2 nearly everything is found, and nearly nothing is right.
    """

    name = "lookup"
    behind = 0

    def __init__(self, *, longest: int = 4, shortest: int = 2) -> None:
        self.longest = longest
        self.shortest = shortest
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], list[int]] = {}  # n-gram: where the tokens after it are

    def cost(self, tokens: int) -> float:
        """Nothing, next to the target's: microseconds."""
        return 0.0

    def begin(self, request: Request, prompt: Sequence[int]) -> None:
        """A new answer."""
        self._tokens, self._after = [], {}
        for token in prompt:
            self.extend(token)

    def extend(self, token: int) -> None:
        """This token is certain now."""
        known = self._tokens
        # What ended before this token is followed by it; the last n-gram itself is not yet in.
        for n in range(self.shortest, min(self.longest, len(known)) + 1):
            places = self._after.setdefault(tuple(known[-n:]), [])
            places.append(len(known))
            del places[:-_PLACES]
        known.append(token)

    def propose(self, most: int, branches: int, worth: Worth, check: Check) -> list[Node]:
        """A chain for each different token that followed the longest n-gram found."""
        known = self._tokens
        for n in range(min(self.longest, len(known)), self.shortest - 1, -1):
            places = self._after.get(tuple(known[-n:]))
            if places:
                break
        else:
            return []
        # Of equal agreement the last place first.
        agreeing = sorted(((self._agreement(at), at) for at in places), reverse=True)
        nodes: list[Node] = []
        begun: set[int] = set()
        for agrees, at in agreeing:
            if known[at] in begun or len(begun) == branches:
                continue
            rank, parent = len(begun), -1
            begun.add(known[at])
            for depth, token in enumerate(known[at : at + most]):
                nodes.append(Node(token, parent, None, _kind(agrees + depth), 0 if depth else rank))
                parent = len(nodes) - 1
        return nodes

    def _agreement(self, at: int) -> int:
        """How many tokens before a place are those at the end."""
        known, agrees = self._tokens, 0
        most = min(_COMPARED, at)
        while agrees < most and known[at - 1 - agrees] == known[-1 - agrees]:
            agrees += 1
        return agrees


def _kind(agrees: int) -> int:
    """Agreements in steps of a half octave, at most 32."""
    return int(2 * math.log2(min(max(agrees, 1), _COMPARED)))
