"""The end of a run: one file of rejects with the lines of the user's files, the report, the page."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec

from pilotfish.curate.formats.folder import Folder, writing
from pilotfish.curate.formats.pieces import Piece
from pilotfish.curate.formats.reading import FileReject
from pilotfish.curate.result import CurateResult
from pilotfish.curate.tally import PieceTally
from pilotfish.errors import InputError

REJECTS = "_rejects.jsonl"
REPORT = "_report.json"
PAGE = "_report.html"


def read_report(folder: Folder) -> CurateResult | None:
    """The report of a finished run; None where there is none.

    Raises:
        InputError: There is one, but it is damaged.
    """
    data = folder.read(REPORT)
    if data is None:
        return None
    try:
        return msgspec.json.decode(data, type=CurateResult)
    except msgspec.DecodeError as error:
        raise InputError(
            f"{folder.path(REPORT)!r} is no report of this version: {error}.",
            remedy="Name another output folder, or remove this one.",
        ) from error


@contextmanager
def claimed(work: Path) -> Iterator[None]:
    """Hold the work folder, so that two runs do not write into one.

    Raises:
        InputError: Another run holds it, or it cannot be made.
    """
    from filelock import FileLock, Timeout

    with writing(str(work)):
        work.mkdir(parents=True, exist_ok=True)
        lock = FileLock(work / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise InputError(
                f"Another run is at work in {str(work)!r}; wait for its end."
            ) from None
    try:
        yield
    finally:
        lock.release()


def finish(
    folder: Folder,
    work: Path,
    pieces: Sequence[Piece],
    tallies: Mapping[int, PieceTally],
    result: CurateResult,
) -> None:
    """Write rejects, page and report; the report last, because it says that the run is finished."""
    from pilotfish.curate.report import render_report

    if result.rejected:
        with folder.put(REJECTS) as handle:
            for line in _rejects(work, pieces, tallies):
                handle.write(line)
    with folder.put(PAGE) as handle:
        handle.write(render_report(result).encode("utf-8", "replace"))
    with folder.put(REPORT) as handle:
        handle.write(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")


def _rejects(
    work: Path, pieces: Sequence[Piece], tallies: Mapping[int, PieceTally]
) -> Iterator[bytes]:
    """Rejects as JSON lines with file, line (from 1, of the whole file), reason and text."""
    before: dict[str, int] = {}  # lines of a file that earlier pieces held
    decoder = msgspec.json.Decoder(FileReject)
    for piece in pieces:
        path = work / "pass-0" / f"rejects-{piece.number:05d}.jsonl"
        lines = tallies[piece.number].lines
        if path.exists():
            with path.open("rb") as file:
                for line in file:
                    reject = decoder.decode(line)
                    url = piece.segments[reject.segment].file.url
                    record = {
                        "file": url,
                        "line": before.get(url, 0) + reject.line + 1,
                        "reason": reject.reason,
                        "text": reject.text,
                    }
                    yield msgspec.json.encode(record) + b"\n"
        for segment, count in zip(piece.segments, lines, strict=True):
            before = {segment.file.url: before.get(segment.file.url, 0) + count}
