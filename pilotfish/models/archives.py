"""Reading one named member of a wheel or a source archive, as a stream.

Nothing is unpacked, so a member's name can never choose where bytes land: the caller writes them under
its own name. Only regular files are read, links and devices are refused, and so are names that climb
out of the archive; such an archive is not what the catalogue describes.
"""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from pilotfish.errors import SourceFailed


@contextmanager
def open_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    """Open a member for reading; memory stays flat however large it is.

    Args:
        archive: A ``.whl`` or ``.zip``, else a tar archive of any compression.
        member: Its path inside.

    Raises:
        SourceFailed: No such member, it is no regular file, or the archive is damaged.
    """
    if PurePosixPath(member).is_absolute() or ".." in PurePosixPath(member).parts:
        raise SourceFailed(f"{archive.name}: the member name {member!r} leaves the archive")
    opened = _zip_member if zipfile.is_zipfile(archive) else _tar_member
    try:
        with opened(archive, member) as stream:
            yield stream
    except (zipfile.BadZipFile, tarfile.TarError, zlib.error, EOFError) as error:
        raise SourceFailed(f"{archive.name}: damaged archive: {error}") from error


@contextmanager
def _zip_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    with zipfile.ZipFile(archive) as box:
        try:
            info = box.getinfo(member)
        except KeyError:
            raise SourceFailed(f"{archive.name}: has no member {member!r}") from None
        if info.is_dir() or info.flag_bits & 1:
            raise SourceFailed(f"{archive.name}: {member!r} is a folder or encrypted")
        with box.open(info) as stream:
            yield stream


@contextmanager
def _tar_member(archive: Path, member: str) -> Iterator[IO[bytes]]:
    # "r|*" reads strictly forward: a link that points back into the archive cannot be followed.
    with tarfile.open(archive, mode="r|*") as box:
        for info in box:
            if info.name != member:
                continue
            stream = box.extractfile(info) if info.isreg() else None
            if stream is None:
                raise SourceFailed(f"{archive.name}: {member!r} is a link or no regular file")
            with stream:
                yield stream
            return
    raise SourceFailed(f"{archive.name}: has no member {member!r}")
