"""Ways to write some bytes as tokens: whole tokens, and the bytes that the next one begins with.

See :mod:`pilotfish.reason.byte_model`, which keeps sets of them.
"""

from __future__ import annotations

from dataclasses import dataclass

from pilotfish.reason.byte_trie import Doubles


@dataclass(eq=False, slots=True)
class Node:
    """Tokens, the last one and those before it, and what the model says next where that was read."""

    parent: Node | None
    token: int
    depth: int = 0
    p: Doubles | None = None  # of the sorted vocabulary
    end: float = 0.0

    def then(self, token: int) -> Node:
        """These tokens and one more."""
        return Node(self, token, self.depth + 1)

    def path(self) -> list[int]:
        """All tokens."""
        tokens: list[int] = []
        node = self
        while node.parent is not None:
            tokens.append(node.token)
            node = node.parent
        return tokens[::-1]


@dataclass(eq=False, slots=True)
class Covering:
    """Whole tokens, and the bytes after them that the next token begins with.

    Attributes:
        node: The whole tokens.
        weight: Their probability, over that of all bytes so far.
        share: The covering's part of the probability of all bytes so far: ``weight`` where it ends here,
            else ``weight`` times the probability of all tokens that go on so.
        rest: The bytes after the whole tokens; with none the covering ends here.
    """

    node: Node
    weight: float
    share: float
    rest: bytes = b""


@dataclass(slots=True)
class State:
    """All coverings after some bytes, and the shares that were lost up to here."""

    coverings: list[Covering]
    lost: float = 0.0
