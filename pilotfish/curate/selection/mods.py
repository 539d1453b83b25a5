"""MoDS: instructions of good quality that cover the data, and those that the model still fails.

Du, Zong, Zhang 2023, "MoDS: Model-oriented Data Selection for Instruction Tuning". Three questions.
Quality: rows below a score are out. Coverage: of the rest, k-centre greedy takes the seed. Necessity: a
model that was trained on the seed answers the rest, a judge grades its answers, and where they are bad
the row is needed; k-centre greedy takes some of these too.

So it runs twice on the same rows: without a model it keeps the seed; after training, with the model's
name in ``answers_by`` and the judge's in ``judge``, the same seed and the needed rows. Who has answered
and judged elsewhere names the column of the grades, ``answer_score``, instead. The paper's scores are
those of a reward model (reward-model-deberta-v3-large-v2), of quality and of answers; here quality is a
column (the step ``grade`` writes one), and the judge any model, which grades from 0 to 5.

Difference from the paper: the needed rows are also spread away from the seed.

Memory: 4 bytes for each dimension and row, twice while they are sorted, and the texts of the rows that
are asked about; time grows with rows times kept rows.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.sampling import check_seed, row_keys
from pilotfish.curate.selection.chosen import Chosen, scaled
from pilotfish.curate.selection.cover import k_center_greedy
from pilotfish.curate.selection.necessity import Asking
from pilotfish.curate.selection.vectors import embed, read_vectors
from pilotfish.curate.step import State, Step
from pilotfish.errors import ConfigError

REASONS = ("low_quality", "not_in_seed", "not_needed", "not_judged")
LOW_QUALITY, NOT_IN_SEED, NOT_NEEDED, NOT_JUDGED = range(4)


class MoDS:
    """Keep a covering seed of good rows, and good rows on which a model's answers are bad.

    Dropped rows are ``mods.low_quality`` (a missing score is low), ``mods.not_in_seed`` (others cover
    them) and, when answers are judged, ``mods.not_needed`` (the answer is good) or ``mods.not_judged``
    (there is no grade).

    Args:
        quality: The column of the quality score.
        min_quality: Rows below it are out.
        seed_rows: How many rows the seed has.
        needed_rows: How many of the needed rows to keep.
        max_answer_score: Rows whose answer has a lower grade are needed.
        answers_by: The model that answers, trained on the seed: a name or spec as everywhere. What it
            answers is kept by that name: give a model that was trained anew a new one.
        judge: The model that grades the answers, from 0 to 5.
        ask_rows: About how many rows to ask at most, by chance; all by default.
        question: The column of what is asked; the text by default.
        reference: A column with a good answer, which the judge is shown; none by default.
        answer_tokens: Of an answer, at most.
        answer_score: The column of grades from elsewhere, in place of ``answers_by`` and ``judge``.
        encoder: What embeds, as in ``load_encoder``.
        concurrency: Requests under way at once.
        seed: Chooses the first centre, and the rows that are asked.
        tag: Keep every row and write the reason, or null, to the column ``mods``.

    Raises:
        ConfigError: A number is out of range, or necessity is asked for by half.
        UnknownName: There is no such model.
        MissingModel: A model was not pulled.
    """

    name = "mods"
    unscored = False  # in a rehearsal in which nobody was asked for the scores: all rows are good

    def __init__(
        self,
        quality: str,
        min_quality: float,
        seed_rows: int,
        needed_rows: int | None = None,
        max_answer_score: float | None = None,
        answers_by: str | None = None,
        judge: str | None = None,
        ask_rows: int | None = None,
        question: str | None = None,
        reference: str | None = None,
        answer_tokens: int = 512,
        answer_score: str | None = None,
        encoder: str = "static",
        concurrency: int = 16,
        seed: int = 0,
        tag: bool = False,
    ) -> None:
        for what, number in {
            "seed_rows": seed_rows,
            "needed_rows": needed_rows,
            "ask_rows": ask_rows,
            "answer_tokens": answer_tokens,
            "concurrency": concurrency,
        }.items():
            if number is not None and number < 1:
                raise ConfigError(
                    f"The step 'mods': got {what} = {number}, but expected 1 or more."
                )
        check_seed(self.name, seed)
        models = answers_by is not None or judge is not None
        wanted: list[object] = [needed_rows, max_answer_score]
        wanted += [answers_by, judge] if models else [answer_score]
        if any(x is None for x in wanted) and any(x is not None for x in wanted):
            raise ConfigError(
                "The step 'mods' needs needed_rows, max_answer_score and either answers_by and judge "
                "or answer_score, or none of them."
            )
        if models and answer_score is not None:
            raise ConfigError("The step 'mods': got answers_by and answer_score, but expected one.")
        if not models and (ask_rows, question, reference) != (None, None, None):
            raise ConfigError(
                "The step 'mods': ask_rows, question and reference need answers_by and judge."
            )
        self.quality = quality
        self.min_quality = min_quality
        self.seed_rows = seed_rows
        self.needed_rows = needed_rows
        self.max_answer_score = max_answer_score
        self.asking = (
            Asking(answers_by, judge, question, reference, answer_tokens, concurrency)
            if answers_by is not None and judge is not None
            else None
        )
        self.ask_rows = ask_rows
        self.answer_score = answer_score
        self.encoder = encoder
        self.seed = seed
        self.tag = tag
        self._scores = (quality,) if answer_score is None else (quality, answer_score)
        self.reads = dict.fromkeys(self._scores, "double")
        if self.asking is not None:
            self.reads |= self.asking.reads

    def map(self, batch: pa.RecordBatch) -> State:
        """Embed, beside the scores and what would be asked."""
        state = embed(batch, self.encoder, self._scores)
        return state if self.asking is None else self.asking.added(state, batch)

    def reduce(self, states: Iterable[State], folder: Path) -> Chosen:
        """Choose the seed, then ask and judge, then choose the needed rows.

        Raises:
            InputError: No answer could be judged.
            StoreError: The store cannot be opened or written.
        """
        rows, vectors, scores = read_vectors(states, self._scores)
        good, seed, codes = self._seeded(vectors, scores[self.quality])
        if self.needed_rows is not None:
            rest = np.setdiff1d(good, seed)
            judged = np.full(len(rows), np.nan)
            if self.asking is not None:
                asked = rest[self._chosen(rows[rest])]
                judged[asked] = self.asking.grades(states, rows[asked])
            elif self.answer_score is not None:
                judged = scores[self.answer_score]
            codes[rest] = np.where(np.isnan(judged[rest]), NOT_JUDGED, NOT_NEEDED)
            bad = rest[judged[rest] < self.max_answer_score]
            codes[bad] = NOT_IN_SEED
            both = np.concatenate([bad, seed])
            picked = k_center_greedy(
                vectors[both],
                self.needed_rows,
                chosen=np.arange(len(bad), len(both)),
                seed=self.seed,
            )
            codes[both[picked]] = -1
        return Chosen.store(self.name, folder, rows, codes, REASONS, tag=self.tag)

    def rehearse(
        self, states: Iterable[State], folder: Path, share: float, ask: bool
    ) -> tuple[Step, str]:
        """Without asking the seed alone, and what asking would cost."""
        step = copy.copy(self)
        step.seed_rows = scaled(self.seed_rows, share)
        step.needed_rows = None if self.needed_rows is None else scaled(self.needed_rows, share)
        if ask:
            return step.reduce(states, folder), ""
        rows, vectors, scores = read_vectors(states, self._scores)
        note = ""
        if len(rows) and np.isnan(scores[self.quality]).all():
            # A step before that would ask a model for it has not done so.
            step.unscored = True
            note = f"No row has a number in {self.quality!r} yet, so all count as good."
        if self.asking is None:
            return step.reduce(states, folder), note
        good, seed, _ = step._seeded(vectors, scores[self.quality])
        rest = np.setdiff1d(good, seed)
        some = rest[step._chosen(rows[rest])]
        n = round((len(good) - len(seed)) / share)
        asked = n if self.ask_rows is None else min(n, self.ask_rows)
        cost = self.asking.cost(states, rows[some], asked)
        step.asking = step.needed_rows = None
        said = f"Only the seed was chosen, and nobody was asked. It would take {cost}."
        return step.reduce(states, folder), f"{note} {said}".strip()

    def _seeded(
        self, vectors: NDArray[np.float32], quality: NDArray[np.float64]
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int8]]:
        """Positions of good rows and of the seed, and the codes of all."""
        codes = np.full(len(quality), LOW_QUALITY, np.int8)
        good = np.flatnonzero(self.unscored | (quality >= self.min_quality))
        codes[good] = NOT_IN_SEED
        seed = good[k_center_greedy(vectors[good], self.seed_rows, seed=self.seed)]
        codes[seed] = -1
        return good, seed, codes

    def _chosen(self, rows: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Which of some rows to ask: their numbers alone decide."""
        if self.ask_rows is None or len(rows) <= self.ask_rows:
            return np.arange(len(rows))
        return np.sort(np.argsort(row_keys(pa.array(rows), self.seed))[: self.ask_rows])
