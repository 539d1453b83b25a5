"""A sample of rows that only their numbers decide, whatever the batches were.

Every row has a key, a hash of the seed and its number; the sample is the ``k`` rows with the lowest keys.
The lowest of all are among the lowest of each batch, so that the sample merges.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.rules.hashing import mix
from pilotfish.curate.step import ROW, TEXT, State
from pilotfish.errors import ConfigError

_ODD = 0x9E3779B97F4A7C15


def check_seed(step: str, seed: int) -> None:
    """Refuse a seed that NumPy and scikit-learn do not take, before the data are read.

    Raises:
        ConfigError: It is below 0, or has more than 32 bits.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"The step {step!r}: got seed = {seed}, but expected 0 to {2**32 - 1}.")


def row_keys(rows: pa.Array, seed: int) -> NDArray[np.uint64]:
    """A uniform 64-bit number for each row, the same on every run.

    >>> keys = row_keys(pa.array([0, 1, 2], pa.uint64()), seed=0)
    >>> len(set(keys.tolist()) | set(row_keys(pa.array([0, 1, 2], pa.uint64()), seed=1).tolist()))
    6
    """
    salt = np.uint64(seed * _ODD % 2**64)
    return mix(mix(rows.to_numpy() + np.uint64(1)) ^ mix(np.array([salt + np.uint64(1)])))


def row_uniforms(rows: pa.Array, seed: int) -> NDArray[np.float64]:
    """The same as numbers in (0, 1)."""
    return (row_keys(rows, seed) >> np.uint64(12)).astype(np.float64) * 2.0**-52 + 2.0**-53


def sample_state(batch: pa.RecordBatch, k: int, seed: int, max_chars: int) -> State:
    """The ``k`` rows of a batch with the lowest keys; texts up to ``max_chars`` characters."""
    keys = row_keys(batch.column(ROW), seed)
    lowest = np.argsort(keys)[:k]
    rows = batch.take(to_arrow(lowest))
    texts = pc.utf8_slice_codeunits(rows.column(TEXT), 0, max_chars)
    return pa.record_batch({"key": to_arrow(keys[lowest]), TEXT: texts.cast(pa.string())})


def merge_samples(states: Iterable[State], k: int) -> list[str]:
    """The texts of the ``k`` rows with the lowest keys of all, in the order of their keys."""
    schema = pa.schema({"key": pa.uint64(), TEXT: pa.string()})
    lowest = schema.empty_table()
    for state in states:
        joined = pa.concat_tables([lowest, pa.Table.from_batches([state], schema)])
        lowest = joined.sort_by("key").slice(0, k).combine_chunks()
    texts: list[str] = lowest[TEXT].to_pylist()
    return texts
