"""What must not be kept is taken out of exchanges before anything is written.

Redaction (:mod:`pilotfish.models.redaction`) loses what it finds, also for students that are trained on
the traffic later, and it costs time, in the thread that writes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pilotfish.models.redaction import Redact, find_redactor, redact_patterns
from pilotfish.records import Completion, Request
from pilotfish.store.traffic import Exchange

__all__ = ["find_redactor", "redact_patterns", "redacted", "without_texts"]


def redacted(exchange: Exchange, redact: Redact) -> Exchange:
    """The exchange with every text in its request and answer redacted.

    Log-probabilities are left out: they spell the answer out, in pieces that no pattern fits.

    Raises:
        TypeError: The function returned something else than a text.
    """
    request, completion = exchange.request, exchange.completion
    if request is not None:
        request = Request(
            tuple(_walk(dict(message), redact) for message in request.messages),
            _walk(dict(request.params), redact),
            request.task,
            _text(request.user, redact),
            _walk(dict(request.tags), redact),
        )
    if completion is not None:
        completion = replace(
            completion,
            text=_text(completion.text, redact),
            tool_calls=tuple(_walk(dict(call), redact) for call in completion.tool_calls),
            extra=_without_logprobs(_walk(dict(completion.extra), redact)),
            logprobs=None,
        )
    return replace(exchange, request=request, completion=completion)


def without_texts(exchange: Exchange) -> Exchange:
    """The exchange with its numbers, names and decisions alone."""
    completion = exchange.completion
    if completion is not None:
        completion = Completion(
            "",
            completion.model,
            completion.usage,
            completion.cost,
            completion.latency,
            completion.finish_reason,
            decisions=completion.decisions,
            cached=completion.cached,
        )
    return replace(exchange, request=None, completion=completion)


def _text(text: str, redact: Redact) -> str:
    if not text:
        return text
    result = redact(text)
    if not isinstance(result, str):
        raise TypeError(f"Got a {type(result).__name__} from the redact function, expected a text.")
    return result


def _walk(value: Any, redact: Redact) -> Any:
    """The same JSON values with every text redacted; keys of objects stay."""
    if isinstance(value, str):
        return _text(value, redact)
    if isinstance(value, Mapping):
        return {key: _walk(inner, redact) for key, inner in value.items()}
    if isinstance(value, (list, tuple)):
        return [_walk(inner, redact) for inner in value]
    return value


def _without_logprobs(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_logprobs(inner) for k, inner in value.items() if k != "logprobs"}
    if isinstance(value, list):
        return [_without_logprobs(inner) for inner in value]
    return value
