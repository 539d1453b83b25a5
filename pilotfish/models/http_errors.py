"""What went wrong with an HTTP endpoint, as errors of Pilotfish's tree.

One place decides for every remote backend what a status or a broken connection means, whether another
attempt is safe, and what of the endpoint's own message is shown: shortened, and with every secret that
was sent (the key, header values) cut out, because some endpoints repeat the key in their refusal.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec

from pilotfish.errors import (
    AccessDenied,
    BadAnswer,
    ModelError,
    RateLimited,
    RequestRefused,
    Unavailable,
)
from pilotfish.models.retry import Again, parse_retry_after
from pilotfish.models.transport import (
    ConnectionFailed,
    NotConnected,
    NotHttp,
    Silent,
    Undecodable,
)

SHOWN_CHARACTERS = 300
# A 429 with one of these codes means an empty account; waiting does not fill it.
_OUT_OF_MONEY = {"insufficient_quota", "billing_hard_limit_reached", "insufficient_balance"}


def redact(text: str, secrets: Iterable[str]) -> str:
    """The text without the secrets.

    >>> redact("bad key sk-123456", ["sk-123456"])
    'bad key [secret]'
    """
    for secret in secrets:
        if secret:
            text = text.replace(secret, "[secret]")
    return text


def provider_message(body: bytes) -> tuple[str, str]:
    """The endpoint's own words and error code ("" where it gave none), from any usual form."""
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return " ".join(body.decode("utf-8", "replace").split()), ""
    error: Any = data
    if isinstance(data, dict):
        error = data.get("error") or data.get("detail") or data.get("message") or data
    if isinstance(error, dict):
        said = error.get("message") or error
        return str(said), str(error.get("code") or error.get("type") or "")
    return str(error), ""


def status_error(
    status: int, body: bytes, headers: Mapping[str, str], *, who: str, secrets: Iterable[str] = ()
) -> ModelError | Again:
    """The error that an HTTP status stands for.

    Args:
        status: Any status but 200.
        body: The response's body; its message is quoted.
        headers: Lower-case names; ``retry-after`` is read.
        who: The model and where it lives, for the message.
        secrets: What must not appear in the message.

    Returns:
        :class:`Again` where another attempt is safe and useful (408, 409, 429 and 5xx), else the error.
    """
    words, code = provider_message(body)
    words = redact(words, secrets)
    if len(words) > SHOWN_CHARACTERS:
        words = words[:SHOWN_CHARACTERS] + "..."
    message = f"{who} answered HTTP {status}: {words or 'without a message'}."
    if status == 429 and code not in _OUT_OF_MONEY:
        return Again(
            RateLimited(
                message,
                retry_after=parse_retry_after(headers),
                remedy="Lower concurrency, raise max_retries or total_timeout, or wait.",
            )
        )
    if status in (408, 409) or status >= 500:
        return Again(Unavailable(message, retry_after=parse_retry_after(headers)))
    if status in (402, 429):
        return AccessDenied(message, remedy="The account has no credit left: top it up.")
    if status in (401, 403):
        return AccessDenied(message, remedy="Set a valid key in the variable of api_key_env.")
    if 300 <= status < 400:
        return RequestRefused(
            f"{who} answered HTTP {status}: moved to {redact(headers.get('location', '?'), secrets)}.",
            remedy="Set base_url to the new place; the key is never sent along by itself.",
        )
    if status == 404:
        return RequestRefused(message, remedy="Check the model's name and base_url.")
    if status < 300:
        return BadAnswer(message)
    return RequestRefused(message)


def transport_error(
    error: ConnectionFailed, *, who: str, retry_lost: bool, started: bool = False
) -> ModelError | Again:
    """The error that a broken connection stands for.

    Args:
        error: What the transport raised.
        who: The model and where it lives, for the message.
        retry_lost: Whether work that may be billed may be asked for again.
        started: Whether a part of the answer had arrived.

    Returns:
        :class:`Again` when no answer had begun: not connected, or a pooled connection that the endpoint
        closed while it was idle; read timeouts and cuts only with ``retry_lost``.
    """
    words = str(error) or type(error).__name__
    if isinstance(error, NotConnected):
        return Again(
            Unavailable(
                f"{who} could not be reached: {words}.",
                remedy="Check that it is running and that base_url is right.",
            )
        )
    if isinstance(error, Silent):
        lost: ModelError = Unavailable(
            f"{who} was silent for longer than read_timeout: {words}.",
            remedy="Raise read_timeout (or first_byte_timeout), or ask for a stream.",
        )
        return Again(lost) if retry_lost else lost
    if isinstance(error, NotHttp) and not started:
        return BadAnswer(
            f"{who} does not speak HTTP: {words[:SHOWN_CHARACTERS]}.",
            remedy="Check base_url: scheme (http or https), host and port.",
        )
    if isinstance(error, Undecodable):
        return BadAnswer(f"{who} sent a body that does not decompress: {words}.")
    if started:
        cut = Unavailable(f"{who} broke off in mid-answer: {words}.")
        return Again(cut) if retry_lost else cut
    return Again(Unavailable(f"{who} closed the connection without an answer: {words}."))
