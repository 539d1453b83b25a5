"""Passing requests on to an endpoint that has the same API, unread but for the books.

The Responses API, embeddings and legacy completions of a remote model go to it as they came; what comes
back goes to the client as it came. Only the model's name is exchanged, and the text, the usage and the
cost are noted for the record.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from typing import Any

import msgspec

from pilotfish.gateway.answer import Turn
from pilotfish.gateway.refusals import Refusal
from pilotfish.models.chat_format import parse_usage
from pilotfish.models.openai import OpenAIModel
from pilotfish.models.sse import DONE, EventParser
from pilotfish.records import Chunk, Completion

Read = Callable[[dict[str, Any]], str]
_ENDS = ("response.completed", "response.incomplete", "response.failed")


async def forward(
    turn: Turn, model: OpenAIModel, path: str, body: dict[str, Any], read: Read
) -> None:
    """Pass a request on, whole or as a stream.

    Args:
        turn: The request.
        model: Who is asked.
        path: Below the endpoint's base URL.
        body: The client's, as it came.
        read: The text in an answer object, "" where there is none.

    Raises:
        Refusal: The answer is no JSON object.
    """
    turn.first = Chunk(model=model.name)
    if body.get("stream"):
        turn.streamed = True
        async with aclosing(_events(turn, model, path, body, read)) as events:
            await turn.events(events)
        return
    data = await model.forward(path, body)
    if not isinstance(data, dict):
        raise Refusal(502, "bad_answer_from_model", "The model's answer is no JSON object.")
    turn.completion = noted(data, model, read(data))
    if "model" in data:
        data["model"] = model.name
    await turn.whole(msgspec.json.encode(data))


def noted(data: dict[str, Any], model: OpenAIModel, text: str) -> Completion:
    """What the record says of a forwarded answer."""
    block = data.get("usage")
    if isinstance(block, dict) and "input_tokens" in block:
        block = {
            "prompt_tokens": block["input_tokens"],
            "completion_tokens": block.get("output_tokens"),
            "prompt_tokens_details": block.get("input_tokens_details"),
        }
    usage, known = parse_usage(block)
    cost = model.price.cost(usage) if model.price and known else None
    return Completion(text, model.name, usage, cost)


async def _events(
    turn: Turn, model: OpenAIModel, path: str, body: dict[str, Any], read: Read
) -> AsyncGenerator[bytes, None]:
    parser = EventParser()
    texts: list[str] = []
    last: dict[str, Any] = {}
    async with aclosing(model.forward_stream(path, body)) as pieces:
        async for piece in pieces:
            for data in parser.feed(piece):
                event = _decoded(data)
                texts.append(read(event))
                # A Responses stream carries its usage inside the whole response, at the end.
                inner = event.get("response")
                found = inner if isinstance(inner, dict) else event
                if found.get("usage"):
                    last = found
                if data == DONE or event.get("type") in _ENDS:
                    turn.completion = noted(last, model, "".join(texts))
            yield piece
    turn.completion = turn.completion or noted(last, model, "".join(texts))


def _decoded(data: str) -> dict[str, Any]:
    try:
        event = msgspec.json.decode(data)
    except msgspec.DecodeError:
        return {}
    return event if isinstance(event, dict) else {}
