"""Any endpoint with OpenAI's chat completions API, over HTTP.

OpenAI, the compatible endpoints of Anthropic and Google, OpenRouter, vLLM, SGLang, Ollama, llama.cpp's
server and many more. Nothing is translated: messages and parameters go out as they are, and what comes
back is kept whole (:mod:`pilotfish.models.chat_format`).

Why not the official client: it brings its own retries, types and 30 more packages, and this page needs
one POST. What a careful client does is here or next door: waits (:mod:`pilotfish.models.retry`), errors
(:mod:`pilotfish.models.http_errors`), event streams (:mod:`pilotfish.models.sse`).

An answer is asked for again only where no answer had begun, so a retry is not billed twice, and never
after a piece was handed to the caller. The key is read from the environment when the first request is
sent; it is in no attribute, representation, error or record.
"""

from __future__ import annotations

import asyncio
import functools
import os
import random
import ssl
import sys
import threading
import time
import weakref
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any

import httpx
import msgspec

from pilotfish.config import Config
from pilotfish.errors import AccessDenied, BadAnswer, ConfigError, RequestRefused, Unavailable
from pilotfish.models.chat_format import StreamAssembler, chat_body, parse_chat
from pilotfish.models.http_errors import provider_message, redact, status_error, transport_error
from pilotfish.models.retry import Again, Clock, Lane, Sleep
from pilotfish.models.settings import RemoteSettings, Seconds, find_price, read_settings
from pilotfish.models.sse import DONE, EventParser
from pilotfish.records import Chunk, Completion, Request

OFFICIAL_URL = "https://api.openai.com/v1"


class OpenAISettings(RemoteSettings, kw_only=True, frozen=True):
    """Settings of the ``openai`` backend, besides those of every remote one.

    Attributes:
        base_url: Where ``/chat/completions`` is; default ``OPENAI_BASE_URL``, else OpenAI's own. A
            ``user:password@`` in it is sent as basic authentication, in the key's place.
        api_key_env: The environment variable that holds the key. Without a value no key is sent, which is
            right for local servers; OpenAI's own endpoint then answers with an error.
        connect_timeout: Seconds until connected.
        read_timeout: Seconds until the first byte, and between two pieces of an answer.
        headers: Further headers; a value ``"$NAME"`` is read from the environment variable ``NAME``.
        stream_usage: Ask for the usage at the end of a stream; a few old servers refuse that.
    """

    base_url: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    connect_timeout: Seconds = 10.0
    read_timeout: Seconds = 120.0
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    stream_usage: bool = True


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
        self.settings = read_settings("openai", OpenAISettings, settings)
        self.model = model
        self.name = self.settings.name or model
        self.base_url, self._auth = _checked_url(
            self.settings.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL
        )
        # The settings as written may hold a password in the URL; what is kept does not.
        self.settings = msgspec.structs.replace(self.settings, base_url=self.base_url)
        self.price = find_price(self.settings, config, self.name, model)
        self._lane = Lane(self.settings, clock=clock, sleep=sleep, rng=rng)
        self._lock = threading.Lock()
        self._clients: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, httpx.AsyncClient] = (
            weakref.WeakKeyDictionary()
        )

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> OpenAIModel:
        """Build from ``openai:MODEL`` and settings; see :func:`pilotfish.models.load.load_model`."""
        if not rest:
            raise ConfigError("Got 'openai:' without a model.", remedy="Write openai:MODEL")
        return cls(rest, config=config, **settings)

    @property
    def identity(self) -> str:
        """What cache keys carry: all that changes the answer to a given request."""
        return cache_identity(self.name, self.model, self.settings.params)

    @property
    def who(self) -> str:
        """The model and its address, for messages."""
        return f"{self.name} at {self.base_url}"

    def __repr__(self) -> str:
        return f"OpenAIModel({self.model!r}, base_url={self.base_url!r})"

    def __del__(self) -> None:
        # Sockets of a forgotten model are closed by the loop they belong to, while it still runs.
        for loop, client in list(getattr(self, "_clients", {}).items()):
            if loop.is_running() and not sys.is_finalizing():
                asyncio.run_coroutine_threadsafe(client.aclose(), loop)

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
            raw = await self._lane.persist(lambda: self._post(body), deadline)
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
            response = await self._lane.persist(lambda: self._open(body), deadline)
            try:
                kind = response.headers.get("content-type", "")
                if "json" in kind or "html" in kind:
                    # The endpoint does not stream: a whole answer, or no answer at all.
                    raw = await self._lane.before(deadline, self._read(response))
                    whole = self._parse(self._decode(raw), began)
                    yield Chunk(text=whole.text, completion=whole)
                    return
                assembler = StreamAssembler(self.who)
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

    async def aclose(self) -> None:
        """Close the connections of every event loop that still runs."""
        with self._lock:
            clients = list(self._clients.items())
            self._clients.clear()
        here = asyncio.get_running_loop()
        for loop, client in clients:
            if loop is here:
                await client.aclose()
            elif loop.is_running():
                closing = asyncio.run_coroutine_threadsafe(client.aclose(), loop)
                await asyncio.wrap_future(closing)

    async def __aenter__(self) -> OpenAIModel:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def _client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        with self._lock:
            client = self._clients.get(loop)
            if client is None:
                client = self._clients[loop] = self._new_client()
            return client

    def _new_client(self) -> httpx.AsyncClient:
        settings = self.settings
        key = os.environ.get(settings.api_key_env, "")
        if not key and self.base_url == OFFICIAL_URL:
            raise AccessDenied(
                f"{self.who} needs a key, but {settings.api_key_env} is not set.",
                remedy=f"export {settings.api_key_env}=...",
            )
        headers = {"content-type": "application/json", **_expanded(settings.headers)}
        if key:
            headers.setdefault("authorization", f"Bearer {key}")
        for name, value in headers.items():
            if not value.isascii() or not value.isprintable():
                variable = settings.api_key_env if name == "authorization" else name
                raise ConfigError(
                    f"The value of {variable} has characters no HTTP header can carry."
                )
        limit = settings.concurrency
        return httpx.AsyncClient(
            headers=headers,
            auth=self._auth,
            verify=_tls(),
            timeout=httpx.Timeout(
                settings.read_timeout, connect=settings.connect_timeout, pool=None
            ),
            limits=httpx.Limits(max_connections=limit, max_keepalive_connections=limit),
            # A proxy that the environment names cannot reach this machine's own loopback.
            trust_env=httpx.URL(self.base_url).host not in ("localhost", "127.0.0.1", "::1"),
        )

    def _secrets(self) -> list[str]:
        key = os.environ.get(self.settings.api_key_env, "")
        # Short header values are options rather than secrets, and cutting them out would garble text.
        return [key, *(v for v in _expanded(self.settings.headers).values() if len(v) >= 8)]

    def _encode(self, request: Request, *, stream: bool) -> bytes:
        body = chat_body(
            self.model,
            request,
            self.settings.params,
            stream=stream,
            stream_usage=self.settings.stream_usage,
        )
        try:
            return msgspec.json.encode(body, enc_hook=dict)
        except (TypeError, ValueError) as error:
            raise RequestRefused(
                f"The request cannot be written as JSON: {error}.",
                remedy="Use text that is valid UTF-8, and JSON values in messages and parameters.",
            ) from error

    async def _open(self, body: bytes) -> httpx.Response | Again:
        client = self._client()
        request = client.build_request("POST", f"{self.base_url}/chat/completions", content=body)
        try:
            response = await client.send(request, stream=True)
        except httpx.HTTPError as error:
            failure = transport_error(error, who=self.who, retry_lost=self.settings.retry_lost)
        else:
            if response.status_code == 200:
                return response
            try:
                said = await response.aread()
            except httpx.HTTPError:
                # The status says enough; its explanation was lost on the way.
                said = b""
            finally:
                await response.aclose()
            failure = status_error(
                response.status_code, said, response.headers, who=self.who, secrets=self._secrets()
            )
        if isinstance(failure, Again):
            return failure
        raise failure

    async def _post(self, body: bytes) -> bytes | Again:
        response = await self._open(body)
        return response if isinstance(response, Again) else await self._read_or_again(response)

    async def _read_or_again(self, response: httpx.Response) -> bytes | Again:
        try:
            return await response.aread()
        except httpx.HTTPError as error:
            failure = transport_error(
                error, who=self.who, retry_lost=self.settings.retry_lost, started=True
            )
        finally:
            await response.aclose()
        if isinstance(failure, Again):
            return failure
        raise failure

    async def _read(self, response: httpx.Response) -> bytes:
        raw = await self._read_or_again(response)
        if isinstance(raw, Again):
            raise raw.error
        return raw

    async def _events(self, response: httpx.Response, deadline: float) -> AsyncGenerator[str, None]:
        parser = EventParser()
        pieces = response.aiter_bytes()
        try:
            while True:
                try:
                    piece = await self._lane.before(deadline, anext(pieces, None))
                except httpx.HTTPError as error:
                    failure = transport_error(error, who=self.who, retry_lost=False, started=True)
                    raise failure.error if isinstance(failure, Again) else failure from error
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
            start = redact(start, self._secrets())
            raise BadAnswer(
                f"{self.who} answered with {start!r}, but expected JSON ({error}).",
                remedy="Check base_url: it must end where /chat/completions begins, e.g. .../v1",
            ) from error
        if isinstance(data, dict) and data.get("error"):
            # Some routers report the failure of the endpoint behind them with HTTP status 200.
            _, code = provider_message(msgspec.json.encode(data))
            status = int(code) if code.isdecimal() and len(code) == 3 else 502
            body = msgspec.json.encode(data)
            failure = status_error(status, body, {}, who=self.who, secrets=self._secrets())
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


@functools.cache
def _tls() -> ssl.SSLContext:
    """One context for all clients: reading the list of authorities takes 20 to 50 ms."""
    return httpx.create_ssl_context()


def _checked_url(url: str) -> tuple[str, httpx.BasicAuth | None]:
    """The URL without user and password, and these."""
    try:
        parsed = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"Got base_url={url!r}, but expected a URL: {error}.") from None
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(
            f"Got base_url={url!r}, but expected something like 'http://127.0.0.1:8000/v1'."
        )
    auth = httpx.BasicAuth(parsed.username, parsed.password) if parsed.userinfo else None
    bare = str(parsed.copy_with(userinfo=b"")) if auth else url
    return bare.rstrip("/").removesuffix("/chat/completions"), auth


def _expanded(headers: Mapping[str, str]) -> dict[str, str]:
    expanded = {}
    for name, value in headers.items():
        if value.startswith("$"):
            if value[1:] not in os.environ:
                raise ConfigError(
                    f"The header {name!r} is read from {value[1:]}, which is not set.",
                    remedy=f"export {value[1:]}=...",
                )
            value = os.environ[value[1:]]
        expanded[name.lower()] = value
    return expanded
