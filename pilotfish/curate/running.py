"""One run of a pipeline: what is to be done, what is done already, and what it came to."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from pilotfish.curate import finishing, first_look
from pilotfish.curate.engines import ENGINES
from pilotfish.curate.formats.files import find_files
from pilotfish.curate.formats.folder import Folder, writing
from pilotfish.curate.formats.opening import without_scheme
from pilotfish.curate.formats.pieces import PIECE_BYTES, Piece, plan
from pilotfish.curate.formats.reading import MAX_ROW_BYTES, ReadOptions
from pilotfish.curate.formats.writing import OutputOptions, is_shard
from pilotfish.curate.identity import fingerprint, shown
from pilotfish.curate.memory import system_memory
from pilotfish.curate.meter import Meter
from pilotfish.curate.result import CurateResult
from pilotfish.curate.step import FittedStep, Rehearsing, State, Step
from pilotfish.curate.tally import PieceTally, total
from pilotfish.curate.work import Job, read_batches, read_mark
from pilotfish.errors import ConfigError, InputError
from pilotfish.progress import Progress

if TYPE_CHECKING:
    from pilotfish.curate.pipeline import Pipeline

SAMPLED_PIECES = 10
SAMPLE_PIECE_BYTES = 8 << 20


@dataclass(frozen=True)
class RunSettings:
    """How to run; see :meth:`pilotfish.curate.pipeline.Pipeline.run`."""

    engine: str = "local"
    workers: int | None = None
    format: str | None = None
    packing: str | None = None
    input_format: str | None = None
    shard_bytes: int = PIECE_BYTES
    max_row_bytes: int = MAX_ROW_BYTES

    def __post_init__(self) -> None:
        for name in ("workers", "shard_bytes", "max_row_bytes"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ConfigError(f"Got {name}={value}, but expected at least 1.")


class Run:
    """A pipeline on its inputs.

    Args:
        pipeline: The steps.
        inputs: Paths, folders, globs or URLs.
        settings: How.
        progress: Where stages are reported.

    Raises:
        InputError: An input is not there.
        ConfigError: A setting is wrong.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        inputs: Sequence[str | Path],
        settings: RunSettings,
        progress: Progress,
    ) -> None:
        self._pipeline = pipeline
        self._settings = settings
        self._progress = progress
        self._engine = ENGINES.load(settings.engine)
        self._files = find_files(inputs, settings.input_format)
        self._named = {str(path) for path in inputs}
        self._named |= {_absolute(without_scheme(path)) for path in inputs}
        self._read = ReadOptions(pipeline.text, pipeline.reads, settings.max_row_bytes)
        self._ask: bool | None = None  # in a rehearsal: whether models may be asked
        self._notes: list[str] = []

    @system_memory()
    def write(self, output: str | Path, work: str | Path | None) -> CurateResult:
        """Do what is left to do, and report on all of it."""
        started = time.monotonic()
        folder = Folder(output)
        self._leave_out_own(folder)
        self._refuse_overlap(folder)
        pieces = plan(self._files, self._settings.shard_bytes)
        options = first_look.output_options(
            self._files, pieces, self._read, self._settings.format, self._settings.packing
        )
        mark = self._fingerprint(options)
        if (known := finishing.read_report(folder)) is not None:
            if known.fingerprint == mark:
                self._progress.say(f"{folder.url} is finished already; nothing was done.")
                return known
            raise _other_run(folder.url)
        first_look.refuse_unusable(pieces, self._read)
        absent = first_look.absent(pieces, self._read)
        folder.create()
        where = _work_folder(folder, work, mark)
        with finishing.claimed(where):
            self._check_work(where, folder, mark)
            tallies, sums, resumed = self._passes(where, pieces, folder, options)
            try:
                result = self._result(sums, folder.url, 1.0)
            except InputError:  # nothing to go on with: another run may take the folder
                _remove(where)
                raise
            result.resumed = resumed
            result.notes = [*self._absent(absent, sums), *self._notes]
            result.fingerprint = mark
            result.seconds = time.monotonic() - started
            finishing.finish(folder, where, pieces, tallies[0], result)
        _remove(where)
        return result

    @system_memory()
    def sample(self, rows: int, ask: bool) -> CurateResult:
        """What it would come to, by about so many rows; models are asked only where ``ask`` says so."""
        started = time.monotonic()
        self._ask = ask
        pieces = plan(self._files, SAMPLE_PIECE_BYTES)
        first_look.refuse_unusable(pieces, self._read)
        step = max(1, -(-len(pieces) // SAMPLED_PIECES))
        chosen = pieces[::step]
        absent = first_look.absent(chosen, self._read)
        self._read = replace(self._read, limit=max(1, -(-rows // max(1, len(chosen)))))
        options = OutputOptions("jsonl", "none", self._pipeline.text)
        with tempfile.TemporaryDirectory(prefix="pilotfish-sample-") as where:
            tallies, sums, _ = self._passes(Path(where), chosen, None, options)
        size = sum(file.size for file in self._files)
        seen = sum(tally.bytes_read for tally in tallies[0].values())
        result = self._result(sums, "", min(1.0, seen / size) if size else 1.0)
        result.notes = [*self._absent(absent, sums), *self._notes]
        result.seconds = time.monotonic() - started
        return result

    def _absent(self, columns: Sequence[str], sums: Sequence[PieceTally]) -> list[str]:
        """What to say of columns that neither the rows looked at have nor a step has added."""
        readers = zip(self._pipeline.labels, self._pipeline.steps, strict=True)
        return [
            f"{label}: it reads the column {name!r}, which no row at the beginning of the input has and "
            "no step has added."
            for label, step in readers
            for name in getattr(step, "reads", {})
            if name in columns and name not in sums[-1].changed
        ]

    def _leave_out_own(self, folder: Folder) -> None:
        """An output folder may lie in an input folder: its shards are no input when the run goes on."""
        own = {
            file.url
            for file in self._files
            if is_shard(file.url.rpartition("/")[2])
            and _inside(file.url, folder.url)
            and file.url not in self._named
        }
        if len(own) < len(self._files):
            self._files = [file for file in self._files if file.url not in own]

    def _refuse_overlap(self, folder: Folder) -> None:
        inside = [file.url for file in self._files if _inside(file.url, folder.url)]
        if inside:
            raise ConfigError(
                f"The input {inside[0]!r} lies in the output folder.",
                remedy="Name another output folder.",
            )
        secrets = [
            path
            for step in self._pipeline.steps
            for path in getattr(step, "secrets", ())
            if _inside(_absolute(path), folder.url)
        ]
        if secrets:
            raise ConfigError(
                f"The file {secrets[0]!r}, which must stay secret, lies in the output folder.",
                remedy="Name another folder for it, or another output folder.",
            )

    def _fingerprint(self, options: OutputOptions) -> str:
        facts = {
            "steps": self._pipeline.steps,
            "text": self._pipeline.text,
            "options": options,
            "shard_bytes": self._settings.shard_bytes,
            "max_row_bytes": self._settings.max_row_bytes,
        }
        return fingerprint(self._files, facts)

    def _check_work(self, work: Path, folder: Folder, mark: str) -> None:
        path = work / "run.json"
        if path.exists():
            if msgspec.json.decode(path.read_bytes()) == mark:
                return
            if any(work.glob("*/done-*")):
                raise _other_run(str(work))
            for begun in work.glob("*/"):  # of a run that failed before it had done anything
                shutil.rmtree(begun)
        if any(name.startswith("part-") for name in folder.names()):
            raise _other_run(folder.url)
        with writing(str(path)):
            path.write_bytes(msgspec.json.encode(mark))

    def _passes(
        self,
        work: Path,
        pieces: Sequence[Piece],
        output: Folder | None,
        options: OutputOptions,
    ) -> tuple[list[dict[int, PieceTally]], list[PieceTally], int]:
        """By pass: the tallies of all pieces without their steps, and the sum of all of it.

        And how many pieces were done already. What steps counted of each piece, examples and all, stays
        in the marks on disk: it would grow with the corpus.
        """
        found: list[dict[int, PieceTally]] = []
        sums: list[PieceTally] = []
        resumed = 0
        cuts = _cuts(self._pipeline.steps)
        for number, (steps, fitting) in enumerate(cuts):
            last = number == len(cuts) - 1
            first = 0 if not number else sum(len(s) for s, _ in cuts[:number])
            labels = self._pipeline.labels[first : first + len(steps)]
            job = Job(
                number, work, (), labels, fitting, self._read, output if last else None, options
            )
            with writing(str(job.folder())):
                job.folder().mkdir(parents=True, exist_ok=True)
            marks = [job.done(piece.number) for piece in pieces]
            counted = ((p.number, read_mark(mark)) for p, mark in zip(pieces, marks, strict=True))
            done = {number: _slim(tally) for number, tally in counted if tally is not None}
            left = [piece for piece in pieces if piece.number not in done]
            resumed += len(done)
            if left:
                ready = (self._fitted(work, number - 1, s, self._share(found)) for s in steps)
                job = replace(job, steps=tuple(ready))
                before = found[-1] if found else {}
                with Meter(self._progress, job, len(cuts), pieces, done, before) as meter:
                    workers = min(self._settings.workers or _cores(), len(left))
                    for piece, tally in self._engine(job, left, workers, meter.beat):
                        done[piece] = _slim(tally)
            found.append({piece.number: done[piece.number] for piece in pieces})
            sums.append(total(tally for tally in map(read_mark, marks) if tally is not None))
            if number and pieces:  # the first step was fitted at the end of the pass before
                data = _fit_mark(work / f"pass-{number - 1}").read_bytes()
                fit = msgspec.json.decode(data, type=_Fit)
                sums[-1].steps[0].fit_seconds = sums[-2].map_seconds + fit.seconds
                if fit.note:
                    self._notes.append(f"{labels[0]}: {fit.note}")
        return found, sums, resumed

    def _share(self, found: list[dict[int, PieceTally]]) -> float:
        """How much of the input was read, by bytes."""
        size = sum(file.size for file in self._files)
        seen = sum(tally.bytes_read for tally in found[0].values()) if found else size
        return min(1.0, max(seen, 1) / max(size, 1))

    def _fitted(self, work: Path, number: int, step: Step | FittedStep, share: float) -> Step:
        """A plain step as it is; a fitted one by the states of the pass before."""
        if not isinstance(step, FittedStep):
            return step
        before = work / f"pass-{number}"
        folder = before / "fit"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        started, note = time.process_time(), ""
        with self._progress.stage(f"fit {step.name}"):
            if self._ask is None or not isinstance(step, Rehearsing):
                ready = step.reduce(_States(before), folder)
            else:
                ready, note = step.rehearse(_States(before), folder, share, self._ask)
        fit = _Fit(time.process_time() - started, note or getattr(ready, "note", ""))
        with writing(str(_fit_mark(before))):
            _fit_mark(before).write_bytes(msgspec.json.encode(fit))
        return ready

    def _result(self, sums: list[PieceTally], output: str, sample: float) -> CurateResult:
        if not sums[0].rows_read:
            reasons = ", ".join(f"{name} ({n:,})" for name, n in sums[0].rejects.items())
            raise InputError(f"The input holds no usable row{': ' + reasons if reasons else ''}.")
        counted = [step for one in sums for step in one.steps]
        return CurateResult(
            output=output,
            shards=sums[-1].outputs,
            files=len(self._files),
            empty_files=sum(not file.size for file in self._files),
            rows_read=sums[0].rows_read,
            bytes_read=sums[0].bytes_read,
            rows_kept=sums[-1].rows_out,
            rejected=dict(sorted(sums[0].rejects.items(), key=lambda item: (-item[1], item[0]))),
            steps=counted,
            sample=sample,
            engine=self._settings.engine,
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            pipeline=[shown(step) for step in self._pipeline.steps],
        )


class _States:
    """All states of a pass, read from disk; can be iterated again and again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __iter__(self) -> Iterator[State]:
        for path in sorted(self._folder.glob("states-*.arrow")):
            yield from read_batches(path)


def _cuts(
    steps: Sequence[Step | FittedStep],
) -> list[tuple[list[Step | FittedStep], FittedStep | None]]:
    """The steps of each pass, and what is fitted at its end; a fitted step begins the next pass."""
    cuts: list[tuple[list[Step | FittedStep], FittedStep | None]] = []
    current: list[Step | FittedStep] = []
    for step in steps:
        if isinstance(step, FittedStep):
            cuts.append((current, step))
            current = []
        current.append(step)
    return [*cuts, (current, None)]


class _Fit(msgspec.Struct):
    """What a fit took, and what the user should know of it; on disk, for a run resumed after it."""

    seconds: float
    note: str


def _fit_mark(folder: Path) -> Path:
    return folder / "fit.json"


def _slim(tally: PieceTally) -> PieceTally:
    return msgspec.structs.replace(tally, steps=[])


def _absolute(path: str | Path) -> str:
    return os.path.abspath(os.path.expanduser(path))


def _inside(path: str, folder: str) -> bool:
    return path.startswith(folder.rstrip("/") + "/")


def _work_folder(folder: Folder, work: str | Path | None, mark: str) -> Path:
    if work is None and folder.local:
        return Path(folder.url) / "_work"
    # In a folder of its own: it is removed at the end, and what else stands beside it is not ours.
    return Path(work or ".pilotfish-curate").expanduser().absolute() / mark


def _remove(work: Path) -> None:
    """The work folder, and the one that it is in if nothing else is."""
    shutil.rmtree(work, ignore_errors=True)
    with contextlib.suppress(OSError):
        work.parent.rmdir()


def _other_run(where: str) -> ConfigError:
    return ConfigError(
        f"{where!r} holds another run: other inputs, steps or settings.",
        remedy="Name another output folder, or remove this one.",
    )


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
