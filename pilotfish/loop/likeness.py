"""How likely is one question's answer also the answer to another? A few readable features, one score.

Embeddings alone put "Is the fee for 2 nights refunded?" next to "... 3 nights ...", whose answers differ.
So besides the cosine there is what tells such questions apart: numbers, negations and names that only one
of them has, and the rarest word that only one has. The score is a logistic regression on these, fitted on
pairs that a judge has compared; the signs are fixed (what differs can only lower it), and with few pairs
it stays near a prior. It is calibrated, not promised: the promise is the certificate's.

GPTCache (Bang 2023) and vCache (Schroeder et al. 2025) reuse answers by embedding similarity; vCache also
learns, for each entry, where the threshold should be.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

Doubles = NDArray[np.float64]

FEATURES = ("cosine", "overlap", "support", "numbers", "negations", "names", "rarest")
# What the score is before any pair was judged: near paraphrases about even, differing numbers far below.
PRIOR = np.array([6.0, 3.0, 1.0, -4.0, -3.0, -3.0, -1.0, -5.5])
# A number, negation or name that differs costs at least half a unit of log-odds, whatever the pairs say.
BOUNDS = (
    (0.0, None),
    (0.0, None),
    (0.0, None),
    (None, -0.5),
    (None, -0.5),
    (None, -0.5),
    (None, 0.0),
)
PULL = 0.1  # towards the prior: a coefficient moves freely by about three units
MOST = 0.999  # the score of what is not word for word the same
UNSUPPORTED = 0.5  # the support of an answer that has no other to be compared with

_WORDS = re.compile(r"\w+(?:['\u2019]\w+)*")
_NUMBERS = re.compile(r"\d+(?:[.,:]\d+)*")
_SENTENCE_END = re.compile(r"[.!?:\n]\s*$")
_COUNTS = {
    word: str(number)
    for number, word in enumerate(
        re.split(" ", "zero one two three four five six seven eight nine ten eleven twelve")
    )
}
_NEGATIONS = frozenset(
    re.split(
        " ",
        "no not never none nothing nobody neither nor without cannot except unless "
        "nicht kein keine nie ohne pas sans jamais sin nunca ningun",
    )
)


@dataclass(frozen=True, slots=True)
class Reading:
    """What a text says, as far as it is compared.

    Attributes:
        words: Its words in lower case.
        numbers: Numbers in digits or words, sorted.
        negations: How many there are.
        names: Capitalised words inside sentences, and words of letters and digits; in lower case.
    """

    words: frozenset[str]
    numbers: tuple[str, ...]
    negations: int
    names: frozenset[str]


@lru_cache(maxsize=50_000)
def read(text: str) -> Reading:
    """Read a text.

    >>> read("Can Ann cancel room X12 for two nights? Not 3!").names == {"ann", "x12"}
    True
    >>> read("Can Ann cancel room X12 for two nights? Not 3!").numbers
    ('12', '2', '3')
    """
    words, names = [], set()
    counted = list(_NUMBERS.findall(text))
    negations = 0
    for found in _WORDS.finditer(text):
        word = found[0]
        low = word.casefold()
        words.append(low)
        if low in _COUNTS:
            counted.append(_COUNTS[low])
        negations += low in _NEGATIONS or low.endswith(("n't", "n\u2019t"))
        mixed = any(c.isdigit() for c in word) and any(c.isalpha() for c in word)
        if mixed or (word[0].isupper() and not _starts_sentence(text, found.start())):
            names.add(low)
    return Reading(frozenset(words), tuple(sorted(counted)), negations, frozenset(names))


def _starts_sentence(text: str, at: int) -> bool:
    before = text[max(0, at - 8) : at]
    return not before.strip(" \t\"'(") or bool(_SENTENCE_END.search(before))


def normalised(text: str) -> str:
    """A question without what no answer depends on: case, spaces, and marks at its end.

    >>> normalised("  How do I  pay?! ")
    'how do i pay'
    """
    return " ".join(text.casefold().split()).rstrip("?!. ")


def same_words(first: str, second: str) -> float:
    """The F1 of the words of two answers (Rajpurkar et al. 2016), in [0, 1]."""
    a, b = _bag(first), _bag(second)
    total = a.total() + b.total()
    return 2.0 * (a & b).total() / total if total else 1.0


@lru_cache(maxsize=20_000)
def _bag(text: str) -> Counter[str]:
    return Counter(_WORDS.findall(text.casefold()))


class Rarity:
    """How rare a word is among the recorded questions, in [0, 1].

    Args:
        counts: In how many questions each word occurs.
        questions: How many questions there are.
    """

    def __init__(self, counts: Mapping[str, int], questions: int) -> None:
        self.counts = dict(counts)
        self.questions = questions
        self._most = float(np.log(questions + 2.0))

    @classmethod
    def of(cls, texts: Sequence[str]) -> Rarity:
        """Count the words of questions."""
        counts: Counter[str] = Counter()
        for text in texts:
            counts.update(read(text).words)
        return cls(counts, len(texts))

    def __call__(self, word: str) -> float:
        """1 for a word that no question has, 0 for one that all have."""
        return float(np.log((self.questions + 2.0) / (self.counts.get(word, 0) + 1.0)) / self._most)


def features(
    question: str, other: str, cosine: float, support: float, rarity: Rarity
) -> list[float]:
    """The features of a pair of questions, in the order of :data:`FEATURES`.

    Args:
        question: What is asked.
        other: A recorded question.
        cosine: Of their embeddings.
        support: How far the answers of other near questions say the same, in [0, 1].
        rarity: Of words.
    """
    a, b = read(question), read(other)
    weights = {word: rarity(word) + 0.05 for word in a.words | b.words}
    shared = sum(weights[word] for word in a.words & b.words)
    either = sum(weights.values())
    only = a.words ^ b.words
    return [
        cosine,
        shared / either if either else 1.0,
        support,
        float(a.numbers != b.numbers),
        float(a.negations != b.negations),
        float(not (a.names <= b.words and b.names <= a.words)),
        max((rarity(word) for word in only), default=0.0),
    ]


@dataclass(frozen=True)
class Likeness:
    """Features to the probability that the answer can be reused.

    Attributes:
        coefficients: Of :data:`FEATURES`, then the bias.
        pairs: Judged pairs that it was fitted on.
    """

    coefficients: tuple[float, ...] = tuple(PRIOR.tolist())
    pairs: int = 0

    @classmethod
    def fit(cls, rows: NDArray[Any], equivalent: NDArray[np.bool_]) -> Likeness:
        """Fit on judged pairs.

        Args:
            rows: Features ``[n, 7]``.
            equivalent: The verdicts ``[n]``.
        """
        x = np.column_stack([rows, np.ones(len(rows))]).astype(np.float64)
        sign = np.where(equivalent, 1.0, -1.0)
        pull = np.full(len(PRIOR), PULL)

        def loss(at: Doubles) -> tuple[float, Doubles]:
            margin = sign * (x @ at)
            wrong = np.exp(-np.logaddexp(0.0, margin))  # the probability of the other verdict
            value = np.logaddexp(0.0, -margin).sum() + 0.5 * pull @ (at - PRIOR) ** 2
            return float(value), -(x.T @ (sign * wrong)) + pull * (at - PRIOR)

        bounds = [*BOUNDS, (None, None)]
        found = scipy.optimize.minimize(loss, PRIOR, jac=True, method="L-BFGS-B", bounds=bounds)
        return cls(tuple(map(float, found.x)), len(rows))

    def score(self, rows: NDArray[Any]) -> NDArray[np.float64]:
        """Scores ``[n]`` in (0, 0.999] of features ``[n, 7]``."""
        weights = np.asarray(self.coefficients)
        z = np.asarray(rows, np.float64) @ weights[:-1] + weights[-1]
        return np.asarray(np.minimum(np.exp(-np.logaddexp(0.0, -z)), MOST))

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values, with the names of the features."""
        names = (*FEATURES, "bias")
        return {
            "coefficients": dict(zip(names, self.coefficients, strict=True)),
            "pairs": self.pairs,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Likeness:
        """Inverse of :meth:`to_dict`; raises KeyError where a coefficient is missing."""
        given = values["coefficients"]
        return cls(tuple(float(given[n]) for n in (*FEATURES, "bias")), int(values["pairs"]))
