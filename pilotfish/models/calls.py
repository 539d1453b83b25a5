"""Asking models: one at a time, many at once, streamed, and from synchronous code.

Asynchronous code is written once; :func:`wait` runs it from synchronous callers on one background
event loop that lives as long as the process, so connection pools are shared between calls and it also
works inside notebooks, where a loop already runs.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator, Coroutine, Iterable
from typing import Any, TypeVar

from pilotfish.errors import ConfigError, ModelError, PilotfishError
from pilotfish.models.protocols import Model, StreamingModel
from pilotfish.records import Chunk, Completion, Request

T = TypeVar("T")

_lock = threading.Lock()
_loop: asyncio.AbstractEventLoop | None = None
_thread: threading.Thread | None = None


def _background_loop() -> asyncio.AbstractEventLoop:
    global _loop, _thread
    with _lock:
        if _loop is None or _loop.is_closed():
            _loop = asyncio.new_event_loop()
            _thread = threading.Thread(target=_loop.run_forever, name="pilotfish-loop", daemon=True)
            _thread.start()
        return _loop


def _forget_loop() -> None:
    global _lock, _loop
    _lock, _loop = threading.Lock(), None


# A forked child inherits the loop but not its thread, and would wait for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_loop)


def wait(coroutine: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine from synchronous code and return its result; Ctrl-C cancels it.

    On Ctrl-C the coroutine gets up to five seconds to close what it holds; a second one ends that too.

    Raises:
        PilotfishError: Called by code that the background loop itself runs, which would wait for ever.
        KeyboardInterrupt: Ctrl-C, after the coroutine has ended.
    """
    loop = _background_loop()
    if threading.current_thread() is _thread:
        coroutine.close()
        raise PilotfishError(
            "wait() was called from inside a coroutine that wait() runs.",
            remedy="Await the coroutine there instead.",
        )
    ended = threading.Event()
    # Noted by the coroutine itself: Ctrl-C may come before the caller has anything in hand to cancel.
    tasks: list[asyncio.Task[Any]] = []

    async def run() -> T:
        task = asyncio.current_task()
        if task is not None:
            tasks.append(task)
        try:
            return await coroutine
        finally:
            ended.set()

    try:
        return asyncio.run_coroutine_threadsafe(run(), loop).result()
    except KeyboardInterrupt:
        for task in tasks:
            loop.call_soon_threadsafe(task.cancel)
        if tasks:
            ended.wait(timeout=5)
        raise


def ask(model: Model, prompt: str | Request, **params: Any) -> Completion:
    """Ask one question and wait for the answer."""
    request = prompt if isinstance(prompt, Request) else Request.of(prompt, **params)
    return wait(model.complete(request))


class closing:
    """Close an asynchronous iterator at the end of a block, where it can be closed.

    Who stops in the middle of a stream must close it, so that the model's connection is closed at once
    and not when the garbage collector comes by. ``contextlib.aclosing``, for iterators of any kind.
    """

    def __init__(self, chunks: AsyncIterator[Chunk]) -> None:
        self._chunks = chunks

    async def __aenter__(self) -> AsyncIterator[Chunk]:
        return self._chunks

    async def __aexit__(self, *_: object) -> None:
        close = getattr(self._chunks, "aclose", None)
        if close is not None:
            await close()


async def stream(model: Model, request: Request) -> AsyncIterator[Chunk]:
    """Stream any model: piece by piece where it can, else its whole answer as one chunk.

    To stop in the middle, close it: ``async with closing(stream(model, request)) as chunks: ...``.
    """
    if isinstance(model, StreamingModel):
        async with closing(model.stream(request)) as chunks:
            async for chunk in chunks:
                yield chunk
    else:
        completion = await model.complete(request)
        yield Chunk(text=completion.text, completion=completion)


async def complete_many(
    model: Model, requests: Iterable[Request], *, concurrency: int = 16
) -> AsyncIterator[tuple[int, Completion | ModelError]]:
    """Ask many at once; yields ``(position, answer or error)`` as they finish.

    At most ``concurrency`` are under way, and requests are drawn lazily, so a generator of a million
    costs the memory of ``concurrency``. An error of one request does not stop the others; anything
    that is no :class:`ModelError` does, after the rest is cancelled.

    Raises:
        ConfigError: ``concurrency`` is below 1.
    """
    if concurrency < 1:
        raise ConfigError(f"Got concurrency={concurrency}, but expected at least 1.")

    async def one(index: int, request: Request) -> tuple[int, Completion | ModelError]:
        try:
            return index, await model.complete(request)
        except ModelError as error:
            return index, error

    source = enumerate(requests)
    running: set[asyncio.Task[tuple[int, Completion | ModelError]]] = set()
    try:
        while True:
            while len(running) < concurrency:
                item = next(source, None)
                if item is None:
                    break
                running.add(asyncio.ensure_future(one(*item)))
            if not running:
                return
            done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                yield task.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
