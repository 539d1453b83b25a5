"""Dropping the rows that a deduplication found, by a sorted file of them.

The file is mapped into memory, so a worker holds only the pages that it looks at, however many duplicates
there are.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.dedup.keep import rows_of
from pilotfish.curate.rules.arrow import strings, to_arrow
from pilotfish.curate.step import Verdict

SAMPLED = (
    "Only duplicates within the sample were found: a row whose copy lies outside it counts as different, "
    "so the whole input has more of them."
)


class DropDuplicates:
    """What the deduplication steps come to.

    Args:
        name: Of the step; the reason is ``NAME.duplicate``.
        folder: Where its file is.
        tag: Keep every row. The column ``NAME`` has the reason of those that would be dropped, and
            ``NAME_group`` the number of the row that stays for it, the same for all rows of a group; null
            for rows without duplicates.
    """

    def __init__(self, name: str, folder: Path, tag: bool) -> None:
        self.name = name
        self.tag = tag
        self._path = folder.absolute() / f"{name}.npy"

    @classmethod
    def write(
        cls,
        name: str,
        folder: Path,
        tag: bool,
        rows: NDArray[np.uint64],
        kept: NDArray[np.uint64],
    ) -> DropDuplicates:
        """Write the file and return the step.

        Args:
            name: As of the class.
            folder: Likewise.
            tag: Likewise.
            rows: Rows that have a duplicate, ascending.
            kept: For each the row that stays.
        """
        step = cls(name, folder, tag)
        # One more than any row, so that the file can be mapped when there are no duplicates.
        end = np.array([np.iinfo(np.uint64).max], np.uint64)
        np.save(step._path, np.stack([np.concatenate([rows, end]), np.concatenate([kept, end])]))
        return step

    @cached_property
    def _found(self) -> NDArray[np.uint64]:
        found: NDArray[np.uint64] = np.load(self._path, mmap_mode="r")
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_found"}

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Drop the rows for which another one stays."""
        number = rows_of(batch)
        rows, kept = self._found
        place = np.searchsorted(rows, number)
        grouped = np.asarray(rows[place] == number)
        group = np.asarray(kept[place])
        again = grouped & (group != number)
        reasons = pa.DictionaryArray.from_arrays(
            to_arrow(np.zeros(len(number), np.int8), again),
            strings([f"{self.name}.duplicate"]).cast(pa.string()),
        )
        if not self.tag:
            return Verdict({}, reasons)
        return Verdict({self.name: reasons, f"{self.name}_group": to_arrow(group, grouped)})
