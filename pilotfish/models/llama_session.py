"""One sequence of tokens in the cache of a llama.cpp context, and a tree of what may follow it.

See :mod:`pilotfish.models.llama_cache`, which shares out the context's cells.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING

from pilotfish.errors import RequestRefused
from pilotfish.models.batching import check_rewind
from pilotfish.models.llama_runtime import Floats

if TYPE_CHECKING:
    from pilotfish.models.llama_cache import Cache


class LlamaSession:
    """One sequence of tokens with its cache; see :class:`pilotfish.models.protocols.Session`.

    Its cells are freed when it is garbage collected.

    Attributes:
        sequence: Its number.
        branches: Sequences of the tree that was read last, but for its own.
        held: How many of its tokens are in the cache; the others are read again when it goes on.
        began: When it was made, or last rewound.
        used: When it was fed last.
    """

    def __init__(
        self,
        cache: Cache,
        sequence: int,
        tokens: list[int],
        source: LlamaSession | None = None,
    ) -> None:
        self._cache = cache
        self.sequence = sequence
        self._tokens = tokens
        self.used = cache.now()
        self.began: int = source.began if source else self.used
        self.held: int = source.held if source else 0
        self._family: weakref.WeakSet[LlamaSession] = (
            source._family if source else weakref.WeakSet()
        )
        self._family.add(self)
        self.branches: list[int] = []
        self._tree: list[tuple[int, list[int]]] = []  # its tokens, and their sequences

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens fed so far."""
        return self._tokens

    def idle_since(self, moment: float) -> bool:
        """Whether its cells may be given up: unused since then, sharing nothing with a fork, no tree."""
        return self.used < moment and len(self._family) == 1 and not self._tree

    def grow(self, tokens: Sequence[int]) -> None:
        """Take note of tokens that were read."""
        self._tokens.extend(tokens)
        self.held, self.used = len(self._tokens), self._cache.now()

    def feed(self, tokens: Sequence[int], *, last: int | None = None) -> Floats:
        """Append tokens; raw logits after each of them, or of the ``last``, ``[n, vocab]``, float32.

        Raises:
            RequestRefused: The context is full; the session is as it was before.
        """
        return self._cache.feed_all([self], [tokens], last)[0]

    @property
    def room(self) -> int:
        """How many further tokens surely fit, while no other session grows."""
        with self._cache.lock:
            return self._cache.free_since(self.began)

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` tokens.

        Raises:
            RequestRefused: There are fewer.
        """
        check_rewind(length, len(self._tokens))
        if self._tree:
            self.keep([])
        with self._cache.lock:
            self._cache.context.forget(self.sequence, length)
            del self._tokens[length:]
            self.held = min(self.held, length)
            self.began = self.used = self._cache.now()

    def feed_tree(self, tokens: Sequence[int], parents: Sequence[int]) -> Floats:
        """Raw logits after each token of a tree; see :class:`pilotfish.models.protocols.TreeSession`.

        Each leaf gets a sequence, and a token belongs to those of all leaves that it leads to.

        Raises:
            RequestRefused: The tree does not fit the context, or one batch.
        """
        cache, start = self._cache, len(self._tokens)
        if len(tokens) > cache.context.batch:
            raise RequestRefused(
                f"Got a tree of {len(tokens)} tokens, but a batch holds {cache.context.batch}."
            )
        inner = set(parents)
        leaves = [node for node in range(len(tokens)) if node not in inner]
        with cache.lock:
            if self.held < start:
                self.feed([])
            own: list[list[int]] = [[] for _ in tokens]
            depth = [0] * len(tokens)
            for node, parent in enumerate(parents):
                depth[node] = depth[parent] + 1 if parent >= 0 else 0
            self._tree = list(zip(tokens, own, strict=True))
            try:
                for i, leaf in enumerate(leaves):
                    sequence = cache.take() if i else self.sequence
                    if i:
                        self.branches.append(sequence)
                        cache.context.share(self.sequence, sequence)
                    node = leaf
                    while node >= 0:
                        own[node].append(sequence)
                        node = parents[node]
                positions = [start + d for d in depth]
                where = [tuple(some) for some in own]
                wanted = [True] * len(tokens)
                return cache.decode(tokens, positions, where, wanted, since=self.began)
            except BaseException:  # interrupted, too: see hold_prompt
                cache.context.forget(self.sequence, start)
                self._end_tree()
                raise

    def keep(self, path: Sequence[int]) -> None:
        """Append one path of the tree that was read, and forget the rest."""
        cache, start = self._cache, len(self._tokens)
        with cache.lock:
            leads = self._tree[path[-1]][1] if path else [self.sequence]
            if self.sequence in leads:
                cache.context.forget(self.sequence, start + len(path))
            else:
                cache.context.forget(self.sequence, start)
                cache.context.forget(leads[0], start + len(path))
                cache.context.share(leads[0], self.sequence, start)
            self.grow([self._tree[node][0] for node in path])
            self._end_tree()

    def _end_tree(self) -> None:
        for sequence in self.branches:
            self._cache.give_back(sequence)
        self.branches.clear()
        self._tree = []

    def fork(self) -> LlamaSession:
        """A second session with the same past; cells are shared, nothing is computed."""
        return self._cache.fork(self)
