"""Drop or tag toxic texts, by a classifier that is fitted on labelled ones.

As in PaLM (Chowdhery et al. 2022) and the survey's other examples: a classifier and a threshold. What
counts as toxic is a matter of the labels, so they are the user's: rows with a text and a number from 0 to
1, such as RealToxicityPrompts (Gehman et al. 2020), Jigsaw's comments, or a thousand rows of one's own.
C4's list of words is a rule (step ``c4``, ``bad_words``). The file may also label anything else that
should be dropped: spam, advertisements.

Without labels of one's own there is the classifier of alt-profanity-check: a linear one for English,
fitted on 200,000 comments from Wikipedia and Twitter that people had marked.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.formats.files import InputFile
from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.scores.text_classifier import TextClassifier
from pilotfish.curate.selection.reference import read_reference, reference_files
from pilotfish.curate.step import TEXT, Verdict
from pilotfish.errors import ConfigError, InputError, MissingExtra

TOO_TOXIC = "toxicity.too_high"
MAX_CHARS = 10_000


class _Scorer(Protocol):
    def score(self, texts: Sequence[str]) -> NDArray[np.float64]: ...


class ProfanityCheck:
    """alt-profanity-check as a scorer.

    Raises:
        MissingExtra: It is not installed.
    """

    def __init__(self) -> None:
        try:
            import profanity_check  # noqa: F401
        except ImportError:
            raise MissingExtra("The step 'toxicity' without labels", "toxicity") from None

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The probability that each text is offensive, ``[n]``."""
        from profanity_check import predict_prob

        return np.asarray(predict_prob(list(texts)), np.float64)


class Toxicity:
    """Add the column ``toxicity``, 0 to 1, and drop what is above a threshold.

    The classifier is fitted when the step is built, and travels with it to other processes.

    Args:
        labels: Files of labelled texts: paths, globs or URLs. None: alt-profanity-check's classifier.
        label: Their column with the label, a number: toxic from ``toxic_from`` up.
        toxic_from: 0.5 where labels are 0 and 1, or shares of annotators.
        labels_text: Their column with the text.
        max_toxicity: Rows with a higher score are dropped.
        max_labels: At most so many labelled rows are read.
        tag: Keep all rows.

    Raises:
        ConfigError: A number is out of range.
        InputError: There are no such files, or they do not hold both toxic and other texts.
        MissingExtra: There are no labels, and alt-profanity-check is not installed.
    """

    name = "toxicity"

    def __init__(
        self,
        labels: str | list[str] | None = None,
        label: str = "toxicity",
        toxic_from: float = 0.5,
        labels_text: str = TEXT,
        max_toxicity: float = 0.5,
        max_labels: int = 100_000,
        tag: bool = False,
    ) -> None:
        if not 0 <= max_toxicity <= 1 or max_labels < 2:
            raise ConfigError(
                f"The step 'toxicity': got max_toxicity = {max_toxicity} and max_labels = "
                f"{max_labels}, but expected 0 to 1 and at least 2."
            )
        self.labels = None if labels is None else reference_files(labels)
        self.label = label
        self.toxic_from = toxic_from
        self.labels_text = labels_text
        self.max_toxicity = max_toxicity
        self.max_labels = max_labels
        self.tag = tag
        self.classifier: _Scorer = (
            ProfanityCheck() if self.labels is None else self._fit(self.labels)
        )

    def _fit(self, files: Sequence[InputFile]) -> TextClassifier:
        texts: list[str] = []
        toxic: list[bool] = []
        for batch in read_reference(files, self.labels_text, {self.label: pa.float64()}):
            for text, value in zip(
                batch.column(TEXT).to_pylist(), batch.column(self.label).to_pylist(), strict=True
            ):
                if value is not None and len(texts) < self.max_labels:
                    texts.append(text[:MAX_CHARS])
                    toxic.append(value >= self.toxic_from)
        if len(set(toxic)) < 2:
            raise InputError(
                f"The step 'toxicity': got {sum(toxic)} toxic and {len(toxic) - sum(toxic)} other texts "
                f"with a number in {self.label!r}, but expected some of both.",
                remedy="Name the column with label, and its threshold with toxic_from.",
            )
        return TextClassifier.fit(texts, np.array(toxic))

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Judge; the margin is the distance of the score from ``max_toxicity``."""
        score = self.classifier.score(batch.column(TEXT).to_pylist())
        columns = {"toxicity": to_arrow(score)}
        if self.tag:
            return Verdict(columns)
        high = score > self.max_toxicity
        reasons = pa.DictionaryArray.from_arrays(
            to_arrow(np.zeros(len(high), np.int8), high), pa.array([TOO_TOXIC])
        )
        return Verdict(columns, reasons, to_arrow(np.abs(score - self.max_toxicity)))
