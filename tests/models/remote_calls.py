"""Remote models that retry fast, and calls to them, streamed or whole."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

from pilotfish.models.fake_server import FakeServer
from pilotfish.models.openai import OpenAIModel
from pilotfish.records import Chunk, Completion, Request

KEY = "sk-very-secret-0123456789"
HELLO = Request.of("Say hello please")


def quick(server: FakeServer, **settings: Any) -> OpenAIModel:
    """A model that retries fast."""
    defaults = {"first_delay": 0.01, "max_delay": 0.02, "read_timeout": 5.0}
    return OpenAIModel("fake", base_url=server.base_url, **{**defaults, **settings})


async def collect(chunks: AsyncIterator[Chunk]) -> tuple[list[str], Completion]:
    pieces = []
    async for chunk in chunks:
        pieces.append(chunk.text)
        if chunk.completion:
            return pieces, chunk.completion
    raise AssertionError("no completion in the last chunk")


async def answer(model: OpenAIModel, request: Request, stream: bool) -> Completion:
    async with model:
        return (
            (await collect(model.stream(request)))[1] if stream else await model.complete(request)
        )
