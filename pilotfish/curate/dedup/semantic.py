"""Semantic deduplication: of texts whose embeddings point nearly the same way, one stays.

SemDeDup (Abbas et al. 2023, "SemDeDup: Data-efficient learning at web-scale through semantic
deduplication"): embeddings are cut into clusters by k-means, and only texts of one cluster are compared.
Within a cluster texts stand in an order, from the farthest from the centroid to the nearest, and one is
dropped if any before it has a cosine similarity above the threshold, whether that one stays or not.

Differences: clusters come from k-means of k-means with a bounded size
(:mod:`~pilotfish.curate.dedup.clusters`), where the paper has one k-means, so the time is ``n log n``
for any corpus; the centroid is the mean of the cluster's own vectors; other orders can be chosen; vectors
are rounded to 16 bits, which moves a similarity by less than 0.001.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.dedup.clusters import Floats, Records, clusters, record_type, unit_vectors
from pilotfish.curate.dedup.drop import SAMPLED, DropDuplicates
from pilotfish.curate.dedup.keep import KeepRule, keys_of, rows_of
from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.sampling import check_seed
from pilotfish.curate.selection.vectors import embed, vectors_of
from pilotfish.curate.step import State, Step
from pilotfish.errors import ConfigError

FARTHEST = "farthest"
BLOCK = 1024  # texts that are compared with those before them at once


@dataclass(frozen=True)
class Semantic:
    """Keep one of the texts that say nearly the same.

    A text without any word that the encoder knows has no duplicates.

    Args:
        max_similarity: Texts with a larger cosine similarity are duplicates; ``1 - eps`` of the paper.
            What it means depends on the encoder: look at pairs before you choose it.
        encoder: What embeds, as in ``load_encoder``: ``"static"``, ``"onnx:FOLDER"``, a catalogue name.
        cluster_size: Texts of a cluster, at most. Duplicates in different clusters are missed: larger is
            more thorough and slower.
        keep: Which one stays: ``"farthest"`` from the centroid as in the paper, ``"first"`` (by file and
            row), ``"longest"`` (in characters) or ``"highest"`` (of ``column``).
        column: The column of numbers that ``"highest"`` compares; a row without one loses.
        seed: Of k-means.
        tag: Keep every row; see :class:`~pilotfish.curate.dedup.drop.DropDuplicates` for the columns.

    Raises:
        ConfigError: A number is out of its range, there is no such rule, or a column without need.
    """

    name: ClassVar[str] = "semantic"

    max_similarity: float = 0.95
    encoder: str = "static"
    cluster_size: int = 4096
    keep: str = FARTHEST
    column: str | None = None
    seed: int = 1
    tag: bool = False

    def __post_init__(self) -> None:
        if not -1 <= self.max_similarity < 1:
            raise ConfigError(
                f"The step {self.name!r}: got max_similarity = {self.max_similarity}, but expected at "
                "least -1 and less than 1.",
                remedy="For texts that are equal there is the step 'exact'.",
            )
        if self.cluster_size < 2:
            raise ConfigError(
                f"The step {self.name!r}: got cluster_size = {self.cluster_size}, but expected at "
                "least 2."
            )
        check_seed(self.name, self.seed)
        self._rule()

    def _rule(self) -> KeepRule:
        return KeepRule(self.keep, self.column, more=(FARTHEST,))

    @property
    def reads(self) -> dict[str, str]:
        """The column that decides, if one does."""
        return self._rule().reads

    def map(self, batch: pa.RecordBatch) -> State:
        """Row numbers, vectors of 16-bit numbers, and what the keep rule compares."""
        state = embed(batch, self.encoder)
        for name, column in self._rule().keys(batch).items():
            state = state.append_column(name, column)
        return state.take(to_arrow(np.flatnonzero(np.any(vectors_of(state), axis=1))))

    def reduce(self, states: Iterable[State], folder: Path) -> Step:
        """Cut into clusters, compare within each, and choose."""
        path, kind = folder / "vectors.bin", record_type(0)
        with path.open("wb") as file:
            for state in states:
                kind = record_type(state.schema.field("vector").type.list_size)
                _records(state, kind).tofile(file)
        rows, kept = [np.zeros(0, np.uint64)], [np.zeros(0, np.uint64)]
        for records in clusters(path, kind, self.cluster_size, self.seed):
            vectors = unit_vectors(records)
            order = self._order(records, vectors)
            best = first_before(vectors[order], self.max_similarity)
            grouped = np.bincount(best, minlength=len(best))[best] > 1
            number = records["row"][order]
            rows.append(number[grouped])
            kept.append(number[best][grouped])
        found = np.concatenate(rows)
        ascending = np.argsort(found)
        return DropDuplicates.write(
            self.name, folder, self.tag, found[ascending], np.concatenate(kept)[ascending]
        )

    def rehearse(
        self, states: Iterable[State], folder: Path, share: float, ask: bool
    ) -> tuple[Step, str]:
        """As the whole, though a sample has fewer duplicates."""
        return self.reduce(states, folder), SAMPLED if share < 1 else ""

    def _order(self, records: Records, vectors: Floats) -> NDArray[np.int64]:
        """What stays rather than the others comes first."""
        if self.keep != FARTHEST:
            return np.lexsort((records["row"], -records["key"]))
        # Rounded, so that equal texts stand in the order of their rows.
        nearness = np.round(vectors @ vectors.mean(axis=0), 4)
        return np.lexsort((records["row"], nearness))


def first_before(vectors: Floats, max_similarity: float) -> NDArray[np.int64]:
    """For each vector the one that stays for it: itself, or one before it.

    Args:
        vectors: Unit rows ``[n, dim]``, in order. Each that has one before it with a larger similarity is
            dropped; the first such one stands for it, and where that is dropped, what stands for that.
        max_similarity: Cosine.
    """
    best = np.arange(len(vectors))
    for start in range(0, len(vectors), BLOCK):
        end = min(start + BLOCK, len(vectors))
        for before in range(0, end, 4 * BLOCK):  # a cluster of equal vectors may be large
            until = min(before + 4 * BLOCK, end)
            near = vectors[start:end] @ vectors[before:until].T > max_similarity
            near &= np.arange(before, until) < np.arange(start, end)[:, None]
            found = np.flatnonzero(near.any(axis=1) & (best[start:end] == np.arange(start, end)))
            best[start + found] = before + near[found].argmax(axis=1)
    while not np.array_equal(further := best[best], best):
        best = further
    return best


def _records(state: State, kind: np.dtype[np.void]) -> Records:
    records = np.zeros(state.num_rows, kind)
    records["row"] = rows_of(state)
    keys = keys_of(state)
    if keys is not None:
        records["key"] = keys
    records["vector"] = vectors_of(state)
    return records
