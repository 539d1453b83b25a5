"""Sequences in the cache of one llama.cpp context: prompts, sessions, label batches.

One context serves everything a model does. Sequence 0 holds the last prompt: the next one keeps what both
begin with, so prompts of one task cost only what differs. Sessions and label batches take further numbers
from a pool. All of them share the context's cells. Where these run out, what is only kept is given up:
the last prompt, and sessions that nobody used since the one that needs the cells began. Such a session
reads its tokens again when it goes on. What does not fit even so is an error that names the remedy.
"""

from __future__ import annotations

import itertools
import math
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from pilotfish.config import Price
from pilotfish.errors import RequestRefused
from pilotfish.models.held import check_prompt, common_prefix
from pilotfish.models.llama_c import MAX_SEQUENCES
from pilotfish.models.llama_runtime import Context, Floats
from pilotfish.models.llama_session import LlamaSession
from pilotfish.models.sampling import Proposal
from pilotfish.records import Request, Usage

PROMPT = 0


class Cache:
    """The bookkeeping of one context. Hold :attr:`lock` over every use.

    Args:
        context: The context.

    Attributes:
        lock: The context is not thread safe; whoever uses it holds this.
        prompt: The tokens that sequence 0 holds.
        reserved: Cells that a label batch under way needs for its inputs.
    """

    def __init__(self, context: Context) -> None:
        self.context = context
        self.lock = threading.RLock()
        self.prompt: list[int] = []
        self.reserved = 0
        self._free = list(range(MAX_SEQUENCES - 1, PROMPT, -1))
        # Filled by finalizers, which may run at any moment and in any thread: only appended to there.
        self._dropped: deque[int] = deque()
        self._sessions: weakref.WeakSet[LlamaSession] = weakref.WeakSet()
        self._clock = itertools.count()

    def now(self) -> int:
        """A number larger than those before."""
        return next(self._clock)

    def take(self) -> int:
        """An empty sequence.

        Raises:
            RequestRefused: All of them are in use.
        """
        self._sweep()
        if not self._free:
            raise RequestRefused(
                f"All {MAX_SEQUENCES} sequences of the context are in use.",
                remedy="Drop sessions that are no longer needed.",
            )
        return self._free.pop()

    def give_back(self, sequence: int) -> None:
        """Forget a sequence; its number can be taken again."""
        self.context.forget(sequence)
        self._free.append(sequence)

    def drop_later(self, sequence: int, branches: Sequence[int]) -> None:
        """Give a session's sequences back at the next use; may be called without the lock."""
        self._dropped.extend((sequence, *branches))

    @property
    def free_sequences(self) -> int:
        """How many sequences can still be taken."""
        self._sweep()
        return len(self._free)

    @property
    def free_cells(self) -> int:
        """Cells that the kept prompt surely leaves free, and sessions that are not given up for it."""
        return self._free_for(math.inf) - len(self.prompt) - self.reserved

    def free_since(self, began: float) -> int:
        """Cells that are surely free for a session that began then."""
        return max(0, self._free_for(began))

    def _free_for(self, since: float) -> int:
        self._sweep()
        used = sum(len(s.tokens) for s in self._sessions if not s.idle_since(since))
        return self.context.n_ctx - used

    def decode(self, *batch: Any, since: float = math.inf) -> Floats:
        """:meth:`Context.decode`; a full context gives up what nobody has used since a moment.

        Args:
            batch: Its arguments.
            since: When a session began; default: the kept prompt or a label asks, for which any idle
                session is given up, but not that prompt.

        Raises:
            RequestRefused: Nothing is left to give up.
        """
        while True:
            try:
                return self.context.decode(*batch)
            except RequestRefused:
                if not self._give_up(since):
                    raise

    def _give_up(self, since: float) -> bool:
        """Free the cells of what was used longest ago; False: there is nothing."""
        if self.prompt and since < math.inf:
            self.context.forget(PROMPT)
            self.prompt = []
            return True
        idle = [s for s in self._sessions if s.held and s.idle_since(since)]
        if idle:
            longest = min(idle, key=lambda session: session.used)
            self.context.forget(longest.sequence)
            longest.held = 0
        return bool(idle)

    def _sweep(self) -> None:
        while self._dropped:
            self.give_back(self._dropped.popleft())

    def extend(
        self, sequence: int, start: int, tokens: Sequence[int], check: Callable[[], None]
    ) -> Floats:
        """Append tokens; logits after the last one, ``[1, vocab]``. ``check`` runs between batches."""
        logits = np.zeros((0, 0), dtype=np.float32)
        for at in range(0, len(tokens), self.context.batch):
            check()
            part = tokens[at : at + self.context.batch]
            wanted = [False] * len(part)
            wanted[-1] = at + len(part) == len(tokens)
            positions = range(start + at, start + at + len(part))
            logits = self.decode(part, positions, [(sequence,)] * len(part), wanted)
        return logits

    def hold_prompt(self, tokens: list[int], check: Callable[[], None]) -> tuple[Floats, int]:
        """Make sequence 0 hold these tokens (at least one).

        Returns:
            Logits after the last token ``[1, vocab]``, and how many tokens were there already.

        Raises:
            RequestRefused: They do not fit.
        """
        self._sweep()
        check_prompt(len(tokens), self.context.n_ctx, answer=1)
        kept = min(common_prefix(self.prompt, tokens), len(tokens) - 1)
        self.context.forget(PROMPT, kept)
        self.prompt = self.prompt[:kept]
        try:
            logits = self.extend(PROMPT, kept, tokens[kept:], check)
        except BaseException:  # interrupted, too: cells and tokens must tell the same
            self.context.forget(PROMPT, kept)
            raise
        self.prompt = list(tokens)
        return logits, kept

    def session(self) -> LlamaSession:
        """Start an empty session."""
        with self.lock:
            return self._open(LlamaSession(self, self.take(), []))

    def _open(self, session: LlamaSession) -> LlamaSession:
        sequence = session.sequence
        self._sessions.add(session)
        weakref.finalize(session, self.drop_later, sequence, session.branches).atexit = False
        return session

    def fork(self, session: LlamaSession) -> LlamaSession:
        """A session with the same past; the cells are shared."""
        with self.lock:
            sequence = self.take()
            self.context.share(session.sequence, sequence)
            return self._open(LlamaSession(self, sequence, list(session.tokens), session))

    def feed_all(
        self,
        sessions: Sequence[LlamaSession],
        tokens: Sequence[Sequence[int]],
        last: int | None,
    ) -> list[Floats]:
        """Append to each session its tokens, in batches over all of them; all or none."""
        with self.lock:
            self._sweep()
            plan: list[tuple[int, int, tuple[int, ...], bool]] = []
            for session, new in zip(sessions, tokens, strict=True):
                length, first = len(session.tokens), 0 if last is None else len(new) - last
                due = [*session.tokens[session.held :], *new]
                places = range(session.held, length + len(new))
                flags = [place >= length + max(first, 0) for place in places]
                plan += zip(due, places, [(session.sequence,)] * len(due), flags, strict=True)
            size, rows = self.context.batch, [self.context.no_rows]
            since = min((session.began for session in sessions), default=math.inf)
            try:
                for at in range(0, len(plan), size):
                    batch = zip(*plan[at : at + size], strict=True)
                    rows.append(self.decode(*batch, since=since))
            except BaseException:  # interrupted, too: see hold_prompt
                for session in sessions:
                    self.context.forget(session.sequence, session.held)
                raise
            for session, new in zip(sessions, tokens, strict=True):
                session.grow(new)
        together = rows[1] if len(rows) == 2 else np.concatenate(rows)
        counts = [len(new) if last is None else min(last, len(new)) for new in tokens]
        ends = np.cumsum(counts)
        return [together[end - n : end] for n, end in zip(counts, ends.tolist(), strict=True)]


class HeldPrompt:
    """Logits of one answer, from sequence 0: a prompt that begins as the last one costs what differs."""

    def __init__(self, cache: Cache, read: Callable[[Request], list[int]], price: Price) -> None:
        self.proposal: Proposal | None = None
        self._cache = cache
        self._read = read
        self._price = price
        self._prompt = Usage()

    def begin(self, request: Request, check: Callable[[], None]) -> tuple[Floats, Usage]:
        """Logits ``[vocab]`` after the prompt, and how many of its tokens were there already."""
        prompt = self._read(request)
        logits, kept = self._cache.hold_prompt(prompt, check)
        self._prompt = Usage(len(prompt), 0, kept)
        return np.asarray(logits[0]), self._prompt

    @property
    def room(self) -> int:
        """How many tokens surely fit after those that were read, at least 1."""
        return max(1, self._cache.free_cells)

    def written(self, steps: int) -> int:
        """A token for each step."""
        return steps

    def cost(self, tokens: int) -> float:
        """US dollars for this answer with so many tokens written."""
        return self._price.cost(self._prompt + Usage(0, tokens))

    def next(self, token: int, check: Callable[[], None]) -> Floats:
        """Logits ``[vocab]`` after one more token."""
        at = len(self._cache.prompt)
        logits = self._cache.extend(PROMPT, at, [token], check)
        self._cache.prompt.append(token)
        return np.asarray(logits[0])
