"""Keep rows that stand for all the others, by their embeddings.

The methods are those that choose what a large model is asked first
(:mod:`pilotfish.curate.selection.cover`, which says what each guarantees and cites its source): facility
location covers the average row, k-centre the farthest, k-means the densest regions; ``nearest`` takes
what points most nearly the way of a target.

Memory: 4 bytes for each dimension and row, twice while they are sorted; for facility location besides 16
KB for each of 8,192 candidates, or of twice the rows to keep where that is more. Time grows with rows
times kept rows for k-centre and k-means, so these are for keeping thousands, not millions.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from pilotfish.curate.formats.files import find_files
from pilotfish.curate.formats.reading import read_texts
from pilotfish.curate.sampling import check_seed
from pilotfish.curate.selection.chosen import Chosen, how_many, scaled
from pilotfish.curate.selection.cover import nearest
from pilotfish.curate.selection.select import representative
from pilotfish.curate.selection.vectors import Floats, embed, encoder, read_vectors
from pilotfish.curate.step import TEXT, State, Step
from pilotfish.errors import ConfigError, InputError

NEAREST = "nearest"
Method = Literal["facility-location", "k-center", "k-means", "random", "nearest"]


class Representative:
    """Keep rows that cover all of them, or those nearest to a target.

    Others are dropped as ``representative.not_chosen``.

    Args:
        rows: How many rows to keep; or
        share: which share.
        method: ``"facility-location"``, ``"k-center"``, ``"k-means"``, ``"nearest"``, or ``"random"`` to
            compare with.
        target: Files of texts, for ``"nearest"``: cosine to the mean of their unit vectors.
        target_text: Their column that holds the text.
        encoder: What embeds, as in ``load_encoder``.
        seed: Of every random choice.
        tag: Keep every row and write the reason, or null, to the column ``representative``.

    Raises:
        ConfigError: A setting is out of range, or there is a target without need or a need without.
        InputError: There is no such target.
    """

    name = "representative"

    def __init__(
        self,
        rows: int | None = None,
        share: float | None = None,
        method: Method = "facility-location",
        target: str | list[str] = "",
        target_text: str = TEXT,
        encoder: str = "static",
        seed: int = 0,
        tag: bool = False,
    ) -> None:
        how_many(self.name, rows, share, 1)
        check_seed(self.name, seed)
        if bool(target) != (method == NEAREST):
            raise ConfigError(
                f"The step 'representative': got method = {method!r} and target = {target!r}, but "
                'expected a target for method = "nearest" alone.'
            )
        self.target = find_files([target] if isinstance(target, str) else target) if target else []
        self.target_text = target_text
        self.rows = rows
        self.share = share
        self.method = method
        self.encoder = encoder
        self.seed = seed
        self.tag = tag

    def map(self, batch: pa.RecordBatch) -> State:
        """Embed."""
        return embed(batch, self.encoder)

    def reduce(self, states: Iterable[State], folder: Path) -> Chosen:
        """Choose.

        Raises:
            InputError: The target has no texts.
        """
        rows, vectors, _ = read_vectors(states)
        k = how_many(self.name, self.rows, self.share, len(rows))
        if not len(rows):  # steps before left none
            chosen = np.zeros(0, np.int64)
        elif self.method == NEAREST:
            chosen = nearest(vectors, self._direction(), k)
        else:
            chosen = representative(vectors, k, seed=self.seed, method=self.method)
        codes = np.zeros(len(rows), np.int8)
        codes[chosen] = -1
        return Chosen.store(self.name, folder, rows, codes, ("not_chosen",), tag=self.tag)

    def rehearse(
        self, states: Iterable[State], folder: Path, share: float, ask: bool
    ) -> tuple[Step, str]:
        """Of a sample so many rows as it is of the whole."""
        step = copy.copy(self)
        step.rows = None if self.rows is None else scaled(self.rows, share)
        return step.reduce(states, folder), ""

    def _direction(self) -> Floats:
        total, n = np.zeros(encoder(self.encoder).dim, np.float32), 0
        for texts in read_texts(self.target, self.target_text):
            if texts:
                total = total + encoder(self.encoder).encode(texts).sum(axis=0)
                n += len(texts)
        if not n:
            raise InputError(
                f"The target of the step 'representative' has no texts in the column "
                f"{self.target_text!r}.",
                remedy="Name its column with target_text.",
            )
        return (total / n).astype(np.float32)
