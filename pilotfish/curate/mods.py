"""MoDS: instructions of good quality that cover the data, and those that the model still fails.

Du, Zong, Zhang 2023, "MoDS: Model-oriented Data Selection for Instruction Tuning". Three questions, two
of them asked of columns that earlier steps or programs wrote. Quality: rows below a score are out.
Coverage: of the rest, k-centre greedy takes the seed. Necessity: a model is trained on the seed and
answers the rest; where a judge scores its answer low, the row is needed, and k-centre greedy takes some
of these too.

So it runs twice on the same rows: without ``answer_score`` it keeps the seed; after training and judging,
with it, the same seed and the needed rows. Difference from the paper: the needed rows are also spread
away from the seed.

Memory: 4 bytes for each dimension and row, twice while they are sorted; time grows with rows times
kept rows.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pilotfish.curate.chosen import Chosen
from pilotfish.curate.cover import k_center_greedy
from pilotfish.curate.step import State
from pilotfish.curate.vectors import embed, read_vectors
from pilotfish.errors import ConfigError

LOW_QUALITY, NOT_IN_SEED, NOT_NEEDED = "low_quality", "not_in_seed", "not_needed"


class MoDS:
    """Keep a covering seed of good rows, and good rows on which the model's answers are bad.

    Dropped rows are ``mods.low_quality`` (a missing score is low), ``mods.not_in_seed`` and, with
    ``answer_score``, ``mods.not_needed`` (the answer is good, or was not judged).

    Args:
        quality: The column of the quality score.
        min_quality: Rows below it are out.
        seed_rows: How many rows the seed has.
        answer_score: The column of the judge's score of the model's answer; None for the seed alone.
        max_answer_score: Rows below it are needed.
        needed_rows: How many of the needed rows to keep.
        encoder: What embeds, as in ``load_encoder``.
        seed: Chooses the first centre.
        tag: Keep every row and write the reason, or null, to the column ``mods``.

    Raises:
        ConfigError: A number is out of range, or necessity is asked for by half.
    """

    name = "mods"

    def __init__(
        self,
        quality: str,
        min_quality: float,
        seed_rows: int,
        answer_score: str | None = None,
        max_answer_score: float | None = None,
        needed_rows: int | None = None,
        encoder: str = "static",
        seed: int = 0,
        tag: bool = False,
    ) -> None:
        necessity = [answer_score, max_answer_score, needed_rows]
        if seed_rows < 1 or (needed_rows is not None and needed_rows < 1):
            raise ConfigError(
                f"The step 'mods': got seed_rows = {seed_rows} and needed_rows = {needed_rows}, but "
                "expected 1 or more."
            )
        if any(x is None for x in necessity) and any(x is not None for x in necessity):
            raise ConfigError(
                "The step 'mods' needs answer_score, max_answer_score and needed_rows together, or none."
            )
        self.quality = quality
        self.min_quality = min_quality
        self.seed_rows = seed_rows
        self.answer_score = answer_score
        self.max_answer_score = max_answer_score
        self.needed_rows = needed_rows
        self.encoder = encoder
        self.seed = seed
        self.tag = tag
        self._scores = (quality,) if answer_score is None else (quality, answer_score)
        self.reads = dict.fromkeys(self._scores, "double")

    def map(self, batch: pa.RecordBatch) -> State:
        """Embed, beside the scores."""
        return embed(batch, self.encoder, self._scores)

    def reduce(self, states: Iterable[State], folder: Path) -> Chosen:
        """Choose the seed, then the needed rows."""
        rows, vectors, scores = read_vectors(states, self._scores)
        codes = np.full(len(rows), 1, np.int8)
        good = np.flatnonzero(scores[self.quality] >= self.min_quality)
        codes[np.setdiff1d(np.arange(len(rows)), good)] = 0
        seed = good[k_center_greedy(vectors[good], self.seed_rows, seed=self.seed)]
        if self.answer_score is not None:
            assert self.needed_rows is not None
            assert self.max_answer_score is not None
            rest = np.setdiff1d(good, seed)
            codes[rest] = 2
            bad = rest[scores[self.answer_score][rest] < self.max_answer_score]
            both = np.concatenate([bad, seed])
            picked = k_center_greedy(
                vectors[both],
                self.needed_rows,
                chosen=np.arange(len(bad), len(both)),
                seed=self.seed,
            )
            codes[bad] = 1
            codes[both[picked]] = -1
        codes[seed] = -1
        return Chosen.store(
            self.name, folder, rows, codes, (LOW_QUALITY, NOT_IN_SEED, NOT_NEEDED), tag=self.tag
        )
