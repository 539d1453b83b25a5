"""Keep texts whose length lies within bounds: the plainest filter, for a first look at any corpus."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pilotfish.curate.rules.arrow import from_arrow, strings, to_arrow
from pilotfish.curate.step import TEXT, Verdict
from pilotfish.errors import ConfigError

TOO_SHORT, TOO_LONG = "length.too_short", "length.too_long"


class Length:
    """Keep texts of ``min_chars`` to ``max_chars`` characters.

    Args:
        min_chars: Shorter texts are dropped as ``length.too_short``.
        max_chars: Longer ones as ``length.too_long``; None for any length.
        tag: Keep all rows, and write the reason to the column ``length``; null for rows that pass.
        column: Add the number of characters under this name; None: do not.

    Raises:
        ConfigError: The bounds leave nothing.
    """

    name = "length"

    def __init__(
        self,
        min_chars: int = 1,
        max_chars: int | None = None,
        tag: bool = False,
        column: str | None = None,
    ) -> None:
        if min_chars < 0 or (max_chars is not None and max_chars < min_chars):
            raise ConfigError(
                f"Got min_chars={min_chars} and max_chars={max_chars}, but expected "
                "0 <= min_chars <= max_chars."
            )
        self.min_chars = min_chars
        self.max_chars = max_chars
        self.tag = tag
        self.column = column

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Judge by the number of characters; the margin is how many there are too few or too many."""
        chars = pc.utf8_length(batch.column(TEXT)).cast(pa.int64())
        n = from_arrow(chars)
        reasons = np.full(len(n), -1, np.int8)
        reasons[n < self.min_chars] = 0
        margin = np.abs(n - self.min_chars + 0.5)
        if self.max_chars is not None:
            reasons[n > self.max_chars] = 1
            margin = np.minimum(margin, np.abs(self.max_chars - n + 0.5))
        names = strings([TOO_SHORT, TOO_LONG]).cast(pa.string())
        why = pa.DictionaryArray.from_arrays(to_arrow(reasons, reasons >= 0), names)
        columns = {self.column: chars} if self.column else {}
        if self.tag:
            return Verdict({**columns, self.name: why}, None, to_arrow(margin))
        return Verdict(columns, why, to_arrow(margin))
