"""The rule that no test leaves the machine is itself tested."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from tests.conftest import REPOSITORY
from tests.offline.sitecustomize import NetworkBlocked

# 192.0.2.0/24 and 2001:db8::/32 are for documentation only and belong to nobody (RFC 5737, RFC 3849).
ELSEWHERE = ("192.0.2.1", 80)


def test_a_plain_socket_is_refused() -> None:
    with socket.socket() as plain, pytest.raises(NetworkBlocked, match=r"192\.0\.2\.1"):
        plain.connect(ELSEWHERE)
    with socket.socket(type=socket.SOCK_DGRAM) as datagram, pytest.raises(NetworkBlocked):
        datagram.sendto(b"x", ELSEWHERE)
    with socket.socket(socket.AF_INET6) as six, pytest.raises(NetworkBlocked):
        six.connect(("2001:db8::1", 80))


def test_names_are_not_looked_up() -> None:
    with pytest.raises(NetworkBlocked):
        socket.getaddrinfo("example.invalid", 80)
    with pytest.raises(NetworkBlocked):
        socket.gethostbyname("example.invalid")


async def test_asyncio_is_refused() -> None:
    with pytest.raises(NetworkBlocked):
        await asyncio.open_connection(*ELSEWHERE)
    with pytest.raises(NetworkBlocked):
        await asyncio.open_connection("example.invalid", 80)


def test_httpx_is_refused() -> None:
    with httpx.Client() as client, pytest.raises(NetworkBlocked):
        client.get("http://192.0.2.1/")


def test_a_child_process_is_refused() -> None:
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert child.returncode == 1
    assert "NetworkBlocked" in child.stderr


def test_loopback_and_unix_sockets_work(tmp_path: Path) -> None:
    for family, address in (
        (socket.AF_INET, ("127.0.0.1", 0)),
        (socket.AF_UNIX, str(tmp_path / "socket")),
    ):
        with socket.socket(family) as server, socket.socket(family) as client:
            server.bind(address)
            server.listen()
            client.connect(server.getsockname())
            accepted, _ = server.accept()
            accepted.close()


def test_each_test_has_its_own_folders() -> None:
    here = Path.cwd().resolve()
    assert not here.is_relative_to(REPOSITORY)
    assert Path(os.environ["PILOTFISH_CACHE"]).is_relative_to(here)
    assert not any(here.iterdir())
    assert not {name for name in os.environ if name.endswith("_API_KEY")}


@pytest.mark.pulled
def test_pulled_tests_keep_the_real_cache() -> None:
    cache = os.environ.get("PILOTFISH_CACHE")
    assert cache is None or not Path(cache).is_relative_to(Path.cwd())
