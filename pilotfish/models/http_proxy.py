"""Endpoints behind a proxy that the environment names (``HTTPS_PROXY``, ``NO_PROXY``): through httpx.

httpx knows CONNECT, authentication at the proxy and the rules of ``NO_PROXY``; it costs about 1 ms
a call, which next to a proxy's own way is nothing. Endpoints that need no proxy go through
:mod:`pilotfish.models.http1`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from urllib.request import getproxies, proxy_bypass

import httpx

from pilotfish.models.transport import (
    Address,
    ConnectionFailed,
    Lost,
    NotConnected,
    NotHttp,
    Response,
    Silent,
    Undecodable,
)


def needs_proxy(address: Address) -> bool:
    """Whether the environment names a proxy for this address; never for this machine itself."""
    if address.host in ("localhost", "127.0.0.1", "::1"):
        return False
    proxies = getproxies()
    scheme = "https" if address.tls else "http"
    return bool(proxies.get(scheme) or proxies.get("all")) and not proxy_bypass(address.host)


class ProxiedClient:
    """A :class:`pilotfish.models.transport.Client` on httpx.

    Args:
        address: The endpoint.
        connect_timeout: Seconds until connected.
        read_timeout: Seconds between two pieces of an answer; of the two limits the longer counts there.
        first_byte_timeout: Seconds until the first byte; default as between two pieces.
    """

    def __init__(
        self,
        address: Address,
        *,
        connect_timeout: float,
        read_timeout: float,
        first_byte_timeout: float | None = None,
    ) -> None:
        self._first_byte_timeout = first = first_byte_timeout or read_timeout
        self._origin = f"{'https' if address.tls else 'http'}://{address.netloc}"
        self._client = httpx.AsyncClient(
            verify=address.tls or False,
            timeout=httpx.Timeout(max(read_timeout, first), connect=connect_timeout, pool=None),
            limits=httpx.Limits(max_connections=None),
        )

    async def post(self, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        """See :meth:`pilotfish.models.transport.Client.post`."""
        asked = self._client.build_request(
            "POST", self._origin + target, headers=dict(headers), content=body
        )
        try:
            async with asyncio.timeout(self._first_byte_timeout):
                with _translated():
                    return _Response(await self._client.send(asked, stream=True))
        except TimeoutError:
            raise Silent(f"nothing came for {self._first_byte_timeout:g} s") from None

    def close(self) -> None:
        """Close every connection, in the background."""
        loop = asyncio.get_running_loop()
        _closing.add(task := loop.create_task(self._client.aclose()))
        task.add_done_callback(_closing.discard)


_closing: set[asyncio.Task[None]] = set()


class _Response:
    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code
        self.headers: Mapping[str, str] = response.headers
        self._pieces: AsyncIterator[bytes] | None = None

    async def next(self) -> bytes | None:
        """See :meth:`~pilotfish.models.transport.Response.next`."""
        if self._pieces is None:
            self._pieces = self._response.aiter_bytes()
        with _translated():
            return await anext(self._pieces, None)

    async def read(self) -> bytes:
        """See :meth:`~pilotfish.models.transport.Response.read`."""
        with _translated():
            return await self._response.aread()

    async def aclose(self) -> None:
        """See :meth:`~pilotfish.models.transport.Response.aclose`."""
        await self._response.aclose()


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except httpx.HTTPError as error:
        raise _failure(error) from None


def _failure(error: httpx.HTTPError) -> ConnectionFailed:
    words = str(error) or type(error).__name__
    if isinstance(error, (httpx.ConnectError, httpx.ConnectTimeout, httpx.ProxyError)):
        return NotConnected(words)
    if isinstance(error, httpx.TimeoutException):
        return Silent(words)
    if isinstance(error, httpx.DecodingError):
        return Undecodable(words)
    if isinstance(error, httpx.RemoteProtocolError) and "disconnect" not in words:
        return NotHttp(words)
    return Lost(words)
