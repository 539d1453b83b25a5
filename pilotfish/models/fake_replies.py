"""What the fake server says: chat completions whole and streamed, and the catalogue of its faults.

Usage counts words, so that numbers in tests can be worked out by hand. Streams cut the text at words,
tool calls in the middle of their arguments, as real endpoints do.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from enum import StrEnum
from typing import Any

import msgspec

_WORDS = re.compile(r"\s*\S+\s*\Z|\s*\S+|\s+")


class Fault(StrEnum):
    """A way in which :class:`~pilotfish.models.fake_server.FakeServer` misbehaves for one request.

    The first group answers with that HTTP status and an error object; the second breaks the connection or
    the answer. :data:`FAULT_STATUS` has the statuses.
    """

    BAD_REQUEST = "bad-request"
    UNAUTHORIZED = "unauthorized"
    NO_CREDIT = "no-credit"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not-found"
    REQUEST_TIMEOUT = "request-timeout"
    CONFLICT = "conflict"
    UNPROCESSABLE = "unprocessable"
    RATE_LIMITED = "rate-limited"
    QUOTA_SPENT = "quota-spent"
    SERVER_ERROR = "server-error"
    BAD_GATEWAY = "bad-gateway"
    OVERLOADED = "overloaded"

    REFUSE = "refuse"
    """Nothing listens for ``refuse_seconds``; open connections are dropped."""
    RESET = "reset"
    """The connection is reset (TCP RST) after the request was read."""
    DISCONNECT = "disconnect"
    """The connection is closed without an answer."""
    HANG = "hang"
    """No answer ever comes."""
    NOT_HTTP = "not-http"
    """Random bytes instead of an HTTP response."""
    GARBAGE = "garbage"
    """HTTP 200 and a body, or an event, that is no JSON."""
    HTML = "html"
    """HTTP 200 and a web page, as from a captive portal."""
    ERROR_BODY = "error-body"
    """HTTP 200 and an error object, as some routers send."""
    NO_CHOICES = "no-choices"
    """HTTP 200 and JSON without an answer."""
    HALF = "half"
    """The connection is cut in the middle of the body or stream."""
    HALF_CLEAN = "half-clean"
    """The body or stream ends early, but properly as HTTP goes."""
    SLOW_DRIP = "slow-drip"
    """The answer comes in 16 pieces, ``drip_seconds`` apart."""


FAULT_STATUS: Mapping[Fault, tuple[int, str]] = {
    Fault.BAD_REQUEST: (400, "invalid_request_error"),
    Fault.UNAUTHORIZED: (401, "invalid_api_key"),
    Fault.NO_CREDIT: (402, "insufficient_credits"),
    Fault.FORBIDDEN: (403, "forbidden"),
    Fault.NOT_FOUND: (404, "model_not_found"),
    Fault.REQUEST_TIMEOUT: (408, "timeout"),
    Fault.CONFLICT: (409, "conflict"),
    Fault.UNPROCESSABLE: (422, "unprocessable"),
    Fault.RATE_LIMITED: (429, "rate_limit_exceeded"),
    Fault.QUOTA_SPENT: (429, "insufficient_quota"),
    Fault.SERVER_ERROR: (500, "server_error"),
    Fault.BAD_GATEWAY: (502, "bad_gateway"),
    Fault.OVERLOADED: (503, "overloaded"),
}


def split_words(text: str) -> list[str]:
    """Pieces that join to the text, each about a word long.

    >>> split_words("two  words ")
    ['two', '  words ']
    """
    return _WORDS.findall(text)


def chat_reply(body: Mapping[str, Any], answer: str | Mapping[str, Any]) -> dict[str, Any]:
    """A ``chat.completion`` object.

    Args:
        body: The request; ``model``, ``messages``, ``n`` and ``logprobs`` are looked at.
        answer: The text, or a whole message (``{"content": ..., "tool_calls": [...]}``).
    """
    spoken_by = {"role": "assistant", "content": None}
    message: dict[str, Any] = spoken_by | (
        {"content": answer} if isinstance(answer, str) else dict(answer)
    )
    words = split_words(message["content"] or "")
    asked = sum(len(str(m.get("content") or "").split()) for m in body.get("messages", ()))
    choices = []
    for index in range(body.get("n") or 1):
        choice: dict[str, Any] = {
            "index": index,
            "message": message,
            "finish_reason": "tool_calls" if message.get("tool_calls") else "stop",
        }
        if body.get("logprobs"):
            choice["logprobs"] = {"content": [_logprob(word) for word in words]}
        choices.append(choice)
    spoken = len(words) * len(choices)
    return {
        "id": "chatcmpl-fake",
        "object": "chat.completion",
        "created": 0,
        "model": body.get("model", ""),
        "choices": choices,
        "usage": {
            "prompt_tokens": asked,
            "completion_tokens": spoken,
            "total_tokens": asked + spoken,
        },
    }


def stream_events(body: Mapping[str, Any], reply: Mapping[str, Any]) -> Iterator[bytes]:
    """The same answer as server-sent events, one encoded event each, ``[DONE]`` last."""
    head = {key: reply[key] for key in ("id", "created", "model")}
    head["object"] = "chat.completion.chunk"
    yield b": fake server\n\n"
    for choice in reply["choices"]:
        for delta, logprobs in _deltas(choice):
            piece = {"index": choice["index"], "delta": delta, "finish_reason": None}
            if logprobs:
                piece["logprobs"] = logprobs
            yield encode_event({**head, "choices": [piece]})
        last = {"index": choice["index"], "delta": {}, "finish_reason": choice["finish_reason"]}
        yield encode_event({**head, "choices": [last]})
    if (body.get("stream_options") or {}).get("include_usage"):
        yield encode_event({**head, "choices": [], "usage": reply["usage"]})
    yield b"data: [DONE]\n\n"


def encode_event(data: Mapping[str, Any]) -> bytes:
    """One server-sent event."""
    return b"data: " + msgspec.json.encode(data) + b"\n\n"


def _deltas(choice: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], dict[str, Any] | None]]:
    message = choice["message"]
    spoken = (choice.get("logprobs") or {}).get("content")
    yield {"role": "assistant", "content": ""}, None
    for position, word in enumerate(split_words(message["content"] or "")):
        yield {"content": word}, {"content": [spoken[position]]} if spoken else None
    for index, call in enumerate(message.get("tool_calls") or ()):
        arguments = call["function"]["arguments"]
        half = len(arguments) // 2
        start = {**call["function"], "arguments": arguments[:half]}
        yield {"tool_calls": [{**call, "index": index, "function": start}]}, None
        rest = {"index": index, "function": {"arguments": arguments[half:]}}
        yield {"tool_calls": [rest]}, None
    known = {"role", "content", "tool_calls"}
    if others := {key: value for key, value in message.items() if key not in known}:
        yield others, None


def _logprob(word: str) -> dict[str, Any]:
    return {"token": word, "logprob": -0.125, "bytes": list(word.encode()), "top_logprobs": []}
