"""Cut the distribution of a score into buckets, for each group apart, and keep some.

CCNet (Wenzek et al. 2020) calls the thirds of lowest, middle and highest perplexity of each language
head, middle and tail; Marion et al. 2023 keep the middle. Any numeric column can be cut.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.step import State, Verdict
from pilotfish.errors import ConfigError

_DROPPED_BITS = np.uint32(8)
_SIGN = np.uint32(1 << 31)


class Buckets:
    """Add the column ``NAME_bucket`` for a column NAME; keep some buckets.

    Quantiles are those of the whole data, over the score in steps of 1/32768 of its size, so that memory
    does not grow with the rows. A score at a quantile belongs to the lower bucket. Rows without a score
    are in no bucket; they are kept, unless some buckets are dropped: then they are
    ``buckets.no_score``.

    Args:
        score: The column to cut.
        quantiles: Where to cut, ascending, each between 0 and 1.
        names: Of the buckets, from low scores to high; one more than quantiles.
        keep: The buckets to keep; a row of another is dropped as ``buckets.BUCKET``. Empty: all.
        by: A column, such as ``language``, whose values are cut apart from one another.

    Raises:
        ConfigError: The settings do not fit together.
    """

    name = "buckets"

    def __init__(
        self,
        score: str = "perplexity",
        quantiles: tuple[float, ...] = (1 / 3, 2 / 3),
        names: tuple[str, ...] = ("head", "middle", "tail"),
        keep: tuple[str, ...] = (),
        by: str | None = None,
    ) -> None:
        quantiles, names = tuple(quantiles), tuple(names)
        if list(quantiles) != sorted(set(quantiles)) or not all(0 < q < 1 for q in quantiles):
            raise ConfigError(
                f"The step 'buckets': got quantiles = {list(quantiles)}, but expected ascending numbers "
                "between 0 and 1."
            )
        if len(names) != len(quantiles) + 1 or len(set(names)) < len(names):
            raise ConfigError(
                f"The step 'buckets': got names = {list(names)}, but expected {len(quantiles) + 1} "
                f"different ones for {len(quantiles)} quantiles."
            )
        if not set(keep) <= set(names):
            raise ConfigError(
                f"The step 'buckets': got keep = {list(keep)}, but expected some of {list(names)}."
            )
        self.score = score
        self.quantiles = quantiles
        self.names = names
        self.keep = tuple(keep)
        self.by = by
        self.reads = {score: "double"} | ({by: "string"} if by else {})

    def map(self, batch: pa.RecordBatch) -> State:
        """How often each score occurs in each group."""
        score, there = _scores(batch, self.score)
        table = pa.table(
            {"group": _groups(batch, self.by), "step": to_arrow(_steps(score))}
        ).filter(pa.array(there))
        counted = table.group_by(["group", "step"]).aggregate([([], "count_all")])
        return counted.combine_chunks().to_batches()[0] if len(counted) else _EMPTY

    def reduce(self, states: Iterable[State], folder: Path) -> Cut:
        """Find the quantiles of each group."""
        counts: defaultdict[str, defaultdict[int, int]] = defaultdict(lambda: defaultdict(int))
        for state in states:
            for group, step, count in zip(*(c.to_pylist() for c in state.columns), strict=True):
                counts[group][step] += count
        edges = {}
        for group, found in sorted(counts.items()):
            steps = np.array(sorted(found), np.uint32)
            below = np.cumsum([found[step] for step in steps.tolist()])
            # The least score that this share of rows does not exceed.
            at = np.searchsorted(below, np.array(self.quantiles) * below[-1] - 1e-9)
            edges[group] = steps[np.minimum(at, len(steps) - 1)]
        return Cut(self, edges)


class Cut:
    """Puts each row into its bucket.

    Args:
        settings: What to cut and keep.
        edges: For each group the highest step of each bucket but the last.
    """

    name = "buckets"

    def __init__(self, settings: Buckets, edges: dict[str, NDArray[np.uint32]]) -> None:
        self.settings = settings
        self.reads = settings.reads
        self.edges = edges

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Judge; the margin is the distance to the nearest edge, as a share of the score there."""
        settings = self.settings
        score, there = _scores(batch, settings.score)
        steps = _steps(score)
        bucket = np.full(len(score), -1, np.int8)
        margin = np.full(len(score), np.inf)
        coded = _groups(batch, settings.by).dictionary_encode()
        group = coded.indices.to_numpy()
        for number, name in enumerate(coded.dictionary.to_pylist()):
            edges = self.edges.get(name)
            if edges is None:
                continue
            rows = there & (group == number)
            bucket[rows] = np.searchsorted(edges, steps[rows], side="left")
            limits = _value(edges)
            for limit in limits.tolist():
                distance = np.abs(score[rows] - limit) / max(abs(limit), 1e-12)
                margin[rows] = np.minimum(margin[rows], distance)
        names = pa.array(settings.names)
        codes = to_arrow(bucket, bucket >= 0)
        columns = {
            f"{settings.score}_bucket": pa.DictionaryArray.from_arrays(codes, names),
        }
        if not settings.keep:
            return Verdict(columns)
        why = [f"buckets.{name}" for name in settings.names] + ["buckets.no_score"]
        kept = np.array([name in settings.keep for name in settings.names] + [False])
        reason = np.where(bucket < 0, len(settings.names), bucket).astype(np.int8)
        dropped = to_arrow(reason, ~kept[reason])
        reasons = pa.DictionaryArray.from_arrays(dropped, pa.array(why))
        return Verdict(columns, reasons, to_arrow(margin))


_EMPTY = pa.record_batch(
    {
        "group": pa.array([], pa.string()),
        "step": pa.array([], pa.uint32()),
        "count_all": pa.array([], pa.int64()),
    }
)


def _scores(batch: pa.RecordBatch, name: str) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    column = batch.column(name).cast(pa.float64())
    score = column.fill_null(np.nan).to_numpy(zero_copy_only=False)
    there: NDArray[np.bool_] = ~np.isnan(score)
    return score, there


def _groups(batch: pa.RecordBatch, by: str | None) -> pa.Array:
    if by is None:
        return pa.repeat("", batch.num_rows)
    return pc.fill_null(batch.column(by).cast(pa.string()), "")


def _steps(score: NDArray[np.float64]) -> NDArray[np.uint32]:
    """Numbers in the order of the scores: their bits as float32, without the last eight."""
    bits = (score.astype(np.float32) + np.float32(0)).view(np.uint32)  # -0 becomes 0
    ordered = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return (ordered >> _DROPPED_BITS).astype(np.uint32)


def _value(steps: NDArray[np.uint32]) -> NDArray[np.float64]:
    """The lowest score of each step."""
    ordered = steps << _DROPPED_BITS
    bits = np.where(ordered & _SIGN, ordered ^ _SIGN, ~ordered).astype(np.uint32)
    return bits.view(np.float32).astype(np.float64)
