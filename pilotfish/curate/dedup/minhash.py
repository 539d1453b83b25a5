"""Near-duplicates by MinHash and locality-sensitive hashing.

Broder 1997, "On the resemblance and containment of documents"; bands as in Leskovec, Rajaraman and
Ullman, "Mining of Massive Datasets", chapter 3; the defaults are those of FineWeb (Penedo et al. 2024).
The probability that the smallest of a text's shingles under a random permutation is that of another text
is the Jaccard similarity of the two. So texts of similarity ``s`` agree in all ``rows`` of at least one
of ``bands`` bands with the probability ``1 - (1 - s**rows)**bands``: with 14 bands of 8 rows

    ==========  ====  ====  ====  ====  ====  ====  ====
    similarity  .50   .60   .70   .75   .80   .85   .90
    found       .05   .21   .56   .77   .92   .99   1.00
    ==========  ====  ====  ====  ====  ====  ====  ====

and half of the pairs at .68. Texts that agree in a band are joined, and so are those joined to them: a
chain of near-duplicates is one group, of which one stays. Pairs are not compared again by their true
similarity, as in datatrove; where that is too coarse, more rows and bands make the curve steeper.

Differences from datatrove: permutations multiply 32-bit hashes modulo 2**32 rather than modulo a prime,
words are cut by a rule rather than by a tokenizer of the language, a text of fewer words than a shingle
is compared as a whole rather than never, and numbers, accents and formatting are compared as they are.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.dedup.drop import SAMPLED, DropDuplicates
from pilotfish.curate.dedup.groups import group
from pilotfish.curate.dedup.keep import KeepRule, kept_rows, rows_of
from pilotfish.curate.dedup.shingles import Shingles, shingles
from pilotfish.curate.rules.arrow import numbers, to_arrow
from pilotfish.curate.rules.documents import pieces
from pilotfish.curate.rules.hashing import mix
from pilotfish.curate.sampling import check_seed
from pilotfish.curate.step import ROW, TEXT, State, Step
from pilotfish.errors import ConfigError

PIECE = 1 << 18  # bytes of text at once: its shingles and one permutation of them stay in the cache
_ODD = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class MinHash:
    """Keep one of the texts that are nearly equal.

    A text without any word has no duplicates.

    Args:
        words: Words of a shingle.
        bands: Bands; more of them find more.
        rows: Permutations in each; more of them find less by mistake.
        ignore_case: Compare in lower case.
        seed: Of the permutations.
        keep: Which one of a group stays: ``"first"`` (by file and row), ``"longest"`` (in characters) or
            ``"highest"`` (of ``column``).
        column: The column of numbers that ``"highest"`` compares; a row without one loses.
        tag: Keep every row; see :class:`~pilotfish.curate.dedup.drop.DropDuplicates` for the columns.

    Raises:
        ConfigError: A number is out of its range, there is no such rule, or a column without need.
    """

    name: ClassVar[str] = "minhash"

    words: int = 5
    bands: int = 14
    rows: int = 8
    ignore_case: bool = True
    seed: int = 1
    keep: str = "first"
    column: str | None = None
    tag: bool = False

    def __post_init__(self) -> None:
        for setting in ("words", "bands", "rows"):
            if getattr(self, setting) < 1:
                raise ConfigError(
                    f"The step {self.name!r}: got {setting} = {getattr(self, setting)}, but expected at "
                    "least 1."
                )
        check_seed(self.name, self.seed)
        KeepRule(self.keep, self.column)

    @property
    def reads(self) -> dict[str, str]:
        """The column that decides, if one does."""
        return KeepRule(self.keep, self.column).reads

    def found(self, similarity: float) -> float:
        """The probability that two texts of this Jaccard similarity, 0 to 1, share a band.

        >>> round(MinHash().found(0.8), 3)
        0.924
        """
        return float(1 - (1 - similarity**self.rows) ** self.bands)

    def map(self, batch: pa.RecordBatch) -> State:
        """The row numbers of texts with words, a hash for each band, and what the keep rule compares."""
        texts = batch.column(TEXT)
        if self.ignore_case:
            texts = pc.utf8_lower(texts)
        at, filled, hashes = 0, [], [np.zeros((0, self.bands), np.uint64)]
        for documents in pieces(texts, PIECE):
            found = shingles(documents, self.words)
            filled.append(at + found.documents)
            hashes.append(self._bands(self._signatures(found)))
            at += len(documents)
        flat = to_arrow(np.concatenate(hashes).ravel())
        chosen = to_arrow(np.concatenate([np.zeros(0, np.int64), *filled]))
        columns = {ROW: batch.column(ROW), **KeepRule(self.keep, self.column).keys(batch)}
        return pa.record_batch(
            {name: column.take(chosen) for name, column in columns.items()}
            | {"bands": pa.FixedSizeListArray.from_arrays(flat, self.bands)}
        )

    def reduce(self, states: Iterable[State], folder: Path) -> Step:
        """Join texts that share a band, and choose of each group."""

        def chunks() -> Iterator[tuple[NDArray[np.uint64], NDArray[np.uint64]]]:
            for state in states:
                flat = numbers(state.column("bands").flatten())
                yield rows_of(state), flat.reshape(-1, self.bands, 1)

        groups = group(chunks, folder)
        kept = kept_rows(groups.rows, groups.first, states)
        return DropDuplicates.write(self.name, folder, self.tag, groups.rows, kept)

    def rehearse(
        self, states: Iterable[State], folder: Path, share: float, ask: bool
    ) -> tuple[Step, str]:
        """As the whole, though a sample has fewer duplicates."""
        return self.reduce(states, folder), SAMPLED if share < 1 else ""

    def _signatures(self, found: Shingles) -> NDArray[np.uint32]:
        """The smallest shingle of each text under each permutation, ``[bands * rows, texts]``."""
        factors, terms = _permutations(self.bands * self.rows, self.seed)
        signatures = np.empty((len(factors), len(found.starts)), np.uint32)
        if not len(found.starts):
            return signatures
        permuted = np.empty_like(found.hashes)
        for k, (factor, term) in enumerate(zip(factors, terms, strict=True)):
            np.multiply(found.hashes, factor, out=permuted)
            permuted += term
            signatures[k] = np.minimum.reduceat(permuted, found.starts)
        return signatures

    def _bands(self, signatures: NDArray[np.uint32]) -> NDArray[np.uint64]:
        """A hash of each band, ``[texts, bands]``; of different bands never the same on purpose."""
        split = signatures.reshape(self.bands, self.rows, signatures.shape[1])
        hashes = np.arange(1, self.bands + 1, dtype=np.uint64)[:, None] * _ODD
        hashes = np.repeat(hashes, split.shape[2], axis=1)
        for row in range(self.rows):
            hashes = mix(hashes * _ODD + split[:, row])
        return hashes.T


@cache
def _permutations(n: int, seed: int) -> tuple[NDArray[np.uint32], NDArray[np.uint32]]:
    """Odd factors, and what is added, modulo 2**32."""
    draw = np.random.default_rng(seed).integers(0, 1 << 32, (2, n), np.uint32)
    return draw[0] | np.uint32(1), draw[1]
