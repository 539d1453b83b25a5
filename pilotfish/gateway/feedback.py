"""``POST /v1/feedback``: a label, a score or a comment on an earlier answer, for later learning."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Annotated

import msgspec

from pilotfish.gateway.bodies import check, read_object
from pilotfish.gateway.pages import Receive, Scope, Send, header, reply
from pilotfish.gateway.refusals import Refusal
from pilotfish.store.feedback import Feedback

if TYPE_CHECKING:
    from pilotfish.gateway.app import Gateway

MOST_BODY = 1 << 16


class FeedbackBody(msgspec.Struct):
    """What a caller says of an earlier answer; ``request_id`` is its ``x-request-id``."""

    request_id: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    label: Annotated[str, msgspec.Meta(max_length=1000)] | None = None
    score: Annotated[float, msgspec.Meta(ge=0, le=1)] | None = None
    comment: Annotated[str, msgspec.Meta(max_length=10_000)] | None = None


async def feedback(gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
    """Store what a caller says of an answer; ``request_id`` is the answer's ``x-request-id``."""
    caller = await gateway.access.admit(header(scope, b"authorization") or None)
    said = check(read_object(await read_body(receive, MOST_BODY)), FeedbackBody)
    if said.label is None and said.score is None and not said.comment:
        raise Refusal(
            400, "invalid_value", "Got none of label, score and comment, but expected one at least."
        )
    comment = gateway.recorder.text(said.comment) or ""
    entry = Feedback(said.request_id, said.label or "", said.score, comment, caller.id)
    await asyncio.to_thread(gateway.store.feedback.add, entry)
    body = msgspec.json.encode({"object": "feedback", "request_id": said.request_id})
    await reply(scope, send, body, "application/json")


async def read_body(receive: Receive, most: int) -> bytes:
    """A small body.

    Raises:
        Refusal: It is larger than ``most`` bytes, or the client left.
    """
    body: bytes = b""
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise Refusal(400, "incomplete_request", "The client left.")
        body = b"".join((body, message["body"]))
        if len(body) > most:
            raise Refusal(413, "body_too_large", f"The body is larger than {most} bytes.")
        if not message["more_body"]:
            return body
