"""The gateway's application: its parts, its routes, its start and its end.

A plain ASGI application: a dictionary from path to handler, and nothing between the server and the
handler that a request would have to pay for.
"""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilotfish.config import Config
from pilotfish.errors import PilotfishError
from pilotfish.gateway.access import Access
from pilotfish.gateway.admission import Admission
from pilotfish.gateway.answer import Turn, Work
from pilotfish.gateway.chat import chat
from pilotfish.gateway.checks import Check, Checks
from pilotfish.gateway.completions import completions
from pilotfish.gateway.cors import cors_headers, preflight_headers
from pilotfish.gateway.dashboard.handlers import ROUTES as DASHBOARD
from pilotfish.gateway.embeddings import embeddings
from pilotfish.gateway.feedback import feedback
from pilotfish.gateway.health import ROUTES as HEALTH
from pilotfish.gateway.metrics import ROUTES as METRICS
from pilotfish.gateway.model_list import PREFIX, list_models, show_model
from pilotfish.gateway.openapi import ROUTES as OPENAPI
from pilotfish.gateway.pages import Handler, Receive, Scope, Send, header, refuse
from pilotfish.gateway.recorder import Recorder
from pilotfish.gateway.redaction import find_redactor
from pilotfish.gateway.refusals import Refusal, refusal_of
from pilotfish.gateway.responses import responses
from pilotfish.gateway.served import Served
from pilotfish.gateway.settings import ServeSettings
from pilotfish.loop.marks import Unrecorded
from pilotfish.store.store import Store, open_store

_REMOTE = ("openai", "litellm")
SWITCH_SECONDS = 0.0005


@dataclass
class Gateway:
    """What handlers need: every part of a running gateway, one object per worker.

    Attributes:
        config: What pilotfish.toml declares.
        settings: What ``[serve]`` says.
        store: Where exchanges go.
        served: The models by name.
        access: Who may ask.
        admission: How many at once.
        recorder: Writes exchanges to the store.
        checks: Compares a share of the small answers with the large model's.
        started_at: Seconds since the epoch.
    """

    config: Config
    settings: ServeSettings
    store: Store
    served: Served
    access: Access
    admission: Admission
    recorder: Recorder
    checks: Checks
    started_at: float = field(default_factory=time.time)

    @functools.cached_property
    def encoders(self) -> frozenset[str]:
        """Names of the encoders that are served."""
        return frozenset(row.name for row in self.served.names() if row.kind == "encoder")

    @classmethod
    async def open(cls, config: Config, settings: ServeSettings) -> Gateway:
        """Start the parts that need an event loop.

        Raises:
            PilotfishError: The configuration or the store cannot be used.
        """
        store = await asyncio.to_thread(
            open_store, config.store, durable="full" if settings.durable else "process"
        )
        served = Served(with_room(config, settings), default=settings.default)
        access = Access(store, settings)
        admission = Admission(settings.max_active, settings.max_waiting, settings.wait_seconds)
        recorder = Recorder(
            store,
            durable=settings.durable,
            texts=settings.store_texts,
            redact=find_redactor(settings.redact),
            private=Unrecorded(store),
        )
        recorder.start()
        checks = Checks(
            served,
            lambda check: store.checks.add(kept_check(check, recorder.text)),
            share=settings.check_share,
        )
        return cls(config, settings, store, served, access, admission, recorder, checks)

    async def aclose(self) -> None:
        """Write what is left, and close everything."""
        await self.checks.aclose()
        await self.recorder.aclose()
        await self.access.aclose()
        await self.served.aclose()
        await asyncio.to_thread(self.store.close)


def with_room(config: Config, settings: ServeSettings) -> Config:
    """The configuration with as many places at each remote model as the gateway has itself.

    A model's own default (16) suits a batch job; here the queue is the gateway's, and a second one
    behind it would only hide the wait.
    """
    models = {
        name: {"concurrency": settings.max_active, **table}
        if table.get("backend") in _REMOTE
        else table
        for name, table in config.models.items()
    }
    return dataclasses.replace(config, models=models)


def kept_check(check: Check, text: Callable[[str | None], str | None]) -> Check:
    """A check with its texts as they may be kept."""
    return dataclasses.replace(
        check, small_answer=text(check.small_answer), large_answer=text(check.large_answer)
    )


class App:
    """The ASGI application.

    Args:
        config: What pilotfish.toml declares.
        settings: What ``[serve]`` says.

    Attributes:
        gateway: Set while it runs.
        failure: Why it could not start.
    """

    def __init__(self, config: Config, settings: ServeSettings) -> None:
        self.config = config
        self.settings = settings
        self.gateway: Gateway | None = None
        self.failure: PilotfishError | None = None
        self._pages = pages()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request, or start and stop."""
        if scope["type"] == "lifespan":
            await self._live(receive, send)
            return
        gateway = self.gateway
        assert gateway is not None
        path, method = scope["path"], scope["method"]
        asked = ASKED.get(path)
        if asked is not None and method == "POST":
            await Turn(gateway, asked[0], scope, receive, send).run(asked[1])
            return
        if self.settings.cors:
            send = _with_cors(scope, send, self.settings.cors)
        await self._cold(gateway, scope, receive, send)

    async def _cold(self, gateway: Gateway, scope: Scope, receive: Receive, send: Send) -> None:
        path, method = scope["path"], scope["method"]
        handler, methods = self._find(path)
        try:
            if handler is None and not methods:
                raise Refusal(
                    404, "unknown_path", f"No such path: {path[:200]}.", remedy="See /openapi.json."
                )
            if method == "OPTIONS" and self.settings.cors:
                head = preflight_headers(scope, self.settings.cors, methods)
                await send({"type": "http.response.start", "status": 204, "headers": head})
                await send({"type": "http.response.body", "body": b""})
                return
            if handler is None or method not in methods:
                raise _wrong_method(scope, methods)
            await handler(gateway, scope, receive, send)
        except PilotfishError as error:
            refusal = refusal_of(error)
            allow = ((b"allow", ", ".join(methods).encode()),) if refusal.status == 405 else ()
            await refuse(scope, send, refusal, allow)

    def _find(self, path: str) -> tuple[Handler | None, tuple[str, ...]]:
        if path in ASKED:
            return None, ("POST",)
        if path in self._pages:
            return self._pages[path]
        if path.startswith(PREFIX) and len(path) > len(PREFIX):
            return show_model, ("GET", "HEAD")
        return None, ()

    async def _live(self, receive: Receive, send: Send) -> None:
        await receive()
        # The recorder's thread must not keep the event loop waiting for Python's usual 5 ms.
        sys.setswitchinterval(SWITCH_SECONDS)
        try:
            self.gateway = await Gateway.open(self.config, self.settings)
        except PilotfishError as error:
            self.failure = error
            await send({"type": "lifespan.startup.failed", "message": str(error)})
            return
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await self.gateway.aclose()
        await send({"type": "lifespan.shutdown.complete"})


# What asks a model: path -> name in the records, and the work.
ASKED: Mapping[str, tuple[str, Work]] = {
    "/v1/chat/completions": ("chat", chat),
    "/v1/completions": ("completions", completions),
    "/v1/embeddings": ("embeddings", embeddings),
    "/v1/responses": ("responses", responses),
}


def pages() -> dict[str, tuple[Handler, tuple[str, ...]]]:
    """Every other exact path: its handler and its methods."""
    look = ("GET", "HEAD")
    found: dict[str, tuple[Handler, tuple[str, ...]]] = {
        "/v1/models": (list_models, look),
        "/v1/feedback": (feedback, ("POST",)),
    }
    for routes in (HEALTH, OPENAPI, DASHBOARD, METRICS):
        found |= {path: (handler, look) for path, handler in routes.items()}
    return found


def _wrong_method(scope: Scope, methods: tuple[str, ...]) -> Refusal:
    return Refusal(
        405,
        "method_not_allowed",
        f"Got {scope['method']} {scope['path'][:200]}, but expected {' or '.join(methods)}.",
    )


def _with_cors(scope: Scope, send: Send, origins: list[str]) -> Send:
    async def sending(message: Any) -> None:
        if message["type"] == "http.response.start":
            headers = [*message["headers"], *cors_headers(scope, origins)]
            message = {**message, "headers": headers}
        await send(message)

    return sending if header(scope, b"origin") else send
