"""A large model grades a sample, a regression on embeddings grades all: FineWeb-Edu's way.

Penedo et al. 2024, "The FineWeb Datasets", section 4: Llama-3-70B graded 460,000 pages from 0 to 5 by an
additive scale for educational value, a linear regression on Snowflake's embeddings learned them, and
pages of 3 and more stayed. The criterion here is the user's, the model any that
:func:`~pilotfish.models.load.load_model` knows, and answers are kept in the store of pilotfish.toml:
what was paid for once is not asked again, in this run or another.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.sampling import check_seed, merge_samples, sample_state
from pilotfish.curate.scores.grading import GRADE_TOKENS, estimate
from pilotfish.curate.scores.grading import grades as ask_grades
from pilotfish.curate.selection.vectors import encoder as load_encoder
from pilotfish.curate.step import TEXT, State, Step, Unasked, Verdict
from pilotfish.errors import ConfigError, InputError
from pilotfish.models.load import load_model

LOW = "grade.low"
MIN_GRADED = 20
PENALTIES = tuple(float(p) for p in np.logspace(-2, 3, 11))
PROMPT = """\
Grade the text below from 0 to 5 by this criterion: {criterion}

0: nothing in it meets the criterion.
1: little of it does, and the rest is noise or advertising.
2: some of it does, but it is incomplete or badly put.
3: it meets the criterion, with weaknesses.
4: it meets it well and is clear and coherent.
5: it is an outstanding example.

Answer with the grade alone: one digit.

Text:
{text}"""
CRITERION = (
    "its value for teaching and learning, from primary school to the first years of university"
)


class Grade:
    """Add the column ``grade``, 0 to 5; drop what is below a threshold.

    Args:
        model: The large model: a name or spec as everywhere (``openai:gpt-4.1-mini``).
        criterion: What is graded, as it should stand in the prompt.
        sample: How many rows the large model grades; chosen by row number.
        min_grade: Rows below are dropped; 0 to 5 (FineWeb-Edu: 3, after rounding, which is 2.5 here).
        encoder: What embeds the texts (``static``, ``onnx:bge-small-en-v1.5``).
        max_chars: How much of a text is graded and embedded.
        seed: Of the sample.
        concurrency: Requests under way at once.
        tag: Keep all rows.

    Raises:
        ConfigError: A number is out of range.
        UnknownName: There is no such model or encoder.
    """

    name = "grade"

    def __init__(
        self,
        model: str,
        criterion: str = CRITERION,
        sample: int = 2000,
        min_grade: float = 2.5,
        encoder: str = "static",
        max_chars: int = 3000,
        seed: int = 0,
        concurrency: int = 16,
        tag: bool = False,
    ) -> None:
        if not 0 <= min_grade <= 5 or sample < MIN_GRADED or max_chars < 1 or concurrency < 1:
            raise ConfigError(
                f"The step 'grade': got min_grade = {min_grade}, sample = {sample}, max_chars = "
                f"{max_chars}, concurrency = {concurrency}, but expected 0 to 5, at least "
                f"{MIN_GRADED}, at least 1 and at least 1."
            )
        check_seed(self.name, seed)
        load_model(model)  # here, not after the data were read
        load_encoder(encoder)
        self.model = model
        self.criterion = criterion
        self.sample = sample
        self.min_grade = min_grade
        self.encoder = encoder
        self.max_chars = max_chars
        self.seed = seed
        self.concurrency = concurrency
        self.tag = tag

    def map(self, batch: pa.RecordBatch) -> State:
        """The batch's part of the sample."""
        return sample_state(batch, self.sample, self.seed, self.max_chars)

    def reduce(self, states: Iterable[State], folder: Path) -> Graded:
        """Ask for grades, and fit a ridge regression whose penalty is chosen by leave-one-out error.

        Raises:
            InputError: Too few texts could be graded; says what the model answered.
            StoreError: The store cannot be opened or written.
        """
        from sklearn.linear_model import RidgeCV

        texts = self._sampled(states)
        grades, wrong = ask_grades(
            self.model, self._prompts(texts), f"curate-{self.name}", self.concurrency
        )
        given = ~np.isnan(grades)
        if given.sum() < MIN_GRADED:
            why = "" if given.all() else f" One answer was: {wrong!r:.200}"
            raise InputError(
                f"The step 'grade': {given.sum()} of {len(texts)} texts got a grade from "
                f"{self.model!r}, but expected at least {MIN_GRADED}.{why}",
                remedy="Give more rows, or another model.",
            )
        rows = load_encoder(self.encoder).encode(
            [t for t, g in zip(texts, given, strict=True) if g]
        )
        ridge = RidgeCV(PENALTIES).fit(rows.astype(np.float64), grades[given])
        return Graded(self, np.asarray(ridge.coef_), float(ridge.intercept_))

    def rehearse(
        self, states: Iterable[State], folder: Path, share: float, ask: bool
    ) -> tuple[Step, str]:
        """Unless it may ask: what that would cost, and a step that lets all pass without a grade."""
        if ask:
            return self.reduce(states, folder), ""
        texts = self._sampled(states)
        asked = min(self.sample, round(len(texts) / share))
        cost = estimate(self.model, asked, self._prompts(texts), GRADE_TOKENS)
        ready = Unasked(self.name, ("grade",))
        return ready, f"Nobody was asked and nothing graded. It would take {cost}."

    def _prompts(self, texts: Iterable[str]) -> list[str]:
        return [PROMPT.format(criterion=self.criterion, text=text) for text in texts]

    def _sampled(self, states: Iterable[State]) -> list[str]:
        return [text for text in merge_samples(states, self.sample) if text.strip()]


class Graded:
    """Grades all rows.

    Args:
        settings: By what rule.
        weights: Of the embedding's dimensions, ``[dim]``.
        bias: What is added.
    """

    name = "grade"

    def __init__(self, settings: Grade, weights: NDArray[np.float64], bias: float) -> None:
        self.settings = settings
        self.weights = weights
        self.bias = bias

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Judge; the margin is the distance from ``min_grade``."""
        settings = self.settings
        texts = [text[: settings.max_chars] for text in batch.column(TEXT).to_pylist()]
        rows = load_encoder(settings.encoder).encode(texts).astype(np.float64)
        grade = np.clip((rows * self.weights).sum(axis=1) + self.bias, 0, 5)
        if settings.tag:
            return Verdict({"grade": to_arrow(grade)})
        low = grade < settings.min_grade
        reasons = pa.DictionaryArray.from_arrays(
            to_arrow(np.zeros(len(low), np.int8), low), pa.array([LOW])
        )
        return Verdict(
            {"grade": to_arrow(grade)}, reasons, to_arrow(np.abs(grade - settings.min_grade))
        )
