"""What a model is: protocols of one or two methods each.

Whatever answers is a model, and collaboration is composition: a cascade, a router or a cache takes
models and is a model. Backends and composites need not inherit from anything here.

``complete`` is asynchronous; :func:`pilotfish.models.calls.wait` gives the synchronous face, so that
nothing is written twice. Encoders, classifiers and token models compute on this machine and are
synchronous NumPy functions.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from pilotfish.models.redaction import Found
from pilotfish.records import Chunk, Completion, Request

Floats = NDArray[np.float32]


@runtime_checkable
class Model(Protocol):
    """Answers requests.

    Attributes:
        name: The name that answers and cache keys carry.
    """

    name: str

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Raises:
            ModelError: It could not; ``retryable`` says whether asking again may help.
        """
        ...


@runtime_checkable
class StreamingModel(Model, Protocol):
    """A model that can also answer piece by piece."""

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Yield pieces as they come; the last chunk carries the whole completion."""
        ...


@runtime_checkable
class LabelScorer(Protocol):
    """A model that can score a closed label set instead of writing an answer."""

    async def score_labels(self, requests: Sequence[Request], labels: Sequence[str]) -> Floats:
        """Log-probability of each label as the answer: ``[n, labels]``, rows normalised."""
        ...


class Session(Protocol):
    """One sequence of tokens inside a :class:`TokenModel`, with its cache."""

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens fed so far."""
        ...

    def feed(self, tokens: Sequence[int], *, last: int | None = None) -> Floats:
        """Append tokens; next-token logits after each: ``[len(tokens), vocab]``.

        Args:
            tokens: What comes next.
            last: Return the rows of so many tokens at the end only: a row of a large vocabulary is half a
                megabyte.
        """
        ...

    @property
    def room(self) -> int:
        """How many further tokens surely fit."""
        ...

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        ...

    def fork(self) -> Session:
        """A second session with the same past; the cache is shared or copied, never recomputed."""
        ...


@runtime_checkable
class TreeSession(Session, Protocol):
    """A session that can read several continuations in one call."""

    def feed_tree(self, tokens: Sequence[int], parents: Sequence[int]) -> Floats:
        """Next-token logits after each token of a tree, ``[n, vocab]``; :meth:`keep` must follow.

        Args:
            tokens: The nodes; each comes after its parent.
            parents: Of each node the place of its parent among them, -1 for the session's end.
        """
        ...

    def keep(self, path: Sequence[int]) -> None:
        """Append one path of the tree that was read, node by node from its root, and forget the rest."""
        ...


@runtime_checkable
class TokenModel(Protocol):
    """Next-token logits under our control."""

    name: str
    vocab: int

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; ``special`` also reads control tokens such as ``<|im_end|>``."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for (b"" for control tokens)."""
        ...

    def ends(self, token: int) -> bool:
        """Whether this token ends an answer or the text."""
        ...

    def prompt_tokens(self, request: Request) -> list[int]:
        """The request as the model reads it, up to where its answer begins; at least one token."""
        ...

    def grammar(self, text: str) -> Grammar:
        """What may come next under a grammar in llama.cpp's notation (GBNF).

        Raises:
            RequestRefused: It cannot be read, or this model has no grammars.
        """
        ...

    def json_grammar(self, schema: str) -> Grammar:
        """What may come next in a JSON value of a JSON schema."""
        ...

    def session(self) -> Session:
        """Start an empty sequence."""
        ...


@runtime_checkable
class BatchedTokenModel(TokenModel, Protocol):
    """A token model whose sessions can be fed several at once, for about the price of one."""

    def feed_all(
        self,
        sessions: Sequence[Any],
        tokens: Sequence[Sequence[int]],
        *,
        last: int | None = None,
    ) -> list[Floats]:
        """Append to each of some sessions its tokens, of any number; as feeding them one by one.

        :func:`pilotfish.models.batching.feed_all` does it with any token model.

        Args:
            sessions: Of this model, each of them once.
            tokens: For each session what comes next.
            last: Return the rows of so many tokens at the end of each only.

        Returns:
            For each session its rows ``[n, vocab]``, equal to those of ``feed`` up to rounding.

        Raises:
            RequestRefused: They do not fit, and no session has changed; or one is given twice.
        """
        ...


class Grammar(Protocol):
    """Which tokens may come next."""

    def mask(self, logits: Floats) -> Floats:
        """A copy of ``[vocab]`` logits with -inf for tokens that may not come next."""
        ...

    def accept(self, token: int) -> None:
        """Advance by the token that was chosen."""
        ...

    def close(self) -> None:
        """Free it."""
        ...


@runtime_checkable
class Encoder(Protocol):
    """Texts to vectors."""

    name: str
    dim: int

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit rows ``[n, dim]``, float32; a text without known words is a zero row."""
        ...


@runtime_checkable
class Classifier(Protocol):
    """Texts to class probabilities."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes, in the order of the columns."""
        ...

    def predict_proba(self, texts: Sequence[str]) -> Floats:
        """Probabilities ``[n, classes]`` in [0, 1]; rows sum to 1 unless it is multi-label."""
        ...


@runtime_checkable
class Tagger(Protocol):
    """Finds parts of texts."""

    name: str
    labels: tuple[str, ...]

    def find(self, texts: Sequence[str], min_probability: float = 0.5) -> list[list[Found]]:
        """For each text what stands in it: in order, none overlapping, each with one of the labels.

        Args:
            texts: Any.
            min_probability: How sure it must be that there is something, 0 to 1.
        """
        ...


@runtime_checkable
class Judge(Protocol):
    """Grades an answer."""

    name: str

    async def score(self, request: Request, completion: Completion) -> float:
        """Quality in [0, 1]."""
        ...
