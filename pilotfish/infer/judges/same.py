"""When two answers say the same: equal final answers, or overlapping words.

Where answers end in something short (a letter, a number), a regular expression finds it and answers
are the same or not. Without one, the agreement of two texts is the F1 of their words as used for
open question answering (Rajpurkar et al. 2016): 1 for the same words, 0 for none in common.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ConfigError
from pilotfish.infer.outcomes import Floats

_WORDS = re.compile(r"\w+")


class Same:
    """Compares answers.

    Args:
        pattern: A regular expression whose last match is the final answer: its first group where it has
            one. Default: whole texts are compared.

    Raises:
        ConfigError: The expression cannot be read.
    """

    def __init__(self, pattern: str = "") -> None:
        try:
            self._pattern = re.compile(pattern) if pattern else None
        except re.error as error:
            raise ConfigError(
                f"Got pattern = {pattern!r}, but expected a regular expression: {error}."
            ) from error
        self.pattern = pattern

    def final(self, text: str | None) -> str | None:
        """The final answer, in lower case; None when there is none.

        >>> Same("answer is .(.)").final("The answer is (C).")
        'c'
        """
        if text is None:
            return None
        if self._pattern is None:
            return " ".join(text.lower().split())
        found = None
        for found in self._pattern.finditer(text):  # noqa: B007 the last one counts
            pass
        if found is None:
            return None
        return str(found[1] if self._pattern.groups else found[0]).strip().lower()

    def agreement(self, first: str | None, second: str | None) -> float:
        """How far two answers agree, in [0, 1]; an answer that is missing agrees with none.

        >>> round(Same().agreement("a red car", "the red car"), 2)
        0.67
        """
        a, b = self.final(first), self.final(second)
        if a is None or b is None:
            return 0.0
        if a == b:
            return 1.0
        return 0.0 if self._pattern is not None else _word_f1(a, b)

    def matrix(self, answers: NDArray[np.object_]) -> Floats:
        """Agreement of every two answers to each question: ``[n, m]`` texts to ``[n, m, m]``."""
        n, m = answers.shape
        out = np.zeros((n, m, m), np.float32)
        if self._pattern is not None:
            finals = np.array([[self.final(t) for t in row] for row in answers], object)
            finals = finals.reshape(n, m)
            there = np.array([text is not None for text in finals.ravel()], bool).reshape(n, m)
            same = finals[:, :, None] == finals[:, None, :]
            out[:] = same & there[:, :, None] & there[:, None, :]
            return out
        for i, row in enumerate(answers):
            for j in range(m):
                for k in range(j, m):
                    out[i, j, k] = out[i, k, j] = self.agreement(row[j], row[k])
        return out


def majority(finals: Sequence[str | None]) -> tuple[str | None, float]:
    """The most frequent answer and its share of all; of equals the one that came first.

    >>> majority(["a", "b", "b", None])
    ('b', 0.5)
    """
    counts = Counter(each for each in finals if each is not None)
    if not counts:
        return None, 0.0
    best, times = counts.most_common(1)[0]
    return best, times / len(finals)


def _word_f1(a: str, b: str) -> float:
    first, second = Counter(_WORDS.findall(a)), Counter(_WORDS.findall(b))
    common = sum((first & second).values())
    return 2 * common / (first.total() + second.total()) if common else 0.0
