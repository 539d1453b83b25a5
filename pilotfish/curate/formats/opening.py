"""Files and URLs opened for reading, and what goes wrong then said in one way.

Local paths are opened as they are, URLs through fsspec. What the libraries behind it raise has no common
ancestor, so it is gathered here.
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from pilotfish.errors import ConfigError, InputError

REMOTE_ERRORS = {  # of HTTP, S3, Google Cloud and Azure: a server that fails, no credentials
    "aiohttp": "ClientError",
    "botocore.exceptions": "BotoCoreError",
    "google.auth.exceptions": "GoogleAuthError",
    "azure.core.exceptions": "AzureError",
}


def without_scheme(url: str | Path) -> str:
    """A URL of this machine's own files as a path; any other text as it is.

    >>> without_scheme("file:///data/a.jsonl"), without_scheme("s3://data/a.jsonl")
    ('/data/a.jsonl', 's3://data/a.jsonl')
    """
    return str(url).removeprefix("file://")


def is_url(pattern: str) -> bool:
    """Whether it names a file by a protocol, or inside of an archive."""
    return "://" in pattern or "::" in pattern


def filesystem(url: str) -> tuple[Any, str]:
    """The fsspec file system of a URL, and the path in it.

    Raises:
        ConfigError: Nobody knows the protocol, or its library is not installed.
    """
    import fsspec

    try:
        return cast("tuple[Any, str]", fsspec.core.url_to_fs(url))
    except ImportError as error:
        raise ConfigError(
            f"Cannot open {url!r}: the library for it is not installed.", remedy=f"{error}."
        ) from error
    except ValueError as error:
        raise ConfigError(
            f"Cannot open {url!r}: {error}.", remedy="Known protocols: fsspec.available_protocols()"
        ) from error


@contextmanager
def opening(url: str) -> Iterator[None]:
    """Turn what opening or reading a file raises into :class:`InputError`."""
    try:
        yield
    except file_errors() as error:
        # fsspec's web file system says that there is no file, whatever it was that went wrong.
        cause = error.__cause__ if isinstance(error, FileNotFoundError) else error
        absent = isinstance(cause, FileNotFoundError) or getattr(cause, "status", 0) == 404
        if cause is None or absent:
            raise InputError(f"No file at {url!r}.") from None
        reason = getattr(cause, "strerror", None) or cause
        raise InputError(f"Cannot read {url!r}: {reason}.") from error


def file_errors() -> tuple[type[BaseException], ...]:
    """What reading and writing raise: ``OSError``, and what libraries behind fsspec have beside it."""
    used = [(sys.modules.get(module), name) for module, name in REMOTE_ERRORS.items()]
    return OSError, *(getattr(module, name) for module, name in used if module is not None)


def is_damage(error: BaseException) -> bool:
    """Whether one of them says that the file is damaged, not that the way to it failed."""
    return type(error) is OSError and error.errno is None  # as unpackers say it


def open_binary(url: str, *, whole: bool = False) -> BinaryIO:
    """Open a path or URL for reading bytes.

    Args:
        url: Of the file.
        whole: As of :class:`~pilotfish.curate.formats.files.InputFile`.

    Raises:
        InputError: It is not there or cannot be read.
        ConfigError: The library for its protocol is not installed.
    """
    with opening(url):
        if not is_url(url):
            return open(url, "rb", buffering=0)
        fs, path = filesystem(url)
        block = {"block_size": 0} if whole else {"block_size": 8 << 20, "cache_type": "readahead"}
        handle = fs.open(path, "rb", **block)
        once = whole or "::" in url
        return _held(handle) if once else cast(BinaryIO, handle)


def _held(stream: Any) -> BinaryIO:
    """A copy that can be read from anywhere, of what a web server sends in one go or an archive holds."""
    held = tempfile.TemporaryFile()  # noqa: SIM115  the reader closes it
    with stream:
        shutil.copyfileobj(stream, held)
    held.seek(0)
    return cast(BinaryIO, held)
