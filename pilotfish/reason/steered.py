"""A model made of several, whose next token is chosen by all of them at once.

:class:`Steered` is a token model like its members, so it can itself be a member, be sped up by a draft,
be served and be streamed. Its members read the same answer so far; what they read before it may differ:
a *view* of the request for each. Grammar, sampling and stop strings come after the rule.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace

import numpy as np

from pilotfish.config import Price
from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.models.batching import check_rewind
from pilotfish.models.generate import NOTHING, write
from pilotfish.models.held import Held, common_prefix
from pilotfish.models.protocols import Floats, Grammar, Session, TokenModel
from pilotfish.models.sampling import Proposal
from pilotfish.models.worker import Check, Emit, Worker
from pilotfish.reason.byte_model import ByteModel, ByteSession
from pilotfish.records import Chunk, Completion, Decision, Request, Usage

Rule = Callable[[Sequence[Floats]], Floats]
View = Callable[[Request], Request]
Prompts = tuple[tuple[int, ...], ...]  # what each member reads of one request

REQUEST = 1 << 40  # numbers from here stand for a request that each member reads as other tokens
_REQUESTS = 256  # that are remembered


class Steered:
    """Token models under one rule.

    Args:
        models: The members; the first one's chat template and grammar are the whole's.
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
        self._never = sorted({b for m in models if isinstance(m, ByteModel) for b in m.unwritable})
        self._views = list(views) or [None] * len(models)
        self._requests: dict[Prompts, int] = {}
        self._numbers = itertools.count(REQUEST)
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
        return self.models[0].token_bytes(token) if token < REQUEST else b""

    def ends(self, token: int) -> bool:
        """Whether this token ends an answer or the text."""
        return self.models[0].ends(token)

    def prompt_tokens(self, request: Request) -> list[int]:
        """The request as tokens; where the members read different ones, one number for all of them.

        They differ by views, by chat templates and, read byte by byte, by vocabularies.
        """
        pairs = zip(self.models, self._views, strict=True)
        prompts = tuple(
            tuple(model.prompt_tokens(view(request) if view else request)) for model, view in pairs
        )
        return self._together(prompts)

    def _together(self, prompts: Prompts) -> list[int]:
        if all(prompt == prompts[0] for prompt in prompts):
            return list(prompts[0])
        number = self._requests.pop(prompts, None)
        if number is None:
            number = next(self._numbers)
            if len(self._requests) == _REQUESTS:  # the one that was asked for longest ago
                del self._requests[next(iter(self._requests))]
        self._requests[prompts] = number
        return [number]

    def prompts(self, token: int) -> Prompts:
        """What each member reads in place of a number of :meth:`prompt_tokens`.

        Raises:
            RequestRefused: It stands for nothing, or that was long ago.
        """
        for prompts, number in list(self._requests.items()):  # another thread may ask for more
            if number == token:
                return prompts
        raise RequestRefused(f"Got token {token}, but expected one in [0, {self.vocab}).")

    def prompt_usage(self, tokens: Sequence[int], kept: int) -> Usage:
        """What the first member reads in place of these prompt tokens, ``kept`` of which were there."""
        if tokens and tokens[0] >= REQUEST:
            return Usage(len(self.prompts(tokens[0])[0]))
        return Usage(len(tokens), 0, kept)

    def grammar(self, text: str) -> Grammar:
        """What may come next under a grammar in llama.cpp's notation (GBNF)."""
        return self.models[0].grammar(text)

    def json_grammar(self, schema: str) -> Grammar:
        """What may come next in a JSON value of a JSON schema."""
        return self.models[0].json_grammar(schema)

    @property
    def opening(self) -> list[int]:
        """What the first member was trained to see before every text: ``<bos>``, or nothing.

        Read byte by byte, each member sees its own; nothing where one has none.
        """
        own = tuple(tuple(getattr(model, "opening", ())) for model in self.models)
        if not isinstance(self.models[0], ByteModel):
            return list(own[0])
        return self._together(own) if all(own) else []

    def session(self) -> SteeredSession:
        """Start an empty sequence in every member; all of them read the same tokens."""
        return SteeredSession(self, [model.session() for model in self.models])

    def mixed(self, rows: Sequence[Floats]) -> Floats:
        """The rule over rows ``[n, vocab]`` of each member; what a larger vocabulary pads is cut off."""
        mixed = self.rule([row[..., : self.vocab] for row in rows])
        mixed[..., self._never] = -np.inf  # a byte that one member has no token for
        return mixed

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
    """One sequence in every member; see :class:`pilotfish.models.protocols.Session`.

    It may begin with a number of :meth:`Steered.prompt_tokens`, in place of which each member reads its
    own prompt.
    """

    def __init__(
        self, whole: Steered, sessions: Sequence[Session], tokens: Sequence[int] = ()
    ) -> None:
        self._whole = whole
        self._sessions = list(sessions)
        self._tokens = list(tokens)

    @property
    def tokens(self) -> Sequence[int]:
        """The tokens fed so far."""
        return self._tokens

    @property
    def room(self) -> int:
        """How many further tokens surely fit in every member."""
        return min(session.room for session in self._sessions)

    def feed(self, tokens: Sequence[int], *, last: int | None = None) -> Floats:
        """Append tokens; steered logits after each of them, or of the ``last``, ``[n, vocab]``."""
        start, wanted = len(self._tokens), len(tokens) if last is None else last
        try:
            rows = []
            if not start:
                for session, own in zip(self._sessions, self._own(tokens), strict=True):
                    # What is left of the last prompt is not read again.
                    kept = max(
                        0, min(common_prefix(session.tokens, own), len(own) - max(1, wanted))
                    )
                    session.rewind(kept)
                    rows.append(session.feed(own[kept:], last=wanted))
            else:
                rows = [session.feed(tokens, last=wanted) for session in self._sessions]
            mixed = self._whole.mixed(rows)
        except BaseException:  # a member is full, or interrupted: all are as they were
            self.rewind(start)
            raise
        self._tokens.extend(tokens)
        return mixed

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` tokens.

        Raises:
            RequestRefused: There are fewer.
        """
        check_rewind(length, len(self._tokens))
        if length:  # a session that is to be empty keeps what the next one may begin with
            owns = self._own(self._tokens[:1])
            for session, own in zip(self._sessions, owns, strict=True):
                session.rewind(min(len(own) + length - 1, len(session.tokens)))
        del self._tokens[length:]

    def fork(self) -> SteeredSession:
        """A second session with the same past."""
        sessions = [session.fork() for session in self._sessions]
        return SteeredSession(self._whole, sessions, self._tokens)

    def _own(self, tokens: Sequence[int]) -> list[list[int]]:
        """What each member reads in place of tokens at the beginning."""
        if not tokens or tokens[0] < REQUEST:
            return [list(tokens)] * len(self._sessions)
        return [[*prompt, *tokens[1:]] for prompt in self._whole.prompts(tokens[0])]


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
            self._prompts.append(held.usage(tokens, kept))
        return self._whole.mixed(rows), self._prompts[0]

    def next(self, token: int, check: Check) -> Floats:
        rows = [held.session.feed([token])[0] for held in self._held]
        return self._whole.mixed(rows)

    @property
    def room(self) -> int:
        return max(1, min(held.session.room for held in self._held))

    def written(self, steps: int) -> int:
        """The first member's tokens."""
        return _tokens_of(self._held[0], self._prompts[0], steps)

    def cost(self, tokens: int) -> float | None:
        """What every member read and wrote; None where one has no price."""
        total = 0.0
        for held, prompt in zip(self._held, self._prompts, strict=True):
            price: Price | None = getattr(held.model, "price", None)
            if price is None:
                return None
            total += price.cost(prompt + Usage(0, _tokens_of(held, prompt, tokens)))
        return total


def _tokens_of(held: Held, prompt: Usage, steps: int) -> int:
    """A member's own tokens of the answer, where the steps are bytes."""
    if isinstance(held.session, ByteSession):
        return held.session.written - prompt.prompt_tokens
    return steps


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
                    remedy='Set bridge = "bytes", or mix models of one family.',
                )
    for model in models:
        # The first one's end must be among them, or no answer would ever end.
        more = range(size, model.vocab)
        if any(model.token_bytes(t) or (model is first and model.ends(t)) for t in more):
            raise ConfigError(
                f"The vocabulary of {model.name} has {model.vocab} tokens, another's only {size}.",
                remedy='Set bridge = "bytes", or mix models of one family.',
            )
    return size
