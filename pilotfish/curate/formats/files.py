"""Which files are read.

A pattern is a path, a folder, a glob, or a URL that fsspec knows (``s3://bucket/c4/*.json.gz``). A name
says by its endings which format a file has and how it is packed.
"""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import msgspec

from pilotfish.curate.formats.opening import filesystem, is_url, opening, without_scheme
from pilotfish.errors import ConfigError, InputError

FORMATS = ("jsonl", "text", "documents", "csv", "tsv", "parquet")
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",  # published corpora call JSON lines so
    ".txt": "text",
    ".text": "text",
    ".csv": "csv",
    ".tsv": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
PACKED = {".gz": "gzip", ".gzip": "gzip", ".zst": "zstd", ".zstd": "zstd"}
WEB = ("http://", "https://")


class InputFile(msgspec.Struct, frozen=True, omit_defaults=True):
    """A file to read.

    Attributes:
        url: A local path, or a URL.
        format: One of :data:`FORMATS`.
        packed: ``"gzip"``, ``"zstd"`` or ``""``.
        size: Bytes as stored.
        stamp: Changes when the file does: time of change, or what the store says.
        whole: It can only be read from its beginning: a web server that gives no parts.
    """

    url: str
    format: str
    packed: str
    size: int
    stamp: str
    whole: bool = False


def find_files(patterns: Sequence[str | Path], format: str | None = None) -> list[InputFile]:
    """The files that the patterns name, in the order given and sorted within each.

    In folders, names that begin with ``_`` or ``.`` and names that say nothing about the format are left
    out, so that the output of one run can be the input of the next.

    Raises:
        ConfigError: An unknown format, or a URL whose library is not installed.
        InputError: There is no pattern, one matches nothing, or a name does not say which format it has.
    """
    if format is not None and format not in FORMATS:
        raise ConfigError(f"Got format {format!r}.", remedy=f"Known: {', '.join(FORMATS)}")
    found: dict[str, InputFile] = {}
    for pattern in map(without_scheme, patterns):
        with opening(pattern):
            matched = list(_remote(pattern, format) if is_url(pattern) else _local(pattern, format))
        if not matched:
            folder = not is_url(pattern) and Path(pattern).expanduser().is_dir()
            raise _no_file(pattern) if folder else InputError(f"No file matches {pattern!r}.")
        found.update((file.url, file) for file in matched)
    if not found:
        raise InputError("Got no input, but expected files, folders, globs or URLs.")
    return list(found.values())


def _no_file(folder: str) -> InputError:
    return InputError(
        f"The folder {folder!r} holds no file whose name says its format, such as "
        f"{', '.join(SUFFIXES)}, also with {', '.join(PACKED)}.",
        remedy="If it holds others: --input-format says which format all have. Names that begin with "
        '"_" or "." are left out.',
    )


def _local(pattern: str, format: str | None) -> Iterator[InputFile]:
    path = Path(pattern).expanduser()
    if path.is_dir():
        inside = (p for p in path.rglob("*") if p.is_file() and not _hidden(p.relative_to(path)))
        paths = sorted(str(p) for p in inside if format or _kind(p.name)[0])
    elif path.exists():
        paths = [str(path)]
    else:
        paths = sorted(p for p in glob.glob(str(path), recursive=True) if Path(p).is_file())
    for name in paths:
        stat = os.stat(name)
        yield _file(os.path.abspath(name), format, stat.st_size, str(stat.st_mtime_ns))


def _hidden(path: Path) -> bool:
    return any(part[0] in "._" for part in path.parts)


def _remote(pattern: str, format: str | None) -> Iterator[InputFile]:
    fs, path = filesystem(pattern)
    first, chained, rest = pattern.partition("::")
    inside = chained + rest if "://" in first else ""  # of an archive, which names its files alone
    if glob.has_magic(path):
        listed = fs.glob(path, detail=True)
    elif _is_folder(fs, path, format):
        listed = {
            name: info
            for name, info in fs.find(path, detail=True).items()
            if not _hidden(Path(name[len(path) :].lstrip("/"))) and (format or _kind(name)[0])
        }
    else:
        listed = {path: fs.info(path)}
    for name in sorted(listed):
        info = listed[name]
        if info.get("type", "file") == "file":
            stamp = next(
                (info[key] for key in ("ETag", "etag", "mtime", "created") if key in info), ""
            )
            url = (name if "://" in name else fs.unstrip_protocol(name)) + inside
            size = info.get("size")
            # Some web servers do not say how large a file is; it is read whole, and is not empty.
            whole = url.startswith(WEB) and not _gives_parts(url)
            yield _file(url, format, 1 if size is None else int(size), str(stamp), whole)


def _is_folder(fs: Any, path: str, format: str | None) -> bool:
    """Whether it is a folder; of a web server not asked of what is called as a file is.

    All that fsspec can do there is to read the whole of it, and look for links.
    """
    called_a_file = format or _kind(path)[0]
    if called_a_file and path.startswith(WEB) and not path.endswith("/"):
        return False
    return bool(fs.isdir(path))


def _gives_parts(url: str) -> bool:
    """Whether a web server sends a range of bytes when it is asked for one; many do not say."""
    from fsspec.asyn import sync

    fs, path = filesystem(url)

    async def asked() -> bool:
        session = await fs.set_session()
        async with session.get(fs.encode_url(path), headers={"Range": "bytes=0-0"}) as answer:
            return bool(answer.status == 206)  # what else it sends is not read

    return bool(sync(fs.loop, asked))


def _kind(name: str) -> tuple[str, str]:
    """Format and packing by the suffixes of a name; "" where they say nothing."""
    name = name.partition("?")[0].partition("::")[0]
    suffixes = [suffix.lower() for suffix in Path(name).suffixes]
    packed = PACKED.get(suffixes[-1], "") if suffixes else ""
    if packed:
        suffixes.pop()
    return SUFFIXES.get(suffixes[-1], "") if suffixes else "", packed


def _file(url: str, format: str | None, size: int, stamp: str, whole: bool = False) -> InputFile:
    found, packed = _kind(url)
    if not (format or found):
        raise InputError(
            f"The name {url!r} does not say which format the file has.",
            remedy=f"Give --input-format, one of: {', '.join(FORMATS)}",
        )
    return InputFile(url, format or found, packed, size, stamp, whole)
