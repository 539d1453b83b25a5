"""One pass over one piece: read, judge, write; done when its mark is there.

A pass ends where a step must see all data first: until then kept rows go to the work folder, with the
states of that step. The mark of a piece is written last and appears whole, so a run that is killed
anywhere does that piece again and nothing else, and writes the same bytes.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pyarrow as pa

from pilotfish.curate.formats.folder import Folder, writing
from pilotfish.curate.formats.pieces import Piece
from pilotfish.curate.formats.reading import FileReject, ReadOptions, read_piece
from pilotfish.curate.formats.writing import OutputOptions, ShardWriter
from pilotfish.curate.scores.judging import judge
from pilotfish.curate.step import FittedStep, Step
from pilotfish.curate.tally import PieceTally, StepTally

Beat = Callable[[int, int], None]  # bytes and rows since the last call


@dataclass(frozen=True)
class Job:
    """One pass over all pieces; can be pickled.

    Attributes:
        number: The pass, from 0.
        work: The work folder.
        steps: What judges, in order.
        labels: The steps' names in the funnel.
        fitting: What maps the rows at the end of the pass, or None.
        read: How rows are read in the first pass.
        output: Where shards go after the last pass; None: the pass is not the last, or only counts.
        options: How shards are written.
    """

    number: int
    work: Path
    steps: tuple[Step, ...]
    labels: tuple[str, ...]
    fitting: FittedStep | None
    read: ReadOptions
    output: Folder | None
    options: OutputOptions

    def folder(self, number: int | None = None) -> Path:
        """The folder of a pass."""
        return self.work / f"pass-{self.number if number is None else number}"

    def done(self, piece: int) -> Path:
        """The mark of a piece, which holds its tally."""
        return self.folder() / f"done-{piece:05d}.json"


def read_mark(path: Path) -> PieceTally | None:
    """What a finished piece counted; None when it is not finished."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=PieceTally)
    except FileNotFoundError:
        return None


def run_piece(job: Job, piece: Piece, beat: Beat) -> PieceTally:
    """Do one pass over one piece, or return at once when it was done earlier.

    Raises:
        InputError: A file cannot be read or written.
        ConfigError: A step broke its promise.
    """
    if (known := read_mark(job.done(piece.number))) is not None:
        return known
    tally = PieceTally(steps=[StepTally(label) for label in job.labels])
    with ExitStack() as stack:
        rejects = stack.enter_context(_Lines(job.folder() / f"rejects-{piece.number:05d}.jsonl"))
        kept = stack.enter_context(_sink(job, piece.number))
        states = stack.enter_context(_Batches(job.folder() / f"states-{piece.number:05d}.arrow"))
        for batch in _source(job, piece, tally, rejects, beat):
            judged = _judged(job, batch, tally)
            if not judged.num_rows:
                continue
            tally.rows_out += judged.num_rows
            if job.fitting is not None:
                started = time.process_time()
                states.write(job.fitting.map(judged))
                tally.map_seconds += time.process_time() - started
            kept.write(judged, tally.changed)
        if (name := kept.finish()) is not None and job.output is not None:
            tally.outputs.append(name)
        states.finish()
        rejects.finish()
    mark = job.done(piece.number)
    with writing(str(mark)):
        draft = _draft(mark)
        draft.write_bytes(msgspec.json.encode(tally))
        draft.replace(mark)
    if job.number:
        _spilled(job, piece.number).unlink(missing_ok=True)
    return tally


def _judged(job: Job, batch: pa.RecordBatch, tally: PieceTally) -> pa.RecordBatch:
    for step, counted in zip(job.steps, tally.steps, strict=True):
        if not batch.num_rows:
            break
        started = time.process_time()
        verdict, after = judge(step, batch)
        counted.count(batch, verdict, after)
        counted.seconds += time.process_time() - started
        tally.changed += [name for name in verdict.columns if name not in tally.changed]
        batch = after
    return batch


def _source(
    job: Job, piece: Piece, tally: PieceTally, rejects: _Lines, beat: Beat
) -> Iterator[pa.RecordBatch]:
    if job.number:
        before = read_mark(job.folder(job.number - 1) / job.done(piece.number).name)
        tally.changed = [] if before is None else before.changed
        for batch in read_batches(_spilled(job, piece.number)):
            beat(0, batch.num_rows)
            yield batch
        return
    tally.lines = [0] * len(piece.segments)
    position = (0, 0)
    for chunk in read_piece(piece, job.read):
        tally.lines[chunk.segment] += chunk.lines
        before_segment = chunk.segment == position[0]
        moved = chunk.position - position[1] if before_segment else chunk.position
        if not before_segment:
            moved += piece.segments[position[0]].size - position[1]
        position = (chunk.segment, chunk.position)
        tally.rows_read += chunk.batch.num_rows
        for reject in chunk.rejects:
            tally.rejects[reject.reason] = tally.rejects.get(reject.reason, 0) + 1
            line = tally.lines[chunk.segment] - chunk.lines + reject.line
            rejects.write(FileReject(reject.segment, line, reject.reason, reject.text))
        beat(moved, chunk.lines)
        tally.bytes_read += moved
        if chunk.batch.num_rows:
            yield chunk.batch
    if job.read.limit is None or sum(tally.lines) < job.read.limit:  # read to the end
        beat(piece.size - tally.bytes_read, 0)
        tally.bytes_read = piece.size


def _draft(path: Path) -> Path:
    return path.with_suffix(f".{os.getpid()}.tmp")


def _spilled(job: Job, piece: int) -> Path:
    return job.folder(job.number - 1) / f"rows-{piece:05d}.arrow"


def _sink(job: Job, piece: int) -> Any:
    if job.fitting is not None:
        return _Batches(job.folder() / f"rows-{piece:05d}.arrow")
    if job.output is not None:
        return ShardWriter(job.output, piece, job.options)
    return _Nowhere()


class _Nowhere:
    """Where rows go in a rehearsal."""

    def __enter__(self) -> _Nowhere:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def write(self, batch: pa.RecordBatch, changed: object) -> None:
        """Drop the rows."""

    def finish(self) -> None:
        """Nothing was written."""


class _Batches:
    """Record batches on disk, in a file that appears whole; none is written for no batches."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = _draft(path)
        self._writer: Any = None

    def __enter__(self) -> _Batches:
        return self

    def __exit__(self, *error: object) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None

    def write(self, batch: pa.RecordBatch, changed: object = None) -> None:
        """Append a batch; its columns are fitted to those of the first."""
        with writing(str(self._path)):
            batch = _without_dictionaries(batch)
            if self._writer is None:
                options = pa.ipc.IpcWriteOptions(compression=pa.Codec("zstd", 1), use_threads=False)
                self._writer = pa.ipc.new_stream(str(self._draft), batch.schema, options=options)
                self._schema = batch.schema
            self._writer.write_batch(batch if batch.schema == self._schema else self._cast(batch))

    def _cast(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        from pilotfish.curate.formats.writing import fitted

        return fitted(batch, self._schema)

    def finish(self) -> str | None:
        """Let the file appear; its name, or None where nothing was written."""
        if self._writer is None:
            return None
        with writing(str(self._path)):
            self._writer.close()
            self._writer = None
            self._draft.replace(self._path)
        return self._path.name


def _without_dictionaries(batch: pa.RecordBatch) -> pa.RecordBatch:
    """The same rows with plain columns, so that all batches of a file have one schema."""
    for i, field in enumerate(batch.schema):
        if pa.types.is_dictionary(field.type):
            batch = batch.set_column(i, field.name, batch.column(i).dictionary_decode())
    return batch


def read_batches(path: Path) -> Iterator[pa.RecordBatch]:
    """The batches of a file, one at a time; none when there is no file."""
    if path.exists():
        options = pa.ipc.IpcReadOptions(use_threads=False)
        with pa.OSFile(str(path)) as file, pa.ipc.open_stream(file, options=options) as reader:
            yield from reader


class _Lines:
    """Records as JSON lines, in a file that appears whole; none is written for no records."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._draft = _draft(path)
        self._handle: Any = None

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *error: object) -> None:
        if self._handle is not None:
            self._handle.close()

    def write(self, record: FileReject) -> None:
        """Append a record."""
        with writing(str(self._path)):
            if self._handle is None:
                self._handle = self._draft.open("wb")
            self._handle.write(msgspec.json.encode(record) + b"\n")

    def finish(self) -> None:
        """Let the file appear, where there were records."""
        if self._handle is not None:
            with writing(str(self._path)):
                self._handle.close()
                self._draft.replace(self._path)
