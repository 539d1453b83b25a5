"""Models are good at tags: a table of scores, added up over a question's tags.

TagRouter (Chen et al. 2025) gives each query tags, scores each model on each tag by the queries that
carry it (a win counts 1, a tie a part of it, a loss -1), and routes by the sum of the scores. Nothing
is trained but the table, and a new model needs a new column only.

Differences: the paper's tags come from a large model and a tagger distilled from it. Here a question's
tags are its words that are neither rare nor common. A score is the model's quality on the tag less its
overall quality, shrunk as if ``prior`` more questions had shown no difference; reported is the overall
quality plus the mean score, clipped to [0, 1].
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.fitted import Fitted
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.models.protocols import Encoder

_WORD = re.compile(r"[^\W\d_]{3,}|\d+")
MAX_CHARS = 20_000


@dataclass(eq=False)
class Tags(Fitted):
    """A table of scores.

    Attributes:
        tags: The tags, in the order of the table's rows.
        scores: ``[tags, models]``.
        errors: Standard error of each score ``[tags, models]``.
        mean: Overall quality ``[models]``.
    """

    embeds: ClassVar[bool] = False

    tags: list[str]
    scores: Floats
    errors: Floats
    mean: Floats

    def __post_init__(self) -> None:
        self._row = {tag: i for i, tag in enumerate(self.tags)}

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        min_count: int = 5,
        max_share: float = 0.2,
        prior: float = 10.0,
    ) -> Self:
        """Fill the table.

        Args:
            outcomes: What was recorded.
            encoder: Not used.
            seed: Not used; nothing is random.
            min_count: Questions that a tag must occur in.
            max_share: Share of the questions that it may occur in at most.
            prior: Questions without a difference that each score is shrunk by.
        """
        found = [tags_of(text) for text in outcomes.texts]
        count = Counter(tag for tags in found for tag in tags)
        most = max_share * len(found)
        kept = sorted(tag for tag, times in count.items() if min_count <= times <= most)
        row = {tag: i for i, tag in enumerate(kept)}
        known = ~np.isnan(outcomes.quality)
        mean = outcomes.mean_quality()
        gain = np.where(known, outcomes.quality - mean, 0)
        total, square, seen = (np.zeros((len(kept), len(mean))) for _ in range(3))
        for i, tags in enumerate(found):
            rows = [row[tag] for tag in tags if tag in row]
            total[rows] += gain[i]
            square[rows] += gain[i] ** 2
            seen[rows] += known[i]
        scores = total / (seen + prior)
        errors = np.sqrt(square / np.maximum(seen, 1) / (seen + prior))
        return cls(
            outcomes.models, kept, scores.astype(np.float32), errors.astype(np.float32), mean
        )

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Overall quality plus the mean score of the text's tags, ``[n, models]``."""
        mean = np.repeat(self.mean[None], len(texts), axis=0)
        std = np.repeat(np.sqrt(self.mean * (1 - self.mean))[None], len(texts), axis=0)
        for i, text in enumerate(texts):
            rows = [self._row[tag] for tag in tags_of(text) if tag in self._row]
            if rows:
                mean[i] += self.scores[rows].mean(axis=0)
                std[i] = np.sqrt((self.errors[rows] ** 2).sum(axis=0)) / len(rows)
        return Prediction(np.clip(mean, 0, 1), std)


def tags_of(text: str) -> list[str]:
    """The different words of a text, in lower case; every number is the tag ``0``."""
    words = _WORD.findall(text[:MAX_CHARS].lower())
    return list(dict.fromkeys("0" if word[0].isdigit() else word for word in words))
