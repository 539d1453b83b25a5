"""A token model whose distributions are a table: what follows two tokens is drawn once, by a fixed seed.

Everything about it can be enumerated, so it is the oracle of what is built from token models.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from pilotfish.config import Price
from pilotfish.models.generate import NOTHING, write
from pilotfish.models.held import Held, HeldSource
from pilotfish.models.protocols import Floats, Grammar
from pilotfish.models.worker import Check, Emit, Worker
from pilotfish.records import Completion, Request

END = 0
PROMPT = 1  # a control token that stands for the request
FIRST = 2  # the tokens after it are the 256 bytes, then the words


class TableModel:
    """Writes words made of some letters.

    Args:
        words: Tokens of more than one byte.
        letters: The single bytes that it writes.
        seed: Of the table.
        spread: Standard deviation of the logits.
        ends: Logit of the end.
        context: Tokens that it reads at most.
    """

    def __init__(
        self,
        words: Sequence[str] = (),
        letters: str = "ab",
        *,
        seed: int = 0,
        spread: float = 1.0,
        ends: float = 0.0,
        name: str = "table",
        price: Price | None = None,
        context: int = 4096,
    ) -> None:
        self.name = name
        self.context = context
        self.price = price
        self.bytes = [b"", b"", *(bytes([b]) for b in range(256)), *(w.encode() for w in words)]
        self.vocab = len(self.bytes)
        self.said = [END, *(FIRST + ord(c) for c in letters), *range(FIRST + 256, self.vocab)]
        self.fed = self.passes = 0  # tokens that were read, and in how many calls
        self._key = (seed, spread, ends)
        self._worker = Worker(name)
        self._held: Held | None = None

    @functools.cache  # noqa: B019  the models live as long as the tests
    def logits(self, past: tuple[int, ...]) -> Floats:
        """After these tokens, of which the last two count; -inf for what it never says."""
        seed, spread, ends = self._key
        row = np.full(self.vocab, -np.inf, np.float32)
        drawn = np.random.default_rng([seed, *past]).standard_normal(len(self.said))
        row[self.said] = spread * drawn
        row[END] += ends
        return row

    def probabilities(self, past: Sequence[int]) -> dict[int, float]:
        """Of each token that it says, after these."""
        row = self.logits(tuple(past[-2:])).astype(float)
        p = np.exp(row - row.max())
        p /= p.sum()
        return {token: float(p[token]) for token in self.said}

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Greedily, the longest word first."""
        raw, tokens = text.encode(), []
        while raw:
            fits = [t for t in range(FIRST, self.vocab) if raw.startswith(self.bytes[t])]
            tokens.append(max(fits, key=lambda t: len(self.bytes[t])))
            raw = raw[len(self.bytes[tokens[-1]]) :]
        return tokens

    def token_bytes(self, token: int) -> bytes:
        return self.bytes[token]

    def ends(self, token: int) -> bool:
        return token == END

    def prompt_tokens(self, request: Request) -> list[int]:
        return [PROMPT, *self.tokenize(request.prompt), PROMPT]

    def grammar(self, text: str) -> Grammar:
        return self._guide.grammar(text)

    def json_grammar(self, schema: str) -> Grammar:
        return self._guide.json_grammar(schema)

    @functools.cached_property
    def _guide(self):  # type: ignore[no-untyped-def]
        from pilotfish.models.guidance import Guide

        return Guide(self.bytes, [END], self.tokenize)

    def session(self) -> TableSession:
        return TableSession(self, [])

    async def complete(self, request: Request) -> Completion:
        return await self._worker.run(lambda check: self._write(request, check, NOTHING))

    def stream(self, request: Request):  # type: ignore[no-untyped-def]
        return self._worker.stream(lambda check, emit: self._write(request, check, emit))

    def _write(self, request: Request, check: Check, emit: Emit) -> Completion:
        self._held = self._held or Held(self)
        answer = write(self, HeldSource(self._held), request, check, emit)
        return replace(answer, model=self.name)

    def close(self) -> None:
        self._worker.close()


class TableSession:
    def __init__(self, model: TableModel, tokens: list[int]) -> None:
        self._model = model
        self.tokens = tokens

    @property
    def room(self) -> int:
        return self._model.context - len(self.tokens)

    def feed(self, tokens: Sequence[int], *, last: int | None = None) -> Floats:
        assert len(tokens) <= self.room
        self._model.passes += 1
        first = len(self.tokens) + len(tokens) - (len(tokens) if last is None else last)
        rows = [np.zeros((0, self._model.vocab), np.float32)]
        for token in tokens:
            self.tokens.append(token)
            self._model.fed += 1
            if len(self.tokens) > first:
                rows.append(self._model.logits(tuple(self.tokens[-2:]))[None])
        return np.concatenate(rows)

    def rewind(self, length: int) -> None:
        assert 0 <= length <= len(self.tokens)
        del self.tokens[length:]

    def fork(self) -> TableSession:
        return TableSession(self._model, list(self.tokens))
