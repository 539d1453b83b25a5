"""How much more likely a tuned model finds a text than the same model before it was tuned.

``log p_tuned(text | request) - log p_untuned(text | request)`` is what tuning taught the pair to like, up
to a factor (Rafailov et al. 2023), and so a score of anybody's answers to the request. It is read from
the text, in the pair's own vocabulary. Tokens that a text and the ones scored before begin with alike are
read once.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from pilotfish.config import Price
from pilotfish.models.batching import feed_all
from pilotfish.models.held import Held, common_prefix
from pilotfish.models.protocols import Floats, Session, TokenModel
from pilotfish.models.sampling import log_softmax
from pilotfish.models.worker import Check
from pilotfish.records import Request, Usage

_ROWS = 64 << 20  # bytes of logits that are held at once


@dataclass(frozen=True, slots=True)
class Text:
    """A text to be scored.

    Attributes:
        text: It.
        ended: Whether the answer ends there, of its own accord; the end counts as a token.
    """

    text: str
    ended: bool = False


class Pair:
    """A tuned and an untuned model that score answers.

    Args:
        tuned: The one that knows what is wanted.
        untuned: What it was tuned from; its vocabulary may differ.
    """

    def __init__(self, tuned: TokenModel, untuned: TokenModel) -> None:
        self._members = (_Member(tuned), _Member(untuned))

    def scorer(self, request: Request) -> PairScorer:
        """What scores answers to a request; those of several requests may take turns."""
        return PairScorer(*(_Reading(member, request) for member in self._members))


class PairScorer:
    """Scores answers to one request; made by :meth:`Pair.scorer`."""

    def __init__(self, tuned: _Reading, untuned: _Reading) -> None:
        self._tuned, self._untuned = tuned, untuned

    def scores(self, texts: Sequence[Text], check: Check) -> list[float]:
        """The log-probability under the tuned model minus that under the untuned one, for each text."""
        distinct = list(dict.fromkeys(texts))
        pairs = zip(
            self._tuned.log_probabilities(distinct, check),
            self._untuned.log_probabilities(distinct, check),
            strict=True,
        )
        found = {text: a - b for text, (a, b) in zip(distinct, pairs, strict=True)}
        return [found[text] for text in texts]

    @property
    def cost(self) -> float | None:
        """US dollars for what was read, None when unknown."""
        costs = [self._tuned.cost, self._untuned.cost]
        known = [cost for cost in costs if cost is not None]
        return sum(known) if len(known) == 2 else None


class _Member:
    """One of the two, with its last prompt in the cache."""

    def __init__(self, model: TokenModel) -> None:
        self.model = model
        self.price: Price | None = getattr(model, "price", None)

    @functools.cached_property
    def held(self) -> Held:
        return Held(self.model)

    @functools.cached_property
    def ends(self) -> list[int]:
        return [token for token in range(self.model.vocab) if self.model.ends(token)]


@dataclass(eq=False, slots=True)
class _Read:
    """Tokens of an answer that were read.

    Attributes:
        tokens: Those after the prompt.
        logs: Log-probability of each.
        session: Holds the prompt and them.
        after: Log-probabilities of what follows, ``[vocab]``.
    """

    tokens: list[int]
    logs: list[float]
    session: Session
    after: Floats


@dataclass(frozen=True, slots=True)
class _Start:
    """Where the reading of an answer begins.

    Attributes:
        read: What was read already.
        due: The tokens that are fed next.
        again: The first of them is known, but what follows it is not known any more.
    """

    read: _Read
    due: list[int]
    again: bool


class _Reading:
    """What one of the two has read of the answers to a request."""

    def __init__(self, member: _Member, request: Request) -> None:
        self._member = member
        self._prompt = member.model.prompt_tokens(request)
        self._read: list[_Read] = []  # the bare prompt, and the answers that were scored last
        self._tokens = 0

    @property
    def cost(self) -> float | None:
        price = self._member.price
        return price.cost(Usage(self._tokens)) if price else None

    def log_probabilities(self, texts: Sequence[Text], check: Check) -> list[float]:
        """Of each text as the answer, nats."""
        model = self._member.model
        if not self._read:
            row, kept = self._member.held.hold(self._prompt, check)
            self._tokens += len(self._prompt) - kept
            fork = self._member.held.session.fork()
            self._read = [_Read([], [], fork, log_softmax(row))]
        started = [self._started(model.tokenize(text.text)) for text in texts]
        longest = max(len(start.due) for start in started)
        size = max(1, _ROWS // (4 * model.vocab * len(texts)))
        for at in range(0, longest, size):
            check()
            parts = [start.due[at : at + size] for start in started]
            rows = feed_all(model, [start.read.session for start in started], parts)
            for start, part, after in zip(started, parts, rows, strict=True):
                for place, (token, row) in enumerate(zip(part, after, strict=True)):
                    if at or place or not start.again:
                        start.read.logs.append(float(start.read.after[token]))
                    start.read.after = log_softmax(row)
            self._tokens += sum(map(len, parts))
        self._read = [self._read[0], *(start.read for start in started)]
        return [
            sum(start.read.logs) + (self._end(start.read.after) if text.ended else 0.0)
            for text, start in zip(texts, started, strict=True)
        ]

    def _started(self, tokens: list[int]) -> _Start:
        """A copy of what was read of these tokens already."""
        best = max(self._read, key=lambda read: common_prefix(read.tokens, tokens))
        shared = common_prefix(best.tokens, tokens)
        session, again = best.session.fork(), shared < len(best.tokens)
        fed = shared - again
        if again:
            session.rewind(len(self._read[0].session.tokens) + fed)
        return _Start(_Read(tokens, best.logs[:shared], session, best.after), tokens[fed:], again)

    def _end(self, after: Floats) -> float:
        """Log-probability that the answer ends: of all tokens that end one."""
        return float(np.logaddexp.reduce(after[self._member.ends]))
