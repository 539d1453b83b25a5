"""pilotfish.toml: models, prices, the store, the gateway; environment variables hold secrets.

Every setting has a default, so no file is needed. The file is looked for in the working folder, or where
``PILOTFISH_CONFIG`` points. Prices carry the date they were read on; a model without a price has an
unknown price, and unknown is never counted as nothing.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Any

from pilotfish.errors import ConfigError
from pilotfish.records import Usage

CONFIG_FILE = "pilotfish.toml"
_KNOWN = ("store", "cache_dir", "models", "prices", "serve")


@dataclass(frozen=True, slots=True)
class Price:
    """US dollars per million tokens, and the day they were read.

    Attributes:
        input: For a token of the prompt.
        output: For a token of the answer.
        cached_input: For a token of the prompt that the provider had cached; default: as ``input``.
        date: The day the price was read.

    >>> Price(input=2.0, output=8.0).cost(Usage(prompt_tokens=1000, completion_tokens=100))
    0.0028
    """

    input: float
    output: float
    cached_input: float | None = None
    date: str = ""

    def cost(self, usage: Usage) -> float:
        """US dollars of one call."""
        cached_rate = self.input if self.cached_input is None else self.cached_input
        fresh = max(0, usage.prompt_tokens - usage.cached_tokens)
        micro = fresh * self.input + usage.cached_tokens * cached_rate
        return (micro + usage.completion_tokens * self.output) / 1e6


@dataclass(frozen=True, slots=True)
class Config:
    """What pilotfish.toml says.

    Attributes:
        store: SQLAlchemy URL of the store.
        cache_dir: Where pulled models and data sets live; default: ``pilotfish`` in the user's cache.
        models: Name to settings; each has a ``backend`` and what that backend takes, or a ``kind`` of
            composite with its ``models`` and what that composite takes.
        prices: Model name to :class:`Price`.
        serve: What the gateway is told, as written; the gateway checks it when it starts.
        path: The file it was read from, or None.
    """

    store: str = "sqlite:///pilotfish.db"
    cache_dir: Path = field(default_factory=lambda: default_cache_dir())
    models: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    prices: Mapping[str, Price] = field(default_factory=dict)
    serve: Mapping[str, Any] = field(default_factory=dict)
    path: Path | None = None


def default_cache_dir() -> Path:
    """Where pulled files live: ``PILOTFISH_CACHE``, else the user's cache folder."""
    if chosen := os.environ.get("PILOTFISH_CACHE"):
        return Path(chosen).expanduser()
    from platformdirs import user_cache_path

    return user_cache_path("pilotfish")


def load_config(path: str | Path | None = None) -> Config:
    """Read pilotfish.toml; without one, the defaults.

    Args:
        path: The file; default ``PILOTFISH_CONFIG``, else ``pilotfish.toml`` in the working folder.

    Raises:
        ConfigError: The named file is missing, is not TOML, or has a setting nobody reads.
    """
    named = path or os.environ.get("PILOTFISH_CONFIG")
    file = Path(named) if named else Path(CONFIG_FILE)
    if not file.exists():
        if named:
            raise ConfigError(f"No configuration file at {str(file)!r}.")
        return Config(store=os.environ.get("PILOTFISH_STORE") or Config().store)
    try:
        data = tomllib.loads(file.read_text("utf-8-sig"))  # editors on Windows write a BOM
    except OSError as error:
        raise ConfigError(f"{file} cannot be read: {error.strerror}.") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}.") from error
    unknown = set(data) - set(_KNOWN)
    if unknown:
        raise ConfigError(
            f"{file} has unknown settings: {', '.join(sorted(unknown))}.",
            remedy=f"Known: {', '.join(_KNOWN)}",
        )
    for key in ("store", "cache_dir"):
        if not isinstance(data.get(key, ""), str):
            raise ConfigError(f"{file}: got {key} = {data[key]!r}, but expected a text.")
    if not isinstance(data.get("serve", {}), dict):
        raise ConfigError(f"{file}: got serve = {data['serve']!r}, but expected a [serve] table.")
    return Config(
        store=os.environ.get("PILOTFISH_STORE") or data.get("store", Config().store),
        cache_dir=Path(data["cache_dir"]).expanduser()
        if "cache_dir" in data
        else default_cache_dir(),
        models=_table(file, data, "models"),
        prices={
            name: _price(file, name, row) for name, row in _table(file, data, "prices").items()
        },
        serve=data.get("serve", {}),
        path=file,
    )


def _table(file: Path, data: Mapping[str, Any], key: str) -> Mapping[str, Mapping[str, Any]]:
    table = data.get(key, {})
    if not isinstance(table, dict) or not all(isinstance(row, dict) for row in table.values()):
        raise ConfigError(
            f"{file}: expected [{key}.NAME] tables, got something else under {key!r}."
        )
    return table


def _price(file: Path, name: str, row: Mapping[str, Any]) -> Price:
    try:
        price = Price(**{**row, "date": str(row.get("date", ""))})  # TOML has dates of its own
    except TypeError:
        raise ConfigError(
            f"{file}: [prices.{name}] has {sorted(row)}, but expected input, output, date and "
            "optionally cached_input (US dollars per million tokens)."
        ) from None
    for key in ("input", "output", "cached_input"):
        rate = getattr(price, key)
        wrong = isinstance(rate, bool) or not isinstance(rate, int | float) or not 0 <= rate < inf
        if wrong and not (key == "cached_input" and rate is None):
            raise ConfigError(
                f"{file}: [prices.{name}] has {key} = {rate!r}, but expected a number >= 0 "
                "(US dollars per million tokens)."
            )
    return price
