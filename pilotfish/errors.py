"""Every error Pilotfish raises on purpose, in one tree.

An error says what it got, what it expected, and the command or setting that mends it. Callers that
want to retry ask ``error.retryable`` instead of matching on text.

::

    PilotfishError
    |- ConfigError            pilotfish.toml, an option or an environment variable is wrong
    |  |- UnknownName         a name is in no registry; carries "did you mean"
    |  '- MissingExtra        an optional library is not installed
    |- InputError             a user's file, prompt or row cannot be used
    |- ModelError             a model did not answer
    |  |- MissingModel        its weights are not on this machine
    |  |- RequestRefused      the endpoint says the request is wrong (HTTP 400, 404, 422)
    |  |- AccessDenied        the endpoint says the key is wrong (HTTP 401, 403)
    |  |- RateLimited         too many requests (HTTP 429); retryable
    |  |- Unavailable         refused, reset, timed out, HTTP 5xx, cut off; retryable
    |  '- BadAnswer           it answered, but not in the form that was asked for
    |- BudgetSpent            the next call would cost more than the budget allows
    |- StoreError             the store cannot be opened, read or written
    |- DownloadError          a file of the catalogue could not be fetched or failed its hash
    |  '- SourceFailed        one source of it failed; the next one is tried
    '- ArtifactError          an artifact is missing, damaged, or from another version
       '- UnsafeArtifact      it holds something that could run code
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any


class PilotfishError(Exception):
    """Root of the tree.

    Args:
        message: What was got and what was expected, in one sentence.
        remedy: The command or setting that mends it; shown on a line of its own.
    """

    retryable: bool = False

    def __init__(self, message: str, *, remedy: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.remedy = remedy

    def __str__(self) -> str:
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions pickle as kind(*args), which fails where __init__ takes more than a message; an
        # error must survive the way back from a worker process.
        return _rebuild, (type(self), self.args, self.__dict__)


def _rebuild(
    kind: type[PilotfishError], args: tuple[Any, ...], state: dict[str, Any]
) -> PilotfishError:
    error = kind.__new__(kind, *args)
    error.__dict__.update(state)
    return error


class ConfigError(PilotfishError):
    """A setting, option or environment variable is wrong."""


class UnknownName(ConfigError):
    """A name that no registry knows.

    Args:
        kind: What was looked up, e.g. ``"backend"``.
        name: The name that was given.
        known: Every name that would have been accepted.
        remedy: Overrides the list of known names as the remedy.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str], *, remedy: str = "") -> None:
        names = sorted(known)
        if len(name) > 100:
            name = name[:97] + "..."  # what a client sends may be of any length
        near = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        listing = ", ".join(names) or "none are registered"
        super().__init__(f"Unknown {kind} {name!r}.{hint}", remedy=remedy or f"Known: {listing}")
        self.name = name
        self.known = names


class MissingExtra(ConfigError):
    """A feature needs a library that is not installed.

    Args:
        feature: What the user asked for.
        extra: The extra of this package that brings it, e.g. ``"torch"``.
    """

    def __init__(self, feature: str, extra: str) -> None:
        super().__init__(
            f"{feature} needs the {extra!r} extra, which is not installed.",
            remedy=f'pip install "pilotfish[{extra}]"',
        )
        self.extra = extra


class InputError(PilotfishError):
    """A file, prompt, label list or row that cannot be used."""


class ModelError(PilotfishError):
    """A model did not give an answer."""


class MissingModel(ModelError):
    """The model's weights are not on this machine.

    Args:
        name: Its catalogue name.
    """

    def __init__(self, name: str) -> None:
        super().__init__(
            f"The model {name!r} is not on this machine.", remedy=f"pilotfish pull {name}"
        )
        self.name = name


class RequestRefused(ModelError):
    """The endpoint refused the request itself; asking again cannot help."""


class AccessDenied(ModelError):
    """The endpoint did not accept the key."""


class RateLimited(ModelError):
    """The endpoint asks for patience.

    Args:
        message: What was said.
        retry_after: Seconds to wait when the endpoint named them, else None.
    """

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class Unavailable(ModelError):
    """The endpoint was not reached, timed out, failed, or broke off. May carry ``retry_after``."""

    retryable = True

    def __init__(self, message: str, *, retry_after: float | None = None, remedy: str = "") -> None:
        super().__init__(message, remedy=remedy)
        self.retry_after = retry_after


class BadAnswer(ModelError):
    """An answer that does not parse as what was asked for."""


class BudgetSpent(PilotfishError):
    """The next call would exceed the budget; what was paid for is kept."""


class StoreError(PilotfishError):
    """The store cannot be opened, read or written."""


class DownloadError(PilotfishError):
    """A catalogue file could not be fetched, or its hash is wrong."""


class SourceFailed(DownloadError):
    """One source of a catalogue file failed; the message is the reason, and the next is tried."""


class ArtifactError(PilotfishError):
    """An artifact is missing, damaged, or written by another version."""


class UnsafeArtifact(ArtifactError):
    """An artifact holds something that could run code when loaded; it was not loaded."""
