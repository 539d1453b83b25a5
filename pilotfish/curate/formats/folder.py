"""The folder that results go to, here or behind a URL; a file appears in it whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from pilotfish.curate.formats.opening import file_errors, filesystem, without_scheme
from pilotfish.errors import InputError

TEMPORARY = ".writing-"


class Folder:
    """A folder of results; can be pickled.

    Args:
        url: A local path or a URL that fsspec knows.
    """

    def __init__(self, url: str | Path) -> None:
        self.url = without_scheme(url)
        self.local = "://" not in self.url and "::" not in self.url
        if self.local:
            self.url = os.path.abspath(os.path.expanduser(self.url))

    def _remote(self) -> tuple[Any, str]:
        fs, path = filesystem(self.url)
        return fs, path.rstrip("/")

    def path(self, name: str) -> str:
        """Where a file of this folder is, for people and for reading it."""
        return os.path.join(self.url, name) if self.local else f"{self.url.rstrip('/')}/{name}"

    def create(self) -> None:
        """Make the folder and see that it can be written to.

        Raises:
            InputError: It cannot.
        """
        if self.local and os.path.exists(self.url) and not os.path.isdir(self.url):
            raise InputError(f"The output {self.url!r} is a file, but expected a folder.")
        with writing(self.url):
            if self.local:
                os.makedirs(self.url, exist_ok=True)
            else:
                fs, path = self._remote()
                fs.makedirs(path, exist_ok=True)
        with self.put("_probe") as handle:
            handle.write(b"")
        self.remove("_probe")
        for name in self.names():
            if name.startswith(TEMPORARY):
                self.remove(name)

    def names(self) -> list[str]:
        """The names of the files in it, sorted."""
        if self.local:
            return sorted(os.listdir(self.url)) if os.path.isdir(self.url) else []
        fs, path = self._remote()
        if not fs.exists(path):
            return []
        return sorted(
            str(name).rstrip("/").rsplit("/", 1)[-1] for name in fs.ls(path, detail=False)
        )

    def remove(self, name: str) -> None:
        """Remove a file; one that is not there is no error."""
        with writing(self.path(name)):
            if self.local:
                Path(self.path(name)).unlink(missing_ok=True)
            else:
                fs, path = self._remote()
                if fs.exists(f"{path}/{name}"):
                    fs.rm_file(f"{path}/{name}")

    @contextmanager
    def put(self, name: str) -> Iterator[BinaryIO]:
        """Write a file, which appears when the block ends without an error.

        Raises:
            InputError: It cannot be written.
        """
        temporary = f"{TEMPORARY}{os.getpid()}-{name}"
        with writing(self.path(name)):
            if self.local:
                path = self.path(temporary)
                try:
                    with open(path, "wb") as handle:
                        yield handle
                    os.replace(path, self.path(name))
                finally:
                    Path(path).unlink(missing_ok=True)
                return
            fs, folder = self._remote()
            # Object stores show a file when it is closed; other file systems get a rename.
            with fs.open(f"{folder}/{temporary}", "wb") as handle:
                yield cast(BinaryIO, handle)
            fs.mv(f"{folder}/{temporary}", f"{folder}/{name}")

    def read(self, name: str) -> bytes | None:
        """The bytes of a file, or None."""
        if name not in self.names():
            return None
        if self.local:
            return Path(self.path(name)).read_bytes()
        fs, path = self._remote()
        return cast(bytes, fs.cat_file(f"{path}/{name}"))


@contextmanager
def writing(path: str) -> Iterator[None]:
    """Turn what writing a file raises into :class:`InputError`."""
    try:
        yield
    except file_errors() as error:
        raise InputError(
            f"Cannot write {path!r}: {getattr(error, 'strerror', None) or error}.",
            remedy="What was finished is kept: mend it and run the same command again.",
        ) from error
