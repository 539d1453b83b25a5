"""64-bit hashes of many short stretches of one buffer at once, eight bytes at a time.

A word of up to eight bytes is one load, one mask and one mixing. Long stretches go to BLAKE2, where a
call each is cheaper than reading them in eights. Two different stretches get one hash by chance once in
2**64; a text would need billions of words to see it.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

PADDING = 8
"""Zeros that must follow the last byte of a buffer."""

_LONG = 256
_MASKS = np.array([2 ** (8 * n) - 1 for n in range(9)], np.uint64)
_ODD = np.uint64(0x9E3779B97F4A7C15)
_ODDER = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


def mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Spread every bit of each value over all bits; one to one.

    >>> len(set(mix(np.arange(1000, dtype=np.uint64)).tolist()))
    1000
    """
    mixed = (values ^ values >> _HALF) * _ODDER
    mixed ^= mixed >> _HALF
    mixed *= _ODDER
    mixed ^= mixed >> _HALF
    return mixed


def hash_beginnings(
    codes: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """A hash of the length and the first eight bytes of each ``codes[start:end]``; cheap."""
    eights = _eights(codes)
    lengths = ends - starts
    first = eights[starts] & _MASKS[np.minimum(lengths, 8)]
    return mix(first + lengths.astype(np.uint64) * _ODD)


def _eights(codes: NDArray[np.uint8]) -> NDArray[np.uint64]:
    """The eight bytes from each position on, as one number."""
    return np.ndarray(len(codes) - 7, "<u8", codes, strides=(1,))


def hash_spans(
    codes: NDArray[np.uint8], starts: NDArray[np.int64], ends: NDArray[np.int64]
) -> NDArray[np.uint64]:
    """A hash of each ``codes[start:end]``.

    Args:
        codes: Bytes, followed by :data:`PADDING` zeros.
        starts: Where each stretch begins; ``n`` positions.
        ends: Where each ends.

    Returns:
        ``n`` hashes; equal stretches have equal ones.
    """
    eights = _eights(codes)
    lengths = ends - starts
    hashes = hash_beginnings(codes, starts, ends)
    more = np.flatnonzero((lengths > 8) & (lengths <= _LONG))
    at, left = starts[more] + 8, lengths[more] - 8
    while len(more):
        block = eights[at] & _MASKS[np.minimum(left, 8)]
        hashes[more] = mix(hashes[more] * _ODD + block)
        rest = left > 8
        more, at, left = more[rest], at[rest] + 8, left[rest] - 8
    for i in np.flatnonzero(lengths > _LONG):
        digest = hashlib.blake2b(codes[starts[i] : ends[i]].tobytes(), digest_size=8).digest()
        hashes[i] = int.from_bytes(digest, "little")
    return hashes


def hash_bytes(data: bytes) -> int:
    """The hash that :func:`hash_spans` gives to a stretch with these bytes."""
    codes = np.frombuffer(data + bytes(PADDING), np.uint8)
    return int(hash_spans(codes, np.array([0]), np.array([len(data)]))[0])
