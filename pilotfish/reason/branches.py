"""Answers in the making of a model whose logits are ours: sampled in chunks, several at a time.

Each :class:`Branch` is a session of its own with its sampler, grammar and stop scanner. All branches of a
round are fed together (:func:`pilotfish.models.batching.feed_all`), a token each.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from pilotfish.config import Price
from pilotfish.models.batching import feed_all
from pilotfish.models.generate import (
    grammar_of,
    limit_of,
    logprob_of,
    refuse_unknown,
    stops_of,
)
from pilotfish.models.held import Held
from pilotfish.models.protocols import Floats, Grammar, Session, TokenModel
from pilotfish.models.sampling import Sampler, StopScanner, number
from pilotfish.models.worker import Check
from pilotfish.reason.pair import Text
from pilotfish.records import Request, Usage


@dataclass(eq=False)
class Branch:
    """One answer in the making.

    Attributes:
        session: What was read of it: all tokens but perhaps the last.
        row: Logits after what was read, ``[vocab]``.
        scanner: Holds back what may begin a stop string.
        tokens: The answer's tokens.
        text: What may be shown.
        reason: Why it ended; "" while it goes on.
        logprobs: Of each token, when asked for.
    """

    session: Session
    row: Floats
    scanner: StopScanner
    tokens: list[int] = field(default_factory=list)
    text: str = ""
    reason: str = ""
    logprobs: list[Mapping[str, Any]] = field(default_factory=list)
    cut: bool = False  # by a stop string

    @property
    def done(self) -> bool:
        """Whether nothing more comes."""
        return bool(self.reason)


class Branches:
    """Grows answers to one request.

    Args:
        held: The model and its last prompt.
        request: As of :func:`pilotfish.models.generate.write`.
        chunk: Tokens of a continuation; 0: to the end.
        most: Continuations of one round at most.
        beams: Answers that are kept at most.
        temperature: Where the request names none.

    Attributes:
        sampled: Tokens that were sampled so far, those of dropped answers included.
        prompt: The prompt's tokens.

    Raises:
        RequestRefused: A parameter cannot be used.
    """

    def __init__(
        self, held: Held, request: Request, chunk: int, most: int, beams: int, temperature: float
    ) -> None:
        self.model: TokenModel = held.model
        self.sampled = 0
        self.prompt = Usage()
        self._held = held
        self._request = request
        self._params = {**request.params}
        if self._params.get("temperature") is None:
            self._params["temperature"] = temperature
        self._chunk, self._most, self._beams = chunk, most, beams
        refuse_unknown(self.model, request.params)
        stops_of(request.params)
        self._samplers = [Sampler(self._seeded(i)) for i in range(most)]
        self._limit = 1
        self._before = 0  # tokens of the prompt in each session

    def _seeded(self, place: int) -> Mapping[str, Any]:
        """The first sampler has the request's own seed, so that one branch is plain sampling."""
        seed = self._params.get("seed")
        if seed is None or not place or not isinstance(seed, int) or seed < 0:
            return self._params
        drawn = np.random.SeedSequence([seed, place]).generate_state(1, np.uint64)[0]
        return {**self._params, "seed": int(drawn)}

    def first(self, check: Check) -> list[Branch]:
        """The empty answer, once for each continuation of the first round, after the prompt was read."""
        tokens = self.model.prompt_tokens(self._request)
        row, kept = self._held.hold(tokens, check)
        self.prompt = self._held.usage(tokens, kept)
        self._before = len(tokens)
        room = self._held.session.room
        empty = Branch(self._held.session.fork(), row, StopScanner(stops_of(self._params)))
        if (
            self._held.session.room < room
        ):  # forks share the cells, and their answers share the room
            chunk = self._most * self._chunk
            room = (room - chunk) // self._beams if self._chunk else room // self._most
        self._limit = max(1, min(limit_of(self._params, max(room, 1)), room))
        return [empty] * self._most

    def grow(self, branches: Sequence[Branch], check: Check) -> list[Branch]:
        """Continue each by a chunk; the same one given several times gets several continuations."""
        self._catch_up(list(dict.fromkeys(branches)))
        grown = [self._copied(branch) for branch in branches]
        grammars = [self._grammar(branch) for branch in grown]
        try:
            for step in range(self._chunk or self._limit):
                going = [i for i, branch in enumerate(grown) if not branch.done]
                if not going:
                    break
                if step:
                    check()
                    self._catch_up([grown[i] for i in going])
                for i in going:
                    self._write(grown[i], self._samplers[i], grammars[i])
        finally:
            for grammar in grammars:
                if grammar:
                    grammar.close()
        return grown

    def scored(self, branch: Branch) -> Text:
        """What the pair is shown of it: also what is held back; but no half characters."""
        if branch.cut:
            return Text(branch.text)
        raw = b"".join(map(self.model.token_bytes, branch.tokens))
        return Text(raw.decode("utf-8", "ignore"), branch.reason == "stop")

    def cost(self) -> float | None:
        """US dollars for the prompt and all that was sampled, None when unknown."""
        price: Price | None = getattr(self.model, "price", None)
        return price.cost(self.prompt + Usage(0, self.sampled)) if price else None

    def _catch_up(self, branches: Sequence[Branch]) -> None:
        """Read each one's last token, all together."""
        behind = [b for b in branches if len(b.session.tokens) < self._before + len(b.tokens)]
        if behind:
            last = [[branch.tokens[-1]] for branch in behind]
            rows = feed_all(self.model, [branch.session for branch in behind], last)
            for branch, row in zip(behind, rows, strict=True):
                branch.row = row[0]

    def _copied(self, branch: Branch) -> Branch:
        return Branch(
            branch.session.fork(),
            branch.row,
            copy.deepcopy(branch.scanner),
            list(branch.tokens),
            branch.text,
            logprobs=list(branch.logprobs),
        )

    def _grammar(self, branch: Branch) -> Grammar | None:
        """A grammar that has seen the answer so far."""
        grammar = grammar_of(self.model, self._params)
        if grammar:
            for token in branch.tokens:
                grammar.accept(token)
        return grammar

    def _write(self, branch: Branch, sampler: Sampler, grammar: Grammar | None) -> None:
        token = sampler.choose(grammar.mask(branch.row) if grammar else branch.row)
        if self.model.ends(token):
            branch.text += branch.scanner.feed(b"", last=True)
            branch.reason = "stop"
            return
        if grammar:
            grammar.accept(token)
        if self._params.get("logprobs"):
            top = int(number(self._params, "top_logprobs", 0, 0, 20))
            branch.logprobs.append(logprob_of(self.model, branch.row, token, top))
        self.sampled += 1
        branch.tokens.append(token)
        branch.text += branch.scanner.feed(self.model.token_bytes(token))
        if branch.scanner.stopped:
            branch.reason, branch.cut = "stop", True
        elif len(branch.tokens) == self._limit:
            branch.text += branch.scanner.feed(b"", last=True)
            branch.reason = "length"
