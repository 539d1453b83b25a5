"""Which row of a group of duplicates stays.

All of a group compete by one number, the key; the highest stays, and of equals the row that comes first
(the smallest number). Null, NaN and a missing column lose to every number.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import floats, numbers, to_arrow
from pilotfish.curate.step import ROW, TEXT, State
from pilotfish.errors import ConfigError

KEY = "key"
RULES = ("first", "longest", "highest")


@dataclass(frozen=True)
class KeepRule:
    """The rule of a step.

    Args:
        keep: ``"first"``, ``"longest"`` (in characters), ``"highest"`` (of a column) or one of ``more``.
        column: What ``"highest"`` compares: numbers, of the user's file or of an earlier step.
        more: Rules that the step has beside these.

    Raises:
        ConfigError: No such rule, or a column without ``"highest"``, or the other way round.
    """

    keep: str
    column: str | None
    more: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.column == TEXT:
            raise ConfigError("Got column='text', but expected a column of numbers.")
        known = (*self.more, *RULES)
        if self.keep not in known:
            raise ConfigError(f"Got keep={self.keep!r}.", remedy=f"Known: {', '.join(known)}")
        if (self.keep == "highest") != (self.column is not None):
            raise ConfigError(
                f"Got keep={self.keep!r} and column={self.column!r}, but keep='highest' needs a column, "
                "and no other rule has one."
            )

    @property
    def reads(self) -> dict[str, str]:
        """The columns that the rule needs beside the text."""
        return {} if self.column is None else {self.column: "double"}

    def keys(self, batch: pa.RecordBatch) -> dict[str, pa.Array]:
        """The key of each row as a column of the state; none where the row number decides alone."""
        if self.keep == "longest":
            return {KEY: pc.utf8_length(batch.column(TEXT)).cast(pa.float64())}
        if self.column is not None:
            keys = floats(batch.column(self.column))
            return {KEY: to_arrow(np.where(np.isnan(keys), -np.inf, keys))}
        return {}


def rows_of(state: State) -> NDArray[np.uint64]:
    """The row numbers of a state."""
    return numbers(state.column(ROW)).astype(np.uint64, copy=False)


def keys_of(state: State) -> NDArray[np.float64] | None:
    """The keys of a state, or None where it has none."""
    if state.schema.get_field_index(KEY) < 0:
        return None
    return numbers(state.column(KEY)).astype(np.float64, copy=False)


def survivors(
    rows: NDArray[np.uint64], groups: NDArray[np.uint64], keys: NDArray[np.float64] | None
) -> NDArray[np.uint64]:
    """For each row, the row of its group that stays.

    Args:
        rows: ``n`` different numbers.
        groups: What rows of one group share.
        keys: The highest stays; None: the first row.

    >>> rows, groups = np.array([1, 2, 3], np.uint64), np.array([1, 2, 1], np.uint64)
    >>> survivors(rows, groups, np.array([0.5, 0.1, 0.9])).tolist()
    [3, 2, 3]
    """
    order = np.lexsort((rows, groups) if keys is None else (rows, -keys, groups))
    if not len(order):
        return rows
    first = np.concatenate(([True], np.diff(groups[order]) != 0))
    best = rows[order][first][np.cumsum(first) - 1]
    kept = np.empty_like(rows)
    kept[order] = best
    return kept


def kept_rows(
    rows: NDArray[np.uint64], first: NDArray[np.uint64], states: Iterable[State]
) -> NDArray[np.uint64]:
    """For each row, the row of its group that stays.

    Args:
        rows: Ascending.
        first: For each the first row of its group.
        states: Of all rows.
    """
    keys = key_of_each(rows, states)
    return first if keys is None else survivors(rows, first, keys)


def key_of_each(rows: NDArray[np.uint64], states: Iterable[State]) -> NDArray[np.float64] | None:
    """The keys of some rows, by one more look at all states; None where states have no keys.

    Args:
        rows: Ascending.
        states: Of all rows.
    """
    found: NDArray[np.float64] | None = None
    for state in states:
        if not len(rows) or (keys := keys_of(state)) is None:
            return None
        if found is None:
            found = np.full(len(rows), -np.inf)
        number = rows_of(state)
        place = np.minimum(np.searchsorted(rows, number), len(rows) - 1)
        same = rows[place] == number
        found[place[same]] = keys[same]
    return found
