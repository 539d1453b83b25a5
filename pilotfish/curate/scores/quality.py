"""Keep texts that look like good ones: a classifier of good texts against the data itself.

Brown et al. 2020 (GPT-3), appendix A: logistic regression on hashed words tells curated texts from raw
ones, and a document stays when ``numpy.random.pareto(9) > 1 - score``: mostly documents with high scores,
and some of the others, so that the data keep their breadth. GLaM (Du et al. 2022) does the same. Here the
random number is a hash of the seed and the row's number, so that a row meets the same fate on every run.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pyarrow as pa

from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.sampling import check_seed, merge_samples, row_uniforms, sample_state
from pilotfish.curate.scores.text_classifier import TextClassifier
from pilotfish.curate.selection.reference import read_reference, reference_files
from pilotfish.curate.step import ROW, TEXT, State, Verdict
from pilotfish.errors import ConfigError, InputError

LOW = "quality.low"
MAX_CHARS = 10_000  # of a text that is learned from


class Quality:
    """Add the column ``quality``, how much a text is like the good ones (0 to 1); keep by it.

    Args:
        good: Files of good texts: paths, globs or URLs.
        good_text: The column of these files that holds the text.
        pareto: Keep a row when a number from the Pareto distribution with this shape is above
            1 - quality, as GPT-3 does; higher is stricter.
        min_quality: Keep rows from this score up instead, 0 to 1.
        seed: Of the Pareto distribution, and of the sample of rows that is learned from.
        sample: How many rows of the data, and how many good texts, are learned from.
        tag: Keep all rows.

    Raises:
        ConfigError: A number is out of range.
        InputError: There are no such files.
    """

    name = "quality"

    def __init__(
        self,
        good: str | list[str],
        good_text: str = TEXT,
        pareto: float = 9.0,
        min_quality: float | None = None,
        seed: int = 0,
        sample: int = 10_000,
        tag: bool = False,
    ) -> None:
        check_seed(self.name, seed)
        if pareto <= 0 or not 0 <= (min_quality or 0) <= 1 or sample < 1:
            raise ConfigError(
                f"The step 'quality': got pareto = {pareto}, min_quality = {min_quality}, sample = "
                f"{sample}, but expected above 0, 0 to 1, and at least 1."
            )
        self.good = reference_files(good)
        self.good_text = good_text
        self.pareto = pareto
        self.min_quality = min_quality
        self.seed = seed
        self.sample = sample
        self.tag = tag

    def map(self, batch: pa.RecordBatch) -> State:
        """The batch's part of the sample."""
        return sample_state(batch, self.sample, self.seed, MAX_CHARS)

    def reduce(self, states: Iterable[State], folder: Path) -> KeepGood:
        """Fit the classifier.

        Raises:
            InputError: There are no good texts.
        """
        raw = merge_samples(states, self.sample) or [""]  # steps before may leave no row to judge
        read = read_reference(self.good, self.good_text)
        good = merge_samples((self.map(batch) for batch in read), self.sample)
        if not any(map(str.strip, good)):
            raise InputError(
                f"The good texts of the step 'quality' have no text in {self.good_text!r}.",
                remedy="Name their column with good_text.",
            )
        positive = np.arange(len(good) + len(raw)) < len(good)
        return KeepGood(self, TextClassifier.fit([*good, *raw], positive))


class KeepGood:
    """Scores and keeps.

    Args:
        settings: By what rule.
        classifier: What scores.
    """

    name = "quality"

    def __init__(self, settings: Quality, classifier: TextClassifier) -> None:
        self.settings = settings
        self.classifier = classifier

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Judge; the margin is how far the score is from where the row's fate would change."""
        settings = self.settings
        score = self.classifier.score(batch.column(TEXT).to_pylist())
        columns = {"quality": to_arrow(score)}
        if settings.tag:
            return Verdict(columns)
        if settings.min_quality is not None:
            needed = np.full(len(score), settings.min_quality)
        else:
            # numpy.random.pareto is 1 less than the classical Pareto distribution.
            uniform = row_uniforms(batch.column(ROW), settings.seed + 1)
            needed = 1 - (uniform ** (-1 / settings.pareto) - 1)
        low = score < needed
        reasons = pa.DictionaryArray.from_arrays(
            to_arrow(np.zeros(len(low), np.int8), low), pa.array([LOW])
        )
        return Verdict(columns, reasons, to_arrow(np.abs(score - needed)))
