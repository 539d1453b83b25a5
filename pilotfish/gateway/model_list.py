"""``GET /v1/models`` and ``/v1/models/{id}``: what this caller may ask, as the OpenAI API lists it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from pilotfish.errors import UnknownName
from pilotfish.gateway.pages import Receive, Scope, Send, header, reply

if TYPE_CHECKING:
    from pilotfish.gateway.app import Gateway

PREFIX = "/v1/models/"


async def list_models(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with the list."""
    rows = await _rows(gateway, scope)
    body = msgspec.json.encode({"object": "list", "data": list(rows.values())})
    await reply(scope, send, body, "application/json")


async def show_model(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer with one model."""
    rows = await _rows(gateway, scope)
    name = scope["path"].removeprefix(PREFIX)
    if name not in rows:
        raise UnknownName("model", name, rows)
    await reply(scope, send, msgspec.json.encode(rows[name]), "application/json")


async def _rows(gateway: Gateway, scope: Scope) -> dict[str, dict[str, Any]]:
    caller = await gateway.access.admit(header(scope, b"authorization") or None)
    return {
        row.name: {
            "id": row.name,
            "object": "model",
            "created": row.created,
            "owned_by": row.owned_by,
            "kind": row.kind,
        }
        for row in gateway.served.names()
        if caller.may_use(row.name)
    }
