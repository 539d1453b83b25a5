"""Any endpoint with OpenAI's chat completions API, over HTTP.

OpenAI, the compatible endpoints of Anthropic and Google, OpenRouter, vLLM, SGLang, Ollama, llama.cpp's
server and many more. Nothing is translated: messages and parameters go out as they are, and what comes
back is kept whole (:mod:`pilotfish.models.chat_format`).

Why not the official client: it brings its own retries, types and 30 more packages, and this page
needs one POST. What a careful client does is here or next door: connections
(:mod:`pilotfish.models.endpoint`), waits (:mod:`pilotfish.models.retry`), errors
(:mod:`pilotfish.models.http_errors`), event streams (:mod:`pilotfish.models.sse`).

An answer is asked for again only where no answer had begun, so a retry is not billed twice, and never
after a piece was handed to the caller.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import msgspec

from pilotfish.config import Config
from pilotfish.errors import BadAnswer, ConfigError, RequestRefused, Unavailable
from pilotfish.models.breaker import Breaker
from pilotfish.models.chat_format import StreamAssembler, chat_body, parse_chat
from pilotfish.models.endpoint import OFFICIAL_URL, Endpoint, OpenAISettings
from pilotfish.models.http_errors import provider_message, redact, status_error, transport_error
from pilotfish.models.retry import Again, Clock, Lane, Sleep
from pilotfish.models.settings import find_price, read_settings
from pilotfish.models.sse import DONE, EventParser
from pilotfish.models.transport import ConnectionFailed, Response
from pilotfish.records import Chunk, Completion, Json, Request

__all__ = ["OFFICIAL_URL", "OpenAIModel", "OpenAISettings", "cache_identity"]

CHAT = "/chat/completions"


class OpenAIModel:
    """A model behind an OpenAI-compatible endpoint; it can stream.

    Args:
        model: The endpoint's name of the model.
        config: Where prices are looked up.
        clock: Monotonic seconds, for deadlines and latencies.
        sleep: Waits between retries.
        rng: Source of the retries' jitter.
        settings: See :class:`OpenAISettings`.

    Raises:
        ConfigError: A setting is unknown, of the wrong type or out of range.

    >>> OpenAIModel("gpt-4.1-mini", base_url="http://127.0.0.1:8000/v1", concurrency=4)
    OpenAIModel('gpt-4.1-mini', base_url='http://127.0.0.1:8000/v1')
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
        checked = read_settings("openai", OpenAISettings, settings)
        self.model = model
        self.name = checked.name or model
        self.endpoint = Endpoint(checked, self.name)
        self.settings = self.endpoint.settings
        self.base_url = self.endpoint.base_url
        self.price = find_price(self.settings, config, self.name, model)
        self._lane = Lane(self.settings, clock=clock, sleep=sleep, rng=rng)

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> OpenAIModel:
        """Build from ``openai:MODEL`` and settings; see :func:`pilotfish.models.load.load_model`."""
        if not rest:
            raise ConfigError("Got 'openai:' without a model.", remedy="Write openai:MODEL")
        return cls(rest, config=config, **settings)

    @property
    def breaker(self) -> Breaker | None:
        """The circuit breaker, where one is set."""
        return self._lane.breaker

    @property
    def identity(self) -> str:
        """What cache keys carry: all that changes the answer to a given request."""
        return cache_identity(self.name, self.model, self.settings.params)

    @property
    def who(self) -> str:
        """The model and its address, for messages."""
        return self.endpoint.who

    def __repr__(self) -> str:
        return f"OpenAIModel({self.model!r}, base_url={self.base_url!r})"

    async def complete(self, request: Request) -> Completion:
        """Answer one request.

        Raises:
            AccessDenied: The key is missing or wrong, or the account is empty.
            RequestRefused: The endpoint says that the request is wrong.
            RateLimited: Still refused for being too many after all retries.
            Unavailable: Not reached, failed, cut off, or too late.
            BadAnswer: The answer is no chat completion.
        """
        body = self._encode(request, stream=False)
        async with self._lane.place():
            began = self._lane.clock()
            deadline = self._lane.deadline()
            raw = await self._lane.persist(lambda: self.endpoint.post(CHAT, body), deadline)
            return self._parse(self._decode(raw), began)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Answer piece by piece; the last chunk carries the whole completion.

        Closing the iterator or cancelling the task closes the connection, so the endpoint can stop.

        Raises:
            Unavailable: It ended early; and what :meth:`complete` raises.
        """
        body = self._encode(request, stream=True)
        async with self._lane.place():
            began = self._lane.clock()
            deadline = self._lane.deadline()
            response = await self._lane.persist(lambda: self.endpoint.open(CHAT, body), deadline)
            try:
                kind = response.headers.get("content-type", "")
                if "json" in kind or "html" in kind:
                    # The endpoint does not stream: a whole answer, or no answer at all.
                    raw = await self._lane.before(deadline, self._read(response))
                    whole = self._parse(self._decode(raw), began)
                    yield Chunk(text=whole.text, completion=whole)
                    return
                assembler = StreamAssembler(self.who, self.name)
                async with aclosing(self._events(response, deadline)) as events:
                    async for data in events:
                        if data == DONE:
                            break
                        if chunk := assembler.add(self._decode(data)):
                            yield chunk
                    else:
                        if not assembler.finished:
                            raise Unavailable(f"{self.who} broke off in mid-stream.")
                yield Chunk(completion=self._parse(assembler.result(), began))
            finally:
                await response.aclose()

    async def forward(self, path: str, body: Json) -> Any:
        """Pass a request of another kind on (``/completions``, ``/embeddings``, ``/responses``).

        Args:
            path: Below the base URL.
            body: The whole body; its ``model`` is replaced by the endpoint's name.

        Returns:
            The decoded JSON; errors as of :meth:`complete`.
        """
        raw = self._encode_body({**body, "model": self.model})
        async with self._lane.place():
            deadline = self._lane.deadline()
            answer = await self._lane.persist(lambda: self.endpoint.post(path, raw), deadline)
            return self._decode(answer)

    async def forward_stream(self, path: str, body: Json) -> AsyncGenerator[bytes, None]:
        """Like :meth:`forward` for a stream of events: yields its bytes as they come."""
        raw = self._encode_body({**body, "model": self.model})
        async with self._lane.place():
            deadline = self._lane.deadline()
            response = await self._lane.persist(lambda: self.endpoint.open(path, raw), deadline)
            try:
                while (piece := await self._piece(response, deadline)) is not None:
                    yield piece
            finally:
                await response.aclose()

    async def aclose(self) -> None:
        """Close the connections of every event loop that still runs."""
        await self.endpoint.aclose()

    async def __aenter__(self) -> OpenAIModel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _encode(self, request: Request, *, stream: bool) -> bytes:
        body = chat_body(
            self.model,
            request,
            self.settings.params,
            stream=stream,
            stream_usage=self.settings.stream_usage,
        )
        return self._encode_body(body)

    def _encode_body(self, body: Json) -> bytes:
        try:
            return msgspec.json.encode(body, enc_hook=dict)
        except (TypeError, ValueError) as error:
            raise RequestRefused(
                f"The request cannot be written as JSON: {error}.",
                remedy="Use text that is valid UTF-8, and JSON values in messages and parameters.",
            ) from error

    async def _read(self, response: Response) -> bytes:
        raw = await self.endpoint.read(response)
        if isinstance(raw, Again):
            raise raw.error
        return raw

    async def _piece(self, response: Response, deadline: float) -> bytes | None:
        try:
            return await self._lane.before(deadline, response.next())
        except ConnectionFailed as error:
            failure = transport_error(error, who=self.who, retry_lost=False, started=True)
            raise failure.error if isinstance(failure, Again) else failure from error

    async def _events(self, response: Response, deadline: float) -> AsyncGenerator[str, None]:
        parser = EventParser()
        try:
            while True:
                piece = await self._piece(response, deadline)
                for data in parser.close() if piece is None else parser.feed(piece):
                    yield data
                if piece is None:
                    return
        except UnicodeDecodeError as error:
            raise BadAnswer(f"{self.who} streamed bytes that are not UTF-8: {error}.") from error

    def _decode(self, raw: bytes | str) -> Any:
        try:
            data = msgspec.json.decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            start = raw[:80] if isinstance(raw, str) else raw[:80].decode("utf-8", "replace")
            start = redact(start, self.endpoint.secrets())
            raise BadAnswer(
                f"{self.who} answered with {start!r}, but expected JSON ({error}).",
                remedy="Check base_url: it must end where /chat/completions begins, e.g. .../v1",
            ) from error
        if isinstance(data, dict) and data.get("error"):
            # Some routers report the failure of the endpoint behind them with HTTP status 200.
            _, code = provider_message(msgspec.json.encode(data))
            status = int(code) if code.isdecimal() and len(code) == 3 else 502
            body = msgspec.json.encode(data)
            failure = status_error(status, body, {}, who=self.who, secrets=self.endpoint.secrets())
            raise failure.error if isinstance(failure, Again) else failure
        return data

    def _parse(self, data: Any, began: float) -> Completion:
        latency = self._lane.clock() - began
        return parse_chat(data, name=self.name, who=self.who, price=self.price, latency=latency)


def cache_identity(name: str, model: str, params: Mapping[str, Any]) -> str:
    """The name, plus the endpoint's model and default parameters where the name hides them.

    >>> cache_identity("gpt", "gpt", {}), cache_identity("big", "gpt", {"temperature": 0})
    ('gpt', 'big=gpt{"temperature":0}')
    """
    from pilotfish.records import canonical_json

    hidden = name if name == model else f"{name}={model}"
    return hidden + (canonical_json(dict(params)) if params else "")
