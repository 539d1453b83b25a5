"""What a curation step is: a pure function of Arrow batches, and one that looks at all data first.

A :class:`Step` says of each row of a batch whether it stays, why not, and which columns it adds. It
remembers nothing between batches, so the same rows get the same verdict in one process, in many, or on a
cluster. A :class:`FittedStep` needs a look at the whole data before it can say anything: it maps each
batch to a state, reduces all states to a plain step, and that step is then applied.

A batch holds the text in :data:`TEXT`, whatever the column is called in the user's file, and the number
of the row in :data:`ROW`. A step that reads further columns of the user's file names them in a class
or instance attribute ``reads``: a mapping from name to Arrow type name, such as ``{"stars": "double"}``.
They are in the batch with that type, null where a row lacks them. Columns of earlier steps are there
anyway. Files of a step that must not be part of the output are named in an attribute ``secrets``.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol, TypeAlias, get_args, get_origin, runtime_checkable

import msgspec
import pyarrow as pa

from pilotfish.curate import STEPS
from pilotfish.errors import ConfigError, UnknownName

TEXT = "text"
ROW = "row"  # uint64: shard << 40 | row in the shard, the same on every run over the same files
SOURCE = "_source"  # the row as it was read, for the writer; steps leave it alone
RESERVED = (ROW, SOURCE)
ROW_BITS = 40

State: TypeAlias = pa.RecordBatch


@dataclass(frozen=True)
class Verdict:
    """What a step says of a batch of ``n`` rows.

    Attributes:
        columns: Added or replaced columns, each of ``n`` values. Replacing ``text`` rewrites it
            (redaction). Floating-point columns are scores and get a histogram in the report; dictionary
            and boolean columns are tags and are counted.
        reasons: ``n`` strings (dictionary-encoded or not): null keeps the row, anything else drops it and
            is counted; a reason is stable and begins with the step's name: ``"gopher.too_few_words"``.
            None keeps all.
        margin: How far each row is from the threshold that decided it, ``n`` numbers in the step's own
            unit; only the size counts, not the sign. The report shows the rows with the smallest.
            None: it shows some rows at random.
        private: The report shows no text as it was before this step: the new one, or none.
    """

    columns: Mapping[str, pa.Array]
    reasons: pa.Array | None = None
    margin: pa.Array | None = None
    private: bool = False


@runtime_checkable
class Step(Protocol):
    """A pure function of batches: no memory, no order, no effect outside; can be pickled.

    Attributes:
        name: Begins every reason; letters, digits, ``-`` and ``_``.
    """

    name: str

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Judge ``n >= 1`` rows. The verdict on a row must not depend on its neighbours."""
        ...


@runtime_checkable
class FittedStep(Protocol):
    """A step that needs a look at the whole data: map, reduce, apply.

    Attributes:
        name: As of a :class:`Step`; the step that ``reduce`` returns has the same.
    """

    name: str

    def map(self, batch: pa.RecordBatch) -> State:
        """What the fit must know of these rows, as a record batch whose schema is always the same.

        The pipeline keeps states on disk, so they may be as many as the rows; keep them narrow (row
        numbers and hashes, not texts). A sum over the batch is a batch of one row.
        """
        ...

    def reduce(self, states: Iterable[State], folder: Path) -> Step:
        """Fit.

        Args:
            states: All states, read from disk one at a time; can be iterated more than once. Neither
                their order nor how rows were cut into batches may change the result: rows that compete
                are told apart by their number (:data:`ROW`), not by what comes first.
            folder: An empty folder for files too large to be pickled with the step (memory-mapped
                arrays); it stays until the run is over.

        Returns:
            A step that can be pickled and applied to all rows. What the user should know of the fit
            may stand in its attribute ``note``; the report shows it.
        """
        ...


@runtime_checkable
class Rehearsing(FittedStep, Protocol):
    """A fitted step that fits otherwise to a sample (``--dry-run``) than to the whole.

    It asks no model unless it is told to, and writes nowhere but into ``folder``; or it sees in a sample
    something else than in the whole, and says so.
    """

    def rehearse(
        self, states: Iterable[State], folder: Path, share: float, ask: bool
    ) -> tuple[Step, str]:
        """Fit to a sample.

        Args:
            states: As of ``reduce``.
            folder: Likewise.
            share: How much of the input the sample is, above 0 to 1.
            ask: Models may be asked.

        Returns:
            The step, and what the user should be told about it, in sentences; "" for nothing.
        """
        ...


class Unasked:
    """Stands in a rehearsal for a step that would ask a model: lets all pass.

    Args:
        name: Of the step.
        scores: The columns of numbers that it would add; here they are null.
    """

    def __init__(self, name: str, scores: Sequence[str] = ()) -> None:
        self.name = name
        self.scores = tuple(scores)

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Keep all."""
        nothing = pa.nulls(batch.num_rows, pa.float64())
        return Verdict(dict.fromkeys(self.scores, nothing))


def build_step(table: Mapping[str, Any]) -> Step | FittedStep:
    """A step from a table of a pipeline file: ``step`` names it, the rest are its settings.

    Raises:
        ConfigError: There is no name, or a setting has the wrong type or value.
        UnknownName: No such step, or the step has no such setting; says which one was likely meant.

    >>> build_step({"step": "length", "min_chars": 3}).min_chars
    3
    """
    settings = dict(table)
    name = settings.pop("step", None)
    if not isinstance(name, str):
        raise ConfigError(
            f'Got {dict(table)!r}, but expected a table with step = "NAME".',
            remedy=f"Known: {', '.join(sorted(STEPS))}",
        )
    kind = STEPS.load(name)
    parameters = inspect.signature(kind, eval_str=True).parameters
    several = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    known = [key for key, p in parameters.items() if key != "name" and p.kind not in several]
    for key in settings:
        if key not in known:
            raise UnknownName(f"setting of the step {name!r}:", key, known)
    empty = inspect.Parameter.empty
    if missing := [
        key for key in known if key not in settings and parameters[key].default is empty
    ]:
        raise ConfigError(
            f"The step {name!r} needs {', '.join(missing)}.",
            remedy=f"Its settings: {', '.join(known)}",
        )
    for key, value in settings.items():
        wanted = parameters[key].annotation
        if wanted is empty:
            continue
        if get_origin(wanted) is Literal and value not in get_args(wanted):
            raise UnknownName(f"{key} of the step {name!r}:", str(value), get_args(wanted))
        try:
            settings[key] = msgspec.convert(value, wanted, dec_hook=lambda of, given: of(given))
        except msgspec.ValidationError as error:
            raise ConfigError(f"The step {name!r}: got {key} = {value!r}. {error}.") from None
    return kind(**settings)  # type: ignore[no-any-return]


def read_columns(steps: Iterable[Step | FittedStep]) -> dict[str, pa.DataType]:
    """The columns of the user's file that steps read beside the text, with their types.

    Raises:
        ConfigError: Two steps want one column with different types, a reserved name, or no known type.
    """
    found: dict[str, pa.DataType] = {}
    for step in steps:
        for column, written in dict(getattr(step, "reads", {})).items():
            if column in RESERVED:
                raise ConfigError(f"The step {step.name!r} reads {column!r}, which is reserved.")
            try:
                kind = pa.type_for_alias(written)
            except ValueError:
                raise ConfigError(
                    f"The step {step.name!r} reads {column!r} as {written!r}, which is no Arrow type."
                ) from None
            if column == TEXT:
                if not (pa.types.is_string(kind) or pa.types.is_large_string(kind)):
                    raise ConfigError(
                        f"The step {step.name!r} reads the text as {written}, but expected the name of "
                        "another column."
                    )
                continue
            if found.setdefault(column, kind) != kind:
                raise ConfigError(
                    f"The step {step.name!r} reads {column!r} as {written}, but an earlier step reads "
                    f"it as {found[column]}."
                )
    return found
