"""Embeddings of rows as the state of a fit: 16-bit unit vectors beside the row numbers.

Rounding to 16 bits moves a cosine by less than 0.001 and halves what stands on disk. A fit that reads
them holds 4 bytes for each dimension and row: 1 GB for a million rows of 256.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import numbers
from pilotfish.curate.step import ROW, TEXT, State
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Encoder

Floats = NDArray[np.float32]


@lru_cache(maxsize=2)
def encoder(spec: str) -> Encoder:
    """The encoder that a spec names, loaded once in each process."""
    return load_encoder(spec)


def embed(batch: pa.RecordBatch, spec: str, columns: Sequence[str] = ()) -> State:
    """The row numbers, the vectors, and further columns of a batch."""
    found = encoder(spec).encode(batch.column(TEXT).to_pylist()).astype(np.float16)
    flat = pa.Array.from_buffers(pa.float16(), found.size, [None, pa.py_buffer(found)])
    return pa.RecordBatch.from_pydict(
        {
            ROW: batch.column(ROW),
            "vector": pa.FixedSizeListArray.from_arrays(flat, found.shape[1]),
            **{name: batch.column(name) for name in columns},
        }
    )


def vectors_of(state: State) -> NDArray[np.float16]:
    """The vectors of one state, ``[n, dim]``."""
    lists = state.column("vector")
    return numbers(lists.flatten()).reshape(len(lists), lists.type.list_size)


def read_vectors(
    states: Iterable[State], columns: Sequence[str] = ()
) -> tuple[NDArray[np.uint64], Floats, dict[str, NDArray[np.float64]]]:
    """All rows in the order of their numbers.

    Args:
        states: From :func:`embed`, in any order.
        columns: The further columns, of numbers; null becomes NaN.

    Returns:
        Row numbers ``[n]``, unit rows ``[n, dim]`` (of zeros where a text has nothing that the encoder
        knows), and the columns ``[n]``.
    """
    rows, vectors = [np.zeros(0, np.uint64)], []
    more: dict[str, list[NDArray[np.float64]]] = {name: [np.zeros(0)] for name in columns}
    for state in states:
        rows.append(np.asarray(state.column(ROW)))
        vectors.append(vectors_of(state).astype(np.float32))
        for name in columns:
            numbers = state.column(name).cast(pa.float64())
            more[name].append(np.asarray(numbers.fill_null(np.nan)))
    number = np.concatenate(rows)
    order = np.argsort(number)
    found = np.concatenate(vectors)[order] if vectors else np.zeros((0, 1), np.float32)
    lengths = np.linalg.norm(found, axis=1, keepdims=True)
    found /= np.where(lengths > 0, lengths, 1)
    return number[order], found, {k: np.concatenate(v)[order] for k, v in more.items()}
