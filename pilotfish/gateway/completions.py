"""``POST /v1/completions``, the API before chat: passed on to remote models, else asked as a chat.

Remote models get the prompt as it is, since some of them are base models that only complete. A model
here is a chat model, so its prompt becomes the user's message; parameters that only make sense for bare
completion (``echo``, ``suffix``, ``best_of``) are refused there rather than ignored.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

import msgspec

from pilotfish.gateway.answer import Turn
from pilotfish.gateway.bodies import check, read_object
from pilotfish.gateway.chat_reply import DONE, encode_event, usage_block
from pilotfish.gateway.forwarding import forward
from pilotfish.gateway.refusals import Refusal
from pilotfish.models.calls import stream
from pilotfish.models.openai import OpenAIModel
from pilotfish.models.protocols import Model
from pilotfish.records import Completion, Request

_OURS = frozenset(("model", "prompt", "stream", "stream_options"))
_BARE = ("echo", "suffix", "best_of")
MOST_PROMPTS = 128


class CompletionBody(msgspec.Struct):
    """What completions take; further fields are passed on to the model."""

    prompt: str | list[Any]
    model: str | None = None
    stream: bool | None = None
    stream_options: dict[str, Any] | None = None
    user: str | None = None


async def completions(turn: Turn, body: bytes) -> None:
    """Answer a legacy completions request."""
    data = read_object(body)
    fields = check(data, CompletionBody)
    turn.streamed = bool(fields.stream)
    prompts = [fields.prompt] if isinstance(fields.prompt, str) else fields.prompt
    params = {key: value for key, value in data.items() if key not in _OURS}
    asked = [_request(prompt, params, fields.user or "") for prompt in prompts]
    turn.request = asked[0] if asked else None
    name = await turn.ask_for(fields.model or "")
    model = await turn.gateway.served.ready(name)
    if isinstance(model, OpenAIModel):
        await forward(turn, model, "/completions", data, _text)
        return
    _check_for_chat(prompts, data, turn.streamed)
    if turn.streamed:
        usage = bool((fields.stream_options or {}).get("include_usage"))
        async with aclosing(_events(turn, model, asked[0], include_usage=usage)) as events:
            await turn.events(events)
        return
    answers = await asyncio.gather(*(model.complete(request) for request in asked))
    turn.completion = _joined(answers)
    await turn.whole(msgspec.json.encode(_reply(turn, answers)))


def _request(prompt: Any, params: dict[str, Any], user: str) -> Request:
    words = prompt if isinstance(prompt, str) else msgspec.json.encode(prompt).decode()
    return Request(({"role": "user", "content": words},), params, user=user)


def _check_for_chat(prompts: list[Any], data: dict[str, Any], streamed: bool) -> None:
    for name in _BARE:
        if data.get(name):
            raise Refusal(400, "unsupported_value", f"This model has no {name}.", param=name)
    most = 1 if streamed else MOST_PROMPTS
    if not 1 <= len(prompts) <= most or not all(isinstance(prompt, str) for prompt in prompts):
        raise Refusal(
            400,
            "invalid_value",
            f"Got {len(prompts)} prompts, but expected 1 to {most} texts (no tokens).",
            param="prompt",
        )


def _joined(answers: list[Completion]) -> Completion:
    """One record for all prompts of a request."""
    if len(answers) == 1:
        return answers[0]
    costs = [answer.cost for answer in answers]
    known = [cost for cost in costs if cost is not None]
    first = answers[0]
    return Completion(
        "\n".join(answer.text for answer in answers),
        first.model,
        sum((answer.usage for answer in answers[1:]), first.usage),
        sum(known) if len(known) == len(costs) else None,
        finish_reason=first.finish_reason,
        decisions=first.decisions,
    )


def _head(turn: Turn, model: str) -> dict[str, Any]:
    return {
        "id": f"cmpl-{turn.id}",
        "object": "text_completion",
        "created": int(turn.began),
        "model": model,
    }


def _choice(index: int, text: str, finish_reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": finish_reason}


def _reply(turn: Turn, answers: list[Completion]) -> dict[str, Any]:
    assert turn.completion is not None
    reply = _head(turn, turn.completion.model)
    reply["choices"] = [_choice(i, a.text, a.finish_reason) for i, a in enumerate(answers)]
    usage = usage_block(turn.completion)
    return reply if usage is None else {**reply, "usage": usage}


async def _events(
    turn: Turn, model: Model, request: Request, *, include_usage: bool
) -> AsyncGenerator[bytes, None]:
    async with aclosing(stream(model, request)) as chunks:  # type: ignore[type-var]
        async for chunk in chunks:
            turn.first = turn.first or chunk
            turn.completion = chunk.completion or turn.completion
            if chunk.text:
                named = chunk.completion.model if chunk.completion else chunk.model or turn.asked
                yield encode_event(
                    {**_head(turn, named), "choices": [_choice(0, chunk.text, None)]}
                )
    if turn.completion is None:
        raise Refusal(502, "bad_answer_from_model", "The model's stream ended without an answer.")
    head = _head(turn, turn.completion.model)
    last = encode_event({**head, "choices": [_choice(0, "", turn.completion.finish_reason)]})
    if include_usage:
        last += encode_event({**head, "choices": [], "usage": usage_block(turn.completion)})
    yield last + DONE


def _text(data: dict[str, Any]) -> str:
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices or not isinstance(choices[0], dict):
        return ""
    text = choices[0].get("text")
    return text if isinstance(text, str) else ""
