"""Chat completions as the OpenAI API writes them, to and from :class:`Completion`.

One parser serves whole and streamed answers: a stream's deltas are assembled into the object that the
endpoint would have sent at once. Nothing is dropped: what a :class:`Completion` has no field for is
kept in ``extra`` as it came (empty values aside):

- top-level fields (``id``, ``created``, ``model``, ``system_fingerprint``, ...) under their own names,
- ``extra["message"]`` and ``extra["choice"]``: further fields of the first answer (``refusal``,
  ``reasoning_content``, ``content_filter_results``, ...),
- ``extra["choices"]``: the second and later answers when ``n`` > 1,
- ``extra["usage"]``: the usage block when it says more than three numbers.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilotfish.config import Price
from pilotfish.errors import BadAnswer
from pilotfish.records import Chunk, Completion, Json, Request, Usage

_CONTROLLED = ("stream", "stream_options")
_PLAIN_USAGE = {"prompt_tokens", "completion_tokens", "total_tokens"}


def chat_body(
    model: str, request: Request, defaults: Json, *, stream: bool = False, stream_usage: bool = True
) -> dict[str, Any]:
    """The JSON body of a request; parameters are passed on unchanged, known to us or not.

    Args:
        model: The endpoint's name of the model.
        request: Its parameters win over ``defaults``.
        defaults: Parameters of the model's settings.
        stream: Ask for a stream. Whether to stream is decided by the call, so ``stream`` in the
            parameters is ignored.
        stream_usage: Ask for the usage at the end of a stream.
    """
    params = {**defaults, **request.params}
    body: dict[str, Any] = {"model": model, "messages": list(request.messages)}
    body |= {key: value for key, value in params.items() if key not in _CONTROLLED}
    if stream:
        body["stream"] = True
        options = {"include_usage": True} if stream_usage else {}
        options |= params.get("stream_options") or {}
        if options:
            body["stream_options"] = options
    return body


def parse_chat(
    data: Any, *, name: str, who: str = "", price: Price | None = None, latency: float = 0.0
) -> Completion:
    """Build a completion from a ``chat.completion`` object.

    Args:
        data: The decoded JSON.
        name: Our name of the model, for ``Completion.model``; the endpoint's is kept in ``extra``.
        who: The model and where it lives, for messages; default: its name.
        price: Gives the cost; without it, or without usage, the cost is unknown (None).
        latency: Seconds the call took.

    Raises:
        BadAnswer: It is not such an object.
    """
    who = who or name
    choices = data.get("choices") if isinstance(data, dict) else None
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        raise BadAnswer(
            f"{who} answered with {_glimpse(data)}, but expected an object with 'choices'.",
            remedy="Check base_url: it must end where /chat/completions begins, e.g. .../v1",
        )
    first = choices[0]
    message = first.get("message")
    if not isinstance(message, dict):
        raise BadAnswer(f"{who} answered with a choice without a message: {_glimpse(first)}.")
    text = _text(message.get("content"), who)
    tool_calls = message.get("tool_calls") or ()
    logprobs = first.get("logprobs")
    tokens = logprobs.get("content") if isinstance(logprobs, dict) else None
    usage, known = parse_usage(data.get("usage"))
    return Completion(
        text=text,
        model=name,
        usage=usage,
        cost=price.cost(usage) if price and known else None,
        latency=latency,
        finish_reason=str(first.get("finish_reason") or "stop"),
        logprobs=tuple(tokens) if tokens else None,
        tool_calls=tuple(tool_calls),
        extra=_extra(data, choices, message),
    )


def parse_usage(block: Any) -> tuple[Usage, bool]:
    """Usage from the endpoint's block, and whether it gave one.

    Cached tokens are read from ``prompt_tokens_details.cached_tokens`` (OpenAI, vLLM, SGLang), else from
    ``prompt_cache_hit_tokens`` (DeepSeek).
    """
    if not isinstance(block, dict):
        return Usage(), False
    details = block.get("prompt_tokens_details") or {}
    cached = details.get("cached_tokens") or block.get("prompt_cache_hit_tokens")
    usage = Usage(
        prompt_tokens=_count(block.get("prompt_tokens")),
        completion_tokens=_count(block.get("completion_tokens")),
        cached_tokens=_count(cached),
    )
    return usage, usage != Usage()


class StreamAssembler:
    """Collects a stream's chunks into the object that would have come at once.

    Args:
        name: The model's name and address, for error messages.
        model: What chunks say of who is answering.
    """

    def __init__(self, name: str, model: str = "") -> None:
        self._name = name
        self._model = model
        self._top: dict[str, Any] = {}
        self._choices: dict[int, dict[str, Any]] = {}

    @property
    def finished(self) -> bool:
        """Whether every answer that began has said why it ended."""
        return bool(self._choices) and all(
            choice.get("finish_reason") for choice in self._choices.values()
        )

    def add(self, event: Any) -> Chunk | None:
        """Take one decoded event.

        Returns:
            What the answers gained, or None when the event tells of none (the usage at the end).

        Raises:
            BadAnswer: It is not a ``chat.completion.chunk`` object.
        """
        choices = event.get("choices", []) if isinstance(event, dict) else None
        if not isinstance(choices, list) or not all(isinstance(choice, dict) for choice in choices):
            raise BadAnswer(f"{self._name} streamed {_glimpse(event)}, but expected 'choices'.")
        self._top |= {k: v for k, v in event.items() if k != "choices" and v is not None}
        text, first = "", {}
        for choice in choices:
            index = _count(choice.get("index"))
            delta = choice.get("delta") or {}
            if not isinstance(delta, dict):
                raise BadAnswer(f"{self._name} streamed a delta of {_glimpse(delta)}.")
            self._add_choice(index, choice, delta)
            if index == 0 and delta:
                text, first = _text(delta.get("content"), self._name), delta
        return Chunk(text, first, event=event, model=self._model) if choices else None

    def result(self) -> dict[str, Any]:
        """The assembled ``chat.completion`` object; empty choices when nothing came."""
        choices = [self._choices[index] for index in sorted(self._choices)]
        for choice in choices:
            calls = choice["message"].pop("_calls", None)
            if calls:
                choice["message"]["tool_calls"] = [calls[index] for index in sorted(calls)]
        return {**self._top, "choices": choices}

    def _add_choice(self, index: int, choice: Json, delta: Json) -> None:
        mine = self._choices.setdefault(index, {"index": index, "message": {"content": ""}})
        for key, value in choice.items():
            if key == "logprobs" and isinstance(value, dict):
                kept = mine.setdefault("logprobs", {"content": []})
                kept["content"] += value.get("content") or []
            elif key not in ("delta", "index", "logprobs") and value is not None:
                mine[key] = value
        message = mine["message"]
        for key, value in delta.items():
            if key == "tool_calls":
                for position, call in enumerate(value or ()):
                    calls = message.setdefault("_calls", {})
                    _merge_call(calls.setdefault(call.get("index", position), {}), call)
            elif key == "role":
                message["role"] = value
            elif value is not None:
                message[key] = _joined(message.get(key), value)


def _merge_call(mine: dict[str, Any], part: Json) -> None:
    for key, value in part.items():
        if key == "function" and isinstance(value, dict):
            function = mine.setdefault("function", {"name": "", "arguments": ""})
            # Some servers repeat the name in every piece; only the arguments come in pieces.
            function["name"] = value.get("name") or function["name"]
            function["arguments"] += value.get("arguments") or ""
        elif key != "index" and value is not None:
            mine[key] = value


def _joined(old: Any, new: Any) -> Any:
    if isinstance(old, str) and isinstance(new, str):
        return old + new
    if isinstance(old, list) and isinstance(new, list):
        return [*old, *new]
    if isinstance(old, dict) and isinstance(new, dict):
        return {**old, **{key: _joined(old.get(key), value) for key, value in new.items()}}
    return new if old is None or old == "" else old


def _text(content: Any, name: str) -> str:
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, list):
        parts = (part.get("text", "") for part in content if isinstance(part, dict))
        return "".join(part for part in parts if isinstance(part, str))
    raise BadAnswer(f"{name} answered with content of {_glimpse(content)}, but expected text.")


def _extra(data: Json, choices: list[Any], message: Json) -> dict[str, Any]:
    read = {"choices", "usage", "object"}
    extra = {key: value for key, value in data.items() if key not in read and value is not None}
    inner: dict[str, Any] = {
        "choice": _rest(choices[0], {"index", "message", "finish_reason", "logprobs"}),
        "message": _rest(message, {"role", "content", "tool_calls"}),
        "choices": choices[1:],
    }
    if isinstance(message.get("content"), list):
        inner["message"]["content"] = message["content"]
    usage = data.get("usage")
    if isinstance(usage, dict) and _rest(usage, _PLAIN_USAGE):
        inner["usage"] = usage
    return extra | {key: value for key, value in inner.items() if value}


def _rest(block: Mapping[str, Any], read: set[str]) -> dict[str, Any]:
    return {
        key: value
        for key, value in block.items()
        if key not in read and value is not None and value != []
    }


def _count(value: Any) -> int:
    return value if isinstance(value, int) and value > 0 else 0


def _glimpse(value: Any) -> str:
    return f"{type(value).__name__} {str(value)[:80]!r}"
