"""``POST /v1/chat/completions``: the endpoint that everyone uses, whole and streamed.

Only what the gateway itself reads is checked here; everything else in the body, known to us or not,
goes to the model as it came, and the model judges it.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated, Any

import msgspec

from pilotfish.gateway.answer import Turn
from pilotfish.gateway.bodies import check, read_object
from pilotfish.gateway.chat_reply import EventWriter, chat_completion
from pilotfish.gateway.pages import header
from pilotfish.gateway.refusals import Refusal
from pilotfish.models.calls import stream
from pilotfish.models.protocols import Model
from pilotfish.records import Request

_OURS = frozenset(("model", "messages", "stream"))


class ChatMessage(msgspec.Struct):
    """A message: text, parts, or no content beside tool calls."""

    role: str
    content: str | list[dict[str, Any]] | None = None


class ChatBody(msgspec.Struct):
    """What chat completions take; further fields are passed on to the model."""

    messages: Annotated[list[ChatMessage], msgspec.Meta(min_length=1)]
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    user: str | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    temperature: float | None = None
    top_p: float | None = None
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = None
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    response_format: dict[str, Any] | None = None


async def chat(turn: Turn, body: bytes) -> None:
    """Answer a chat request."""
    data = read_object(body)
    fields = check(data, ChatBody)
    turn.streamed = bool(fields.stream)
    turn.task = header(turn.scope, b"x-pilotfish-task")
    params = {key: value for key, value in data.items() if key not in _OURS}
    include_usage = False
    if fields.stream_options is not None:
        # Our own books need the usage whether the client does or not, so it is always asked for.
        options = dict(fields.stream_options)
        include_usage = options.pop("include_usage", False) is True
        params["stream_options"] = options
    assert turn.caller is not None  # or it would not be here
    whose = {"caller": turn.caller.id} if turn.caller.id else {}
    turn.request = Request(
        tuple(data["messages"]), params, task=turn.task, user=fields.user or "", tags=whose
    )
    name = await turn.ask_for(fields.model or "")
    model = turn.gateway.served.model(name)
    if turn.streamed:
        async with aclosing(_events(turn, model, include_usage)) as events:
            await turn.events(events)
        return
    turn.completion = await model.complete(turn.request)
    await turn.whole(chat_completion(turn.completion, turn.id, int(turn.began)))


async def _events(turn: Turn, model: Model, include_usage: bool) -> AsyncGenerator[bytes, None]:
    assert turn.request is not None
    writer = EventWriter(turn.id, int(turn.began), turn.asked, include_usage=include_usage)
    async with aclosing(stream(model, turn.request)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            turn.first = turn.first or chunk
            if chunk.completion is not None:
                turn.completion = chunk.completion
            if said := writer.chunk(chunk):
                yield said
    if turn.completion is None:
        raise Refusal(502, "bad_answer_from_model", "The model's stream ended without an answer.")
    yield writer.last(turn.completion)
