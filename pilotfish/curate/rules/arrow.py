"""NumPy arrays as Arrow arrays and back, by their buffers.

``pyarrow.array`` and ``to_numpy``, and every function that is given a Python number, import pandas first
where it is installed, to ask whether what they got is pandas' own: 0.3 s and 35 MB in every worker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_arrow(values: NDArray[np.generic], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """The same ``n`` numbers or truth values; those that are not ``valid`` are null.

    >>> to_arrow(np.array([1, 2, 3], np.int8), np.array([True, False, True])).to_pylist()
    [1, None, 3]
    >>> to_arrow(np.array([True, False])).to_pylist()
    [True, False]
    """
    bits = None if valid is None else pa.py_buffer(np.packbits(valid, bitorder="little"))
    if values.dtype == np.bool_:
        data, kind = np.packbits(values.astype(np.bool_), bitorder="little"), pa.bool_()
    else:
        data, kind = np.ascontiguousarray(values), pa.from_numpy_dtype(values.dtype)
    return pa.Array.from_buffers(kind, len(values), [bits, pa.py_buffer(data)])


def numbers(values: pa.Array) -> NDArray[Any]:
    """``n`` numbers of any Arrow type of fixed width; what stands for a null is undefined.

    >>> numbers(to_arrow(np.array([3, 4], np.int32)).slice(1)).tolist()
    [4]
    """
    kind, n = values.type.to_pandas_dtype(), len(values)
    if not n:
        return np.zeros(0, kind)
    return np.frombuffer(values.buffers()[1], kind, values.offset + n)[values.offset :]


def from_arrow(values: pa.Array) -> NDArray[np.int64]:
    """Integers without nulls.

    >>> from_arrow(to_arrow(np.array([3, 4], np.int32))).tolist()
    [3, 4]
    """
    return numbers(values).astype(np.int64)


def floats(values: pa.Array) -> NDArray[np.float64]:
    """Numbers; NaN for nulls.

    >>> floats(to_arrow(np.array([3, 4], np.int32), np.array([True, False]))).tolist()
    [3.0, nan]
    """
    found = numbers(values.cast(pa.float64()))
    return np.where(truths(values.is_valid()), found, np.nan) if values.null_count else found


def truths(values: pa.BooleanArray) -> NDArray[np.bool_]:
    """Truth values; a null is false.

    >>> truths(to_arrow(np.array([True, False, True]), np.array([True, True, False]))).tolist()
    [True, False, False]
    """
    valid, bits = values.buffers()
    found = _bits(bits, values)
    return found & _bits(valid, values) if valid is not None else found


def _bits(buffer: pa.Buffer, values: pa.Array) -> NDArray[np.bool_]:
    begin, end = values.offset, values.offset + len(values)
    bits = np.unpackbits(np.frombuffer(buffer, np.uint8), count=end, bitorder="little")
    return bits[begin:].view(np.bool_)


def strings(texts: Sequence[str | bytes]) -> pa.LargeStringArray:
    """Texts as an array; bytes are those of UTF-8, which is not checked.

    >>> strings(["a", "bc"]).to_pylist()
    ['a', 'bc']
    """
    data = [text if isinstance(text, bytes) else text.encode() for text in texts]
    offsets = np.cumsum([0, *map(len, data)], dtype=np.int64)
    buffers = pa.py_buffer(offsets), pa.py_buffer(b"".join(data))
    return pa.LargeStringArray.from_buffers(len(data), *buffers)
