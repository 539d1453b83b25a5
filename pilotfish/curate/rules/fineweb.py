"""FineWeb's own filters: lines that end in punctuation, few short lines, few repeated ones, no lists.

Penedo et al. 2024, "The FineWeb Datasets: Decanting the Web for the Finest Text Data at Scale", section
3.6. The thresholds are those of the authors' code, with which the data set was made. The paper has 0.1 in
place of the 0.01 of ``max_repeated_line_chars``, and no ``max_new_lines``.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pilotfish.curate.rules.characters import TERMINAL
from pilotfish.curate.rules.checks import Checks, RuleSet
from pilotfish.curate.rules.documents import Documents, share, total
from pilotfish.curate.rules.repeats import repeated_spans


@dataclass(frozen=True)
class FineWeb(RuleSet):
    r"""Keep texts whose lines are prose. Blank texts are dropped.

    Lines are what stands between ``\n``, blank ones left out. None checks nothing, and so
    does 0 as the least or inf as the most.

    Args:
        min_punctuated_lines: Least share of lines that end a sentence, by the Unicode property
            Sentence_Terminal; white space after it, or a ``\r``, hides it.
        max_short_lines: Largest share of short lines.
        short_line_chars: Lines of up to so many characters are short.
        max_repeated_line_chars: Largest share of characters in lines that equal an earlier one.
        max_new_lines: Most ``\n`` for each word.
        tag: As in :class:`~pilotfish.curate.rules.checks.RuleSet`.
        scores: Likewise.

    Raises:
        ConfigError: A threshold is negative.
    """

    name = "fineweb"

    min_punctuated_lines: float | None = 0.12
    max_short_lines: float | None = 0.67
    short_line_chars: int = 30
    max_repeated_line_chars: float | None = 0.01
    max_new_lines: float | None = 0.3

    def judge(self, documents: Documents) -> Checks:
        """Measure lines."""
        checks = Checks(len(documents))
        segments = documents.segments
        first, after = documents.word_range(segments)
        lines = segments.only(after > first)
        n_lines = np.diff(lines.offsets)
        checks.fail("empty", n_lines == 0)
        punctuated = total((documents.bits[lines.ends - 1] & TERMINAL) != 0, lines.offsets)
        checks.below(
            "too_few_punctuated_lines", share(punctuated, n_lines), self.min_punctuated_lines
        )
        short = total(documents.chars(lines) <= self.short_line_chars, lines.offsets)
        checks.above("too_many_short_lines", share(short, n_lines), self.max_short_lines)
        _, chars = repeated_spans(documents, lines)
        newlines = documents.count(documents.newlines)
        part = share(chars, documents.length - newlines)
        checks.above("repeated_line_chars", part, self.max_repeated_line_chars)
        part = share(newlines, np.diff(documents.words.offsets))
        checks.above("too_many_new_lines", part, self.max_new_lines)
        return checks
