"""What happened to the rows, in numbers that can be added up in any order.

Every piece of work counts for itself; the sum over the pieces is the same whichever engine ran them and
in which order. Scores are counted in bins whose edges do not depend on the data: the leading bits of the
number, so 128 bins for every doubling. Examples are those closest to the threshold, ties broken by the
row number; where a step tells no margin, a sample that the row number decides.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import floats, numbers, strings, to_arrow, truths
from pilotfish.curate.step import ROW, TEXT, Verdict

EXAMPLES = 3  # for every reason
KEPT_EXAMPLES = 6  # for every step
EXAMPLE_CHARS = 1500
FARTHEST = float(np.finfo(np.float64).max)  # of a row without a margin
BIN_BITS = 45  # of 64: sign and exponent, and 7 bits of the fraction
MAX_TAGS = 200  # different values of a tag that are counted on their own, in one piece
OTHER_TAGS = "(others)"


class Example(msgspec.Struct, order=True):
    """A row near the threshold of a step.

    Attributes:
        distance: From the threshold, in the step's unit; a random number where it tells none.
        row: Its number.
        text: Its beginning, as the step saw it.
        margin: ``distance`` is a margin.
    """

    distance: float
    row: int
    text: str
    margin: bool


class Scores(msgspec.Struct):
    """How a score is spread.

    Attributes:
        kept: Bin to number of rows that the step kept; see :func:`edges`.
        dropped: The same of the others.
        low: The smallest score; None where no row has one.
        high: The largest.
        missing: Rows without a finite score.
    """

    kept: dict[int, int] = {}
    dropped: dict[int, int] = {}
    low: float | None = None  # JSON, in which tallies are kept, has no infinity
    high: float | None = None
    missing: int = 0

    def reach(self, *scores: float | None) -> None:
        """Widen ``low`` and ``high`` to some scores."""
        known = [score for score in (self.low, self.high, *scores) if score is not None]
        if known:
            self.low, self.high = min(known), max(known)


class StepTally(msgspec.Struct):
    """What one step did.

    Attributes:
        name: The step's; a second one of the same name is ``"name (2)"``.
        rows_in: Rows that reached it.
        rows_out: Rows that it kept.
        bytes_in: Bytes of text that reached it (UTF-8).
        bytes_out: Bytes that it let through.
        seconds: Processor time to judge rows, over all workers.
        fit_seconds: Processor time to fit it to all rows, over all workers; 0 for a plain step.
        reasons: Reason to dropped rows.
        scores: Column to distribution, for floating-point columns.
        tags: Column to value to rows, for dictionary and boolean columns.
        examples: Reason to the dropped rows closest to the threshold; ``""`` to kept ones.
    """

    name: str
    rows_in: int = 0
    rows_out: int = 0
    bytes_in: int = 0
    bytes_out: int = 0
    seconds: float = 0.0
    fit_seconds: float = 0.0
    reasons: dict[str, int] = {}
    scores: dict[str, Scores] = {}
    tags: dict[str, dict[str, int]] = {}
    examples: dict[str, list[Example]] = {}

    def count(self, batch: pa.RecordBatch, verdict: Verdict, after: pa.RecordBatch) -> None:
        """Add what the step said of a batch, and what became of it."""
        n = batch.num_rows
        self.rows_in += n
        self.rows_out += after.num_rows
        self.bytes_in += _bytes(batch)
        self.bytes_out += _bytes(after)
        reasons = _encoded(verdict.reasons, n)
        indices = reasons.indices
        codes = np.where(truths(indices.is_valid()), numbers(indices), -1)
        names = reasons.dictionary.to_pylist()
        for code, number in zip(*np.unique(codes[codes >= 0], return_counts=True), strict=True):
            _add(self.reasons, {names[code]: int(number)})
        texts = batch.column(TEXT)
        if verdict.private:
            texts = verdict.columns.get(TEXT)
        if texts is not None:
            self._take_examples(batch, texts, verdict.margin, codes, names)
        self._count_columns(verdict.columns, codes < 0)

    def _take_examples(
        self,
        batch: pa.RecordBatch,
        shown: pa.Array,
        margin: pa.Array | None,
        codes: NDArray[Any],
        names: list[str],
    ) -> None:
        rows = numbers(batch.column(ROW))
        if margin is None:
            distances = _scattered(rows)
        else:
            distances = np.nan_to_num(np.abs(floats(margin)), nan=FARTHEST)
        for code in np.unique(codes).tolist():
            reason = names[code] if code >= 0 else ""
            best = self.examples.setdefault(reason, [])
            limit = EXAMPLES if reason else KEPT_EXAMPLES
            where = np.flatnonzero(codes == code)
            if len(best) == limit:  # most batches bring nothing closer
                where = where[distances[where] <= best[-1].distance]
            where = where[np.lexsort((rows[where], distances[where]))][:limit]
            if not len(where):
                continue
            texts = pc.utf8_slice_codeunits(
                shown.take(to_arrow(where)), 0, EXAMPLE_CHARS
            ).to_pylist()
            best += [
                Example(float(distances[i]), int(rows[i]), text, margin is not None)
                for i, text in zip(where.tolist(), texts, strict=True)
            ]
            best.sort()
            del best[limit:]

    def _count_columns(self, columns: Mapping[str, pa.Array], kept: NDArray[np.bool_]) -> None:
        for name, column in columns.items():
            if pa.types.is_floating(column.type):
                values = floats(column)
                found = self.scores.setdefault(name, Scores())
                finite = np.isfinite(values)
                found.missing += int((~finite).sum())
                _add(found.kept, bins(values[finite & kept]))
                _add(found.dropped, bins(values[finite & ~kept]))
                if finite.any():
                    found.reach(float(values[finite].min()), float(values[finite].max()))
            elif pa.types.is_dictionary(column.type) or pa.types.is_boolean(column.type):
                counted = pc.value_counts(
                    column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
                )
                tags = self.tags.setdefault(name, {})
                for value, number in zip(*counted.flatten(), strict=True):
                    tag = str(value.as_py()) if value.is_valid else ""
                    known = tag in tags or len(tags) < MAX_TAGS
                    _add(tags, {tag if known else OTHER_TAGS: number.as_py()})

    def merge(self, other: StepTally) -> None:
        """Add what another piece counted of the same step."""
        self.rows_in += other.rows_in
        self.rows_out += other.rows_out
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.seconds += other.seconds
        self.fit_seconds += other.fit_seconds
        _add(self.reasons, other.reasons)
        for column, scores in other.scores.items():
            mine = self.scores.setdefault(column, Scores())
            _add(mine.kept, scores.kept)
            _add(mine.dropped, scores.dropped)
            mine.reach(scores.low, scores.high)
            mine.missing += scores.missing
        for column, tags in other.tags.items():
            _add(self.tags.setdefault(column, {}), tags)
        for reason, examples in other.examples.items():
            both = sorted([*self.examples.get(reason, ()), *examples])
            self.examples[reason] = both[: EXAMPLES if reason else KEPT_EXAMPLES]


class PieceTally(msgspec.Struct):
    """What one pass over one piece did.

    Attributes:
        rows_read: Usable rows that were read.
        bytes_read: Bytes of the files, as stored.
        rejects: Reason to rows that could not be used.
        lines: Lines or rows of each segment of the piece.
        rows_out: Rows that came out of the last step of the pass.
        steps: What each step of the pass did.
        changed: Columns that steps added or replaced, up to and with this pass.
        outputs: Names of the files that were written.
        map_seconds: Processor time to look at the rows for the step that is fitted after this pass.
    """

    rows_read: int = 0
    bytes_read: int = 0
    rejects: dict[str, int] = {}
    lines: list[int] = []
    rows_out: int = 0
    steps: list[StepTally] = []
    changed: list[str] = []
    outputs: list[str] = []
    map_seconds: float = 0.0


def total(pieces: Iterable[PieceTally]) -> PieceTally:
    """The sum over pieces of one pass; ``lines`` has no meaning there and is empty."""
    whole = PieceTally()
    for piece in pieces:
        whole.rows_read += piece.rows_read
        whole.bytes_read += piece.bytes_read
        whole.rows_out += piece.rows_out
        whole.map_seconds += piece.map_seconds
        _add(whole.rejects, piece.rejects)
        whole.changed += [name for name in piece.changed if name not in whole.changed]
        whole.outputs += piece.outputs
        if not whole.steps:
            whole.steps = [StepTally(step.name) for step in piece.steps]
        for mine, other in zip(whole.steps, piece.steps, strict=True):
            mine.merge(other)
    return whole


def bins(values: NDArray[np.float64]) -> dict[int, int]:
    """Finite numbers counted by bin.

    >>> bins(np.array([1.0, 1.001, -1.0])) == {130944: 2, -130945: 1}
    True
    """
    size = np.abs(values).view(np.int64) >> BIN_BITS
    keys = np.where(values < 0, -1 - size, size)
    found, counts = np.unique(keys, return_counts=True)
    return dict(zip(found.tolist(), counts.tolist(), strict=True))


def edges(key: int) -> tuple[float, float]:
    """The numbers that a bin begins and ends at.

    >>> edges(130944)
    (1.0, 1.0078125)
    """
    size = key if key >= 0 else -1 - key
    low, high = (float(np.int64(k << BIN_BITS).view(np.float64)) for k in (size, size + 1))
    return (low, high) if key >= 0 else (-high, -low)


def _add(counts: dict[Any, int], more: Mapping[Any, int]) -> None:
    for key, number in more.items():
        counts[key] = counts.get(key, 0) + number


def _bytes(batch: pa.RecordBatch) -> int:
    text = batch.column(TEXT)
    if not len(text):
        return 0
    return int(pc.sum(pc.binary_length(text)).as_py() or 0)


def _encoded(reasons: pa.Array | None, n: int) -> pa.DictionaryArray:
    if reasons is None:
        return pa.DictionaryArray.from_arrays(pa.nulls(n, pa.int8()), strings([]).cast(pa.string()))
    if pa.types.is_dictionary(reasons.type):
        return reasons
    return reasons.cast(pa.string()).dictionary_encode()


def _scattered(rows: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in [0, 1) that look random but depend on the row alone (splitmix64)."""
    z = rows + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray((z ^ (z >> np.uint64(31))) >> np.uint64(11), np.float64) / 2.0**53
