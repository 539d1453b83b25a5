"""A model made of several, whose next token is chosen by all of them at once.

:class:`Steered` is a token model like its members, so it can itself be a member, be sped up by a draft,
be served and be streamed. Its members read the same answer so far; what they read before it may differ:
a *view* of the request for each. Grammar, sampling and stop strings come after the rule.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

from pilotfish.config import Price
from pilotfish.errors import ConfigError
from pilotfish.models.generate import NOTHING, write
from pilotfish.models.held import Held
from pilotfish.models.protocols import Floats, Grammar, Session, TokenModel
from pilotfish.models.sampling import Proposal
from pilotfish.models.worker import Check, Emit, Worker
from pilotfish.records import Chunk, Completion, Decision, Request, Usage

Rule = Callable[[Sequence[Floats]], Floats]
View = Callable[[Request], Request]


class Steered:
    """Token models under one rule.

    Args:
        models: The members; the first one's chat template, price and grammar are the whole's.
        rule: From each member's logits ``[n, vocab]`` to those of the whole; see
            :mod:`pilotfish.reason.rules`.
        views: What each member reads in place of the request; default: the request.
        reason: Says in the decision how it was steered, e.g. ``"contrast"``.
        name: Of the composite.

    Raises:
        ConfigError: There are no members, or their vocabularies differ.
    """

    def __init__(
        self,
        models: Sequence[TokenModel],
        rule: Rule,
        *,
        views: Sequence[View | None] = (),
        reason: str = "steered",
        name: str = "steered",
    ) -> None:
        if not models:
            raise ConfigError("Got no models, but expected at least one to steer.")
        if views and len(views) != len(models):
            raise ConfigError(f"Got {len(views)} views for {len(models)} models.")
        self.models = list(models)
        self.rule = rule
        self.name = name
        self.vocab = shared_vocabulary(models)
        self._views = list(views) or [None] * len(models)
        self._decision = Decision(name, name, reason)
        self._worker = Worker(name)
        self._held: list[Held] = []

    def close(self) -> None:
        """End the thread; the members are closed by whoever started them."""
        self._worker.close()

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text; ``special`` also reads control tokens."""
        return self.models[0].tokenize(text, special=special)

    def token_bytes(self, token: int) -> bytes:
        """The bytes one token stands for (b"" for control tokens)."""
        return self.models[0].token_bytes(token)

    def ends(self, token: int) -> bool:
        """Whether this token ends an answer or the text."""
        return self.models[0].ends(token)

    def prompt_tokens(self, request: Request) -> list[int]:
        """The request as the first member reads it."""
        return self.models[0].prompt_tokens(request)

    def grammar(self, text: str) -> Grammar:
        """What may come next under a grammar in llama.cpp's notation (GBNF)."""
        return self.models[0].grammar(text)

    def json_grammar(self, schema: str) -> Grammar:
        """What may come next in a JSON value of a JSON schema."""
        return self.models[0].json_grammar(schema)

    def session(self) -> SteeredSession:
        """Start an empty sequence in every member; all of them read the same tokens."""
        return SteeredSession(self, [model.session() for model in self.models])

    def mixed(self, rows: Sequence[Floats]) -> Floats:
        """The rule over rows ``[n, vocab]`` of each member; what a larger vocabulary pads is cut off."""
        return self.rule([row[..., : self.vocab] for row in rows])

    async def complete(self, request: Request) -> Completion:
        """Answer one request; the decision says how it was steered.

        Raises:
            RequestRefused: A parameter or message cannot be used, or it does not fit a context.
        """
        return await self._worker.run(lambda check: self._write(request, check, NOTHING))

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Answer piece by piece; the last chunk carries the whole completion."""
        work = lambda check, emit: self._write(request, check, emit)  # noqa: E731
        return self._worker.stream(work, (self._decision,))

    def _write(self, request: Request, check: Check, emit: Emit) -> Completion:
        if not self._held:
            self._held = [Held(model) for model in self.models]
        answer = write(self, _Together(self, self._held, self._views), request, check, emit)
        return replace(answer, decisions=(*answer.decisions, self._decision))


class SteeredSession:
    """One sequence in every member; see :class:`pilotfish.models.protocols.Session`."""

    def __init__(self, whole: Steered, sessions: Sequence[Session]) -> None:
        self._whole = whole
        self._sessions = list(sessions)

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens fed so far."""
        return self._sessions[0].tokens

    @property
    def room(self) -> int:
        """How many further tokens surely fit in every member."""
        return min(session.room for session in self._sessions)

    def feed(self, tokens: Sequence[int], *, last: int | None = None) -> Floats:
        """Append tokens; steered logits after each of them, or of the ``last``, ``[n, vocab]``."""
        start = len(self.tokens)
        try:
            return self._whole.mixed([s.feed(tokens, last=last) for s in self._sessions])
        except BaseException:  # a member is full, or interrupted: all are as they were
            for session in self._sessions:
                session.rewind(min(start, len(session.tokens)))
            raise

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` tokens."""
        for session in self._sessions:
            session.rewind(length)

    def fork(self) -> SteeredSession:
        """A second session with the same past."""
        return SteeredSession(self._whole, [session.fork() for session in self._sessions])


class _Together:
    """The :class:`~pilotfish.models.generate.Source` of one steered answer."""

    def __init__(self, whole: Steered, held: Sequence[Held], views: Sequence[View | None]) -> None:
        self.proposal: Proposal | None = None
        self._whole = whole
        self._held = held
        self._views = views
        self._prompts: list[Usage] = []

    def begin(self, request: Request, check: Check) -> tuple[Floats, Usage]:
        rows = []
        for held, view in zip(self._held, self._views, strict=True):
            tokens = held.model.prompt_tokens(view(request) if view else request)
            row, kept = held.hold(tokens, check)
            rows.append(row)
            self._prompts.append(Usage(len(tokens), 0, kept))
        return self._whole.mixed(rows), self._prompts[0]

    def next(self, token: int, check: Check) -> Floats:
        rows = [held.session.feed([token])[0] for held in self._held]
        return self._whole.mixed(rows)

    @property
    def room(self) -> int:
        return max(1, min(held.session.room for held in self._held))

    def cost(self, tokens: int) -> float | None:
        """What every member read and wrote; None where one has no price."""
        total = 0.0
        for held, prompt in zip(self._held, self._prompts, strict=True):
            price: Price | None = getattr(held.model, "price", None)
            if price is None:
                return None
            total += price.cost(prompt + Usage(0, tokens))
        return total


def shared_vocabulary(models: Sequence[TokenModel]) -> int:
    """The size of the vocabulary that all models share; what only pads a larger one does not count.

    Raises:
        ConfigError: A token differs.
    """
    first = models[0]
    size = min(model.vocab for model in models)
    for other in models[1:]:
        if other is first:
            continue
        for token in range(size):
            mine, its = first.token_bytes(token), other.token_bytes(token)
            if mine != its:
                raise ConfigError(
                    f"The vocabularies of {first.name} and {other.name} differ: token {token} is "
                    f"{mine!r} in one and {its!r} in the other.",
                    remedy="Mix models of one family, whose tokenizer is the same.",
                )
    for model in models:
        if any(model.token_bytes(token) for token in range(size, model.vocab)):
            raise ConfigError(
                f"The vocabulary of {model.name} has {model.vocab} tokens, another's only {size}.",
                remedy="Mix models of one family, whose tokenizer is the same.",
            )
    return size
