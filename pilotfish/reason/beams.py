"""Chunk-level beam search (Zhou et al. 2024b, algorithm 1), whatever grows the answers and scores them.

``beams`` answers in the making are kept; each gets ``samples`` continuations of one chunk, and the best
``beams`` of all stay. Answers that are finished stay as they are and compete by their scores. One beam
and a chunk as long as the answer is best-of-n.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from pilotfish.models.held import common_prefix


class Growing(Protocol):
    """An answer in the making."""

    @property
    def text(self) -> str:
        """What of it may be shown."""
        ...

    @property
    def done(self) -> bool:
        """Whether nothing more comes."""
        ...


G = TypeVar("G", bound=Growing)


@dataclass(frozen=True, slots=True)
class Ranked(Generic[G]):
    """An answer in the making and its score; higher is better."""

    answer: G
    score: float


class Beams(Generic[G]):
    """The best answers so far.

    Args:
        beams: How many are kept, at least 1.
        samples: Continuations of each, at least 1.

    Attributes:
        kept: The best ones, the best first; empty before the first round.
    """

    def __init__(self, beams: int, samples: int) -> None:
        self.beams = beams
        self.samples = samples
        self.kept: list[Ranked[G]] = []

    @property
    def open(self) -> list[G]:
        """Those that are to be continued."""
        return [ranked.answer for ranked in self.kept if not ranked.answer.done]

    def keep(self, grown: Sequence[Ranked[G]]) -> None:
        """End a round: these are the continuations of all that were open, or the first answers of all.

        Of equal scores the first one counts.
        """
        finished = [ranked for ranked in self.kept if ranked.answer.done]
        ranked = sorted([*finished, *grown], key=lambda each: -each.score)
        self.kept = ranked[: self.beams]

    @property
    def best(self) -> Ranked[G]:
        """The best one."""
        return self.kept[0]

    @property
    def certain(self) -> str:
        """What all that are kept begin with: it is in the answer, whichever wins."""
        texts = [ranked.answer.text for ranked in self.kept]
        return texts[0][: min(common_prefix(texts[0], text) for text in texts)]
