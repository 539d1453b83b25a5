"""The latest requests as the dashboard shows them: who decided what, and texts where they are kept."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pilotfish.figures import money
from pilotfish.gateway.dashboard.view import Recent, clip, seconds
from pilotfish.store.store import Store
from pilotfish.store.traffic import Recorded


def latest(store: Store, limit: int) -> list[Recent]:
    """The requests written last, newest first."""
    return [_shown(row) for row in store.traffic.recent(limit)]


def _shown(row: Recorded) -> Recent:
    completion = row.completion
    prompt = answer = None
    if row.request is not None:
        prompt = clip(row.request.prompt or _last_text(row.request.messages))
        answer = clip(_answer(completion)) if completion is not None else ""
    return Recent(
        id=row.id,
        time=int(row.time),
        asked=row.asked or "(no model)",
        model=row.model,
        endpoint=row.endpoint,
        streamed=row.streamed,
        task=row.task,
        caller=row.caller,
        status=row.status,
        error=row.error,
        latency=seconds(row.latency),
        first_byte="" if row.first_byte is None else seconds(row.first_byte),
        cost="" if completion is None else money(row.cost),
        baseline="" if row.baseline is None else money(row.baseline),
        prompt_tokens=row.prompt_tokens,
        completion_tokens=row.completion_tokens,
        decided=row.decided.replace("|", " · "),
        decisions=() if completion is None else completion.decisions,
        prompt=prompt,
        answer=answer,
    )


def _last_text(messages: tuple[Mapping[str, Any], ...]) -> str:
    for message in reversed(messages):
        if isinstance(message.get("content"), str):
            return str(message["content"])
    return ""


def _answer(completion: Any) -> str:
    calls = [call.get("function") or {} for call in completion.tool_calls]
    said = [f"{call.get('name', '?')}({call.get('arguments', '')})" for call in calls]
    return "\n".join(filter(None, [completion.text, *said]))
