"""``POST /v1/responses``: passed through to endpoints that have the Responses API.

It keeps state at the provider (``previous_response_id``) and has tools of its own, so it is not
imitated for models without it; those say so.
"""

from __future__ import annotations

from typing import Any

import msgspec

from pilotfish.gateway.answer import Turn
from pilotfish.gateway.bodies import check, read_object
from pilotfish.gateway.forwarding import forward
from pilotfish.gateway.refusals import Refusal
from pilotfish.models.openai import OpenAIModel
from pilotfish.records import Request


class ResponseBody(msgspec.Struct):
    """What responses take; passed on to upstreams that have them."""

    model: str | None = None
    input: str | list[dict[str, Any]] | None = None
    stream: bool | None = None


async def responses(turn: Turn, body: bytes) -> None:
    """Answer a Responses request."""
    data = read_object(body)
    fields = check(data, ResponseBody)
    asked = fields.input
    messages = asked if isinstance(asked, list) else [{"role": "user", "content": asked or ""}]
    params = {k: v for k, v in data.items() if k not in ("model", "input", "stream")}
    turn.request = Request(tuple(messages), params)
    name = await turn.ask_for(fields.model or "")
    model = await turn.gateway.served.ready(name)
    if not isinstance(model, OpenAIModel):
        raise Refusal(
            404,
            "endpoint_not_supported",
            f"The model {name!r} has no Responses API.",
            param="model",
            remedy="Use /v1/chat/completions, or a model with backend openai.",
        )
    await forward(turn, model, "/responses", data, _text)


def _text(data: dict[str, Any]) -> str:
    if data.get("type") == "response.output_text.delta":
        return str(data.get("delta") or "")
    output = data.get("output")
    if not isinstance(output, list):
        return ""
    parts = [
        part.get("text")
        for item in output
        if isinstance(item, dict) and isinstance(item.get("content"), list)
        for part in item["content"]
        if isinstance(part, dict)
    ]
    return "".join(part for part in parts if isinstance(part, str))
