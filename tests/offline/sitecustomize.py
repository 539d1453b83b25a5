"""Refuse every connection that leaves this machine, here and in every Python child process.

The rule hangs on Python's audit events, which cannot be removed once added and which asyncio, httpx and
every other library pass through. The folder of this file is put on ``PYTHONPATH``, and Python imports a
module of this name when it starts, so that the children of a test live by the same rule. A refusal is no
``OSError`` on purpose: code that turns a failed connection into an answer must not swallow it.
"""

from __future__ import annotations

import ipaddress
import sys
from typing import Any


class NetworkBlocked(RuntimeError):
    """A test tried to leave this machine."""


def _stays_here(host: Any) -> bool:
    if isinstance(host, (bytes, bytearray)):
        host = host.decode("ascii", "replace")
    if host in (None, "", "localhost", "0.0.0.0", "::"):
        return True
    try:
        address = ipaddress.ip_address(str(host).split("%")[0])
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return (mapped or address).is_loopback


def _watch(event: str, arguments: tuple[Any, ...]) -> None:
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        target = arguments[1]
        if not isinstance(target, tuple):  # a path of a Unix socket, or None: already connected
            return
        host = target[0]
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    else:
        return
    if not _stays_here(host):
        raise NetworkBlocked(
            f"A test asked for {host!r} ({event}), but tests stay on this machine. Use a server on "
            "127.0.0.1 (pilotfish.models.fake_server), or pull the file first and mark the test 'pulled'."
        )


_watching = getattr(sys, "_tests_stay_offline", None)
if _watching is None:
    sys._tests_stay_offline = NetworkBlocked  # type: ignore[attr-defined]
    sys.addaudithook(_watch)
else:  # a process that was started under the rule, such as a worker of pytest-xdist
    NetworkBlocked = _watching  # type: ignore[misc]
