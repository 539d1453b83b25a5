"""The rows that a look at the whole data chose: what most selections end in.

A selection scores or compares all rows in its ``reduce`` and stores, for each, whether it stays. The step
that follows looks its rows up in arrays that are memory-mapped, so that a worker holds a few pages of
them whatever their number.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import strings, to_arrow
from pilotfish.curate.step import ROW, Verdict
from pilotfish.errors import ConfigError


def how_many(name: str, rows: int | None, share: float | None, n: int) -> int:
    """How many of ``n`` rows to keep, by a number or a share, of which one is given.

    Raises:
        ConfigError: Both or neither are given, or one is out of range.
    """
    if (rows is None) == (share is None):
        raise ConfigError(f"The step {name!r} needs one of rows and share.")
    if rows is not None:
        if rows < 1:
            raise ConfigError(f"The step {name!r}: got rows = {rows}, but expected 1 or more.")
        return min(rows, n)
    assert share is not None
    if not 0 < share <= 1:
        raise ConfigError(f"The step {name!r}: got share = {share}, but expected 0 < share <= 1.")
    return min(n, int(share * n + 0.5))


def scaled(rows: int, share: float) -> int:
    """How many rows of a sample stand for so many of the whole.

    >>> scaled(1000, 0.01), scaled(10, 0.01)
    (10, 1)
    """
    return max(1, round(rows * share))


class Chosen:
    """Keeps the rows that were chosen.

    Args:
        name: Of the step that chose.
        folder: Holds what :func:`store` wrote.
        reasons: Why a row is dropped, without the step's name; code ``i`` stands for ``reasons[i]``.
        scores: The scores to add, as columns ``NAME.SCORE``.
        tag: Keep every row, and write the reason, or null, to a column called like the step.
    """

    def __init__(
        self,
        name: str,
        folder: Path,
        reasons: tuple[str, ...],
        scores: tuple[str, ...] = (),
        tag: bool = False,
    ) -> None:
        self.name = name
        self.folder = folder
        self.reasons = reasons
        self.scores = scores
        self.tag = tag

    @classmethod
    def store(
        cls,
        name: str,
        folder: Path,
        rows: NDArray[np.uint64],
        codes: NDArray[np.int8],
        reasons: tuple[str, ...],
        *,
        scores: Mapping[str, NDArray[np.floating[Any]]] | None = None,
        margin: NDArray[np.floating[Any]] | None = None,
        tag: bool = False,
        show: bool = False,
    ) -> Chosen:
        """Write what was decided of ``n`` rows to a folder.

        Args:
            name: Of the step that chose.
            folder: Where.
            rows: Their numbers, ascending.
            codes: -1 keeps a row; else which of the reasons drops it.
            reasons: As of :class:`Chosen`.
            scores: Numbers for each row.
            margin: How far each was from the other verdict.
            tag: As of :class:`Chosen`.
            show: Add the scores as columns.
        """
        np.save(folder / "rows.npy", rows)
        np.save(folder / "codes.npy", codes)
        if margin is not None:
            np.save(folder / "margin.npy", margin)
        shown = tuple(scores or ()) if show else ()
        for score in shown:
            np.save(folder / f"score-{score}.npy", (scores or {})[score])
        return cls(name, folder, reasons, shown, tag)

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Look the rows up."""
        at = np.searchsorted(self._array("rows"), np.asarray(batch.column(ROW)))
        codes = np.asarray(self._array("codes")[at])
        reasons = pa.DictionaryArray.from_arrays(
            to_arrow(codes, codes >= 0),
            strings([f"{self.name}.{reason}" for reason in self.reasons]).cast(pa.string()),
        )
        columns = {
            f"{self.name}.{score}": to_arrow(np.asarray(self._array(f"score-{score}")[at]))
            for score in self.scores
        }
        if self.tag:
            columns[self.name] = reasons
        margin = None
        if (self.folder / "margin.npy").exists():
            margin = to_arrow(np.asarray(self._array("margin")[at]))
        return Verdict(columns, None if self.tag else reasons, margin)

    def _array(self, name: str) -> NDArray[Any]:
        array: NDArray[Any] = np.load(self.folder / f"{name}.npy", mmap_mode="r")
        return array
