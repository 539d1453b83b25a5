"""Log-probabilities of many token sequences; a beginning that several of them share is computed once.

The sequences become a tree (Morrison 1968, PATRICIA) whose branches are runs of tokens. A branch is fed
once, to a fork of the session that holds what comes before it, together with other branches that are due;
the last token of a sequence is never fed, since nothing is asked about what follows it. Rows of logits
are reduced to the wanted log-probabilities as soon as they come, so memory does not grow with the number
of sequences.

The cells of a cache are shared by all sessions that live at once. So sequences are let in, in the tree's
order, only while everything that was let in fits together, beginnings that later ones still need
included; whatever the order of work, nothing that was begun can get stuck.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import RequestRefused
from pilotfish.models.batching import feed_all
from pilotfish.models.held import common_prefix
from pilotfish.models.protocols import Floats, Session, TokenModel

Doubles = NDArray[np.float64]

# Tokens in one call, unless a model has an ``at_once`` of its own. From 64 on llama.cpp's attention takes
# another kernel, which is as right but rounds otherwise; short texts are read as fast below.
AT_ONCE = 63
ROWS_BYTES = 64 << 20  # of logits in one call
MOST_SEQUENCES = 96  # at once; llama.cpp has 255 sequence numbers
MOST_CELLS = 16_384  # tokens held at once, however many would fit


@dataclass(eq=False, slots=True)
class Branch:
    """A run of tokens that the same sequences go through.

    Attributes:
        tokens: The run.
        start: How many tokens come before it.
        parent: What comes before it; None for the root, which is empty.
        wanted: Position from which on log-probabilities are asked for.
        children: What may follow, by its first token.
        logs: Log-probability of each token, nan where none was asked for.
        fed: How many of its tokens a session was fed.
        waiting: Children that have no session yet.
        leaves: Leaves below it, or itself, that are not done.
        admitted: Whether its cells are counted.
        session: Holds all up to the tokens fed; None before, and once nothing needs it.
    """

    tokens: Sequence[int]
    start: int
    parent: Branch | None
    wanted: int
    children: dict[int, Branch] = field(default_factory=dict)
    logs: Doubles = field(default_factory=lambda: np.zeros(0))
    fed: int = 0
    waiting: int = 0
    leaves: int = 0
    admitted: bool = False
    session: Session | None = None

    @property
    def end(self) -> int:
        """How many tokens there are up to its last one."""
        return self.start + len(self.tokens)

    @property
    def needed(self) -> int:
        """How many of its tokens must be fed: of a leaf, all but the last."""
        return len(self.tokens) - (not self.children)

    @property
    def silent(self) -> int:
        """How many of its first tokens are fed without a look at the logits after them."""
        return min(max(self.wanted - 1 - self.start, 0), self.needed)

    def up(self) -> Iterator[Branch]:
        """Itself and all above it."""
        branch: Branch | None = self
        while branch is not None:
            yield branch
            branch = branch.parent

    def split(self, at: int) -> None:
        """Keep the tokens before position ``at``; the rest becomes the only child."""
        cut = at - self.start
        lower = Branch(self.tokens[cut:], at, self, self.wanted, self.children)
        for child in lower.children.values():
            child.parent = lower
        self.tokens, self.children = self.tokens[:cut], {lower.tokens[0]: lower}


def log_probabilities(
    model: TokenModel, sequences: Sequence[Sequence[int]], first: Sequence[int]
) -> list[Doubles]:
    """Log-probability of each token of each sequence, given those before it, in nats.

    Args:
        model: Gives logits.
        sequences: Tokens, any number of each.
        first: For each sequence the position of the first token that is asked about.

    Returns:
        For each sequence as many numbers as it has tokens; nan before ``first``, and for a sequence's
        very first token, which nothing comes before. Sums are taken in float64; the logits are float32.

    Raises:
        RequestRefused: A sequence is longer than what the model has room for.
    """
    root = grow(sequences, first)
    _Reader(model, root).read()
    found = []
    for tokens, start in zip(sequences, first, strict=True):
        logs = np.full(len(tokens), np.nan)
        at, branch = 0, root
        while at < len(tokens):
            branch = branch.children[tokens[at]]
            n = min(len(branch.tokens), len(tokens) - at)
            logs[at : at + n] = branch.logs[:n]
            at += n
        logs[:start] = np.nan  # computed for another sequence
        found.append(logs)
    return found


def grow(sequences: Sequence[Sequence[int]], first: Sequence[int]) -> Branch:
    """The tree of some sequences; ``first`` as of :func:`log_probabilities`.

    >>> root = grow([[1, 2, 3], [1, 2, 4, 5], [6]], [1, 1, 0])
    >>> [(b.tokens, sorted(b.children)) for b in root.children.values()]
    [([1, 2], [3, 4]), ([6], [])]
    """
    root = Branch([], 0, None, 1)
    path = [root]
    before: list[int] = []
    for i in sorted(range(len(sequences)), key=lambda i: list(sequences[i])):
        tokens = list(sequences[i])
        shared = common_prefix(before, tokens)
        while len(path) > 1 and path[-1].start >= shared:
            path.pop()
        if path[-1].end > shared:
            path[-1].split(shared)
        if len(tokens) > shared:
            branch = Branch(tokens[shared:], shared, path[-1], max(first[i], 1))
            path[-1].children[branch.tokens[0]] = branch
            path.append(branch)
        for branch in path:
            branch.wanted = min(branch.wanted, max(first[i], 1))
        before = tokens
    return root


class _Reader:
    """Feeds a tree to a model, branch by branch."""

    def __init__(self, model: TokenModel, root: Branch) -> None:
        self.model = model
        self.root = root
        self.leaves = deque(_prepared(root))
        longest = max((leaf.end for leaf in self.leaves), default=0)
        root.session, root.admitted = model.session(), True
        room = root.session.room
        if longest - 1 > room:
            raise RequestRefused(
                f"Got a text of {longest} tokens with its context, but {model.name} has room for {room}.",
                remedy="Shorten it, or set a longer context.",
            )
        self.cells = max(longest, min(room, MOST_CELLS))
        self.at_once = int(getattr(model, "at_once", AT_ONCE))
        self.rows = max(1, min(self.at_once, ROWS_BYTES // (4 * model.vocab)))
        self.held = self.running = 0
        self.silent: deque[Branch] = deque()
        self.heard: deque[Branch] = deque()

    def read(self) -> None:
        """Compute all log-probabilities that are asked for."""
        while self.leaves or self.running:
            self._admit()
            if self.silent:
                self._feed(self.silent, self.at_once, rows=False)
            elif self.heard:
                self._feed(self.heard, self.rows, rows=True)

    def _admit(self) -> None:
        """Let in leaves, with what leads to them, while all fits together."""
        while self.leaves and self.running < MOST_SEQUENCES:
            new = [branch for branch in self.leaves[0].up() if not branch.admitted]
            size = sum(len(branch.tokens) for branch in new)
            if self.running and self.held + size > self.cells:
                return
            self.leaves.popleft()
            self.held += size
            self.running += 1
            for branch in new:
                branch.admitted = True
            top = new[-1]
            assert top.parent is not None
            if top.parent.fed == top.parent.needed:
                self._go_on(top)

    def _go_on(self, branch: Branch) -> None:
        """Line up a branch whose beginning was fed, or take the next ones when it is done."""
        if branch.fed < branch.silent:
            self.silent.append(branch)
        elif branch.fed < branch.needed:
            self.heard.append(branch)
        elif branch.children:
            for child in branch.children.values():
                if child.admitted:
                    self._go_on(child)
        else:
            self._finish(branch)

    def _finish(self, leaf: Branch) -> None:
        self.running -= 1
        if leaf.session is None and leaf.parent is not None:  # of one token: it never had one
            leaf.parent.waiting -= 1
        for branch in leaf.up():
            branch.leaves -= 1
            if not branch.leaves:
                branch.session = None
                self.held -= len(branch.tokens)

    def _feed(self, queue: deque[Branch], most: int, *, rows: bool) -> None:
        """One call over the branches that are due."""
        due: list[Branch] = []
        pieces: list[Sequence[int]] = []
        while queue and most > 0:
            branch = queue.popleft()
            end = branch.needed if rows else branch.silent
            pieces.append(branch.tokens[branch.fed : min(end, branch.fed + most)])
            due.append(branch)
            most -= len(pieces[-1])
        sessions = [self._session(branch) for branch in due]
        found = feed_all(self.model, sessions, pieces, last=None if rows else 0)
        for branch, piece, logits in zip(due, pieces, found, strict=True):
            if rows:
                _note(branch, logits)
            branch.fed += len(piece)
            self._go_on(branch)

    def _session(self, branch: Branch) -> Session:
        """A branch's session: a fork of its parent's, or that itself when no other child needs it."""
        if branch.session is None:
            parent = branch.parent
            assert parent is not None
            assert parent.session is not None
            parent.waiting -= 1
            if parent.waiting:
                branch.session = parent.session.fork()
            else:
                branch.session, parent.session = parent.session, None
        return branch.session


def _prepared(root: Branch) -> list[Branch]:
    """The leaves in the tree's order; every branch knows how many there are below it."""
    leaves, stack = [], [root]
    while stack:
        branch = stack.pop()
        branch.logs = np.full(len(branch.tokens), np.nan)
        branch.waiting = len(branch.children)
        stack.extend(reversed(branch.children.values()))
        if not branch.children and branch is not root:
            leaves.append(branch)
            for above in branch.up():
                above.leaves += 1
    return leaves


def _note(branch: Branch, logits: Floats) -> None:
    """Take what is asked for from the rows after the tokens that follow those fed before."""
    for at, row in enumerate(logits, start=branch.fed + 1):
        top = row.max()
        # Float32 up to the exponential, whose relative error of 1e-7 is that of the result in nats.
        norm = float(top) + float(np.log(np.exp(row - top).sum(dtype=np.float64)))
        if at < len(branch.tokens):
            branch.logs[at] = float(row[branch.tokens[at]]) - norm
        else:
            for token, child in branch.children.items():
                child.logs[0] = float(row[token]) - norm
