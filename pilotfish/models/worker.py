"""One thread that computes, for an event loop that must not: calls in turn, cancelled between steps.

A model in this process keeps a core busy for seconds. Its calls run one after another in a thread of
their own; each gets a ``check`` to call between its steps, which ends it when nobody waits any more.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from pilotfish.records import Chunk, Completion, Decision

T = TypeVar("T")
Check = Callable[[], None]
Emit = Callable[[str], None]


class _Cancelled(Exception):
    """The caller no longer waits."""


class Worker:
    """Runs one call at a time.

    Args:
        name: Of the model, for the thread's name and the pieces of its streams.
        lock: Held during each call; others may hold it, too.
    """

    def __init__(self, name: str, lock: contextlib.AbstractContextManager[object] | None = None):
        self.name = name
        self._lock = lock or contextlib.nullcontext()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"pilotfish-{name}")

    def close(self) -> None:
        """End the thread, after what is under way."""
        self._thread.shutdown()

    async def run(self, work: Callable[[Check], T]) -> T:
        """What ``work`` returns; cancelling the task ends it at its next check."""
        cancelled = threading.Event()

        def check() -> None:
            if cancelled.is_set():
                raise _Cancelled

        def locked() -> T:
            check()
            with self._lock:
                return work(check)

        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, locked)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    async def stream(
        self, work: Callable[[Check, Emit], Completion], decisions: tuple[Decision, ...] = ()
    ) -> AsyncIterator[Chunk]:
        """What ``work`` emits, piece by piece; the last chunk carries the completion it returns.

        Args:
            work: Called in the thread.
            decisions: What is decided before the first piece.
        """
        loop = asyncio.get_running_loop()
        pieces: asyncio.Queue[str | None] = asyncio.Queue()

        def put(text: str | None) -> None:
            loop.call_soon_threadsafe(pieces.put_nowait, text)

        answer = asyncio.ensure_future(self.run(lambda check: work(check, put)))
        answer.add_done_callback(lambda _: pieces.put_nowait(None))
        try:
            while (text := await pieces.get()) is not None:
                delta = {"content": text}
                yield Chunk(text=text, delta=delta, model=self.name, decisions=decisions)
            yield Chunk(completion=await answer)
        finally:
            answer.cancel()
