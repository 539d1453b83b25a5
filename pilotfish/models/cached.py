"""A model that asks only once: answers come from the store, and go there before they are returned.

This is what makes a run restartable: an answer that was paid for is durable before anyone sees it, so
killing the process loses at most the requests that were under way. Identical requests that are under
way at the same time share one call (single flight). Look-ups and commits go in groups
(:mod:`pilotfish.models.grouping`), so a thousand concurrent answers cost a few transactions.

The key is :meth:`Request.key` of what the model calls its identity: its name, and for a remote model
also what the name hides (default parameters, the endpoint's name), so that a changed configuration is not
answered with yesterday's answers. Sampled answers (``temperature`` > 0) are kept like any others: a
request that should be drawn anew carries another ``seed``.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

from pilotfish.errors import BadAnswer
from pilotfish.models.calls import stream as stream_any
from pilotfish.models.grouping import GroupCaller
from pilotfish.models.protocols import Model
from pilotfish.records import Chunk, Completion, Request

Entry = tuple[str, Request, Completion]


class AnswerStore(Protocol):
    """What is needed of a store; :class:`pilotfish.store.Store` is one. Both methods block."""

    def get(self, keys: Sequence[str]) -> dict[str, Completion]:
        """The answers that are known."""
        ...

    def put(self, entries: Iterable[Entry], *, task: str = "", run: str = "") -> object:
        """Write answers in one transaction, durable on return."""
        ...


@dataclass
class _LoopState:
    """What one event loop shares: futures belong to the loop that made them."""

    look_up: GroupCaller[str, Completion | None]
    record: GroupCaller[Entry, None]
    flights: dict[str, _Flight] = field(default_factory=dict)

    def forget(self, key: str, flight: _Flight) -> None:
        """Remove a flight, unless another took its place."""
        if self.flights.get(key) is flight:
            del self.flights[key]

    def landed(self, key: str, flight: _Flight, landing: asyncio.Task[Completion]) -> None:
        """Pass a finished record on to those who wait for it."""
        self.forget(key, flight)
        if landing.cancelled():
            flight.answer.set_result(None)
        elif error := landing.exception():
            flight.answer.set_exception(error)
            # Marks it as seen: perhaps nobody waits.
            flight.answer.exception()
        else:
            flight.answer.set_result(landing.result())


@dataclass
class _Flight:
    """A call under way.

    Attributes:
        answer: Gives the answer; None when whoever asked left before there was one.
        waiting: Callers that await it.
        asking: It may still be cancelled, because nothing was answered yet.
    """

    answer: asyncio.Future[Completion | None]
    waiting: int = 0
    asking: bool = True


class CachedModel:
    """A model with a memory; it can stream.

    Args:
        model: Whom to ask when the store has no answer.
        store: Where answers are kept.
        task: Written with each record.
        run: Written with each record.

    Attributes:
        hits: Answers that cost nothing now: from the store, or shared with an identical call under way.
        misses: Answers that the model was asked for and gave.
        spent: US dollars of the misses whose cost is known.
        unpriced: Misses whose cost is unknown.
    """

    def __init__(self, model: Model, store: AnswerStore, *, task: str = "", run: str = "") -> None:
        self.model = model
        self.name = model.name
        self.identity: str = getattr(model, "identity", model.name)
        self.hits = self.misses = self.unpriced = 0
        self.spent = 0.0
        self._store = store
        self._labels: Mapping[str, str] = {"task": task, "run": run}
        self._lock = threading.Lock()
        self._states: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, _LoopState] = (
            weakref.WeakKeyDictionary()
        )

    def __repr__(self) -> str:
        return f"CachedModel({self.model!r}, hits={self.hits}, misses={self.misses})"

    def key(self, request: Request) -> str:
        """The key under which the answer to this request is kept."""
        return request.key(self.identity)

    async def complete(self, request: Request) -> Completion:
        """The stored answer, marked ``cached``, or a new one that is durable on return.

        When the caller is cancelled, the call goes on if another waits for the same answer; an answer
        that was already given is always recorded.

        Raises:
            ModelError: What the model raised; errors are not kept.
            StoreError: The store cannot be read, or the answer could not be written.
        """
        key = self.key(request)
        state = self._state()
        while True:
            flight = state.flights.get(key)
            leads = flight is None
            if flight is None:
                flight = _Flight(asyncio.get_running_loop().create_future())
                flight.answer = asyncio.create_task(self._fly(key, request, state, flight))
                state.flights[key] = flight
            flight.waiting += 1
            try:
                completion = await asyncio.shield(flight.answer)
            finally:
                flight.waiting -= 1
                if not flight.waiting and flight.asking and not flight.answer.done():
                    state.forget(key, flight)
                    flight.answer.cancel()
            if completion is not None:
                # A follower did not pay: the leader's answer costs once.
                return completion if leads else self._hit(completion)

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """A stored answer as one chunk, or the model's stream, recorded before its last chunk.

        A stream that the caller leaves before its end is not recorded.

        Raises:
            BadAnswer: The model's stream ended without a completion; and what :meth:`complete` raises.
        """
        key = self.key(request)
        state = self._state()
        while shared := state.flights.get(key):
            if completion := await asyncio.shield(shared.answer):
                yield _whole(self._hit(completion))
                return
        flight = _Flight(asyncio.get_running_loop().create_future(), asking=False)
        state.flights[key] = flight
        landing: asyncio.Task[Completion] | None = None
        try:
            if known := await state.look_up(key):
                completion = self._hit(known)
                flight.answer.set_result(completion)
                yield _whole(completion)
                return
            async for chunk in stream_any(self.model, request):
                if chunk.completion is not None:
                    # Followers wait for the record, even when the caller of this stream leaves.
                    landing = asyncio.create_task(self._land(key, request, chunk.completion, state))
                    landing.add_done_callback(partial(state.landed, key, flight))
                    await asyncio.shield(landing)
                    yield chunk
                    return
                yield chunk
            raise BadAnswer(f"{self.name} ended its stream without a completion.")
        finally:
            if landing is None:
                state.forget(key, flight)
                if not flight.answer.done():
                    flight.answer.set_result(None)

    async def _fly(
        self, key: str, request: Request, state: _LoopState, flight: _Flight
    ) -> Completion:
        try:
            known = await state.look_up(key)
            if known is not None:
                return self._hit(known)
            answer = await self.model.complete(request)
            # It is paid for: from here on nobody who loses patience may stop the record.
            flight.asking = False
            return await self._land(key, request, answer, state)
        finally:
            state.forget(key, flight)

    async def _land(
        self, key: str, request: Request, answer: Completion, state: _LoopState
    ) -> Completion:
        self._miss(answer)
        await state.record((key, request, answer))
        return answer

    def _state(self) -> _LoopState:
        loop = asyncio.get_running_loop()
        with self._lock:
            if loop not in self._states:
                self._states[loop] = _LoopState(
                    GroupCaller(self._get_many), GroupCaller(self._put_many)
                )
            return self._states[loop]

    def _get_many(self, keys: list[str]) -> list[Completion | None]:
        found = self._store.get(keys)
        return [found.get(key) for key in keys]

    def _put_many(self, entries: list[Entry]) -> list[None]:
        self._store.put(entries, **self._labels)
        return [None] * len(entries)

    def _hit(self, completion: Completion) -> Completion:
        with self._lock:
            self.hits += 1
        return replace(completion, cached=True)

    def _miss(self, completion: Completion) -> None:
        with self._lock:
            self.misses += 1
            if completion.cost is None:
                self.unpriced += 1
            else:
                self.spent += completion.cost


def _whole(completion: Completion) -> Chunk:
    return Chunk(text=completion.text, completion=completion)
