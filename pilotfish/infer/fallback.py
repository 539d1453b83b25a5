"""Fallback chain: models in order of preference; the next one answers when the one before cannot.

A chain is a model. What makes it go on is a failure of the model (not reached, too many requests, a bad
answer, no access), never a request that is wrong in itself, and never after a piece of the answer was
given to the caller. Each member has a circuit breaker (:mod:`pilotfish.models.breaker`): one that keeps
failing is passed over at once, and one that asked for patience by ``Retry-After`` is left alone for
that time. When every member is out, the last one's error is raised, or that of the last breaker, with
the time to wait.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Literal, TypeVar

import msgspec

from pilotfish.config import Config
from pilotfish.errors import ConfigError, ModelError, RateLimited, Unavailable
from pilotfish.infer.trail import Trail, failure_reason
from pilotfish.models.breaker import Breaker
from pilotfish.models.calls import closing, stream
from pilotfish.models.protocols import Model
from pilotfish.models.retry import healthy
from pilotfish.models.settings import BreakerSettings, Seconds, read_settings
from pilotfish.records import Chunk, Completion, Request

T = TypeVar("T")


class FallbackSettings(msgspec.Struct, kw_only=True, frozen=True):
    """Settings of a ``fallback`` in pilotfish.toml, besides ``models`` (in order of preference).

    Attributes:
        patience: Seconds to wait for a member's answer, or for the first piece of a stream, before the
            next one is asked; the last one is not hurried. Default: each member's own timeouts.
        breaker: When a member is passed over; ``"off"``: never.
        large: The model that would answer everything without the chain; default the last.
    """

    patience: Seconds | None = None
    breaker: BreakerSettings | Literal["off"] = msgspec.field(default_factory=BreakerSettings)
    large: str = ""


class Fallback:
    """Models in order of preference.

    Args:
        models: At least one.
        patience: See :class:`FallbackSettings`.
        breaker: Settings of each member's breaker; None: no breakers.
        name: The name of the composite.

    Attributes:
        breakers: One for each model, or none at all.

    Raises:
        ConfigError: There are no models.
    """

    def __init__(
        self,
        models: Sequence[Model],
        *,
        patience: float | None = None,
        breaker: BreakerSettings | None = BreakerSettings(),  # noqa: B008 (it is frozen)
        name: str = "fallback",
    ) -> None:
        if not models:
            raise ConfigError("Got a fallback chain without models, but expected at least one.")
        self.models = list(models)
        self.patience = patience
        self.breakers = [Breaker(breaker) for _ in models] if breaker else []
        self.name = name

    @classmethod
    def from_members(
        cls, name: str, members: Sequence[Model], settings: Mapping[str, Any], config: Config
    ) -> Fallback:
        """Build from ``[models.NAME]`` with ``kind = "fallback"``; see :class:`FallbackSettings`."""
        checked = read_settings("fallback", FallbackSettings, settings)
        breaker = None if isinstance(checked.breaker, str) else checked.breaker
        return cls(members, patience=checked.patience, breaker=breaker, name=name)

    async def complete(self, request: Request) -> Completion:
        """The first answer that can be had; ``decisions`` says who was passed over, and why.

        Raises:
            ModelError: No member answered, or the request itself was refused.
        """
        async with aclosing(self._answer(request, whole=True)) as chunks:
            (answer,) = [chunk.completion async for chunk in chunks]
        assert answer is not None
        return answer

    async def stream(self, request: Request) -> AsyncIterator[Chunk]:
        """Stream the first answer that begins; what fails after that is raised."""
        async with aclosing(self._answer(request, whole=False)) as chunks:
            async for chunk in chunks:
                yield chunk

    async def _answer(self, request: Request, *, whole: bool) -> AsyncGenerator[Chunk, None]:
        trail = Trail(self.name)
        failed: ModelError | None = None
        for position, model in enumerate(self.models):
            breaker = self.breakers[position] if self.breakers else None
            ticket = breaker.try_admit() if breaker else 0
            if ticket is None:
                trail.skip(model.name, "breaker-open")
                continue
            patience = None if position == len(self.models) - 1 else self.patience
            began, begun = time.perf_counter(), False
            good: bool | None = (
                None  # what this says of the member; nothing, when the caller leaves
            )
            try:
                async with aclosing(_begun(model, request, whole, patience)) as chunks:
                    async for chunk in chunks:
                        begun = True
                        if chunk.completion is not None:
                            good = True
                        yield trail.signed(chunk, "failover" if position else "first")
                return
            except ModelError as error:
                good, reason = healthy(error), failure_reason(error)
                if begun or reason is None:
                    raise
                if isinstance(error, RateLimited) and error.retry_after and breaker:
                    breaker.rest(error.retry_after)
                trail.fail(model.name, reason, time.perf_counter() - began)
                failed = error
            finally:
                if breaker:
                    breaker.record(ticket, good)
        if failed is not None:
            raise failed
        wait = min(breaker.wait for breaker in self.breakers)
        raise Unavailable(
            f"No member of {self.name} was asked: each has failed too often of late.",
            retry_after=wait,
        )


async def _begun(
    model: Model, request: Request, whole: bool, patience: float | None
) -> AsyncGenerator[Chunk, None]:
    """A member's answer, from the moment on when there is something in it.

    A stream's first piece often is a role without words: nothing is lost if it fails after that.
    """
    if whole:
        yield Chunk(completion=await _within(patience, model.complete(request), model.name))
        return
    held: list[Chunk] = []
    async with closing(stream(model, request)) as chunks:
        while chunk := await _within(patience, anext(chunks, None), model.name):
            held.append(chunk)
            if _says_something(chunk):
                break
        for chunk in held:
            yield chunk
        async for chunk in chunks:
            yield chunk


async def _within(seconds: float | None, coming: Awaitable[T], name: str) -> T:
    if seconds is None:
        return await coming
    timer = asyncio.timeout(seconds)
    try:
        async with timer:
            return await coming
    except TimeoutError as error:
        if not timer.expired():
            raise
        raise Unavailable(f"{name} did not begin to answer within {seconds:g} s.") from error


def _says_something(chunk: Chunk) -> bool:
    if chunk.text or chunk.completion is not None:
        return True
    return any(value for key, value in chunk.delta.items() if key != "role")
