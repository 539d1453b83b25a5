"""One endpoint with OpenAI's manners: its address, its key, and POST to a path below it.

Everything about the connection is here, so that a model (:mod:`pilotfish.models.openai`) only says
what it sends and reads. The key is read from the environment when the first request is sent; it is
in no attribute, representation, error or record. What is left of the caller's deadline goes along
as ``x-request-timeout`` (seconds), so that an endpoint which knows it, such as another gateway,
stops when nobody waits any more.
"""

from __future__ import annotations

import asyncio
import base64
import functools
import os
import ssl
import sys
import threading
import weakref
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pilotfish.errors import AccessDenied, ConfigError
from pilotfish.models.deadline import remaining
from pilotfish.models.http1 import Pool
from pilotfish.models.http_errors import status_error, transport_error
from pilotfish.models.retry import Again
from pilotfish.models.settings import RemoteSettings, Seconds
from pilotfish.models.transport import Address, Client, ConnectionFailed, Response

if TYPE_CHECKING:
    import httpx

import msgspec

OFFICIAL_URL = "https://api.openai.com/v1"


class OpenAISettings(RemoteSettings, kw_only=True, frozen=True):
    """Settings of the ``openai`` backend, besides those of every remote one.

    Attributes:
        base_url: Where ``/chat/completions`` is; default ``OPENAI_BASE_URL``, else OpenAI's own. A
            ``user:password@`` in it is sent as basic authentication, in the key's place.
        api_key_env: The environment variable that holds the key. Without a value no key is sent, which is
            right for local servers; OpenAI's own endpoint then answers with an error.
        connect_timeout: Seconds until connected.
        read_timeout: Seconds between two pieces of an answer, and until the first byte unless
            ``first_byte_timeout`` says otherwise.
        headers: Further headers; a value ``"$NAME"`` is read from the environment variable ``NAME``.
        stream_usage: Ask for the usage at the end of a stream; a few old servers refuse that.
    """

    base_url: str = ""
    api_key_env: str = "OPENAI_API_KEY"
    connect_timeout: Seconds = 10.0
    read_timeout: Seconds = 120.0
    headers: dict[str, str] = msgspec.field(default_factory=dict)
    stream_usage: bool = True


class Endpoint:
    """POST to paths below a base URL, with its key, on pooled connections of each event loop.

    Args:
        settings: Where it is and how long to wait.
        name: The model's name, for messages.

    Attributes:
        base_url: Without user, password and ``/chat/completions``.

    Raises:
        ConfigError: The URL is none.
    """

    def __init__(self, settings: OpenAISettings, name: str) -> None:
        url = settings.base_url or os.environ.get("OPENAI_BASE_URL") or OFFICIAL_URL
        self.base_url, self._basic = _checked_url(url)
        # The settings as written may hold a password in the URL; what is kept does not.
        self.settings = msgspec.structs.replace(settings, base_url=self.base_url)
        self.who = f"{name} at {self.base_url}"
        parsed = _parse(self.base_url)
        self._prefix = parsed.raw_path.decode("ascii").rstrip("/")
        self._tls = parsed.scheme == "https"
        self._host = parsed.raw_host.decode("ascii")
        self._port = parsed.port or (443 if self._tls else 80)
        self._netloc = parsed.netloc.decode("ascii")
        self._lock = threading.Lock()
        self._clients: weakref.WeakKeyDictionary[
            asyncio.AbstractEventLoop, tuple[Client, dict[str, str]]
        ] = weakref.WeakKeyDictionary()

    def __del__(self) -> None:
        # Sockets of a forgotten endpoint are closed by the loop they belong to, while it still runs.
        for loop, (client, _) in list(getattr(self, "_clients", {}).items()):
            if loop.is_running() and not sys.is_finalizing():
                loop.call_soon_threadsafe(client.close)

    async def open(self, path: str, body: bytes) -> Response | Again:
        """Send a request; the answer's head has come and says 200.

        Args:
            path: Below the base URL, e.g. ``"/chat/completions"``.
            body: JSON.

        Returns:
            The response, to be read and closed; or :class:`Again`.

        Raises:
            ModelError: What is final; see :mod:`pilotfish.models.http_errors`.
        """
        client, headers = self._client()
        left = remaining()
        if left is not None:
            headers = {**headers, "x-request-timeout": f"{left:.3f}"}
        try:
            response = await client.post(self._prefix + path, headers, body)
        except ConnectionFailed as error:
            failure = transport_error(error, who=self.who, retry_lost=self.settings.retry_lost)
        else:
            if response.status == 200:
                return response
            try:
                said = await response.read()
            except ConnectionFailed:
                # The status says enough; its explanation was lost on the way.
                said = b""
            finally:
                await response.aclose()
            failure = status_error(
                response.status, said, response.headers, who=self.who, secrets=self.secrets()
            )
        if isinstance(failure, Again):
            return failure
        raise failure

    async def post(self, path: str, body: bytes) -> bytes | Again:
        """Send a request and read the whole answer; errors as of :meth:`open`."""
        response = await self.open(path, body)
        return response if isinstance(response, Again) else await self.read(response)

    async def read(self, response: Response) -> bytes | Again:
        """The whole body of an open response, which is closed then; errors as of :meth:`open`."""
        try:
            return await response.read()
        except ConnectionFailed as error:
            failure = transport_error(
                error, who=self.who, retry_lost=self.settings.retry_lost, started=True
            )
        finally:
            await response.aclose()
        if isinstance(failure, Again):
            return failure
        raise failure

    def secrets(self) -> list[str]:
        """What must appear in no message."""
        key = os.environ.get(self.settings.api_key_env, "")
        # Short header values are options rather than secrets, and cutting them out would garble text.
        return [key, *(v for v in _expanded(self.settings.headers).values() if len(v) >= 8)]

    async def aclose(self) -> None:
        """Close the idle connections of every event loop that still runs."""
        with self._lock:
            clients = list(self._clients.items())
            self._clients.clear()
        here = asyncio.get_running_loop()
        for loop, (client, _) in clients:
            if loop is here:
                client.close()
            elif loop.is_running():
                loop.call_soon_threadsafe(client.close)
        # One turn of the loop, in which closed transports let go of their sockets.
        await asyncio.sleep(0)

    def _client(self) -> tuple[Client, dict[str, str]]:
        loop = asyncio.get_running_loop()
        with self._lock:
            found = self._clients.get(loop)
            if found is None:
                for other in [loop for loop in self._clients if loop.is_closed()]:
                    del self._clients[other]
                found = self._clients[loop] = self._new_client(), self._headers()
            return found

    def _new_client(self) -> Client:
        from pilotfish.models.http_proxy import ProxiedClient, needs_proxy

        address = Address(self._host, self._port, self._netloc, _tls() if self._tls else None)
        kind = ProxiedClient if needs_proxy(address) else Pool
        return kind(
            address,
            connect_timeout=self.settings.connect_timeout,
            read_timeout=self.settings.read_timeout,
            first_byte_timeout=self.settings.first_byte_timeout,
        )

    def _headers(self) -> dict[str, str]:
        settings = self.settings
        key = os.environ.get(settings.api_key_env, "")
        if not key and self.base_url == OFFICIAL_URL:
            raise AccessDenied(
                f"{self.who} needs a key, but {settings.api_key_env} is not set.",
                remedy=f"export {settings.api_key_env}=...",
            )
        headers = {
            "accept": "*/*",
            "user-agent": "pilotfish",
            "content-type": "application/json",
            **_expanded(settings.headers),
        }
        if self._basic:
            headers["authorization"] = self._basic
        elif key:
            headers.setdefault("authorization", f"Bearer {key}")
        for name, value in headers.items():
            if not value.isascii() or not value.isprintable():
                variable = settings.api_key_env if name == "authorization" else name
                raise ConfigError(
                    f"The value of {variable} has characters no HTTP header can carry."
                )
        return headers


@functools.cache
def _tls() -> ssl.SSLContext:
    """One context for all clients: reading the list of authorities takes 20 to 50 ms."""
    import httpx

    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _parse(url: str) -> httpx.URL:
    import httpx

    try:
        return httpx.URL(url)
    except httpx.InvalidURL as error:
        raise ConfigError(f"Got base_url={url!r}, but expected a URL: {error}.") from None


def _checked_url(url: str) -> tuple[str, str]:
    """The URL without user and password, and the basic authentication that these make ("" without)."""
    parsed = _parse(url)
    if parsed.scheme not in ("http", "https") or not parsed.host:
        raise ConfigError(
            f"Got base_url={url!r}, but expected something like 'http://127.0.0.1:8000/v1'."
        )
    basic = ""
    if parsed.userinfo:
        pair = f"{parsed.username}:{parsed.password}".encode()
        basic = f"Basic {base64.b64encode(pair).decode('ascii')}"
        url = str(parsed.copy_with(userinfo=b""))
    return url.rstrip("/").removesuffix("/chat/completions"), basic


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
