"""What carries a request to an endpoint, and the ways in which that fails.

Two things do: :mod:`pilotfish.models.http1`, fast, and :mod:`pilotfish.models.http_proxy`, through
a proxy. What lies above knows only these names, so an error means the same whoever carried the
request.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class ConnectionFailed(Exception):
    """An exchange that did not end well; :mod:`pilotfish.models.http_errors` says what it means."""


class NotConnected(ConnectionFailed):
    """No connection: refused, unknown host, TLS, or longer than the connect timeout."""


class Silent(ConnectionFailed):
    """Connected, but nothing came for longer than the read timeout."""


class Lost(ConnectionFailed):
    """The connection ended before the answer did."""


class NotHttp(ConnectionFailed):
    """What came is not HTTP."""


class Undecodable(ConnectionFailed):
    """A compressed body that does not decompress."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where an endpoint is.

    Attributes:
        host: Name or IP address, without brackets.
        port: TCP port.
        netloc: ``Host`` header, e.g. ``"[::1]:8000"``.
        tls: The context for https; None for http.
    """

    host: str
    port: int
    netloc: str
    tls: ssl.SSLContext | None = None


class Response(Protocol):
    """An answer whose head has come; the body is taken with :meth:`read` or :meth:`next`."""

    status: int

    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name."""
        ...

    async def next(self) -> bytes | None:
        """The next piece of the body, as it comes; None at its end."""
        ...

    async def read(self) -> bytes:
        """The rest of the body."""
        ...

    async def aclose(self) -> None:
        """Be done with it; an answer that is not complete loses its connection."""
        ...


class Client(Protocol):
    """Connections to one endpoint, for one event loop."""

    async def post(self, target: str, headers: Mapping[str, str], body: bytes) -> Response:
        """Send a request and wait for the head of the answer.

        Args:
            target: Path and query.
            headers: Besides ``host``, ``content-length`` and ``accept-encoding``.
            body: The whole body.

        Raises:
            ConnectionFailed: One of its kinds.
        """
        ...

    def close(self) -> None:
        """Close every idle connection; those under way end with their answer."""
        ...
