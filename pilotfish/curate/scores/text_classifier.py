"""A linear classifier on hashed n-grams of words: the score behind the steps for quality and toxicity.

TF-IDF of words and pairs of words (:mod:`pilotfish.models.tfidf`), logistic regression
(:mod:`pilotfish.models.logistic`) with both classes weighted alike, so that 0.5 is where a text is as
likely in one as in the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.models.logistic import as_matrix, fit_logistic
from pilotfish.models.ngrams import pack
from pilotfish.models.tfidf import Floats, Vocabulary, batches

MAX_COLUMNS = 200_000
STRENGTH = 10.0  # scikit-learn's C


@dataclass(frozen=True)
class TextClassifier:
    """Says how likely a text is of the second class.

    Attributes:
        vocabulary: The n-grams.
        table: What each adds (:meth:`Vocabulary.score_table`).
        bias: ``[2]``.
    """

    vocabulary: Vocabulary
    table: Floats
    bias: Floats

    @classmethod
    def fit(cls, texts: Sequence[str], positive: NDArray[np.bool_], *, words: int = 2) -> Self:
        """Fit.

        Args:
            texts: ``n`` of them.
            positive: Whether each is of the second class, ``[n]``; both classes must occur.
            words: Longest n-gram.
        """
        vocabulary = Vocabulary.learn(texts, words=words, max_columns=MAX_COLUMNS)
        share = positive.mean()
        weights = np.where(positive, 0.5 / share, 0.5 / (1 - share))
        ((coefficients, bias),) = fit_logistic(
            [vocabulary.matrix(texts)],
            as_matrix(positive.astype(np.int64), 2),
            weights,
            multilabel=False,
            strengths=[STRENGTH],
        )
        return cls(vocabulary, vocabulary.score_table(coefficients[0]), bias)

    def score(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """The probability of the second class, ``[n]``."""
        found = [np.zeros(0)]
        for part in batches(texts):
            # One text alone is summed in another order, and a verdict must not depend on neighbours.
            packed = pack([*texts[part], ""])
            logits = self.vocabulary.scores(packed, self.table)[:-1] + self.bias
            margin = (logits[:, 1] - logits[:, 0]).astype(np.float64)
            found.append(1 / (1 + np.exp(-margin)))
        return np.concatenate(found)
