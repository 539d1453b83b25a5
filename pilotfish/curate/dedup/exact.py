"""Exact deduplication: of texts that are equal, but for what is ignored, one stays.

A text is known by a BLAKE2 hash of 128 bits, of which no two different texts are known to share one; by
chance that takes about 10**19 texts.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.dedup.drop import SAMPLED, DropDuplicates
from pilotfish.curate.dedup.groups import group
from pilotfish.curate.dedup.keep import KeepRule, kept_rows, rows_of
from pilotfish.curate.rules.arrow import numbers, to_arrow
from pilotfish.curate.rules.characters import KIND, SPACE
from pilotfish.curate.rules.documents import Documents, pieces
from pilotfish.curate.step import ROW, TEXT, State, Step

_BLANK = np.uint8(ord(" "))


@dataclass(frozen=True)
class Exact:
    """Keep one of the texts that are equal.

    Texts of which nothing is left to compare, such as blank ones where white space is ignored, are equal.

    Args:
        ignore_case: Compare in lower case, of every script.
        ignore_whitespace: Compare with each run of white space as one blank, and none at the ends.
        ignore_punctuation: Compare without characters that are neither white space nor part of a word.
        keep: Which one stays: ``"first"`` (by file and row), ``"longest"`` (in characters, of texts that
            were equal but for what is ignored) or ``"highest"`` (of ``column``).
        column: The column of numbers that ``"highest"`` compares; a row without one loses.
        tag: Keep every row; see :class:`~pilotfish.curate.dedup.drop.DropDuplicates` for the columns.

    Raises:
        ConfigError: No such rule, or a column without need.
    """

    name: ClassVar[str] = "exact"

    ignore_case: bool = False
    ignore_whitespace: bool = False
    ignore_punctuation: bool = False
    keep: str = "first"
    column: str | None = None
    tag: bool = False

    def __post_init__(self) -> None:
        KeepRule(self.keep, self.column)

    @property
    def reads(self) -> dict[str, str]:
        """The column that decides, if one does."""
        return KeepRule(self.keep, self.column).reads

    def map(self, batch: pa.RecordBatch) -> State:
        """Row numbers, hashes, and what the keep rule compares."""
        hashes = b"".join(
            hashlib.blake2b(text, digest_size=16).digest()
            for text in self._compared(batch.column(TEXT))
        )
        words = np.frombuffer(hashes, np.uint64).reshape(-1, 2)
        return pa.record_batch(
            {
                ROW: batch.column(ROW),
                "hash": to_arrow(words[:, 0]),
                "check": to_arrow(words[:, 1]),
                **KeepRule(self.keep, self.column).keys(batch),
            }
        )

    def reduce(self, states: Iterable[State], folder: Path) -> Step:
        """Sort the hashes and choose of each group."""

        def chunks() -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
            for state in states:
                words = [numbers(state.column(name)) for name in ("hash", "check")]
                yield rows_of(state), np.stack(words, axis=1)[:, None, :]

        groups = group(chunks, folder)
        kept = kept_rows(groups.rows, groups.first, states)
        return DropDuplicates.write(self.name, folder, self.tag, groups.rows, kept)

    def rehearse(
        self, states: Iterable[State], folder: Path, share: float, ask: bool
    ) -> tuple[Step, str]:
        """As the whole, though a sample has fewer duplicates."""
        return self.reduce(states, folder), SAMPLED if share < 1 else ""

    def _compared(self, texts: pa.Array) -> Iterator[memoryview]:
        """What is compared of each text, as bytes."""
        if self.ignore_case:
            texts = pc.utf8_lower(texts)
        for documents in pieces(texts):
            data, offsets = memoryview(documents.data), documents.offsets
            if self.ignore_whitespace or self.ignore_punctuation:
                data, offsets = self._without(documents)
            for start, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
                yield data[start:end]

    def _without(self, documents: Documents) -> tuple[memoryview, NDArray[np.int64]]:
        """The bytes without those that are ignored, and where each text begins."""
        codes: NDArray[np.uint8] = documents.codes[: len(documents.data)]
        kind = (documents.bits & KIND).astype(np.uint8)
        offsets = documents.offsets
        if self.ignore_punctuation:
            codes, kind, offsets = _only(kind != 0, codes, kind, offsets)
        if self.ignore_whitespace:
            space = kind == SPACE
            before = np.concatenate((np.ones(1, np.bool_), space[:-1]))[: len(space)]
            before[offsets[:-1][offsets[:-1] < len(space)]] = True  # none at a text's beginning
            codes = np.where(space, _BLANK, codes)
            codes, kind, offsets = _only(~(space & before), codes, kind, offsets)
            ends = offsets[1:][offsets[1:] > offsets[:-1]] - 1
            wanted = np.ones(len(codes), np.bool_)
            wanted[ends] = kind[ends] != SPACE
            codes, kind, offsets = _only(wanted, codes, kind, offsets)
        return memoryview(codes.tobytes()), offsets


def _only(
    wanted: NDArray[np.bool_],
    codes: NDArray[np.uint8],
    kind: NDArray[np.uint8],
    offsets: NDArray[np.int64],
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int64]]:
    before: NDArray[np.int64] = np.zeros(len(wanted) + 1, np.int64)
    np.cumsum(wanted, out=before[1:])
    return codes[wanted], kind[wanted], before[offsets]
