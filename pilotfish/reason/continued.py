"""Answers in the making of a model that only answers: asked for chunk by chunk.

A chunk is an answer of a few tokens to the request plus the answer so far. How an endpoint is told that
the last message is to be continued differs, so it is a setting (:data:`CONTINUATIONS`); an endpoint that
cannot is asked for whole answers.
"""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from pilotfish.errors import RequestRefused
from pilotfish.models.generate import stops_of
from pilotfish.models.protocols import Model
from pilotfish.models.sampling import StopScanner, number
from pilotfish.reason.pair import Text
from pilotfish.records import Completion, Json, Request, Usage

Continuation = Literal["", "continue-final-message", "prefix", "prefill"]

# What is added to the request's parameters, and to the last message, which holds the answer so far.
CONTINUATIONS: Mapping[str, tuple[Json, Json]] = {
    # vLLM, SGLang
    "continue-final-message": (
        {"continue_final_message": True, "add_generation_prompt": False},
        {},
    ),
    "prefix": ({}, {"prefix": True}),  # Mistral, DeepSeek, LiteLLM
    "prefill": ({}, {}),  # Anthropic, llama.cpp's server: an assistant's last message is continued
}
_LIMITS = ("max_completion_tokens", "max_tokens")


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """One answer in the making.

    Attributes:
        text: What of it may be shown; what may begin a stop string is held back.
        written: All of it.
        reason: Why it ended; "" while it goes on.
        tokens: That were written.
        last: What the model answered last, None before it was asked.
    """

    text: str = ""
    written: str = ""
    reason: str = ""
    tokens: int = 0
    last: Completion | None = None

    @property
    def done(self) -> bool:
        """Whether nothing more comes."""
        return bool(self.reason)


class Continued:
    """Grows answers to one request by asking for more.

    Args:
        model: Whom.
        request: The request.
        chunk: Tokens of a continuation; 0: whole answers.
        continuation: One of :data:`CONTINUATIONS`; "" where ``chunk`` is 0.
        temperature: Where the request names none.

    Attributes:
        usage: Tokens of all answers so far.
        cost: US dollars of all answers so far, None when one is unknown.
        calls: How often the model was asked.

    Raises:
        RequestRefused: The request asks for what cannot be searched for.
    """

    def __init__(
        self,
        model: Model,
        request: Request,
        chunk: int,
        continuation: Continuation,
        temperature: float,
    ) -> None:
        self.model = model
        self.usage = Usage()
        self.cost: float | None = 0.0
        self.calls = 0
        self._request = request
        self._chunk = chunk
        self._form = CONTINUATIONS.get(continuation, ({}, {}))
        self._params = {k: v for k, v in request.params.items() if v is not None}
        self._params.setdefault("temperature", temperature)
        self._stops = [stop for stop in stops_of(request.params) if stop]
        named = [name for name in _LIMITS if name in self._params]
        self._limit_name = named[0] if named else "max_tokens"
        limit = {"max_tokens": self._params.pop(self._limit_name, None)}
        self._limit = int(number(limit, "max_tokens", 0, 1, 1e9))  # 0: the endpoint's own
        self._round = 0
        self._refuse()

    def _refuse(self) -> None:
        whole = ("tools", "functions")
        parts = ("response_format", "grammar", "logprobs", "top_logprobs") if self._chunk else ()
        asked = [name for name in (*whole, *parts) if self._params.get(name)]
        if self._params.get("n", 1) != 1:
            asked.append("n")
        if asked:
            more = ", or only of whole answers: set chunk = 0" if set(asked) <= set(parts) else ""
            raise RequestRefused(
                f"A search over the answers of {self.model.name} cannot do what {', '.join(asked)} asks "
                "for.",
                remedy=f"Ask the model itself{more}",
            )

    async def grow(self, answers: Sequence[Answer]) -> list[Answer]:
        """Continue each by a chunk, all at the same time."""
        self._round += 1
        asked = [self._asked(answer, place) for place, answer in enumerate(answers)]
        tasks = [asyncio.ensure_future(self.model.complete(request)) for request in asked]
        try:
            given = await asyncio.gather(*tasks)
        finally:
            for task in tasks:  # one failed, or nobody waits any more
                task.cancel()
        for completion in given:
            self.calls += 1
            self.usage += completion.usage
            unknown = self.cost is None or completion.cost is None
            self.cost = None if unknown else (self.cost or 0.0) + (completion.cost or 0.0)
        return [self._more(*pair) for pair in zip(answers, given, strict=True)]

    def scored(self, answer: Answer) -> Text:
        """What the pair is shown of it."""
        # Where stop strings were sent, nobody says whether one of them ended the answer.
        return Text(answer.written, answer.reason == "stop" and not self._stops)

    def _asked(self, answer: Answer, place: int) -> Request:
        params, messages = dict(self._params), list(self._request.messages)
        left = self._limit - answer.tokens if self._limit else 0
        size = min(filter(None, (self._chunk, left)), default=0)
        if size:
            params[self._limit_name] = size
        seed = params.get("seed")
        if isinstance(seed, int) and seed >= 0 and (self._round > 1 or place):
            # The first answer has the request's own seed. 31 bits: endpoints read it as an int32.
            drawn = np.random.SeedSequence([seed, self._round, place]).generate_state(1)[0]
            params["seed"] = int(drawn) >> 1
        if answer.written:
            added, marks = self._form
            params |= added
            messages.append({"role": "assistant", "content": answer.written, **marks})
        return dataclasses.replace(self._request, messages=tuple(messages), params=params)

    def _more(self, answer: Answer, completion: Completion) -> Answer:
        new = completion.text
        if self._form[1] and answer.written and new.startswith(answer.written):
            new = new[len(answer.written) :]  # Mistral repeats the prefix
        tokens = answer.tokens + (completion.usage.completion_tokens or self._chunk)
        reason = completion.finish_reason
        if self._chunk and reason == "length" and new and not 0 < self._limit <= tokens:
            reason = ""
        # A stop string may have come in two pieces, of which the endpoint saw one at a time.
        scanner, written = StopScanner(self._stops), answer.written + new
        text = scanner.feed(written.encode("utf-8", "replace"), last=bool(reason))
        if scanner.stopped:
            return Answer(text, text, "stop", tokens, completion)
        return Answer(text, written, reason, tokens, completion)

    def completion(self, answer: Answer) -> Completion:
        """The answer as its model would have given it, with the usage and cost of all."""
        last = answer.last
        assert last is not None, "it was never asked"
        usage = last.usage
        extra = {**last.extra}
        if self.calls > 1:
            own = [usage.prompt_tokens, answer.tokens, usage.cached_tokens]
            extra["answer_usage"] = own
        return dataclasses.replace(
            last,
            text=answer.text,
            finish_reason=answer.reason,
            usage=self.usage,
            cost=self.cost,
            extra=extra,
        )
