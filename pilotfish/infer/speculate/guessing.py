"""The rows of one answer, of which the target reads several at once where guesses may hold.

A step reads the newest certain token and the guesses after it, a chain or a tree. While the answer
goes along them, its rows are there already; where it leaves them, what was read for nothing is forgotten
and the next step begins. What was proposed for a place is handed to the sampler, which keeps the
target's own distribution.

Whether a guess is read depends on how likely it is, so on the token itself. What was drawn is therefore
proposed in its place whether it was read or not, and what was drawn to follow it stays drawn: were only
the likely ones proposed, they would come too often.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from pilotfish.infer.speculate.drafts import Node
from pilotfish.models.generate import limit_of
from pilotfish.models.held import Held, HeldSource
from pilotfish.models.protocols import Floats, TreeSession
from pilotfish.models.sampling import Proposal
from pilotfish.models.worker import Check
from pilotfish.records import Request, Usage

if TYPE_CHECKING:
    from pilotfish.infer.speculate.speculative import Speculative


class Guessing(HeldSource):
    """The :class:`~pilotfish.models.generate.Source` of one speculated answer."""

    def __init__(self, whole: Speculative, held: Held) -> None:
        super().__init__(held)
        self._whole = whole
        self._limit = 0
        self._branches = whole.branches if isinstance(held.session, TreeSession) else 1
        self._written = 0
        self._certain = 0  # tokens of the session before the step
        self._nodes: list[Node] = []  # what was drafted for the step
        self._rows: Floats = np.zeros((0, 0), np.float32)
        self._place: dict[int, int] = {}  # which of the rows is that of a node
        self._path: list[int] = []  # nodes that held
        self._forked = False
        self._seconds = 0.0

    def begin(self, request: Request, check: Check) -> tuple[Floats, Usage]:
        """Logits ``[vocab]`` after the request, and its prompt's tokens."""
        row, prompt = super().begin(request, check)
        tokens = self._held.session.tokens
        self._certain = len(tokens)
        self._limit = limit_of(request.params, self.room)
        self._whole.draft.begin(request, tokens)
        self._whole.length.begin()
        return row, prompt

    def next(self, token: int, check: Check) -> Floats:
        """Logits ``[vocab]`` after one more token, from what was read or by reading on."""
        whole = self._whole
        whole.figures.tokens += 1
        self._written += 1
        whole.draft.extend(token)
        hit = self._compare(token)
        if hit not in self._place:
            return self._step(token, self._drawn_after(hit), check)
        whole.figures.accepted += 1
        self._path.append(hit)
        self.proposal = self._proposal(hit)
        return np.asarray(self._rows[self._place[hit]])

    def _compare(self, token: int) -> int:
        """The guess that says this token, -1 where none does."""
        at = self._path[-1] if self._path else -1
        for i, node in enumerate(self._nodes):
            if node.parent == at:
                self._whole.length.tell(node, node.token == token)
                if node.token == token:
                    return i
        return -1

    def _proposal(self, at: int) -> Proposal | None:
        """What was guessed to follow a node: what was read, and all that was drawn."""
        proposal = None
        for i in reversed(range(len(self._nodes))):
            node = self._nodes[i]
            if node.parent == at and (i in self._place or node.probabilities is not None):
                proposal = Proposal(node.token, node.probabilities, proposal)
        return proposal

    def _drawn_after(self, hit: int) -> list[Node]:
        """What was drawn to follow a guess that holds but was not read."""
        places = {hit: -1}
        found: list[Node] = []
        for i, node in enumerate(self._nodes if hit >= 0 else ()):
            if node.parent in places and node.probabilities is not None:
                places[i] = len(found)
                found.append(replace(node, parent=places[node.parent]))
        return found

    def _step(self, token: int, drawn: list[Node], check: Check) -> Floats:
        whole, session = self._whole, self._held.session
        began = time.perf_counter()
        self._settle()
        self._nodes, chosen = self._guess(drawn, check)
        drafted = time.perf_counter()
        read = [self._nodes[i] for i in chosen]
        places = {node: 1 + at for at, node in enumerate(chosen)}
        parents = [-1, *(places.get(node.parent, 0) for node in read)]
        tokens = [token, *(node.token for node in read)]
        self._forked = any(parent != at - 1 for at, parent in enumerate(parents))
        if self._forked:
            assert isinstance(session, TreeSession)
            self._rows = session.feed_tree(tokens, parents)
        else:
            self._rows = session.feed(tokens, last=len(tokens))
        ended = time.perf_counter()
        self._seconds = ended - began
        whole.length.timed(len(tokens), ended - drafted)
        whole.figures.steps += 1
        whole.figures.guessed += len(read)
        whole.figures.trees += self._forked
        self._place = places
        self.proposal = self._proposal(-1)
        return np.asarray(self._rows[0])

    def _settle(self) -> None:
        """End the last step: the session keeps what held, the books what it gave."""
        session, held = self._held.session, 1 + len(self._path)
        if self._forked:
            assert isinstance(session, TreeSession)
            session.keep([0, *(self._place[node] for node in self._path)])
        elif len(self._rows) > held:
            session.rewind(self._certain + held)
        if len(self._rows):
            self._whole.length.account(held, self._seconds, drafted=self._drafted)
            self._certain += held
        self._path, self._forked = [], False

    @property
    def _drafted(self) -> bool:
        return bool(self._place) or bool(self._nodes and self._whole.draft.cost(1))

    def _guess(self, drawn: list[Node], check: Check) -> tuple[list[Node], Sequence[int]]:
        """What the draft proposes, or has drawn before, and which of it is to be read."""
        whole, draft, length = self._whole, self._whole.draft, self._whole.length
        left = self._limit - self._written
        most = min(length.longest, self._held.session.room - 1, left - 1)
        if most <= 0:
            return drawn, []
        branches = self._branches
        if not draft.cost(1):
            nodes = drawn or draft.propose(most, branches, lambda nodes: True, check)
            return nodes, length.best(nodes, most) if length.may() else []
        if drawn:
            return drawn, length.best(drawn, most, sunk=True)
        catch_up = max(0.0, draft.cost(draft.behind) - draft.cost(1))
        if not length.begins(catch_up, min(left, whole.typical)):
            return [], []
        nodes = draft.propose(most, branches, length.worth, check)
        return nodes, length.best(nodes, most, sunk=True)
