"""Every provider that the ``litellm`` library knows, behind the same face as ``openai:``.

For endpoints without OpenAI's API (Bedrock, Vertex, Cohere, ...). Requests and answers keep OpenAI's
form; litellm translates. Retries, deadlines and the concurrency limit are ours, so that both backends
behave alike; litellm's own are switched off. Keys come from the variables that litellm documents.

The library takes seconds to import and fetches its price table from the network unless it is told not
to; it is told not to, before it is imported when the first model is built.
"""

from __future__ import annotations

import asyncio
import importlib
import os
import random
import time
from collections.abc import AsyncIterator, Mapping
from dataclasses import replace
from typing import Any

from pilotfish.config import Config
from pilotfish.errors import BadAnswer, ConfigError, MissingExtra, ModelError, Unavailable
from pilotfish.models.breaker import Breaker
from pilotfish.models.chat_format import StreamAssembler, chat_body, parse_chat
from pilotfish.models.http_errors import status_error
from pilotfish.models.openai import cache_identity
from pilotfish.models.retry import Again, Clock, Lane, Sleep
from pilotfish.models.settings import RemoteSettings, find_price, read_settings
from pilotfish.records import Chunk, Completion, Request, Usage


class LiteLLMSettings(RemoteSettings, kw_only=True, frozen=True):
    """Settings of the ``litellm`` backend, besides those of every remote one.

    Attributes:
        api_base: Where the provider is, when not at its usual place.
    """

    api_base: str = ""


class LiteLLMModel:
    """A model that litellm reaches; it can stream.

    Args:
        model: litellm's name of it, e.g. ``"bedrock/anthropic.claude-v2"``.
        config: Where prices are looked up when litellm does not know one.
        clock: Monotonic seconds.
        sleep: Waits between retries.
        rng: Source of the retries' jitter.
        settings: See :class:`LiteLLMSettings`.

    Raises:
        ConfigError: A setting is unknown, of the wrong type or out of range.
        MissingExtra: litellm is not installed.
    """

    def __init__(
        self,
        model: str,
        *,
        config: Config | None = None,
        clock: Clock = time.monotonic,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
        **settings: Any,
    ) -> None:
        self.settings = read_settings("litellm", LiteLLMSettings, settings)
        self.model = model
        self.name = self.settings.name or model
        self.price = find_price(self.settings, config, self.name, model)
        self._lane = Lane(self.settings, clock=clock, sleep=sleep, rng=rng)
        self._litellm, self._openai = _libraries()

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> LiteLLMModel:
        """Build from ``litellm:PROVIDER/MODEL`` and settings."""
        if not rest:
            raise ConfigError(
                "Got 'litellm:' without a model.", remedy="Write litellm:PROVIDER/MODEL"
            )
        return cls(rest, config=config, **settings)

    @property
    def breaker(self) -> Breaker | None:
        """The circuit breaker, where one is set."""
        return self._lane.breaker

    @property
    def identity(self) -> str:
        """What cache keys carry: all that changes the answer to a given request."""
        return cache_identity(self.name, self.model, self.settings.params)

    def __repr__(self) -> str:
        return f"LiteLLMModel({self.model!r})"

    async def complete(self, request: Request) -> Completion:
        """Answer one request; errors as :meth:`pilotfish.models.openai.OpenAIModel.complete`."""
        async with self._lane.place():
            began = self._lane.clock()
            deadline = self._lane.deadline()
            response = await self._lane.persist(
                lambda: self._ask(request, deadline, stream=False), deadline
            )
            return self._priced(self._parse(response.model_dump(), began), response)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Answer piece by piece; the last chunk carries the whole completion."""
        async with self._lane.place():
            began = self._lane.clock()
            deadline = self._lane.deadline()
            pieces = await self._lane.persist(
                lambda: self._ask(request, deadline, stream=True), deadline
            )
            assembler = StreamAssembler(self.name)
            iterator = aiter(pieces)
            while True:
                try:
                    piece = await self._lane.before(deadline, anext(iterator, None))
                except self._openai.OpenAIError as error:
                    failure = self._failure(error)
                    raise failure.error if isinstance(failure, Again) else failure from error
                if piece is None:
                    break
                if chunk := assembler.add(piece.model_dump()):
                    yield chunk
            if not assembler.finished:
                raise Unavailable(f"{self.name} broke off in mid-stream.")
            whole = self._parse(assembler.result(), began)
            yield Chunk(completion=self._priced(whole, None))

    async def _ask(self, request: Request, deadline: float, *, stream: bool) -> Any:
        body = chat_body(self.model, request, self.settings.params, stream=stream)
        if self.settings.api_base:
            body["api_base"] = self.settings.api_base
        left = max(0.001, deadline - self._lane.clock())
        try:
            return await self._litellm.acompletion(
                **body, timeout=left, num_retries=0, max_retries=0
            )
        except self._openai.OpenAIError as error:
            failure = self._failure(error)
            if isinstance(failure, Again):
                return failure
            raise failure from error

    def _failure(self, error: Exception) -> ModelError | Again:
        status = int(getattr(error, "status_code", None) or 0)
        said = str(getattr(error, "message", error))
        response = getattr(error, "response", None)
        if isinstance(error, self._openai.APITimeoutError):
            lost = Unavailable(f"{self.name} did not answer in time: {said[:300]}.")
            return Again(lost) if self.settings.retry_lost else lost
        if isinstance(error, self._litellm.JSONSchemaValidationError):
            return BadAnswer(f"{self.name}: {said[:300]}")
        if not 400 <= status < 600:
            return Again(Unavailable(f"{self.name} could not be reached: {said[:300]}."))
        headers = dict(response.headers) if response is not None else {}
        return status_error(status, said.encode(), headers, who=self.name, secrets=_secrets())

    def _parse(self, data: Any, began: float) -> Completion:
        return parse_chat(
            data, name=self.name, price=self.price, latency=self._lane.clock() - began
        )

    def _priced(self, completion: Completion, response: Any) -> Completion:
        """With litellm's cost when it knows one; for streams, computed from its table and the usage."""
        hidden = getattr(response, "_hidden_params", None) or {}
        cost = hidden.get("response_cost")
        usage = completion.usage
        names = (self.model, self.model.partition("/")[2])
        listed = any(name in self._litellm.model_cost for name in names)
        if response is None and listed and usage != Usage():
            parts = self._litellm.cost_per_token(
                model=self.model,
                prompt_tokens=usage.prompt_tokens,
                completion_tokens=usage.completion_tokens,
                cache_read_input_tokens=usage.cached_tokens,
            )
            cost = sum(parts)
        return completion if not cost else replace(completion, cost=float(cost))


def _libraries() -> tuple[Any, Any]:
    """The litellm module, and openai, from whose errors litellm's derive."""
    os.environ.setdefault("LITELLM_LOCAL_MODEL_COST_MAP", "True")
    try:
        library: Any = importlib.import_module("litellm")
    except ModuleNotFoundError as error:
        if error.name != "litellm":
            raise
        raise MissingExtra("The backend 'litellm'", "litellm") from error
    # It prints advice to stdout on errors otherwise, where results belong.
    library.suppress_debug_info = True
    return library, importlib.import_module("openai")


def _secrets() -> list[str]:
    return [value for name, value in os.environ.items() if name.endswith("_API_KEY")]
