"""A completion as the OpenAI API writes it: whole, and as a stream of events.

What an endpoint sent besides (other choices, log-probabilities, its id, its fingerprint) goes out
as it came; only ``model`` is replaced, by the name of the model that really answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from pilotfish.records import Chunk, Completion, Json, Usage

DONE = b"data: [DONE]\n\n"
# What a completion's ``extra`` holds for other readers than the client.
_INNER = frozenset(
    ("choice", "choices", "message", "usage", "answer_usage", "score", "reused", "why")
)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value)
    if hasattr(value, "item"):
        return value.item()  # a NumPy scalar
    raise TypeError(f"Got a {type(value).__name__} in an answer, but expected JSON values.")


_encode = msgspec.json.Encoder(enc_hook=_plain).encode


def encode_event(event: Json) -> bytes:
    """One server-sent event."""
    return b"data: " + _encode(event) + b"\n\n"


def usage_block(completion: Completion) -> dict[str, Any] | None:
    """The ``usage`` object, with what the endpoint said besides; None when nothing is known."""
    usage = completion.usage
    if usage == Usage():
        return None
    block = dict(completion.extra.get("usage") or {})
    block["prompt_tokens"] = usage.prompt_tokens
    block["completion_tokens"] = usage.completion_tokens
    block["total_tokens"] = usage.prompt_tokens + usage.completion_tokens
    if usage.cached_tokens and "prompt_tokens_details" not in block:
        block["prompt_tokens_details"] = {"cached_tokens": usage.cached_tokens}
    return block


def chat_completion(completion: Completion, request_id: str, created: int) -> bytes:
    """The ``chat.completion`` object of a completion.

    Args:
        completion: The answer.
        request_id: Makes the object's id where the endpoint gave none.
        created: Seconds since the epoch, likewise.
    """
    extra = completion.extra
    message: dict[str, Any] = {"role": "assistant", "content": completion.text}
    if completion.tool_calls:
        message["content"] = completion.text or None
        message["tool_calls"] = completion.tool_calls
    if "message" in extra:
        message |= extra["message"]
    choice: dict[str, Any] = {
        "index": 0,
        "message": message,
        "logprobs": _logprobs(completion),
        "finish_reason": completion.finish_reason,
    }
    if "choice" in extra:
        choice |= extra["choice"]
    reply: dict[str, Any] = {
        "id": f"chatcmpl-{request_id}",
        "object": "chat.completion",
        "created": created,
    }
    for key, value in extra.items():
        if key not in _INNER:
            reply[key] = value
    reply["model"] = completion.model
    reply["choices"] = [choice, *extra.get("choices", ())]
    usage = usage_block(completion)
    if usage is not None:
        reply["usage"] = usage
    return _encode(reply)


def _logprobs(completion: Completion) -> Json | None:
    return {"content": completion.logprobs} if completion.logprobs else None


class EventWriter:
    """Writes a stream's events.

    Args:
        request_id: Makes the events' id where the endpoint gives none.
        created: Seconds since the epoch, likewise.
        model: The model that was asked for, until it is known who answers.
        include_usage: The client wants the usage: an event of its own at the end, null in all others.
    """

    def __init__(self, request_id: str, created: int, model: str, *, include_usage: bool) -> None:
        self._head: dict[str, Any] = {
            "id": f"chatcmpl-{request_id}",
            "object": "chat.completion.chunk",
            "created": created,
            "model": model,
        }
        self._include_usage = include_usage
        self._begun = self._finished = self._relayed = False

    def chunk(self, chunk: Chunk) -> bytes:
        """The events of a chunk; b"" when there is nothing to say."""
        completion = chunk.completion
        if completion is not None:
            self._head["model"] = completion.model
        elif chunk.model:
            self._head["model"] = chunk.model
        if chunk.event is not None:
            return self._passed(chunk.event)
        if not (chunk.text or chunk.delta):
            return b""
        delta = dict(chunk.delta) or {"content": chunk.text}
        return self._piece(delta)

    def last(self, completion: Completion) -> bytes:
        """What is left to say when all is known: the end of the answer, its usage, and ``[DONE]``."""
        self._head["model"] = completion.model
        said = []
        if not self._finished:
            if completion.tool_calls and not self._begun:
                calls = [{"index": i, **call} for i, call in enumerate(completion.tool_calls)]
                said.append(self._piece({"content": None, "tool_calls": calls}))
            # Of all tokens at once: a piece of text may end within one. An endpoint's events had theirs.
            logprobs = None if self._relayed else _logprobs(completion)
            said.append(self._piece({}, completion.finish_reason, logprobs))
        if self._include_usage:
            said.append(
                encode_event({**self._head, "choices": [], "usage": usage_block(completion)})
            )
        return b"".join((*said, DONE))

    def _passed(self, event: Json) -> bytes:
        self._begun = self._relayed = True
        passed = {**self._head, **event, "model": self._head["model"]}
        passed.pop("usage", None)
        if self._include_usage:
            passed["usage"] = None
        for choice in event["choices"]:
            if choice.get("finish_reason"):
                self._finished = True
        for key in ("id", "created", "system_fingerprint"):
            if key in event:
                self._head[key] = event[key]
        return encode_event(passed)

    def _piece(
        self, delta: dict[str, Any], finish_reason: str | None = None, logprobs: Json | None = None
    ) -> bytes:
        if not self._begun:
            self._begun = True
            delta = {"role": "assistant", **delta}
        choice = {"index": 0, "delta": delta, "logprobs": logprobs, "finish_reason": finish_reason}
        event = {**self._head, "choices": [choice]}
        if self._include_usage:
            event["usage"] = None
        return encode_event(event)
