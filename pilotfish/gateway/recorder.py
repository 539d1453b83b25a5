"""The recorder: every exchange reaches the store, and no request waits for it without need.

Exchanges collect in memory and are written in groups by one thread: a transaction costs as much for one
as for hundreds. *Relaxed*, a group is what came within :data:`INTERVAL`; a request does not wait, a kill
loses at most what came since. *Durable*, a group is whatever waits when the last one is on disk; a
request waits for its own (group commit, DeWitt et al., "Implementation Techniques for Main Memory
Database Systems", 1984), so that one sync of the disk serves all that came during the one before.

Memory is bounded: where the store cannot keep up, requests wait for room; where it fails, a durable
request is told so, and a relaxed one goes on while the oldest records are given up, counted in ``lost``.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

from pilotfish.errors import PilotfishError, StoreError
from pilotfish.gateway.redaction import redacted, without_texts
from pilotfish.records import Request
from pilotfish.store.store import Store
from pilotfish.store.traffic import Exchange
from pilotfish.store.traffic_rows import Group

INTERVAL = 0.02  # seconds that a relaxed group collects; writing holds up the event loop, so: few
MOST_IN_GROUP = 512  # some milliseconds of work, so that the event loop is never kept for long
FIRST_PAUSE, LONGEST_PAUSE = 0.2, 5.0  # seconds between attempts while the store fails

T = TypeVar("T")

_log = logging.getLogger("pilotfish.recorder")


class Recorder:
    """Writes exchanges to a store. Its methods are called on one event loop.

    Args:
        store: Where to; opened with ``durable="full"`` for records that must survive a power cut.
        durable: Whether :meth:`written` is used and failures are its callers' (see the module's text).
        texts: Keep what was asked and answered; without, only numbers, names and decisions.
        private: Says of a request that its texts must not be kept; asked in the writing thread.
        redact: Applied to every text before it is written. Where it fails, the record has no texts.
        max_waiting: Exchanges that may wait in memory.
        max_bytes: Characters of text that may wait in memory.

    Attributes:
        lost: Exchanges that were given up.
        withheld: Exchanges that were recorded without their texts because ``redact`` failed on them.
        failing: Whether the last attempt to write failed.
    """

    def __init__(
        self,
        store: Store,
        *,
        durable: bool,
        texts: bool = True,
        redact: Callable[[str], str] | None = None,
        private: Callable[[Request], bool] | None = None,
        max_waiting: int = 20_000,
        max_bytes: int = 64 << 20,
    ) -> None:
        self.lost = 0
        self.withheld = 0
        self.failing = False
        self._store = store
        self._durable = durable
        self._texts = texts
        self._redact = redact
        self._private = private
        self._max_waiting = max_waiting
        self._max_bytes = max_bytes
        self._queue: deque[tuple[Exchange, int, asyncio.Future[None] | None]] = deque()
        self._bytes = 0
        self._writing = 0
        self._again = False
        self._closing = False
        self._wake = asyncio.Event()
        self._room: list[asyncio.Future[None]] = []
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="pilotfish-recorder")
        self._task: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """Exchanges that are not written yet."""
        return len(self._queue) + self._writing

    @property
    def full(self) -> bool:
        """Whether :meth:`room` would wait."""
        return self.waiting >= self._max_waiting or self._bytes >= self._max_bytes

    def start(self) -> None:
        """Begin to write; on the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._run())

    def put(self, exchange: Exchange) -> None:
        """Hand an exchange over; it is on disk within a second unless the store fails."""
        self._append(exchange, None)

    async def room(self) -> None:
        """Wait until there is room, where the store is slow; a store that fails keeps nobody."""
        while self.full and not self.failing:
            waiter = asyncio.get_running_loop().create_future()
            self._room.append(waiter)
            await waiter

    async def written(self, exchange: Exchange) -> None:
        """Hand an exchange over and return when it is on disk.

        Raises:
            StoreError: It could not be written; nothing of it was.
        """
        promise: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._append(exchange, promise)
        await promise

    def text(self, text: str | None) -> str | None:
        """Any other text as it may be kept, e.g. a comment; None where texts are not kept."""
        if text is None or not self._texts:
            return None
        if self._redact is None:
            return text
        with _Guard() as guard:
            result = self._redact(text)
            return result if isinstance(result, str) else None
        self._note(guard)
        return None

    async def aclose(self) -> None:
        """Write what waits, once more where the store fails, and end the thread."""
        self._closing = True
        self._wake.set()
        if self._task is not None:
            await self._task
        self._thread.shutdown()

    def _append(self, exchange: Exchange, promise: asyncio.Future[None] | None) -> None:
        if self._closing and (self._task is None or self._task.done()):
            raise StoreError(f"The exchange {exchange.id} came after the recorder was closed.")
        size = _size(exchange)
        self._queue.append((exchange, size, promise))
        self._bytes += size
        if self.failing:
            self._drop_oldest()
        self._wake.set()

    def _drop_oldest(self) -> None:
        while self._queue and self.full and self._queue[0][2] is None:
            _, size, _ = self._queue.popleft()
            self._bytes -= size
            self.lost += 1

    async def _run(self) -> None:
        pause = FIRST_PAUSE
        while True:
            if self.failing:
                await self._pause(pause)
                pause = min(2 * pause, LONGEST_PAUSE)
            else:
                await self._wake.wait()
                pause = FIRST_PAUSE
                if not (self._durable or self._closing):
                    await asyncio.sleep(INTERVAL)
            if self._queue:
                await self._write_waiting()
            elif self.failing:  # readiness depends on it, so it is not left to the next request
                self._judge(await self._attempt(self._store.check))
            if self._closing and (self.failing or not self._queue):
                self.lost += len(self._queue)
                self._queue.clear()
                return
            if not self._queue:
                self._wake.clear()

    async def _pause(self, seconds: float) -> None:
        """Wait, but not longer than until a caller waits or the end has come."""
        step = 0.05
        for _ in range(round(seconds / step)):
            if self._closing or (self._durable and self._queue):
                return
            await asyncio.sleep(step)

    async def _write_waiting(self) -> None:
        while self._queue:
            await self._write_group()
            few = not (self._durable or self._closing) and len(self._queue) < MOST_IN_GROUP
            if self.failing or few:  # a relaxed group collects for its interval
                return

    async def _write_group(self) -> None:
        """Write the oldest exchanges, and tell those who wait for theirs."""
        queue = self._queue
        group = [queue.popleft() for _ in range(min(len(queue), MOST_IN_GROUP))]
        self._writing = len(group)
        job = await self._attempt(self._write, [x for x, _, _ in group], self._again)
        self._writing = 0
        error = self._judge(job)
        refused = job.result() if error is None else {}
        kept = []
        for row in group:
            exchange, size, promise = row
            if error is not None and promise is None:
                kept.append(row)
                continue
            self._bytes -= size
            reason = refused.get(exchange.id) if error is None else error
            if promise is None:
                self.lost += reason is not None
            elif not promise.done():
                promise.set_exception(_named(reason)) if reason else promise.set_result(None)
        queue.extendleft(reversed(kept))
        self._again = bool(kept)
        if self.failing:
            self._drop_oldest()
        self._make_room()

    async def _attempt(self, work: Callable[..., T], *arguments: Any) -> asyncio.Future[T]:
        """Work in the thread, done; whatever it raised is kept in the future."""
        job = asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)
        await asyncio.wait([job])
        return job

    def _judge(self, job: asyncio.Future[Any]) -> BaseException | None:
        """Note whether the store fails; its error, if so."""
        error = job.exception()
        failed = error is not None
        if failed and not self.failing:
            _log.error("Writing to the store fails: %s", _named(error))
        elif self.failing and not failed:
            _log.warning("Writing to the store works again; %d records were lost.", self.lost)
        self.failing = failed
        return error

    def _make_room(self) -> None:
        if self.failing or not self.full:
            waiters, self._room = self._room, []
            for waiter in waiters:
                if not waiter.done():
                    waiter.set_result(None)

    def _write(self, exchanges: Sequence[Exchange], again: bool) -> dict[str, PilotfishError]:
        """In the thread: prepare and write; what cannot be a record, by id."""
        group = Group(map(self._prepared, exchanges))
        self._store.traffic.write(group, again=again)
        for error in group.refused.values():
            _log.error("%s", error)
        return dict(group.refused)

    def _prepared(self, exchange: Exchange) -> Exchange:
        if not self._texts:
            return without_texts(exchange)
        if self._private and exchange.request is not None and self._private(exchange.request):
            return without_texts(exchange)
        if self._redact is None:
            return exchange
        with _Guard() as guard:
            return redacted(exchange, self._redact)
        self._note(guard)
        return without_texts(exchange)

    def _note(self, guard: _Guard) -> None:
        if not self.withheld:  # its message could quote the text, so only its kind is told
            kind = type(guard.error).__name__
            _log.error("The redact function raised %s; such records are kept without texts.", kind)
        self.withheld += 1


class _Guard:
    """Keeps whatever a user's function raises, which can be anything, from ending the recorder."""

    error: BaseException | None = None

    def __enter__(self) -> _Guard:
        return self

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> bool:
        self.error = error
        return isinstance(error, Exception)


def _named(error: BaseException | None) -> PilotfishError:
    if isinstance(error, PilotfishError):
        return error
    return StoreError(f"The record could not be written: {type(error).__name__}.")


def _size(exchange: Exchange) -> int:
    """About how many bytes an exchange holds; the texts that are long in practice are counted."""
    size = 1000
    if exchange.completion is not None:
        size += len(exchange.completion.text)
    if exchange.request is not None:
        for message in exchange.request.messages:
            content = message.get("content")
            if isinstance(content, str):
                size += len(content)
            elif isinstance(content, (list, tuple)):
                size += sum(len(v) for p in content for v in _texts_of(p))
    return size


def _texts_of(part: Any) -> list[str]:
    if not isinstance(part, dict):
        return []
    image = part.get("image_url")
    values = [part.get("text"), image.get("url") if isinstance(image, dict) else image]
    return [value for value in values if isinstance(value, str)]
