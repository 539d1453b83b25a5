"""Vectors in files, cut into clusters of bounded size: k-means of k-means.

One k-means with as many clusters as a large corpus needs compares every vector with every centroid,
which grows with the square of the corpus. Here a file of vectors is cut into at most :data:`BRANCHES` by
k-means on a sample, and each that is still too large is cut again: ``n log n``, and no more in memory
than a sample, a slab and one cluster.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from pilotfish.curate.rules.hashing import mix

Floats = NDArray[np.float32]
Records = NDArray[np.void]

BRANCHES = 32
SAMPLE = 256  # vectors for each centroid, of which k-means learns
SLAB = 8192  # vectors whose nearest centroid is looked up at once
NO_CUT = (
    0.95  # a cluster that keeps so much of what was cut is not cut again: its vectors are equal
)


def record_type(dim: int) -> np.dtype[np.void]:
    """A line of a file: the row, the key of the keep rule, and the vector."""
    return np.dtype([("row", np.uint64), ("key", np.float64), ("vector", np.float16, (dim,))])


def unit_vectors(records: Records) -> Floats:
    """The vectors, ``[n, dim]``, of length 1."""
    vectors = records["vector"].astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors


def clusters(path: Path, kind: np.dtype[np.void], most: int, seed: int) -> Iterator[Records]:
    """The lines of a file, cluster by cluster; each ordered by row. The file is removed.

    Args:
        path: A file of records with unit vectors.
        kind: Of the records.
        most: Lines of a cluster; more only where their vectors are as good as equal.
        seed: Of k-means.
    """
    waiting = [(path, False)]
    while waiting:
        path, final = waiting.pop()
        n = path.stat().st_size // kind.itemsize
        if n <= most or final:
            records = np.fromfile(path, kind)
            path.unlink()
            if n:
                yield records[np.argsort(records["row"])]
            continue
        centroids = _centroids(_sample(path, kind, seed), min(BRANCHES, -(-2 * n // most)), seed)
        parts = _cut(path, kind, centroids)
        path.unlink()
        sizes = {part: part.stat().st_size // kind.itemsize for part in parts}
        waiting += [(part, size > NO_CUT * n) for part, size in sizes.items()]


def _slabs(path: Path, kind: np.dtype[np.void]) -> Iterator[Records]:
    with path.open("rb") as file:
        while len(records := np.fromfile(file, kind, SLAB)):
            yield records


def _sample(path: Path, kind: np.dtype[np.void], seed: int) -> Floats:
    """Vectors whose rows' hashes are the smallest: the same whatever the order of the file."""
    held = np.zeros(0, kind)
    most = BRANCHES * SAMPLE
    for records in _slabs(path, kind):
        held = np.concatenate([held, records])
        if len(held) > most:
            rank = mix(held["row"] + np.uint64(seed))
            held = held[np.argpartition(rank, most)[:most]]
    return unit_vectors(held[np.argsort(held["row"])])


def _centroids(vectors: Floats, k: int, seed: int) -> Floats:
    from sklearn.cluster import KMeans
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # several threads add up in any order, and a run must be repeatable
        # Fewer different vectors than centroids would be a warning; then some centroids are equal.
        distinct = len(np.unique(vectors, axis=0))
        fitted = KMeans(min(k, distinct), n_init=1, max_iter=20, random_state=seed).fit(vectors)
    centroids: Floats = fitted.cluster_centers_.astype(np.float32)
    return centroids


def _cut(path: Path, kind: np.dtype[np.void], centroids: Floats) -> list[Path]:
    """A file for each centroid, of the vectors that are nearest to it."""
    half = 0.5 * np.einsum("cd,cd->c", centroids, centroids)
    parts = [path.with_name(f"{path.stem}-{i}.bin") for i in range(len(centroids))]
    files = [part.open("wb") for part in parts]
    try:
        for records in _slabs(path, kind):
            nearest = np.argmax(unit_vectors(records) @ centroids.T - half, axis=1)
            for i in np.unique(nearest).tolist():
                records[nearest == i].tofile(files[i])
    finally:
        for file in files:
            file.close()
    return parts
