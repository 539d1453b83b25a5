"""Web pages that may ask the gateway: cross-origin headers for the origins that the settings name.

A page of the open web must not be able to use a gateway on someone's own machine, so nothing is
allowed by default; a page that is named gets what a client library in a browser needs, keys
included, and no cookies.
"""

from __future__ import annotations

from collections.abc import Sequence

from pilotfish.gateway.pages import Scope, header

EXPOSED = (
    b"x-request-id, x-pilotfish-model, x-pilotfish-reason, x-pilotfish-score, x-pilotfish-cost, "
    b"x-pilotfish-saving, retry-after"
)


def cors_headers(scope: Scope, origins: Sequence[str]) -> list[tuple[bytes, bytes]]:
    """The headers that let the page at the request's origin read the answer; none for all others."""
    origin = header(scope, b"origin")
    if not origin or not (origin in origins or "*" in origins):
        return []
    return [
        (b"access-control-allow-origin", origin.encode("latin-1")),
        (b"access-control-expose-headers", EXPOSED),
        (b"vary", b"origin"),
    ]


def preflight_headers(
    scope: Scope, origins: Sequence[str], methods: Sequence[str]
) -> list[tuple[bytes, bytes]]:
    """What a browser is told besides when it asks whether it may ask; none where it may not."""
    if not cors_headers(scope, origins):
        return []
    wanted = header(scope, b"access-control-request-headers") or "authorization, content-type"
    return [
        (b"access-control-allow-methods", ", ".join(methods).encode()),
        (b"access-control-allow-headers", wanted.encode("latin-1")),
        (b"access-control-max-age", b"600"),
    ]
