"""``/dashboard``: the page, the figures that refresh it, its style and its script.

Readers share one look at the store: it is not taken again before its span says so, however many pages are
open, and never twice at once.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib.resources import files
from typing import Any
from weakref import WeakKeyDictionary

import msgspec

from pilotfish import __version__
from pilotfish.gateway.dashboard.account import first_day
from pilotfish.gateway.dashboard.recent import latest
from pilotfish.gateway.dashboard.view import (
    Note,
    Recent,
    Setting,
    Span,
    render_figures,
    render_page,
    span_of,
)
from pilotfish.gateway.health import readiness
from pilotfish.gateway.pages import Handler, Receive, Scope, Send, header, page, reply
from pilotfish.store.figures import Figures
from pilotfish.store.ledger import Day

LATEST = 30  # requests shown one by one
HTML = "text/html; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Look:
    """One look at the store: at which moment, what it showed."""

    at: float
    figures: Figures
    days: Sequence[Day]
    recent: Sequence[Recent]
    never: bool


class Looks:
    """The last look for each span of one gateway."""

    def __init__(self) -> None:
        self._last: dict[str, Look] = {}
        self._lock = asyncio.Lock()

    async def at(self, gateway: Any, span: Span) -> Look:
        """A look that is fresh enough."""
        async with self._lock:
            last = self._last.get(span.name)
            if last is None or time.time() - last.at >= span.every / 2:
                last = self._last[span.name] = await asyncio.to_thread(_look, gateway.store, span)
            return last


_looks: WeakKeyDictionary[Any, Looks] = WeakKeyDictionary()  # by store


def _look(store: Any, span: Span) -> Look:
    now = time.time()
    until = int(now // 60) + 1
    until += -until % span.step  # so that a column's borders stay where they are
    figures = store.statistics.figures(until - span.minutes, until, span.step)
    never = figures.requests == 0 and not store.statistics.any_traffic()
    days = store.ledger.days(since=first_day(now))
    return Look(now, figures, days, latest(store, LATEST) if figures.requests else (), never)


async def _setting(gateway: Any, scope: Scope, look: Look) -> Setting:
    verdict = await readiness(gateway)
    notes = [Note("bad", "Not ready.", reason) for reason in verdict.reasons]
    notes += [Note("warn", "One model is out.", warning) for warning in verdict.warnings]
    if gateway.recorder.lost:
        words = f"{gateway.recorder.lost} exchanges of this worker could not be written."
        notes.append(Note("bad", "Records were lost.", words))
    if gateway.recorder.withheld:
        words = f"{gateway.recorder.withheld} were kept without texts: the redact function failed."
        notes.append(Note("warn", "Texts were withheld.", words))
    host = header(scope, b"host") or f"{gateway.settings.host}:{gateway.settings.port}"
    models = [row.name for row in gateway.served.names() if row.kind != "encoder"]
    keys = bool(header(scope, b"authorization"))
    return Setting(f"{scope['scheme']}://{host}", models, keys, look.never, notes)


async def _sections(gateway: Any, scope: Scope) -> tuple[Span, Look, str]:
    span = span_of(scope["query_string"].decode("latin-1"))
    look = await _looks.setdefault(gateway.store, Looks()).at(gateway, span)
    setting = await _setting(gateway, scope, look)
    html = await asyncio.to_thread(
        render_figures, look.figures, look.days, span, look.recent, setting
    )
    return span, look, html


async def _page(gateway: Any, scope: Scope, receive: Receive, send: Send) -> None:
    span, look, html = await _sections(gateway, scope)
    whole = render_page(html, span, int(look.at), span.every, __version__)
    await reply(scope, send, whole.encode("utf-8", "replace"), HTML)


async def _data(gateway: Any, scope: Scope, receive: Receive, send: Send) -> None:
    span, look, html = await _sections(gateway, scope)
    body = {
        "at": look.at,
        "range": span.name,
        "figures": look.figures,
        "tasks": [day.to_dict() for day in look.days],
        "html": html.encode("utf-8", "replace").decode(),
    }
    await reply(scope, send, msgspec.json.encode(body), "application/json")


def _asset(name: str, kind: str) -> Handler:
    async def serve(gateway: Any, scope: Scope, receive: Receive, send: Send) -> None:
        await reply(scope, send, _read(name), kind)

    return page(serve, private=False)  # they say nothing about anybody's traffic


@lru_cache(maxsize=4)
def _read(name: str) -> bytes:
    return files("pilotfish.gateway.dashboard").joinpath(name).read_bytes()


ROUTES: dict[str, Handler] = {
    "/dashboard": page(_page, private=True),
    "/dashboard/data": page(_data, private=True),
    "/dashboard/style.css": _asset("style.css", "text/css; charset=utf-8"),
    "/dashboard/script.js": _asset("script.js", "text/javascript; charset=utf-8"),
}
