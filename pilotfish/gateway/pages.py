"""What the pages for people and monitors share: how they answer, and who may look.

These pages are cold: they are asked a few times a minute, while requests for answers come by the
thousand. So they read the store in a thread and do nothing in line with a request.

Who may look: with keys, an administrator, by ``Authorization: Bearer KEY`` or by the browser's own
password box (HTTP Basic, the key as the password). Without keys only this machine reaches the gateway;
then the host that the browser asked for must be this machine's name too, or a page of the open web could
point its own name at 127.0.0.1 and read the traffic through the user's browser (DNS rebinding).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from pilotfish.errors import PilotfishError
from pilotfish.gateway.refusals import Refusal, refusal_of

Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]

# Nothing from elsewhere, no inline script or style, no frame around it, no form.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SAFE = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"cache-control", b"no-store"),
    (b"cross-origin-resource-policy", b"same-origin"),
)


Handler = Callable[[Any, Scope, Receive, Send], Awaitable[None]]


def header(scope: Scope, name: bytes) -> str:
    """A request header's value, "" when it is absent; ``name`` in lower case."""
    for key, value in scope["headers"]:
        if key == name:
            return str(value.decode("latin-1"))
    return ""


async def reply(
    scope: Scope,
    send: Send,
    body: bytes,
    kind: str,
    *,
    status: int = 200,
    headers: tuple[tuple[bytes, bytes], ...] = (),
) -> None:
    """Answer with a whole body; a HEAD request gets the same headers and nothing else."""
    await send(
        {
            "type": "http.response.start",
            "status": status,
            "headers": [
                (b"content-type", kind.encode()),
                (b"content-length", str(len(body)).encode()),
                *SAFE,
                *headers,
            ],
        }
    )
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


async def refuse(
    scope: Scope, send: Send, refusal: Refusal, headers: tuple[tuple[bytes, bytes], ...] = ()
) -> None:
    """Answer with an error in OpenAI's form."""
    if refusal.retry_after is not None:
        seconds = str(max(1, round(refusal.retry_after))).encode()
        headers = (*headers, (b"retry-after", seconds))
    await reply(
        scope, send, refusal.body(), "application/json", status=refusal.status, headers=headers
    )


def page(handler: Handler, *, private: bool) -> Handler:
    """A handler for GET and HEAD whose errors are answered, for administrators alone if private."""

    async def answer(gateway: Any, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            if scope["method"] not in ("GET", "HEAD"):
                wrong = Refusal(
                    405,
                    "method_not_allowed",
                    f"Got {scope['method']} {scope['path']}, but expected GET.",
                )
                await refuse(scope, send, wrong, ((b"allow", b"GET, HEAD"),))
                return
            if private:
                await check_may_look(gateway, scope)
            await handler(gateway, scope, receive, send)
        except PilotfishError as error:
            refusal = refusal_of(error)
            ask = ((b"www-authenticate", b'Basic realm="Pilotfish: an admin key as password"'),)
            await refuse(scope, send, refusal, ask if refusal.status == 401 else ())

    return answer


async def check_may_look(gateway: Any, scope: Scope) -> None:
    """Refuse all but administrators; without keys, all but this machine.

    Raises:
        Refusal: 401 without a valid key, 403 with a key that is no administrator's, or under a name
            that is not this machine's.
    """
    caller = await gateway.access.admit(bearer(header(scope, b"authorization")) or None)
    if not caller.admin and not caller.id:
        raise Refusal(
            401,
            "admin_key_needed",
            "Got no admin key, and the gateway does not listen to this machine alone.",
            remedy="Create one: pilotfish keys create NAME --admin",
        )
    if not caller.admin:
        raise Refusal(
            403,
            "admin_key_needed",
            f"The key {caller.name or caller.id!r} may ask models, but not see the traffic of others.",
            remedy="Create one that may: pilotfish keys create NAME --admin",
        )
    if not caller.id and not _is_here(header(scope, b"host"), gateway.settings.host):
        raise Refusal(
            403,
            "unknown_host",
            f"Got host {header(scope, b'host')!r}, but without keys expected this machine's own name.",
            remedy='Set keys = "required" under [serve] and create an admin key, or use 127.0.0.1.',
        )


def bearer(authorization: str) -> str:
    """The header that carries the key as ``Bearer KEY``, from a browser's ``Basic`` too.

    >>> bearer("Basic " + base64.b64encode(b"me:pf-1").decode()), bearer("Bearer pf-1")
    ('Bearer pf-1', 'Bearer pf-1')
    """
    scheme, _, rest = authorization.partition(" ")
    if scheme.lower() != "basic":
        return authorization
    try:
        words = base64.b64decode(rest.strip(), validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return authorization  # no key either way: access refuses it
    user, _, password = words.partition(":")
    return f"Bearer {password or user}"


def _is_here(host: str, bound: str) -> bool:
    name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
    name = name.strip("[]").lower()
    if name in ("", "localhost", bound.lower()) or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name)  # an address cannot be pointed elsewhere
    except ValueError:
        return False
    return True
