"""Which files are read, and how they are cut into pieces of work.

A pattern is a path, a folder, a glob, or a URL that fsspec knows (``s3://bucket/c4/*.json.gz``). A piece
is what one worker does at a time and what one output shard is made of: a byte range of a large file of
lines, a run of small ones, some row groups of a Parquet file, or one file that cannot be cut (packed,
CSV). The cut depends on the names and sizes of the files alone, so a run that was killed makes the same
pieces again, on any number of workers.
"""

from __future__ import annotations

import glob
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

import msgspec

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
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd"}
UTF16 = (b"\xff\xfe", b"\xfe\xff")
REMOTE_ERRORS = {  # of HTTP, S3, Google Cloud and Azure: a server that fails, no credentials
    "aiohttp": "ClientError",
    "botocore.exceptions": "BotoCoreError",
    "google.auth.exceptions": "GoogleAuthError",
    "azure.core.exceptions": "AzureError",
}
PIECE_BYTES = 64 << 20  # about a minute of the rule filters on one core: what a kill can cost
WEB = ("http://", "https://")
MAX_PIECES = 1 << 23  # the row number has 24 bits for the piece


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


class Segment(msgspec.Struct, frozen=True):
    """A part of a file.

    Attributes:
        file: What it is part of.
        start: First byte (lines) or first row group (Parquet).
        end: One past the last; -1 for all that follow.
        size: Bytes as stored.
    """

    file: InputFile
    start: int
    end: int
    size: int


class Piece(msgspec.Struct, frozen=True):
    """What one worker does at a time; ``number`` also names the output shard."""

    number: int
    segments: tuple[Segment, ...]

    @property
    def size(self) -> int:
        """Bytes as stored."""
        return sum(segment.size for segment in self.segments)


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
            matched = list(
                _remote(pattern, format) if _is_url(pattern) else _local(pattern, format)
            )
        if not matched:
            folder = not _is_url(pattern) and Path(pattern).expanduser().is_dir()
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


def without_scheme(url: str | Path) -> str:
    """A URL of this machine's own files as a path; any other text as it is.

    >>> without_scheme("file:///data/a.jsonl"), without_scheme("s3://data/a.jsonl")
    ('/data/a.jsonl', 's3://data/a.jsonl')
    """
    return str(url).removeprefix("file://")


def _is_url(pattern: str) -> bool:
    return "://" in pattern or "::" in pattern


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
        whole: As of :class:`InputFile`.

    Raises:
        InputError: It is not there or cannot be read.
        ConfigError: The library for its protocol is not installed.
    """
    with opening(url):
        if not _is_url(url):
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


def plan(files: Sequence[InputFile], piece_bytes: int = PIECE_BYTES) -> list[Piece]:
    """Cut files into pieces of about ``piece_bytes`` as stored.

    Raises:
        ConfigError: There would be too many pieces.
        InputError: A Parquet file's footer cannot be read.
    """
    pieces: list[Piece] = []
    run: list[Segment] = []

    def close() -> None:
        if run:
            pieces.append(Piece(len(pieces), tuple(run)))
            run.clear()

    for file in files:
        if file.size == 0:
            continue
        alone = file.format in ("csv", "tsv", "parquet")  # each has columns of its own
        segments = list(_cut(file, piece_bytes))
        full = sum(segment.size for segment in run) + file.size > piece_bytes
        if alone or len(segments) > 1 or full or (run and run[0].file.format != file.format):
            close()
        for segment in segments:
            run.append(segment)
            if alone or len(segments) > 1:
                close()
    close()
    if len(pieces) > MAX_PIECES:
        raise ConfigError(
            f"Got {len(pieces):,} pieces, but at most {MAX_PIECES:,} can be numbered.",
            remedy="Give a larger --shard-size",
        )
    return pieces


def _cut(file: InputFile, piece_bytes: int) -> Iterator[Segment]:
    if file.whole:
        yield Segment(file, 0, -1, file.size)
    elif file.size > piece_bytes and file.format == "parquet":
        yield from _row_groups(file, piece_bytes)
    elif file.size > piece_bytes and file.format in ("jsonl", "text") and _divisible(file):
        for start in range(0, file.size, piece_bytes):
            end = min(start + piece_bytes, file.size)
            yield Segment(file, start, end, end - start)
    else:
        yield Segment(file, 0, -1, file.size)


def _divisible(file: InputFile) -> bool:
    if file.packed:
        return False
    with open_binary(file.url) as handle, opening(file.url):
        head = handle.read(4)
    return not head.startswith((*MAGIC, *UTF16))


def _row_groups(file: InputFile, piece_bytes: int) -> Iterator[Segment]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with open_binary(file.url) as handle, opening(file.url):
            metadata = pq.ParquetFile(handle).metadata
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, InputError):
        yield Segment(file, 0, -1, file.size)  # reading it will say what is wrong
        return
    start = size = 0
    for group in range(metadata.num_row_groups):
        row_group = metadata.row_group(group)
        packed = [row_group.column(i).total_compressed_size for i in range(row_group.num_columns)]
        if size and size + sum(packed) > piece_bytes:
            yield Segment(file, start, group, size)
            start, size = group, 0
        size += sum(packed)
    yield Segment(file, start, metadata.num_row_groups, size)
