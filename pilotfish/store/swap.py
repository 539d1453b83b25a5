"""Replace a folder as a whole, durably.

POSIX cannot rename a folder over one that holds something, so the new folder is written beside the old
one and exchanged with it: in one step where the kernel can (``renameat2`` with ``RENAME_EXCHANGE`` on
Linux, ``renamex_np`` with ``RENAME_SWAP`` on macOS), else by two renames, between which the old folder
lies under a fixed other name where :func:`find` finds it.
"""

from __future__ import annotations

import ctypes
import glob
import hashlib
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

from pilotfish.errors import ArtifactError
from pilotfish.store.owner import Owner, this_process

_AT_FDCWD = -100
_EXCHANGE = 2  # RENAME_EXCHANGE in <linux/fs.h>, RENAME_SWAP in <sys/stdio.h>


def find(target: Path) -> Path:
    """The folder, or the place where an interrupted replacement has left it."""
    previous = _previous(target)
    return previous if previous.is_dir() and not target.exists() else target


class Swap:
    """A folder under construction; leaving the block without :meth:`commit` removes it.

    Args:
        target: The place it will take.

    Raises:
        ArtifactError: There is no writable folder around the target.
    """

    def __init__(self, target: Path) -> None:
        self.target = target
        me = this_process()
        mark = f"{_space(me)}-{me.pid}-{me.started or 0}-{uuid.uuid4().hex[:8]}"
        self.folder = target.parent / f".{target.name}.saving-{mark}"
        with _explained(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            self._remove_left_over()
            if find(target) != target:
                os.rename(_previous(target), target)
            self.folder.mkdir()

    def write(self, name: str, content: bytes | Path) -> Path:
        """Write one file, synced to disk, from bytes or another file; returns its path.

        Raises:
            ArtifactError: It cannot be written, e.g. because the disk is full.
        """
        path = self.folder / name
        with _explained(path):
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                if isinstance(content, bytes):
                    file.write(content)
                else:
                    with content.open("rb") as source:
                        shutil.copyfileobj(source, file, 2**20)
                file.flush()
                os.fsync(file.fileno())
        return path

    def commit(self) -> None:
        """Put the folder in its place; when it returns, a power cut cannot undo it.

        Raises:
            ArtifactError: It cannot be put there; what was there still is.
        """
        with _explained(self.target):
            for folder, _, _ in os.walk(self.folder):
                _sync(Path(folder))
            if not self.target.exists() or not any(self.target.iterdir()):
                if self.target.is_dir():
                    self.target.rmdir()
                os.rename(self.folder, self.target)
            elif not _exchange(self.folder, self.target):
                previous = _previous(self.target)
                shutil.rmtree(previous, ignore_errors=True)
                os.rename(self.target, previous)
                os.rename(self.folder, self.target)
            _sync(self.target.parent)
            shutil.rmtree(_previous(self.target), ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *failure: object) -> None:
        # After an exchange this is the old artifact; after a failure, the unfinished new one.
        shutil.rmtree(self.folder, ignore_errors=True)

    def _remove_left_over(self) -> None:
        """Remove what processes that were killed while saving have left here."""
        me = this_process()
        pattern = f".{glob.escape(self.target.name)}.saving-{_space(me)}-*"
        for path in self.target.parent.glob(pattern):
            pid, started = path.name.rsplit("-", 3)[1:3]
            if Owner(me.host, int(pid), me.space, started).is_alive() is False:
                shutil.rmtree(path, ignore_errors=True)


def _previous(target: Path) -> Path:
    return target.parent / f".{target.name}.previous"


def _exchange(one: Path, other: Path) -> bool:
    """Exchange two folders in one step; False where the system or the file system cannot."""
    if os.name != "posix":
        return False
    libc = ctypes.CDLL(None)
    if sys.platform == "linux" and hasattr(libc, "renameat2"):
        paths = (_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(other))
        return bool(libc.renameat2(*paths, _EXCHANGE) == 0)
    if sys.platform == "darwin" and hasattr(libc, "renamex_np"):
        return bool(libc.renamex_np(os.fsencode(one), os.fsencode(other), _EXCHANGE) == 0)
    return False


def _sync(folder: Path) -> None:
    if os.name == "nt":  # Windows cannot open folders
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _space(owner: Owner) -> str:
    return hashlib.sha256(owner.space.encode("utf-8")).hexdigest()[:8]


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ArtifactError(
            f"Cannot write {path}: {error.strerror} ({error.filename}).",
            remedy="Check its space and permissions, or choose another folder.",
        ) from error
