"""Settings of the gateway: ``[serve]`` of pilotfish.toml, checked before it listens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec

from pilotfish.models.settings import read_settings

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]
Positive = Annotated[int, msgspec.Meta(ge=1)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


class ServeSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What the gateway can be told; all times are in seconds, sizes in bytes, limits per worker.

    Attributes:
        host: Where it listens; anything but loopback demands keys.
        port: TCP port; 0 takes a free one.
        workers: Processes that share the port.
        durable: An answer is not finished before its record is on disk.
        store_texts: Keep what was asked and answered; without, only numbers, names and decisions.
        redact: ``"patterns"`` (e-mail addresses, phone and card numbers, keys) or ``"module:function"``,
            text to text, applied before anything is written; "": none.
        keys: Whether API keys are demanded: ``"auto"`` (once a key was ever made, or the host is not
            loopback), ``"required"`` or ``"off"``.
        default: The model for requests that name none; default: the only one there is.
        check_share: Share of the small models' answers that the large one is asked for too.
        max_active: Requests worked on at once.
        max_waiting: Requests that may wait for a place; all others are refused with HTTP 503.
        wait_seconds: The longest wait for a place.
        total_timeout: For one request with everything it asks; clients shorten it by
            ``x-request-timeout``.
        max_body: The largest request body.
        header_timeout: From the first byte of a request to the end of its headers.
        body_timeout: Between two pieces of a request's body.
        idle_timeout: How long a connection without a request is kept.
        shutdown_timeout: How long streams may go on after a stop was asked for.
        cors: Origins whose web pages may ask, ``["*"]`` for all; default none.
    """

    host: str = "127.0.0.1"
    port: Annotated[int, msgspec.Meta(ge=0, le=65535)] = 8080
    workers: Positive = 1
    durable: bool = False
    store_texts: bool = True
    redact: str = ""
    keys: Literal["auto", "required", "off"] = "auto"
    default: str = ""
    check_share: Share = 0.0
    max_active: Positive = 256
    max_waiting: Count = 512
    wait_seconds: Seconds = 10.0
    total_timeout: Seconds = 600.0
    max_body: Positive = 20 << 20
    header_timeout: Seconds = 10.0
    body_timeout: Seconds = 30.0
    idle_timeout: Seconds = 75.0
    shutdown_timeout: Seconds = 30.0
    cors: list[str] = msgspec.field(default_factory=list)


def read_serve_settings(given: Mapping[str, Any], **options: Any) -> ServeSettings:
    """Check ``[serve]``, with options of the command line over it (None: not given).

    Raises:
        UnknownName: A setting that there is not.
        ConfigError: A value of the wrong type or out of range.

    >>> read_serve_settings({"port": 9000}, port=None, workers=2).port
    9000
    """
    merged = {**given, **{name: value for name, value in options.items() if value is not None}}
    return read_settings("[serve]", ServeSettings, merged)
