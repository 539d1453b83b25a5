"""Weak-to-strong search: a large model writes, and a small tuned pair says which way is the better one.

Zhou et al. 2024b: the large model, which stays as it is, samples short continuations; those are kept that
a small tuned model finds more likely than the same small model before its tuning
(:mod:`pilotfish.reason.beams`, :mod:`pilotfish.reason.pair`). The pair reads text, so its vocabulary may
be another one, and the large model need not run here: one behind an endpoint is asked for continuations
(:mod:`pilotfish.reason.continued`), or for whole answers, of which the best is taken.

.. code-block:: toml

    [models.aligned]
    kind = "weak-to-strong-search"
    models = ["qwen2.5-coder-1.5b", "tuned", "qwen2.5-coder-0.5b"]  # large, tuned, untuned
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping, Sequence
from contextlib import aclosing
from typing import Annotated, Any

import msgspec

from pilotfish.config import Config
from pilotfish.errors import ConfigError
from pilotfish.models.generate import NOTHING
from pilotfish.models.held import Held
from pilotfish.models.protocols import Model, TokenModel
from pilotfish.models.settings import read_settings
from pilotfish.models.worker import Check, Emit, Worker
from pilotfish.reason.beams import Beams, Ranked
from pilotfish.reason.branches import Branch, Branches
from pilotfish.reason.continued import CONTINUATIONS, Answer, Continuation, Continued
from pilotfish.reason.pair import Pair
from pilotfish.records import Chunk, Completion, Decision, Request, Usage

CHUNK = 30
_REASON = "weak-to-strong-search"


class WeakToStrongSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of ``kind = "weak-to-strong-search"``; ``models``: a large, a tuned and an untuned one.

    Attributes:
        beams: Answers in the making that are kept (the paper's W).
        samples: Continuations of each (K); the first round samples ``beams`` times ``samples``.
        chunk: Tokens of a continuation (L); 0: whole answers, of which the best is taken. Default: 30,
            or 0 where the large model does not run here and ``continuation`` is not set.
        continuation: How an endpoint is told to continue the answer so far: ``"continue-final-message"``
            (vLLM, SGLang), ``"prefix"`` (Mistral, DeepSeek), ``"prefill"`` (Anthropic, llama.cpp's
            server). Not read where the large model runs here.
        temperature: Where the request names none; at 0 all continuations are the same.
    """

    beams: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    samples: Annotated[int, msgspec.Meta(ge=1, le=64)] = 2
    chunk: Annotated[int, msgspec.Meta(ge=0)] | None = None
    continuation: Continuation = ""
    temperature: Annotated[float, msgspec.Meta(ge=0, le=100)] = 1.0


class WeakToStrongSearch:
    """A large model whose answers are searched for by a small pair.

    Args:
        large: Any model; one that runs here is sampled in one batch.
        tuned: The small model that knows what is wanted.
        untuned: The small model before it was tuned.
        settings: See :class:`WeakToStrongSettings`.
        name: Of the composite.

    Raises:
        ConfigError: A chunk is set, and nothing says how the large model continues an answer.
    """

    def __init__(
        self,
        large: Model | TokenModel,
        tuned: TokenModel,
        untuned: TokenModel,
        settings: WeakToStrongSettings | None = None,
        *,
        name: str = "weak-to-strong-search",
    ) -> None:
        self.settings = settings = settings or WeakToStrongSettings()
        self.large = large
        self.name = name
        continues = isinstance(large, TokenModel) or bool(settings.continuation)
        if settings.chunk and not continues:
            raise ConfigError(
                f"[models.{name}] has chunk = {settings.chunk}, but {large.name} does not run here, and "
                "nothing says how it continues an answer.",
                remedy=f"Set continuation to one of {', '.join(CONTINUATIONS)}, as its endpoint expects; "
                "or leave chunk out: then whole answers are compared",
            )
        self.chunk = (CHUNK if continues else 0) if settings.chunk is None else settings.chunk
        self._pair = Pair(tuned, untuned)
        self._worker = Worker(name)
        self._held: Held | None = None

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> WeakToStrongSearch:
        """Build from a table of pilotfish.toml; see :class:`WeakToStrongSettings`.

        Raises:
            ConfigError: There are not three models, or one of the pair gives no logits.
        """
        checked = read_settings("weak-to-strong-search", WeakToStrongSettings, settings)
        if len(members) != 3:
            raise ConfigError(
                f"[models.{name}] has {len(members)} models, but expected the large one, a tuned and an "
                "untuned small one."
            )
        large, tuned, untuned = members
        for member in (tuned, untuned):
            if not isinstance(member, TokenModel):
                raise ConfigError(
                    f"[models.{name}] cannot score by {member.name}, which gives no logits.",
                    remedy="Name small models that run here: a GGUF file, or one of `pilotfish models`.",
                )
        assert isinstance(tuned, TokenModel)
        assert isinstance(untuned, TokenModel)
        return cls(large, tuned, untuned, checked, name=name)

    def close(self) -> None:
        """End the thread; the members are closed by whoever started them."""
        self._worker.close()

    async def complete(self, request: Request) -> Completion:
        """The best answer that was found; the decision carries its score, in nats.

        Raises:
            RequestRefused: A parameter or message cannot be used, or it does not fit the context.
            ModelError: The large model did not answer.
        """
        if isinstance(self.large, TokenModel):
            large = self.large
            return await self._worker.run(
                lambda check: self._sampled(large, request, check, NOTHING)
            )
        async with aclosing(self._asked(self.large, request)) as chunks:
            found = [chunk.completion async for chunk in chunks if chunk.completion]
        return found[-1]

    def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Answer piece by piece, as soon as all answers that are kept agree on it."""
        if not isinstance(self.large, TokenModel):
            return self._asked(self.large, request)
        large = self.large
        decision = Decision(self.name, large.name, _REASON)
        work = lambda check, emit: self._sampled(large, request, check, emit)  # noqa: E731
        return self._worker.stream(work, (decision,))

    def _sampled(self, large: TokenModel, request: Request, check: Check, emit: Emit) -> Completion:
        """The whole search with a large model whose logits are ours, in the thread."""
        began, settings = time.monotonic(), self.settings
        self._held = self._held or Held(large)
        most = settings.beams * settings.samples
        branches = Branches(
            self._held, request, self.chunk, most, settings.beams, settings.temperature
        )
        scorer = self._pair.scorer(request)
        beams: Beams[Branch] = Beams(settings.beams, settings.samples)
        due, shown = branches.first(check), ""
        while due:
            grown = branches.grow(due, check)
            scores = scorer.scores([branches.scored(branch) for branch in grown], check)
            shown, due = self._end_round(beams, grown, scores, shown, emit)
        best = beams.best.answer
        answer = [branches.prompt.prompt_tokens, len(best.tokens), branches.prompt.cached_tokens]
        return Completion(
            text=best.text,
            model=large.name,
            usage=branches.prompt + Usage(0, branches.sampled),
            cost=_sum(branches.cost(), scorer.cost),
            latency=time.monotonic() - began,
            finish_reason=best.reason,
            logprobs=tuple(best.logprobs) if request.params.get("logprobs") else None,
            decisions=(self._decision(large.name, beams.best.score),),
            extra={"answer_usage": answer} if most > 1 else {},
        )

    async def _asked(self, large: Model, request: Request) -> AsyncGenerator[Chunk, None]:
        """The search with a large model that only answers; the pair scores in the thread."""
        began, settings = time.monotonic(), self.settings
        continued = Continued(
            large, request, self.chunk, settings.continuation, settings.temperature
        )
        scorer = await self._worker.run(lambda check: self._pair.scorer(request))
        beams: Beams[Answer] = Beams(settings.beams, settings.samples)
        due, shown = [Answer()] * (settings.beams * settings.samples), ""
        decision = Decision(self.name, large.name, _REASON)
        while due:
            grown = await continued.grow(due)
            texts = [continued.scored(answer) for answer in grown]
            scores = await self._worker.run(lambda check, texts=texts: scorer.scores(texts, check))  # type: ignore[misc]
            pieces: list[str] = []
            shown, due = self._end_round(beams, grown, scores, shown, pieces.append)
            for piece in pieces:
                delta = {"content": piece}
                yield Chunk(text=piece, delta=delta, model=large.name, decisions=(decision,))
        whole = continued.completion(beams.best.answer)
        decided = self._decision(large.name, beams.best.score)
        whole = dataclasses.replace(
            whole,
            cost=_sum(whole.cost, scorer.cost),
            latency=time.monotonic() - began,
            decisions=(*whole.decisions, decided),
        )
        yield Chunk(completion=whole)

    def _end_round(
        self,
        beams: Beams[Any],
        grown: Sequence[Any],
        scores: Sequence[float],
        shown: str,
        emit: Emit,
    ) -> tuple[str, list[Any]]:
        """Keep the best and say what is certain now; what was said, and what is continued next."""
        beams.keep([Ranked(*pair) for pair in zip(grown, scores, strict=True)])
        due = [answer for answer in beams.open for _ in range(beams.samples)]
        certain = beams.certain if due else beams.best.answer.text
        if len(certain) > len(shown):
            emit(certain[len(shown) :])
        return certain, due

    def _decision(self, chose: str, score: float) -> Decision:
        return Decision(self.name, chose, _REASON, score)


def _sum(first: float | None, second: float | None) -> float | None:
    return None if first is None or second is None else first + second
