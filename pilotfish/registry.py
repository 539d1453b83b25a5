"""Names to code, loaded on first use.

A registry maps a public name to ``"module:attribute"``. Nothing is imported until the name is asked
for, so listing every technique costs no library and ``pilotfish --help`` stays fast. A typo is
answered with the nearest name and the full list.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from pilotfish.errors import ConfigError, MissingExtra, UnknownName


class Registry(Mapping[str, str]):
    """A mapping from name to ``"module:attribute"``.

    Args:
        kind: What the names name, in the singular, for error messages (``"backend"``).
        entries: Name to target.
        extras: Name to the extra of this package that its libraries come with.

    >>> r = Registry("number", {"pi": "math:pi"})
    >>> round(r.load("pi"), 2)
    3.14
    """

    def __init__(
        self, kind: str, entries: Mapping[str, str], extras: Mapping[str, str] | None = None
    ) -> None:
        self.kind = kind
        self._entries = dict(entries)
        self.extras = dict(extras or {})

    def __getitem__(self, name: str) -> str:
        try:
            return self._entries[name]
        except KeyError:
            raise UnknownName(self.kind, name, self._entries) from None

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def register(self, name: str, target: str, *, extra: str = "") -> None:
        """Add a name; a name that is taken by another target is refused.

        Raises:
            ConfigError: The name is taken, or the target is not ``"module:attribute"``.
        """
        if ":" not in target:
            raise ConfigError(f"Got target {target!r}, but expected 'module:attribute'.")
        if self._entries.get(name, target) != target:
            raise ConfigError(f"The {self.kind} {name!r} is already {self._entries[name]!r}.")
        self._entries[name] = target
        if extra:
            self.extras[name] = extra

    def load(self, name: str) -> Any:
        """Import and return what the name stands for.

        Raises:
            UnknownName: No such name; the nearest and all names are in the message.
            MissingExtra: Its library is not installed and comes with an extra.
            ModuleNotFoundError: Its library is not installed and no extra is known to bring it.
            ConfigError: The module has no such attribute.
        """
        module, _, attribute = self[name].partition(":")
        try:
            found = importlib.import_module(module)
        except ModuleNotFoundError as error:
            ours = error.name is not None and error.name.split(".")[0] == "pilotfish"
            if name in self.extras and not ours:
                raise MissingExtra(f"The {self.kind} {name!r}", self.extras[name]) from error
            raise
        try:
            return getattr(found, attribute)
        except AttributeError:
            raise ConfigError(
                f"The {self.kind} {name!r} is registered as {self[name]!r}, but {module} has no "
                f"{attribute!r}."
            ) from None


def load_function(setting: str, name: str, *, others: str = "") -> Callable[..., Any]:
    """The function of the user's that a setting names.

    Args:
        setting: Where the name stands, for messages.
        name: ``"module:function"``. The module may lie in the folder where this was started, though the
            path of an installed command does not have it; that is looked at last.
        others: What else the setting may be, for messages.

    Raises:
        ConfigError: There is no such module or function, or it is no function.
    """
    module, _, attribute = name.partition(":")
    if (here := os.getcwd()) not in sys.path:
        sys.path.append(here)
    try:
        found = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        expected = ", or ".join(filter(None, [others, '"module:function"']))
        raise ConfigError(
            f"Got {setting} = {name!r}, which cannot be loaded: {error}.",
            remedy=f"Expected {expected}, importable from where this is started.",
        ) from None
    if not callable(found):
        raise ConfigError(f"Got {setting} = {name!r}, which is no function.")
    return found  # type: ignore[no-any-return]
