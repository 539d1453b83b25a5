"""``/openapi.json``: the gateway's interface as an OpenAPI 3.1 document, for generators and tests.

Request bodies are described by the types that check them, answers by those below; msgspec turns both into
JSON Schema. They name what the gateway itself reads or writes; everything else that a request or an
answer carries is passed through, so every object allows further fields.
"""

from __future__ import annotations

import copy
from functools import lru_cache
from typing import Any, Literal

import msgspec
from msgspec import Struct

from pilotfish import __version__
from pilotfish.gateway.chat import ChatBody
from pilotfish.gateway.completions import CompletionBody
from pilotfish.gateway.embeddings import EmbeddingBody
from pilotfish.gateway.feedback import FeedbackBody
from pilotfish.gateway.pages import Handler, Receive, Scope, Send, page, reply
from pilotfish.gateway.responses import ResponseBody


class ErrorObject(Struct):
    """OpenAI's error object; ``code`` is stable, ``message`` says what mends it."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(Struct):
    """Every error that the gateway answers with."""

    error: ErrorObject


class Choice(Struct):
    """One answer."""

    index: int
    finish_reason: str | None = None


class TokenUsage(Struct):
    """Tokens of a request and its answer."""

    prompt_tokens: int
    total_tokens: int


class ChatCompletion(Struct):
    """An answer; ``model`` is the one that really answered."""

    object: Literal["chat.completion"]
    model: str
    choices: list[Choice]
    usage: TokenUsage | None = None


class TextCompletion(Struct):
    """An answer to /v1/completions."""

    object: Literal["text_completion"]
    model: str
    choices: list[Choice]


class Embedding(Struct):
    """One vector: numbers, or base64 of little-endian float32."""

    object: Literal["embedding"]
    index: int
    embedding: list[float] | str


class EmbeddingList(Struct):
    """Vectors in the order of the inputs."""

    object: Literal["list"]
    data: list[Embedding]
    model: str


class ModelObject(Struct):
    """A served model."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ModelList(Struct):
    """Everything that this key may ask."""

    object: Literal["list"]
    data: list[ModelObject]


class Health(Struct):
    """The process lives."""

    status: Literal["ok"]
    uptime_seconds: float


class ReadyBody(Struct):
    """Whether the gateway should get traffic."""

    status: Literal["ready", "not ready"]
    reasons: list[str]
    warnings: list[str]


TYPES = (
    ChatBody,
    CompletionBody,
    EmbeddingBody,
    ResponseBody,
    FeedbackBody,
    ErrorBody,
    ChatCompletion,
    TextCompletion,
    EmbeddingList,
    ModelObject,
    ModelList,
    Health,
    ReadyBody,
)

HEADERS = {
    "x-request-id": ("string", "Names this exchange in the store, and for feedback."),
    "x-pilotfish-model": ("string", "The model that really answered."),
    "x-pilotfish-reason": ("string", "Why that one: the outermost decision's reason."),
    "x-pilotfish-score": ("number", "The score that was decided on."),
    "x-pilotfish-cost": ("number", "US dollars; absent when unknown."),
    "x-pilotfish-saving": ("number", "US dollars against always large; absent when unknown."),
}
ERRORS = {
    400: "The request is wrong, or a model refused it.",
    401: "No valid key.",
    403: "The key may not do this.",
    404: "No such model.",
    408: "The body came too slowly.",
    413: "The body is too large.",
    429: "Too many requests, or the key's money is spent.",
    500: "The gateway's configuration is wrong.",
    502: "A model answered wrongly.",
    503: "No model or no place is free; see Retry-After.",
    504: "The deadline passed.",
}


def _ref(kind: type) -> dict[str, str]:
    return {"$ref": f"#/components/schemas/{kind.__name__}"}


def _json(schema: Any, description: str) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": schema}}}


def _ask(summary: str, takes: type, gives: Any, *, streams: bool = False) -> dict[str, Any]:
    """A POST operation that is answered by a model."""
    answer = _json(gives, "The answer.")
    if streams:
        # OpenAPI 3.1 has no words for a stream of events; each holds a piece, the last one [DONE].
        answer["content"]["text/event-stream"] = {"schema": {}}
    answer["headers"] = {name: {"$ref": f"#/components/headers/{name}"} for name in HEADERS}
    return {
        "post": {
            "summary": summary,
            "operationId": takes.__name__.removesuffix("Body").lower(),
            "security": [{}, {"key": []}],
            "requestBody": {
                "required": True,
                "content": {"application/json": {"schema": _ref(takes)}},
            },
            "responses": {"200": answer, **_errors()},
        }
    }


def _look(summary: str, name: str, ok: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A GET operation."""
    private = more.pop("private", False)
    security: list[Any] = [{}, {"key": []}, *([{"password": []}] if private else [])]
    responses = {"200": ok, **{str(k): v for k, v in more.pop("responses", {}).items()}}
    return {
        "get": {
            "summary": summary,
            "operationId": name,
            "security": security,
            "responses": responses,
            **more,
        }
    }


# Feedback must say something: the one rule that the types do not hold.
_SAID: dict[str, dict[str, Any]] = {
    "label": {"type": "string"},
    "score": {"type": "number"},
    "comment": {"type": "string", "minLength": 1},
}


def _given(name: str, **kind: Any) -> dict[str, Any]:
    return {"required": [name], "properties": {name: kind}}


def _errors(*statuses: int) -> dict[str, Any]:
    shown = statuses or tuple(ERRORS)
    return {str(status): _json(_ref(ErrorBody), ERRORS[status]) for status in shown}


def _text(kind: str, description: str) -> dict[str, Any]:
    return {"description": description, "content": {kind: {"schema": {"type": "string"}}}}


@lru_cache(maxsize=1)
def document() -> dict[str, Any]:
    """The OpenAPI document."""
    _, schemas = msgspec.json.schema_components(TYPES, ref_template="#/components/schemas/{name}")
    schemas["FeedbackBody"]["anyOf"] = [_given(name, **kind) for name, kind in _SAID.items()]
    model = {
        "name": "model",
        "in": "path",
        "required": True,
        "schema": {"type": "string", "minLength": 1},
    }
    chosen = {
        "name": "range",
        "in": "query",
        "schema": {"type": "string", "enum": ["1h", "24h", "7d"]},
    }
    guarded = _errors(400, 401, 403, 503)
    paths = {
        "/v1/chat/completions": _ask("Ask a model.", ChatBody, _ref(ChatCompletion), streams=True),
        "/v1/completions": _ask(
            "Go on with a text.", CompletionBody, _ref(TextCompletion), streams=True
        ),
        "/v1/embeddings": _ask("Turn texts into vectors.", EmbeddingBody, _ref(EmbeddingList)),
        "/v1/responses": _ask(
            "Ask by the responses interface.", ResponseBody, {"type": "object"}, streams=True
        ),
        "/v1/feedback": _ask("Judge an earlier answer.", FeedbackBody, {"type": "object"}),
        "/v1/models": _look(
            "What is served.",
            "models",
            _json(_ref(ModelList), "The models."),
            responses=_errors(401, 403, 429),
        ),
        "/v1/models/{model}": _look(
            "One served model.",
            "model",
            _json(_ref(ModelObject), "The model."),
            parameters=[model],
            responses=_errors(401, 403, 404, 429),
        ),
        "/healthz": _look("Does the process live?", "healthz", _json(_ref(Health), "It lives.")),
        "/readyz": _look(
            "Should it get traffic?",
            "readyz",
            _json(_ref(ReadyBody), "Yes."),
            responses={503: _json(_ref(ReadyBody), "No, and why.")},
        ),
        "/metrics": _look(
            "Figures for Prometheus.",
            "metrics",
            _text("text/plain", "Prometheus text format."),
            private=True,
            responses=guarded,
        ),
        "/dashboard": _look(
            "The page for people.",
            "dashboard",
            _text("text/html", "The page."),
            private=True,
            parameters=[chosen],
            responses=guarded,
        ),
        "/dashboard/data": _look(
            "The figures of the page.",
            "dashboard_data",
            _json({"type": "object"}, "Figures, and their HTML."),
            private=True,
            parameters=[chosen],
            responses=guarded,
        ),
        "/openapi.json": _look(
            "This document.", "openapi", _json({"type": "object"}, "OpenAPI 3.1.")
        ),
    }
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Pilotfish gateway",
            "version": __version__,
            "summary": "An OpenAI-compatible interface to small models that work with a large one.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "servers": [{"url": "/"}],
        "paths": paths,
        "components": {
            "schemas": schemas,
            "headers": {
                name: {"description": words, "schema": {"type": kind}}
                for name, (kind, words) in HEADERS.items()
            },
            "securitySchemes": {
                "key": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A key of `pilotfish keys create`.",
                },
                "password": {
                    "type": "http",
                    "scheme": "basic",
                    "description": "An admin key as the password.",
                },
            },
        },
    }


_OPEN = ("/healthz", "/readyz", "/openapi.json")


@lru_cache(maxsize=2)
def _encoded(demanded: bool) -> bytes:
    """The document; where keys are demanded, nothing but the open paths goes without one."""
    said = copy.deepcopy(document())
    for path, operations in said["paths"].items():
        for operation in operations.values():
            if path in _OPEN:
                operation["security"] = []
            elif demanded:
                operation["security"].remove({})
    return msgspec.json.encode(said)


async def _openapi(gateway: Any, scope: Scope, receive: Receive, send: Send) -> None:
    await reply(scope, send, _encoded(gateway.access.demanded), "application/json")


ROUTES: dict[str, Handler] = {"/openapi.json": page(_openapi, private=False)}
