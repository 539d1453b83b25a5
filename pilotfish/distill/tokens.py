"""Texts as tokens, and what a tagger sees of each: words around it, shapes, line breaks.

A token is a run of digits, a run of letters or one other character. Its features are the identity of
the words up to four places away, the shapes (``Aa``, ``99``, ``:``) and gaps up to two places away, and
the first word of its line, which in forms and mails says what the line is about. All of it is index
arithmetic on three small vocabularies, so that a thousand texts take tenths of a second.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Matrix = Any  # a csr_array of float32

TOKEN = re.compile(r"\d+|[^\W\d]+|[^\w\s]")
MAX_CHARS = 20_000  # of a text; what comes later is not seen
MAX_TOKENS = 2_000
MOST_WORDS = 20_000
WORD_REACH = 4  # words this far to each side
SHAPE_REACH = 2
OUTSIDE, UNKNOWN = 0, 1  # ids before the vocabulary's own


@dataclass(frozen=True, slots=True)
class Tokens:
    """One text as ``t`` tokens.

    Attributes:
        text: The text.
        starts: First character of each ``[t]``.
        ends: One after its last ``[t]``.
        shapes: With what comes before the token: nothing, a space or a line break ``[t]``.
    """

    text: str
    starts: Sequence[int]
    ends: Sequence[int]
    shapes: Sequence[str]

    @classmethod
    def of(cls, text: str) -> Tokens:
        """Cut a text.

        >>> Tokens.of("Total: 12.50").shapes
        ['>Aa', ':', ' 99', '.', '99']
        """
        starts: list[int] = []
        ends: list[int] = []
        shapes: list[str] = []
        at = 0
        for match in TOKEN.finditer(text[:MAX_CHARS]):
            gap = text[at : match.start()]
            mark = ">" if not starts or "\n" in gap else " " if gap else ""
            starts.append(match.start())
            at = match.end()
            ends.append(at)
            shapes.append(mark + shape(match[0]))
            if len(starts) == MAX_TOKENS:
                break
        return cls(text, starts, ends, shapes)

    def __len__(self) -> int:
        return len(self.starts)

    def words(self) -> list[str]:
        """Each token folded; of numbers only the number of digits counts."""
        cut = (self.text[a:b] for a, b in zip(self.starts, self.ends, strict=True))
        return [f"9{min(len(w), 8)}" if w.isdigit() else w.casefold() for w in cut]


def shape(word: str) -> str:
    """What a word looks like.

    >>> [shape(w) for w in ("Lyon", "EUR", "a", "A", "iPad", "2026", "#")]
    ['Aa', 'AA', 'a', 'A', 'aA', '9999', '#']
    """
    if word.isdigit():
        return "9" * min(len(word), 5)
    if not word[0].isalpha():
        return word
    if word.islower():
        return "a"
    if word.isupper():
        return "A" if len(word) == 1 else "AA"
    return "Aa" if word[0].isupper() and word[1:].islower() else "aA"


@dataclass(frozen=True)
class Vocabulary:
    """The words and shapes that have features of their own.

    Attributes:
        words: Word to id.
        shapes: Shape to id.
    """

    words: dict[str, int]
    shapes: dict[str, int]

    @classmethod
    def fit(cls, texts: Sequence[Tokens]) -> Vocabulary:
        """What occurs in two texts or more."""
        words: Counter[str] = Counter()
        shapes: Counter[str] = Counter()
        for tokens in texts:
            words.update(set(tokens.words()))
            shapes.update(set(tokens.shapes))
        return cls.of(
            [word for word, count in words.most_common(MOST_WORDS) if count > 1],
            [one for one, count in shapes.most_common() if count > 1],
        )

    @classmethod
    def of(cls, words: Sequence[str], shapes: Sequence[str]) -> Vocabulary:
        """From the stored lists."""
        return cls(
            {word: i for i, word in enumerate(words, UNKNOWN + 1)},
            {one: i for i, one in enumerate(shapes, UNKNOWN + 1)},
        )

    @property
    def width(self) -> int:
        """Columns of :meth:`features`."""
        words, shapes = self._sizes
        return (2 * WORD_REACH + 2) * words + (2 * SHAPE_REACH + 1) * shapes

    @property
    def _sizes(self) -> tuple[int, int]:
        return len(self.words) + UNKNOWN + 1, len(self.shapes) + UNKNOWN + 1

    def columns(self, texts: Sequence[Tokens]) -> Ints:
        """The features that each token of all texts has, ``[tokens, 15]``, below :attr:`width`."""
        n_words, n_shapes = self._sizes
        word = self._ids(texts)
        shape_of = np.array(
            [self.shapes.get(one, UNKNOWN) for tokens in texts for one in tokens.shapes], np.int64
        )
        text_of = np.repeat(np.arange(len(texts)), [len(tokens) for tokens in texts])
        blocks = [(word, offset, n_words) for offset in range(-WORD_REACH, WORD_REACH + 1)]
        blocks += [(shape_of, offset, n_shapes) for offset in range(-SHAPE_REACH, SHAPE_REACH + 1)]
        columns, first = [], 0
        for ids, offset, size in blocks:
            columns.append(first + _shifted(ids, text_of, offset))
            first += size
        columns.append(first + word[_line_starts(texts)])
        return np.stack(columns, axis=1)

    def bag(self, tokens: Tokens) -> Ints:
        """The words of one text, each once."""
        known = self.words
        return np.array(sorted({known.get(w, UNKNOWN) for w in tokens.words()}), np.int64)

    def features(self, columns: Ints) -> Matrix:
        """:meth:`columns` as a matrix ``[tokens, width]``, 15 ones in each row."""
        return _sparse(list(columns), None, self.width)

    def bags(self, bags: Sequence[Ints]) -> Matrix:
        """The words of texts as unit rows ``[texts, words]``."""
        return _sparse(bags, [max(len(one), 1) ** -0.5 for one in bags], self._sizes[0])

    def _ids(self, texts: Sequence[Tokens]) -> Ints:
        known = self.words
        return np.array([known.get(w, UNKNOWN) for t in texts for w in t.words()], np.int64)


def _sparse(rows: Sequence[Ints], values: Sequence[float] | None, width: int) -> Matrix:
    sizes = [len(row) for row in rows]
    pointers = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    indices = np.concatenate(rows) if sizes else np.zeros(0, np.int64)
    data = np.ones(len(indices)) if values is None else np.repeat(values, sizes)
    return sp.csr_array((data.astype(np.float32), indices, pointers), shape=(len(rows), width))


def _shifted(ids: Ints, text_of: Ints, offset: int) -> Ints:
    """The id of the token so far away in the same text, :data:`OUTSIDE` beyond its ends."""
    at = np.arange(len(ids)) + offset
    inside = (at >= 0) & (at < len(ids))
    at = np.where(inside, at, 0)
    same = inside & (text_of[at] == text_of) if len(ids) else inside
    return np.where(same, ids[at], OUTSIDE) if len(ids) else ids


def _line_starts(texts: Sequence[Tokens]) -> Ints:
    """For each token the first one of its line."""
    begins = np.array([one[0] == ">" for tokens in texts for one in tokens.shapes], bool)
    return np.maximum.accumulate(np.where(begins, np.arange(len(begins)), 0))
