"""Drafts without a model: what followed the same words before.

Prompt lookup decoding (Saxena 2023), as n-gram drafts also in LLMA (Yang et al. 2023): answers that
quote, edit or summarise repeat long pieces of their prompt. The last ``n`` tokens are looked up in all
that was read so far, the longest ``n`` first, and the tokens that followed their last occurrence are
proposed. One pass over the prompt, constant time for each token after it.
"""

from __future__ import annotations

from collections.abc import Sequence

from pilotfish.infer.speculate.drafts import Drafted
from pilotfish.models.sampling import Proposal
from pilotfish.models.worker import Check
from pilotfish.records import Request


class LookupDraft:
    """Looks the last tokens up in the prompt and the answer.

    Args:
        longest: Longest n-gram that is looked up.
        shortest: Shortest one; below 2 nearly everything is found, and nearly nothing is right.
    """

    name = "lookup"
    cost = 0.0  # of a token, next to the target's: microseconds

    def __init__(self, *, longest: int = 4, shortest: int = 2) -> None:
        self.longest = longest
        self.shortest = shortest
        self._tokens: list[int] = []
        self._after: dict[tuple[int, ...], int] = {}  # n-gram: where the token after it is

    def begin(self, request: Request, prompt: Sequence[int]) -> None:
        """A new answer."""
        self._tokens, self._after = [], {}
        self.extend(prompt)

    def extend(self, tokens: Sequence[int]) -> None:
        """These tokens are certain now."""
        for token in tokens:
            known = self._tokens
            # What ended before this token is followed by it; the last n-gram itself is not yet in.
            for n in range(self.shortest, min(self.longest, len(known)) + 1):
                self._after[tuple(known[-n:])] = len(known)
            known.append(token)

    def propose(self, most: int, check: Check) -> Drafted:
        """Up to ``most`` tokens; the kind is the length of the n-gram that was found."""
        known = self._tokens
        for n in range(min(self.longest, len(known)), self.shortest - 1, -1):
            at = self._after.get(tuple(known[-n:]))
            if at is not None:
                return Drafted([Proposal(token) for token in known[at : at + most]], n)
        return Drafted([], 0)
