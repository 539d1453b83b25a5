"""DSIR: keep the rows that make the data look like a target, by importance resampling.

Xie, Santurkar, Ma, Liang 2023, "Data Selection for Language Models via Importance Resampling". Raw data
and target are each a bag of hashed 1- and 2-grams; a row's log-weight is the sum over its n-grams of the
log of how much more frequent their bucket is in the target. Rows are drawn without replacement by those
weights: Gumbel noise is added and the top ``k`` stay. The mean of a mixture is matched; a single row's
weight says little about its domain.

With the same seed it keeps the same rows as the authors' package, ``data-selection`` 1.0.3, run with one
process on one file. Differences: the raw distribution is fitted on all rows, not on the first 1e9
n-grams; targets are pooled; of equal keys the lower row wins.

The states hold 4 bytes for each n-gram, on disk. Fitting needs 60 bytes of memory for each row.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.formats.files import find_files
from pilotfish.curate.formats.reading import read_texts
from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.sampling import check_seed
from pilotfish.curate.selection.chosen import Chosen, how_many, scaled
from pilotfish.curate.selection.hashed_ngrams import hashed_ngrams
from pilotfish.curate.step import ROW, TEXT, State, Step
from pilotfish.errors import ConfigError, InputError

TINY = 1e-8  # added to each probability, as the authors do, so that its logarithm is finite
TOO_SHORT, NOT_DRAWN = "too_short", "not_drawn"


class DSIR:
    """Keep rows drawn by importance weights toward a target.

    Args:
        target: Files of texts that the data should be like: paths, globs or URLs.
        rows: How many rows to keep; or
        share: which share of those that are long enough.
        target_text: The column of the target that holds the text.
        min_words: Rows with fewer words are dropped as ``dsir.too_short``, the others that are not drawn
            as ``dsir.not_drawn``. Weights of short rows are mostly noise.
        ngrams: The longest n-grams that count.
        buckets: How many buckets they are hashed into.
        noise: Draw; without, the rows with the largest weights stay, which is the authors' ``top_k``.
        seed: Of the draw.
        tag: Keep every row and write the reason, or null, to the column ``dsir``.
        scores: Add the log-weights as ``dsir.log_weight``.

    Raises:
        ConfigError: A setting is out of range.
        InputError: There is no such target.
    """

    name = "dsir"

    def __init__(
        self,
        target: str | list[str],
        rows: int | None = None,
        share: float | None = None,
        target_text: str = TEXT,
        min_words: int = 100,
        ngrams: int = 2,
        buckets: int = 10_000,
        noise: bool = True,
        seed: int = 0,
        tag: bool = False,
        scores: bool = False,
    ) -> None:
        how_many(self.name, rows, share, 1)
        check_seed(self.name, seed)
        if min_words < 0 or not 1 <= ngrams <= 8 or not 2 <= buckets <= 2**24:
            raise ConfigError(
                f"The step 'dsir': got min_words = {min_words}, ngrams = {ngrams}, buckets = {buckets}, "
                "but expected min_words >= 0, 1 <= ngrams <= 8, 2 <= buckets <= 2**24."
            )
        self.target = find_files([target] if isinstance(target, str) else target)
        self.target_text = target_text
        self.rows = rows
        self.share = share
        self.min_words = min_words
        self.ngrams = ngrams
        self.buckets = buckets
        self.noise = noise
        self.seed = seed
        self.tag = tag
        self.scores = scores

    def map(self, batch: pa.RecordBatch) -> State:
        """The buckets of each row's n-grams."""
        found, offsets, words = self._hashed(batch.column(TEXT).to_pylist())
        lists = pa.LargeListArray.from_arrays(to_arrow(offsets), to_arrow(found))
        return pa.RecordBatch.from_arrays(
            [batch.column(ROW), lists, to_arrow(words)], ["row", "buckets", "words"]
        )

    def reduce(self, states: Iterable[State], folder: Path) -> Chosen:
        """Compare raw and target, weigh each row, and draw.

        Raises:
            InputError: The target has no words.
        """
        raw = np.zeros(self.buckets, np.int64)
        for state in states:
            raw += np.bincount(_buckets(state)[0], minlength=self.buckets)
        ratio = log_ratio(raw, self.count_target())
        rows, words, weights = [], [], []
        for state in states:
            found, counts = _buckets(state)
            owner = np.repeat(np.arange(len(counts)), counts)
            # One after another, so that a row's sum does not depend on the rows beside it.
            weights.append(np.bincount(owner, ratio[found], minlength=len(counts)))
            rows.append(np.asarray(state.column("row")))
            words.append(np.asarray(state.column("words")))
        return self._drawn(
            np.concatenate([np.zeros(0, np.uint64), *rows]),
            np.concatenate([np.zeros(0, np.int64), *words]),
            np.concatenate([np.zeros(0), *weights]),
            folder,
        )

    def rehearse(
        self, states: Iterable[State], folder: Path, share: float, ask: bool
    ) -> tuple[Step, str]:
        """Of a sample so many rows as it is of the whole."""
        step = copy.copy(self)
        step.rows = None if self.rows is None else scaled(self.rows, share)
        return step.reduce(states, folder), ""

    def count_target(self) -> NDArray[np.int64]:
        """How often each bucket occurs in the target, ``[buckets]``.

        Raises:
            InputError: It cannot be read or has no words.
        """
        counts = np.zeros(self.buckets, np.int64)
        for texts in read_texts(self.target, self.target_text):
            counts += np.bincount(self._hashed(texts)[0], minlength=self.buckets)
        if not counts.any():
            raise InputError(
                f"The target of the step 'dsir' has no words in the column {self.target_text!r}.",
                remedy="Name its column with target_text.",
            )
        return counts

    def _hashed(
        self, texts: Sequence[str]
    ) -> tuple[NDArray[np.uint32], NDArray[np.int64], NDArray[np.int64]]:
        return hashed_ngrams(texts, self.ngrams, self.buckets)

    def _drawn(
        self,
        rows: NDArray[np.uint64],
        words: NDArray[np.int64],
        weights: NDArray[np.float64],
        folder: Path,
    ) -> Chosen:
        order = np.argsort(rows)
        rows, words, weights = rows[order], words[order], weights[order]
        long = np.flatnonzero(words >= self.min_words)
        keys = weights[long]
        if self.noise:  # the legacy generator, in the order of the rows: the authors' very draw
            keys = keys + np.random.RandomState(self.seed).gumbel(size=len(keys))
        k = how_many(self.name, self.rows, self.share, len(long))
        ranked = np.argsort(-keys, kind="stable")
        codes = np.zeros(len(rows), np.int8)
        codes[long] = 1
        codes[long[ranked[:k]]] = -1
        margin = np.full(len(rows), np.inf)
        if 0 < k < len(long):
            margin[long] = np.abs(keys - (keys[ranked[k - 1]] + keys[ranked[k]]) / 2)
        return Chosen.store(
            self.name,
            folder,
            rows,
            codes,
            (TOO_SHORT, NOT_DRAWN),
            scores={"log_weight": weights},
            margin=margin,
            tag=self.tag,
            show=self.scores,
        )


def log_ratio(raw: NDArray[np.int64], target: NDArray[np.int64]) -> NDArray[np.float64]:
    """The logarithm of how much more frequent each bucket is in the target, ``[buckets]``.

    Args:
        raw: Counts in the raw data, ``[buckets]``.
        target: Counts in the target.
    """
    goal: NDArray[np.float64] = np.log(target / target.sum() + TINY)
    goal -= np.log(raw / max(1, raw.sum()) + TINY)
    return goal


def kl_divergence(counts: NDArray[np.int64], of: NDArray[np.int64]) -> float:
    """``KL(p || q)`` of two bags of buckets in nats, ``q`` from ``of``, both with :data:`TINY` added.

    >>> kl_divergence(np.array([1, 1]), np.array([1, 1]))
    0.0
    """
    p, q = counts / counts.sum() + TINY, of / of.sum() + TINY
    return float((p * (np.log(p) - np.log(q))).sum())


def _buckets(state: State) -> tuple[NDArray[np.uint32], NDArray[np.int64]]:
    lists = state.column("buckets")
    return np.asarray(lists.flatten()), np.asarray(lists.value_lengths())
