"""What the clients ask, and a large model that answers: of fish, by calling tools, in a schema."""

from __future__ import annotations

import importlib
import json
from typing import Any

SAID = "Small fish swim ahead."
ASK = [{"role": "user", "content": "Which fish?"}]
FISH = {"name": "guppy", "length": 3}
CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "measure", "arguments": '{"fish": "guppy"}'},
}
MEASURE = {
    "type": "function",
    "function": {
        "name": "measure",
        "description": "Measure a fish.",
        "parameters": {
            "type": "object",
            "properties": {"fish": {"type": "string"}},
            "required": ["fish"],
            "additionalProperties": False,
        },
        "strict": True,
    },
}


def answer(body: dict[str, Any]) -> str | dict[str, Any]:
    """A large model that calls tools and keeps to schemas."""
    asked = body.get("tools")
    if asked and body["messages"][-1]["role"] == "user":
        call = {**CALL["function"], "name": asked[0]["function"]["name"]}
        return {"content": None, "tool_calls": [{**CALL, "function": call}]}
    if (body.get("response_format") or {}).get("type") == "json_schema":
        return json.dumps(FISH)
    return SAID


def fish_type() -> Any:
    """A pydantic model, as users write them."""
    return importlib.import_module("pydantic").create_model(
        "Fish", name=(str, ...), length=(int, ...)
    )
