"""Settings of a backend, checked before the first request is paid for.

Settings come from ``[models.NAME]`` of pilotfish.toml or as keyword arguments. A misspelt one must not
be ignored in silence (a forgotten ``concurency = 1`` costs real money), so unknown names, wrong types
and values out of range are refused with the name that was meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar

import msgspec

from pilotfish.config import Config, Price
from pilotfish.errors import ConfigError, UnknownName

S = TypeVar("S", bound=msgspec.Struct)

Seconds = Annotated[float, msgspec.Meta(gt=0)]
Count = Annotated[int, msgspec.Meta(ge=0)]


class BreakerSettings(msgspec.Struct, kw_only=True, frozen=True, forbid_unknown_fields=True):
    """When a model that keeps failing is left alone for a while; ``breaker = {}`` takes the defaults.

    Attributes:
        failure_share: Open when at least this share of recent attempts failed.
        window: Seconds that count as recent.
        minimum: Fewer recent attempts than this never open it.
        open_seconds: How long nothing is sent, the first time; doubles while it keeps failing.
        max_open_seconds: Where the doubling stops.
        probes: Attempts let through at once to see whether it is back.
    """

    failure_share: Annotated[float, msgspec.Meta(gt=0, le=1)] = 0.5
    window: Seconds = 30.0
    minimum: Annotated[int, msgspec.Meta(ge=1)] = 10
    open_seconds: Seconds = 5.0
    max_open_seconds: Seconds = 120.0
    probes: Annotated[int, msgspec.Meta(ge=1)] = 1


class RemoteSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What every remote backend can be told; all times are in seconds.

    Attributes:
        name: The name that answers and cache keys carry; default: the model's own.
        concurrency: Requests under way at once, per event loop (>= 1).
        total_timeout: For one answer with all its retries and waits, counted from the moment it gets one
            of the ``concurrency`` places. A deadline of the caller that is sooner counts instead.
        first_byte_timeout: Until the first byte of an answer, where the backend can tell it from the
            time between two pieces (``openai`` does); default: as that.
        max_retries: Further attempts after the first (0: never ask again).
        first_delay: Upper end of the first random wait; doubles with each retry.
        max_delay: Where the doubling stops.
        max_retry_after: The longest wait that an endpoint may impose by ``Retry-After``.
        retry_lost: Ask again too when an answer was lost after the endpoint had begun to work on it (read
            timeout, connection cut in mid-answer). Off by default: the lost answer may be billed.
        retry_share: Retries allowed as a share of the requests of the last ten seconds, so that a model
            in trouble is not asked many times over; on top of ``retry_rate``.
        retry_rate: Retries per second that are always allowed.
        breaker: When to leave it alone for a while; default: never.
        params: Parameters merged under those of each request.
        price: US dollars per million tokens; default: what the configuration says of this model.
    """

    name: str = ""
    concurrency: Annotated[int, msgspec.Meta(ge=1)] = 16
    total_timeout: Seconds = 600.0
    first_byte_timeout: Seconds | None = None
    max_retries: Count = 5
    first_delay: Seconds = 0.5
    max_delay: Seconds = 30.0
    max_retry_after: Seconds = 60.0
    retry_lost: bool = False
    retry_share: Annotated[float, msgspec.Meta(ge=0)] = 0.2
    retry_rate: Annotated[float, msgspec.Meta(ge=0)] = 10.0
    breaker: BreakerSettings | None = None
    params: dict[str, Any] = msgspec.field(default_factory=dict)
    price: Price | None = None


def read_settings(backend: str, kind: type[S], given: Mapping[str, Any]) -> S:
    """Check settings against a struct.

    Args:
        backend: The backend's name, or that of the table, for the message.
        kind: The struct that lists the settings, their types and ranges.
        given: What the user wrote.

    Raises:
        UnknownName: A setting that this backend does not have.
        ConfigError: A value of the wrong type or out of range.

    >>> read_settings("openai", RemoteSettings, {"concurrency": 4}).concurrency
    4
    """
    known = kind.__struct_fields__
    for name in given:
        if name not in known:
            raise UnknownName(f"{backend} setting", name, known)
    try:
        return msgspec.convert(dict(given), kind)
    except msgspec.ValidationError as error:
        words, _, path = str(error).partition(" - at `$.")
        raise ConfigError(
            f"The {backend} setting {path.rstrip('`')} is wrong: {words}.",
            remedy="See docs/settings.md",
        ) from None


def find_price(settings: RemoteSettings, config: Config | None, *names: str) -> Price | None:
    """The price of a model: its own setting, else the first of these names that the config prices."""
    if settings.price is not None:
        return settings.price
    prices = config.prices if config else {}
    return next((prices[name] for name in names if name in prices), None)
