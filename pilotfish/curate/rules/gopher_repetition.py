"""Gopher's repetition rules: not too many repeated lines, paragraphs and n-grams within a text.

Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", section
A1.1, table A1.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilotfish.curate.rules.checks import Checks, RuleSet
from pilotfish.curate.rules.documents import Documents, Spans, share
from pilotfish.curate.rules.repeats import (
    Grams,
    most_repeated_chars,
    repeated_gram_chars,
    repeated_grams,
    repeated_spans,
    top_gram_chars,
)

_TOP = range(2, 5)
_REPEATED = range(5, 11)


@dataclass(frozen=True)
class GopherRepetition(RuleSet):
    """Keep texts that do not repeat themselves. Empty texts are dropped.

    A line or paragraph repeats if it equals an earlier one of the same text. Shares of characters are of
    all characters of the text, white space included. None or inf in place of a threshold checks nothing.

    Args:
        max_repeated_paragraphs: Largest share of paragraphs that repeat.
        max_repeated_paragraph_chars: Largest share of characters in them.
        max_repeated_lines: Largest share of lines that repeat; empty lines are no lines.
        max_repeated_line_chars: Largest share of characters in them.
        max_top_2_gram: Largest share of characters in the most frequent pair of words.
        max_top_3_gram: The same for three words.
        max_top_4_gram: The same for four.
        max_repeated_5_grams: Largest share of characters in five words that occurred before, in the same
            order; read from left to right, no character twice.
        max_repeated_6_grams: The same for six words.
        max_repeated_7_grams: For seven.
        max_repeated_8_grams: For eight.
        max_repeated_9_grams: For nine.
        max_repeated_10_grams: For ten.
        tag: As in :class:`~pilotfish.curate.rules.checks.RuleSet`.
        scores: Likewise; of an n-gram rule that is far from its threshold, an upper bound.

    Raises:
        ConfigError: A threshold is negative.
    """

    name = "gopher_repetition"

    max_repeated_paragraphs: float | None = 0.30
    max_repeated_paragraph_chars: float | None = 0.20
    max_repeated_lines: float | None = 0.30
    max_repeated_line_chars: float | None = 0.20
    max_top_2_gram: float | None = 0.20
    max_top_3_gram: float | None = 0.18
    max_top_4_gram: float | None = 0.16
    max_repeated_5_grams: float | None = 0.15
    max_repeated_6_grams: float | None = 0.14
    max_repeated_7_grams: float | None = 0.13
    max_repeated_8_grams: float | None = 0.12
    max_repeated_9_grams: float | None = 0.11
    max_repeated_10_grams: float | None = 0.10

    def judge(self, documents: Documents) -> Checks:
        """Measure lines, paragraphs and n-grams."""
        checks = Checks(len(documents))
        length = documents.length
        checks.fail("empty", length == 0)
        paragraphs, lines = documents.paragraphs, _lines(documents)
        repeats, chars = repeated_spans(documents, paragraphs)
        part = share(repeats, np.diff(paragraphs.offsets))
        checks.above("repeated_paragraphs", part, self.max_repeated_paragraphs)
        part = share(chars, length)
        checks.above("repeated_paragraph_chars", part, self.max_repeated_paragraph_chars)
        repeats, chars = repeated_spans(documents, lines)
        # Newlines at the very beginning and end make an empty line each, of which the second repeats.
        edges = _edges(documents)
        repeats += edges == 2
        part = share(repeats, np.diff(lines.offsets) + edges)
        checks.above("repeated_lines", part, self.max_repeated_lines)
        checks.above("repeated_line_chars", share(chars, length), self.max_repeated_line_chars)

        top = {n: getattr(self, f"max_top_{n}_gram") for n in _TOP}
        repeated = {n: getattr(self, f"max_repeated_{n}_grams") for n in _REPEATED}
        longest = max(
            (n for n, limit in {**top, **repeated}.items() if limit is not None), default=0
        )
        if not longest:
            return checks
        for grams in repeated_grams(documents, longest):
            limit = top.get(grams.n)
            if limit is not None:
                part = share(top_gram_chars(documents, grams), length)
                checks.above(f"top_{grams.n}_gram", part, limit)
            limit = repeated.get(grams.n)
            if limit is not None:
                part = _repeated_share(documents, grams, limit, checks.open)
                checks.above(f"repeated_{grams.n}_grams", part, limit)
        return checks


def _lines(documents: Documents) -> Spans:
    return documents.segments.only(documents.segments.ends > documents.segments.starts)


def _edges(documents: Documents) -> NDArray[np.int64]:
    """How many ends of each document are a newline; two of a document that is one newline."""
    starts, ends = documents.offsets[:-1], documents.offsets[1:]
    newline = documents.codes == ord("\n")
    edges: NDArray[np.int64] = newline[starts].astype(np.int64) + newline[ends - 1]
    edges[ends == starts] = 0
    return edges


def _repeated_share(
    documents: Documents, grams: Grams, limit: float, still: NDArray[np.bool_]
) -> NDArray[np.float64]:
    # Reading n-gram by n-gram costs, and few documents come near the limit.
    chars = most_repeated_chars(documents, grams)
    near = (share(chars, documents.length) > limit) & still
    for document in np.flatnonzero(near).tolist():
        chars[document] = repeated_gram_chars(documents, grams, document)
    return share(chars, documents.length)
