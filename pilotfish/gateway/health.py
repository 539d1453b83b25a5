"""``/healthz`` and ``/readyz``: what a supervisor and a load balancer ask.

They are different questions. ``/healthz`` says that the process answers: when it does not, restart it.
``/readyz`` says that it should get traffic: the store can be written, every declared model can be
loaded or reached, and the recorder keeps up. A model behind a network counts as reachable until its
circuit breaker has opened, so that asking for readiness costs no call and no money. Both are open to all
and name no secret, no prompt and no path.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import msgspec

from pilotfish.errors import PilotfishError
from pilotfish.gateway.pages import Handler, Receive, Scope, Send, page, reply

FRESH = 2.0  # seconds for which a verdict is given again without a look: many may ask at once
PATIENCE = 5.0  # seconds that the store has for an answer


@dataclass(frozen=True, slots=True)
class Readiness:
    """Whether the gateway should get traffic.

    Attributes:
        ready: It should.
        reasons: Why not, one short line each.
        warnings: What is wrong but does not stop it: a model among several that cannot answer.
    """

    ready: bool
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=())


async def readiness(gateway: Any) -> Readiness:
    """Look at the store, the recorder and the models."""
    reasons = [*await _store(gateway.store), *_recorder(gateway.recorder)]
    broken = _models(gateway)
    models = [row for row in gateway.served.names() if row.kind != "encoder"]
    if models and len(broken) == len(models):
        reasons.extend(broken)
        broken = []
    return Readiness(not reasons, tuple(reasons), tuple(broken))


async def _store(store: Any) -> list[str]:
    try:
        await asyncio.wait_for(asyncio.to_thread(store.check), PATIENCE)
    except TimeoutError:
        return [f"store: it did not answer within {PATIENCE:g} s"]
    except PilotfishError:  # its message names the file or host, which is not everybody's business
        return ["store: it cannot be written"]
    return []


def _recorder(recorder: Any) -> list[str]:
    if recorder.failing:
        return [f"recorder: writing fails, {recorder.waiting} exchanges wait"]
    return []


def _models(gateway: Any) -> list[str]:
    """One line for each served model that could not answer now."""
    found = []
    started = gateway.served.started()
    for row in gateway.served.names():
        if row.kind == "encoder":
            continue
        state = breaker_state(started.get(row.spec))
        if state == "open":
            found.append(f"model {row.name}: it failed repeatedly and is not asked for a while")
        missing = _missing_library(row.kind)
        if missing:
            found.append(f"model {row.name}: the library {missing} is not installed")
    return found


def breaker_state(model: Any) -> str:
    """``"closed"``, ``"open"`` or ``"half-open"``; "" for a model without a circuit breaker."""
    breaker = getattr(model, "breaker", None)
    return str(breaker.state) if breaker is not None else ""


_LIBRARIES = {"litellm": "litellm", "language-model": "xllamacpp", "llamacpp": "xllamacpp"}


def _missing_library(kind: str) -> str:
    library = _LIBRARIES.get(kind, "")
    return library if library and find_spec(library) is None else ""


async def _healthz(gateway: Any, scope: Scope, receive: Receive, send: Send) -> None:
    alive = {"status": "ok", "uptime_seconds": round(time.time() - gateway.started_at, 3)}
    await reply(scope, send, msgspec.json.encode(alive), "application/json")


class _Readyz:
    def __init__(self) -> None:
        self._seen: tuple[int, float, Readiness] | None = None
        self._lock: asyncio.Lock | None = None

    async def __call__(self, gateway: Any, scope: Scope, receive: Receive, send: Send) -> None:
        verdict = await self._verdict(gateway)
        body = {
            "status": "ready" if verdict.ready else "not ready",
            "reasons": verdict.reasons,
            "warnings": verdict.warnings,
        }
        status = 200 if verdict.ready else 503
        headers = () if verdict.ready else ((b"retry-after", b"5"),)
        await reply(
            scope, send, msgspec.json.encode(body), "application/json", status=status,
            headers=headers,
        )  # fmt: skip

    async def _verdict(self, gateway: Any) -> Readiness:
        now = time.monotonic()
        if self._seen and self._seen[0] == id(gateway) and now - self._seen[1] < FRESH:
            return self._seen[2]
        verdict = await readiness(gateway)
        self._seen = (id(gateway), now, verdict)
        return verdict


ROUTES: dict[str, Handler] = {
    "/healthz": page(_healthz, private=False),
    "/readyz": page(_Readyz(), private=False),
}
