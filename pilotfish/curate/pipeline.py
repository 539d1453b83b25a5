"""A pipeline: steps in order, run on files, the same on one core, on many and on a cluster.

It is cut where a step must see all data first. Each pass streams the rows through its steps; rows that
wait for a fit stand in the work folder. A run that was stopped or killed goes on where it was: the same
call again finds what is finished by the marks in the work folder, and its shards are the same bytes as
those of a run that was left alone.
"""

from __future__ import annotations

import tomllib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from pilotfish.curate.formats.pieces import PIECE_BYTES
from pilotfish.curate.formats.reading import MAX_ROW_BYTES
from pilotfish.curate.result import CurateResult
from pilotfish.curate.step import TEXT, FittedStep, Step, build_step, read_columns
from pilotfish.errors import ConfigError, UnknownName
from pilotfish.progress import Progress

FILE_SETTINGS = ("text", "steps")


class Pipeline:
    """Steps in order.

    Args:
        steps: What judges the rows; each a :class:`~pilotfish.curate.step.Step` or a
            :class:`~pilotfish.curate.step.FittedStep`.
        text: The column of the user's files that holds the text.

    Raises:
        ConfigError: There is no step, something is no step, or steps disagree on a column's type.
    """

    def __init__(self, steps: Sequence[Step | FittedStep], *, text: str = TEXT) -> None:
        if not steps:
            raise ConfigError("Got a pipeline without steps.", remedy="Add a [[steps]] table.")
        for step in steps:
            if not isinstance(step, Step | FittedStep):
                raise ConfigError(
                    f"Got {step!r} as a step, but expected a name and apply(batch), or map and reduce."
                )
        self.steps = tuple(steps)
        self.text = text
        self.reads = read_columns(steps)

    @classmethod
    def from_file(cls, path: str | Path) -> Pipeline:
        """Read a pipeline file.

        ::

            text = "content"        # the column of the text; default "text"

            [[steps]]
            step = "length"         # a registered step; the rest are its settings
            min_chars = 200

        Raises:
            ConfigError: It cannot be read, is not TOML, or a setting is wrong.
            UnknownName: A step or setting that does not exist; says which was likely meant.
        """
        try:
            data = tomllib.loads(Path(path).read_text("utf-8-sig"))
        except OSError as error:
            raise ConfigError(f"Cannot read {str(path)!r}: {error.strerror}.") from error
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise ConfigError(f"{path} is not TOML: {error}.") from error
        for key in data:
            if key not in FILE_SETTINGS:
                raise UnknownName(f"setting of {path}:", key, FILE_SETTINGS)
        tables = data.get("steps", [])
        if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
            raise ConfigError(f"{path}: got steps = {tables!r}, but expected [[steps]] tables.")
        if not isinstance(data.get("text", TEXT), str):
            raise ConfigError(f"{path}: got text = {data['text']!r}, but expected a column's name.")
        return cls([build_step(table) for table in tables], text=data.get("text", TEXT))

    @property
    def labels(self) -> tuple[str, ...]:
        """The names of the steps in the funnel, each different from the others."""
        seen: Counter[str] = Counter()
        labels = []
        for step in self.steps:
            seen[step.name] += 1
            labels.append(step.name if seen[step.name] == 1 else f"{step.name} ({seen[step.name]})")
        return tuple(labels)

    def run(
        self,
        inputs: str | Path | Sequence[str | Path],
        output: str | Path,
        *,
        engine: str = "local",
        workers: int | None = None,
        format: str | None = None,
        compression: str | None = None,
        input_format: str | None = None,
        work: str | Path | None = None,
        shard_bytes: int = PIECE_BYTES,
        max_row_bytes: int = MAX_ROW_BYTES,
        progress: Progress | None = None,
    ) -> CurateResult:
        """Curate files into a folder.

        Args:
            inputs: Paths, folders, globs or URLs; JSONL, Parquet, CSV, TSV or plain text, also packed.
            output: A folder for the shards, the report and the rejects; a path or a URL.
            engine: ``"local"`` (this process), ``"processes"`` or ``"ray"``.
            workers: Processes or actors at once; default: the cores of this machine.
            format: ``"jsonl"``, ``"parquet"``, ``"csv"`` or ``"text"``; default: as the first file (plain
                text becomes JSONL).
            compression: ``"none"``, ``"gzip"`` or ``"zstd"``; default: as the first file.
            input_format: Of all inputs; default: by their names.
            work: The folder in which unfinished work is kept, in one of its own; default: ``_work`` in
                the output folder. With Ray on several machines it must be on storage that all share.
            shard_bytes: Input that makes one shard, in bytes as stored.
            max_row_bytes: A longer row is refused.
            progress: Where stages are reported; default: nowhere.

        Raises:
            InputError: A file cannot be read or written, or holds no usable row.
            ConfigError: A setting is wrong, or the folder holds the output of another run.
        """
        from pilotfish.curate.running import Run, RunSettings

        settings = RunSettings(
            engine=engine,
            workers=workers,
            format=format,
            packing=compression,
            input_format=input_format,
            shard_bytes=shard_bytes,
            max_row_bytes=max_row_bytes,
        )
        run = Run(self, _listed(inputs), settings, progress or Progress())
        return run.write(output, work)

    def sample(
        self,
        inputs: str | Path | Sequence[str | Path],
        *,
        rows: int = 10_000,
        ask: bool = False,
        input_format: str | None = None,
        max_row_bytes: int = MAX_ROW_BYTES,
        progress: Progress | None = None,
    ) -> CurateResult:
        """What the pipeline would do, by a sample; nothing is written.

        Up to ten parts of the input, spread evenly, give their first rows. Deduplication finds less in a
        sample than in all, since most copies of its rows lie outside. Steps that keep a number of rows
        keep as many as the sample is of the whole. ``notes`` of the result says what else differs.

        Args:
            inputs: As of :meth:`run`.
            rows: About how many rows to look at.
            ask: Steps that ask a model do so, for the sample; else they say what it would cost.
            input_format: As of :meth:`run`.
            max_row_bytes: As of :meth:`run`.
            progress: Where stages are reported.

        Raises:
            InputError: A file cannot be read, or holds no usable row.
            ConfigError: A setting is wrong.
        """
        from pilotfish.curate.running import Run, RunSettings

        if rows < 1:
            raise ConfigError(f"Got a sample of {rows} rows, but expected at least 1.")
        settings = RunSettings(input_format=input_format, max_row_bytes=max_row_bytes)
        return Run(self, _listed(inputs), settings, progress or Progress()).sample(rows, ask)


def _listed(inputs: str | Path | Sequence[str | Path]) -> list[str | Path]:
    return [inputs] if isinstance(inputs, str | Path) else list(inputs)
