"""What is written in one turn of the loop leaves in one piece, unless there is too much of it."""

from __future__ import annotations

import asyncio
import socket

from pilotfish.gateway import protocol

PART = b"x" * 1024


async def arrived(parts: int) -> tuple[int, int]:
    """Bytes at the other end before the turn is over, and soon after, when so many parts were written."""
    loop = asyncio.get_running_loop()
    here, there = socket.socketpair()
    there.settimeout(5)
    transport, _ = await loop.create_connection(asyncio.Protocol, sock=here)
    gathering = protocol._Gathering(transport, loop)
    for _ in range(parts):
        gathering.write(PART)
    there.setblocking(False)
    try:
        at_once = len(there.recv(1 << 20))
    except BlockingIOError:
        at_once = 0
    await asyncio.sleep(0)
    there.setblocking(True)
    later = at_once
    while later < parts * len(PART):
        later += len(there.recv(1 << 20))
    transport.close()
    there.close()
    return at_once, later


async def test_little_leaves_when_the_turn_ends() -> None:
    assert await arrived(64) == (0, 64 * 1024)


async def test_much_leaves_before_it_fills_the_memory() -> None:
    assert await arrived(65) == (65 * 1024, 65 * 1024)
