"""How surprising each text is to an n-gram model of the data, or of texts that are known to be good.

Wenzek et al. 2020 (CCNet) score web pages by a 5-gram model of Wikipedia, one for each language; Marion
et al. 2023 find that the middle of the distribution is worth most. This step adds the score; the step
``buckets`` cuts its distribution.

The model is :class:`~pilotfish.curate.scores.kneser_ney.KneserNey` over lower-case words without
punctuation, every digit a 0. Without a target it is fitted on the data: on two halves, by row number, so
that no text is scored by a model that has seen it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.rules.documents import Documents, pieces
from pilotfish.curate.rules.hashing import mix
from pilotfish.curate.scores.kneser_ney import KneserNey, Words, hash_columns, windows
from pilotfish.curate.selection.reference import read_reference, reference_files
from pilotfish.curate.step import ROW, TEXT, State, Verdict
from pilotfish.errors import ConfigError, InputError

_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_SALT = np.uint64(0x5851F42D4C957F2D)
MOST_HALVINGS = 40
_MERGE = 4_000_000  # n-grams that are kept before equal ones are added up


class Perplexity:
    """Add the column ``perplexity``: e to the mean negative log-probability of a word; at least 1.

    It is null where a text has no word, or nothing was there to fit the model of its group on.

    Args:
        order: Words in an n-gram, 1 to 5 (CCNet: 5).
        target: Files to fit on: paths, globs or URLs. None: the data, in two halves.
        target_text: The column of the target that holds the text.
        by: A column, such as ``language``: each of its values has a model of its own. The target must
            have it too.
        sample: The share of the data's rows to fit on, above 0 to 1; chosen by row number. Of a target
            all rows count.
        max_ngrams: The most different n-grams that the fit holds, of all groups, at about 250 bytes of
            memory each. Where there are more, half of the texts are left out, by row number, then
            half of the rest, until it fits; the report says so.
        unit: ``"word"``, or ``"character"`` for scripts without spaces.
        column: The column to add.

    Raises:
        ConfigError: A setting is out of range.
        InputError: There is no such target.
    """

    name = "perplexity"

    def __init__(
        self,
        order: int = 3,
        target: str | list[str] | None = None,
        target_text: str = TEXT,
        by: str | None = None,
        sample: float = 1.0,
        max_ngrams: int = 5_000_000,
        unit: str = "word",
        column: str = "perplexity",
    ) -> None:
        fits = 1 <= order <= 5 and 0 < sample <= 1 and max_ngrams >= 1
        if not fits or unit not in ("word", "character"):
            raise ConfigError(
                f"The step 'perplexity': got order = {order}, sample = {sample}, max_ngrams = "
                f"{max_ngrams}, unit = {unit!r}, but expected 1 to 5, above 0 to 1, at least 1, and "
                '"word" or "character".'
            )
        self.order = order
        self.target = None if target is None else reference_files(target)
        self.target_text = target_text
        self.by = by
        self.sample = sample
        self.max_ngrams = max_ngrams
        self.unit = unit
        self.column = column
        self.reads = {by: "string"} if by else {}

    def map(self, batch: pa.RecordBatch) -> State:
        """The different n-grams of the batch by group and half, with their counts; none with a target."""
        fitted = _halvings(batch, self.sample) >= 0
        if self.target is not None:
            fitted[:] = False
        return self._count(batch.filter(pa.array(fitted)))

    def _count(self, batch: pa.RecordBatch) -> State:
        names, groups = _groups(batch, self.by)
        halves = _halves(batch) if self.target is None else np.zeros(len(batch), np.int8)
        levels = _halvings(batch, self.sample if self.target is None else 1.0)
        columns: list[Words] = [np.zeros(0, np.uint32)] * self.order
        owner = np.zeros(0, np.int64)
        first = 0
        for words, offsets in numbered(batch.column(TEXT), self.unit):
            found = windows(words, offsets, self.order)
            columns = [np.concatenate(pair) for pair in zip(columns, found, strict=True)]
            texts = np.arange(first, first + len(offsets) - 1)
            owner = np.concatenate((owner, np.repeat(texts, np.diff(offsets))))
            first += len(offsets) - 1
        keys = ((groups[owner] * 2 + halves[owner]) * 64 + levels[owner]).astype(np.uint32)
        _, at, counts = np.unique(
            hash_columns([keys, *columns], len(keys)), return_index=True, return_counts=True
        )
        group = groups[owner[at]]
        return pa.record_batch(
            {
                "group": pa.DictionaryArray.from_arrays(to_arrow(group), names).cast(pa.string()),
                "half": to_arrow(halves[owner[at]]),
                "level": to_arrow(levels[owner[at]]),
                **{f"word{k}": to_arrow(column[at]) for k, column in enumerate(columns)},
                "count": to_arrow(counts.astype(np.int64)),
            }
        )

    def reduce(self, states: Iterable[State], folder: Path) -> Scored:
        """Add up the counts and fit a model for each group and half.

        Raises:
            InputError: The target has no words.
        """
        if self.target is not None:
            reads = {self.by: pa.string()} if self.by else {}
            read = read_reference(self.target, self.target_text, reads)
            states = (self._count(batch) for batch in read)
        table, halvings = _merged(states, self.order, self.max_ngrams)
        if self.target is not None and not len(table):
            raise InputError(
                f"The target of the step 'perplexity' has no words in {self.target_text!r}.",
                remedy="Name its column with target_text.",
            )
        models: dict[tuple[str, int], Path] = {}
        kinds = table.group_by(["group", "half"], use_threads=False).aggregate([])
        for number, kind in enumerate(kinds.to_pylist()):
            of = pc.and_(
                pc.equal(table["group"], kind["group"]), pc.equal(table["half"], kind["half"])
            )
            part = table.filter(of)
            words = [part[f"word{k}"].to_numpy() for k in range(self.order)]
            path = folder / f"{number}.npz"
            KneserNey.fit(words, part["count"].to_numpy()).save(path)
            models[kind["group"], kind["half"]] = path
        return Scored(models, self.target is None, self.by, self.unit, self.column, halvings)


class Scored:
    """Scores each row by the model of its group that was not fitted on it.

    Args:
        models: The files of the models by group and half.
        halves: Whether there are two of each group.
        by: The column of the groups.
        unit: ``"word"`` or ``"character"``.
        column: The column to add.
        halvings: How often the texts to fit on were halved.
    """

    name = "perplexity"

    def __init__(
        self,
        models: dict[tuple[str, int], Path],
        halves: bool,
        by: str | None,
        unit: str,
        column: str,
        halvings: int = 0,
    ) -> None:
        self.note = ""
        if halvings:
            part = f"1 in {2**halvings} of the texts"
            self.note = f"Fitted to {part}, since all have more n-grams than max_ngrams."
        self.models = models
        self.halves = halves
        self.by = by
        self.unit = unit
        self.column = column

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Score."""
        names, groups = _groups(batch, self.by)
        halves = 1 - _halves(batch) if self.halves else np.zeros(len(batch), np.int8)
        kinds = groups * 2 + halves
        score = np.full(len(batch), np.nan)
        for kind in np.unique(kinds).tolist():
            path = self.models.get((names[kind // 2].as_py(), kind % 2))
            if path is None:
                continue
            at = np.flatnonzero(kinds == kind)
            found = [
                perplexities(_loaded(path, path.stat().st_mtime_ns), words, offsets)
                for words, offsets in numbered(batch.column(TEXT).take(to_arrow(at)), self.unit)
            ]
            score[at] = np.concatenate(found)
        return Verdict({self.column: to_arrow(score, ~np.isnan(score))})


def perplexities(model: KneserNey, words: Words, offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Of each text; NaN where it has no word."""
    lengths = np.diff(offsets)
    found = np.full(len(lengths), np.nan)
    some = lengths > 0
    if some.any():
        sums = np.add.reduceat(model.log_probabilities(words, offsets), offsets[:-1][some])
        found[some] = np.exp(-sums / lengths[some])
    return found


def numbered(texts: pa.Array, unit: str) -> Iterator[tuple[Words, NDArray[np.int64]]]:
    """The words of texts as numbers, in pieces: words one after another, and where each text begins."""
    for piece in pieces(pc.utf8_lower(texts)):
        documents = Documents(piece.data.translate(_ZEROS), piece.offsets)
        if unit == "character":
            lead = (documents.codes[: len(documents.data)] & 0xC0) != 0x80
            dark = np.frombuffer(documents.data.decode().encode("utf-32-le"), np.uint32)
            at = np.flatnonzero(lead)
            kept = dark > 32
            offsets = np.searchsorted(at[kept], documents.offsets)
            yield dark[kept], offsets
        else:
            counted = np.flatnonzero(documents.counted_words)
            hashes = documents.word_hashes[counted] >> np.uint64(32)
            offsets = np.searchsorted(counted, documents.words.offsets)
            yield np.maximum(hashes, 1).astype(np.uint32), offsets


def _groups(batch: pa.RecordBatch, by: str | None) -> tuple[pa.Array, NDArray[np.int32]]:
    """The names of the groups, and the number of each row's; a null is the group ""."""
    if by is None:
        return pa.array([""]), np.zeros(len(batch), np.int32)
    coded = batch.column(by).cast(pa.string()).fill_null("").dictionary_encode()
    return coded.dictionary, coded.indices.to_numpy().astype(np.int32)


def _halves(batch: pa.RecordBatch) -> NDArray[np.int8]:
    halves: NDArray[np.int8] = (mix(batch.column(ROW).to_numpy()) & np.uint64(1)).astype(np.int8)
    return halves


def _halvings(batch: pa.RecordBatch, share: float) -> NDArray[np.int8]:
    """How often the share of the rows can be halved with each row still in it; -1 for rows outside.

    The rows of ``share / 2**k`` are those with at least ``k``.
    """
    rank = (mix(batch.column(ROW).to_numpy() ^ _SALT) >> np.uint64(11)) * 2.0**-53  # [0, 1)
    halvings = np.floor(np.log2(share / (1 - rank)))
    found: NDArray[np.int8] = np.clip(halvings, -1, MOST_HALVINGS).astype(np.int8)
    return found


def _merged(states: Iterable[State], order: int, most: int) -> tuple[pa.Table, int]:
    """All n-grams, each once with the sum of its counts, in an order that the data alone decide.

    Where there are more than ``most``, only those of texts that stay after so many halvings. How many is
    the same whatever comes first: what was seen so far never has more n-grams than all.
    """
    columns = {"group": pa.string(), "half": pa.int8(), "level": pa.int8()}
    columns |= {f"word{k}": pa.uint32() for k in range(order)} | {"count": pa.int64()}
    merged = pa.schema(columns).empty_table()
    waiting: list[pa.Table] = []
    halvings = 0
    for state in states:
        waiting.append(_from_level(pa.Table.from_batches([state]), halvings))
        if sum(map(len, waiting)) > min(_MERGE, most) + len(merged):
            merged, halvings = _bounded(_added([merged, *waiting]), most, halvings)
            waiting = []
    merged, halvings = _bounded(_added([merged, *waiting]), most, halvings)
    merged = _added([merged.drop_columns(["level"])])
    order_by = [(name, "ascending") for name in merged.column_names[:-1]]
    return merged.sort_by(order_by), halvings


def _bounded(table: pa.Table, most: int, halvings: int) -> tuple[pa.Table, int]:
    while len(table) > most and halvings < MOST_HALVINGS:
        halvings += 1
        table = _from_level(table, halvings)
    return table, halvings


def _from_level(table: pa.Table, level: int) -> pa.Table:
    return table.filter(pc.greater_equal(table["level"], level)) if level else table


def _added(tables: list[pa.Table]) -> pa.Table:
    joined = pa.concat_tables(tables)
    summed = joined.group_by(joined.column_names[:-1]).aggregate([("count", "sum")])
    return summed.rename_columns(joined.column_names)


@functools.lru_cache(maxsize=64)
def _loaded(path: Path, written: int) -> KneserNey:
    return KneserNey.load(path)
