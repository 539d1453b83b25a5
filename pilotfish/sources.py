"""Opening the user's files: which format one is, whether it is text at all, and its lines, bounded.

Lines come as bytes and are never longer than a limit, so one line of 100 MB costs no memory. Text is
UTF-8, with or without a byte-order mark; UTF-16 is recognised by its mark and recoded on the way. Files
to write are looked at before the work begins, not when it is done.
"""

from __future__ import annotations

import codecs
import gzip
import io
import zlib
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

from pilotfish.errors import InputError

FORMATS = ("jsonl", "json", "csv", "tsv", "parquet")
SUFFIXES = {
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "json",
    ".csv": "csv",
    ".tsv": "tsv",
    ".tab": "tsv",
    ".parquet": "parquet",
    ".pq": "parquet",
}
MAGIC = {
    b"PAR1": "a Parquet file",
    b"PK\x03\x04": "a ZIP archive or an Excel workbook",
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF document",
    b"SQLite format 3\x00": "an SQLite database",
    b"ARROW1": "an Arrow file",
    b"\x28\xb5\x2f\xfd": "a Zstandard file",
    b"BZh": "a bzip2 file",
    b"\xd0\xcf\x11\xe0": "an old Excel workbook",
}
CONTROL = bytes(sorted(set(range(32)) - set(b"\t\n\r\f\x0b\x1b")))
HEAD = 8192


class Line(NamedTuple):
    """One line without its line end.

    Attributes:
        number: 1-based.
        data: Its bytes; only the first kilobytes when it is too long.
        too_long: It was longer than the limit.
    """

    number: int
    data: bytes
    too_long: bool


def detect(path: Path, format: str | None) -> str:
    """The file's format by its suffix (``.gz`` set aside), or the one that was asked for.

    Raises:
        InputError: No such file, a folder, or nothing says which format it is.
    """
    if format is not None and format not in FORMATS:
        raise InputError(f"Got format {format!r}, but expected one of {', '.join(FORMATS)}.")
    if path.is_dir():
        raise InputError(f"{str(path)!r} is a folder, but expected a file.")
    if not path.exists():
        raise InputError(f"No file at {str(path)!r}.")
    suffixes = [s.lower() for s in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    found = format or SUFFIXES.get(suffixes[-1] if suffixes else "")
    if found is None:
        raise InputError(
            f"The name {path.name!r} does not say which format the file has.",
            remedy=f"Give --format, one of: {', '.join(FORMATS)}",
        )
    return found


def open_text(path: Path) -> BinaryIO:
    """Open a text file as UTF-8 bytes: unpacked, recoded from UTF-16, without byte-order mark.

    Raises:
        InputError: It cannot be opened, is empty, or is not text.
    """
    zipped = path.suffix.lower() == ".gz"
    with reading(path):
        packed = gzip.GzipFile(path, "rb") if zipped else path.open("rb")
    handle = io.BufferedReader(cast(io.RawIOBase, packed), 1 << 16) if zipped else packed
    with ExitStack() as unless_given_away:
        unless_given_away.callback(handle.close)
        text = _unmarked(path, cast(io.BufferedReader, handle))
        unless_given_away.pop_all()
    return text


def _unmarked(path: Path, handle: io.BufferedReader) -> BinaryIO:
    with reading(path):
        head = handle.peek(HEAD)[:HEAD]
    if not head:
        raise InputError(f"The file {str(path)!r} is empty.")
    if head.startswith((codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)):
        raise InputError(f"{str(path)!r} is UTF-32.", remedy=_recode(path, "UTF-32"))
    if head.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return io.BufferedReader(Utf16(handle), 1 << 16)
    if head.startswith(codecs.BOM_UTF8):
        handle.read(len(codecs.BOM_UTF8))
    _refuse_binary(path, head)
    if head.count(b"\r") > 1 and b"\n" not in head:
        raise InputError(
            f"The lines of {str(path)!r} end in carriage returns alone, as on old Macs.",
            remedy=f"tr '\\r' '\\n' < {path} > lines-{path.name}",
        )
    return handle


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a damaged file raises while it is read into :class:`InputError`."""
    try:
        yield
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise InputError(
            f"{str(path)!r} is not a complete gzip file: {error}.",
            remedy=f"Check it with: gzip -t {path}",
        ) from error
    except OSError as error:
        raise InputError(f"Cannot read {str(path)!r}: {error.strerror or error}.") from error


def writable(path: str | Path, endings: Collection[str] = ()) -> Path:
    """A file to write, looked at before the work for it begins.

    Args:
        path: Where it will be.
        endings: Of its name, such as ``.jsonl``, of which it must have one; none for any.

    Raises:
        InputError: It has another ending, is a folder, or lies in a folder that is not there.
    """
    path = Path(path)
    if endings and path.suffix not in endings:
        raise InputError(
            f"Got {str(path)!r}, but expected a file that ends in {', '.join(endings)}."
        )
    if path.is_dir():
        raise InputError(f"Got the folder {str(path)!r}, but expected a file to write.")
    if not path.absolute().parent.is_dir():
        raise InputError(
            f"Cannot write {str(path)!r}: there is no folder {str(path.parent)!r}.",
            remedy=f"mkdir -p {path.parent}",
        )
    return path


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn what writing a file raises into :class:`InputError`."""
    try:
        yield
    except OSError as error:
        raise InputError(f"Cannot write {str(path)!r}: {error.strerror or error}.") from error


def lines(handle: BinaryIO, max_bytes: int) -> Iterator[Line]:
    """Lines of a stream; of one longer than ``max_bytes`` only the beginning is ever held."""
    number = 0
    while data := handle.readline(max_bytes + 2):
        number += 1
        if data.endswith(b"\n"):
            data = data[:-2] if data.endswith(b"\r\n") else data[:-1]
        if len(data) <= max_bytes:
            yield Line(number, data, False)
            continue
        if len(data) == max_bytes + 2:
            while (more := handle.readline(1 << 20)) and not more.endswith(b"\n"):
                pass
        yield Line(number, data[:1024], True)


def likely_encoding(sample: bytes) -> str:
    """The encoding that bytes which are not UTF-8 most likely have, as ``iconv`` names it.

    >>> likely_encoding("Grüße, señor".encode("latin-1"))
    'WINDOWS-1252'
    """
    high = [byte for byte in sample if byte >= 0x80]
    letters = sum(chr(byte).isalpha() for byte in sample if byte < 0x80)
    if len(high) <= letters:
        return "WINDOWS-1252"
    for name, lead in (("SHIFT_JIS", range(0x81, 0x84)), ("GB18030", range(0xB0, 0xF8))):
        pairs = sum(byte in lead for byte in high)
        if pairs * 4 >= len(high) and _decodes(sample, name):
            return name
    return "WINDOWS-1251"


def encoding_remedy(path: Path, sample: bytes) -> str:
    """The command that recodes a file whose lines are not UTF-8."""
    return _recode(path, likely_encoding(sample))


def _is_utf8(head: bytes) -> bool:
    try:
        codecs.getincrementaldecoder("utf-8")().decode(head)  # may end inside a character
    except UnicodeDecodeError:
        return False
    return True


def _decodes(sample: bytes, name: str) -> bool:
    bad = sample.decode(name, "replace").count("\ufffd")
    return bad * 20 <= len(sample)


def _recode(path: Path, encoding: str) -> str:
    return f"iconv -f {encoding} -t UTF-8 {path} > utf8-{path.name}"


def _refuse_binary(path: Path, head: bytes) -> None:
    if 0 not in head and _is_utf8(head):
        return
    kind = next((text for magic, text in MAGIC.items() if head.startswith(magic)), None)
    control = len(head) - len(head.translate(None, CONTROL))
    if kind is None and control * 20 <= len(head):
        return
    even, odd = head[::2].count(0), head[1::2].count(0)
    if kind is None and max(even, odd) * 5 >= len(head):
        wide = "UTF-16LE" if odd > even else "UTF-16BE"
        raise InputError(f"{str(path)!r} looks like {wide} text.", remedy=_recode(path, wide))
    raise InputError(
        f"{str(path)!r} is {kind or 'a binary file'}, but expected text.",
        remedy="Expected JSONL, CSV or TSV (also .gz), or Parquet with the suffix .parquet",
    )


class Utf16(io.RawIOBase):
    """Recodes UTF-16 to UTF-8; what is broken becomes invalid UTF-8, so only its line is refused."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._decode = codecs.getincrementaldecoder("utf-16")("surrogatepass")
        self._ready = b""
        self._ended = False

    def readable(self) -> bool:
        """Always."""
        return True

    def readinto(self, buffer: object) -> int:
        """Fill the buffer with UTF-8; 0 at the end."""
        view = memoryview(cast(bytearray, buffer))
        while not self._ready and not self._ended:
            piece = self._source.read(1 << 16)
            self._ended = not piece
            try:
                text = self._decode.decode(piece, final=self._ended)
            except UnicodeDecodeError:  # half a character at the very end
                self._ready = b"\xff"
            else:
                self._ready = text.encode("utf-8", "surrogatepass")
        taken = min(len(view), len(self._ready))
        view[:taken] = self._ready[:taken]
        self._ready = self._ready[taken:]
        return taken

    def close(self) -> None:
        """Close the file below, too."""
        self._source.close()
        super().close()
