"""Gopher's quality rules: enough words, of a usual length, mostly letters, some of them stop words.

Rae et al. 2021, "Scaling Language Models: Methods, Analysis & Insights from Training Gopher", section
A1.1. The paper does not say what a word is; here it is a run of letters, digits and underscores, or a run
of other marks, and the latter count only where the paper speaks of symbols.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from pilotfish.curate.rules.characters import ALPHA
from pilotfish.curate.rules.checks import Checks, RuleSet
from pilotfish.curate.rules.documents import Documents, Positions, share, total
from pilotfish.curate.rules.hashing import hash_bytes
from pilotfish.errors import ConfigError

_BULLETS = ("•", "-")
_ELLIPSES = ("...", "…")


@dataclass(frozen=True)
class GopherQuality(RuleSet):
    """Keep texts that look like prose.

    Checks are made in the order of the settings. None checks nothing, and so does 0 as the least or inf
    as the most.

    Args:
        min_words: Fewest words; those of punctuation alone do not count.
        max_words: Most words.
        min_mean_word_chars: Least mean number of characters of these words.
        max_mean_word_chars: Largest mean.
        max_hashes: Most ``#`` for each word (here and below, of words of any kind).
        max_ellipses: Most ``...`` or ``…`` for each word.
        max_bullet_lines: Largest share of lines that begin with ``•`` or ``-``.
        max_ellipsis_lines: Largest share of lines that end with an ellipsis.
        min_alphabetic_words: Least share of words that have a letter.
        min_stop_words: How many different ones of ``stop_words`` must occur.
        stop_words: Words, compared as they are written, lower case included.
        tag: As in :class:`~pilotfish.curate.rules.checks.RuleSet`.
        scores: Likewise.

    Raises:
        ConfigError: A threshold is negative, a stop word is not one word, or there are too few of them.
    """

    name = "gopher_quality"

    min_words: float | None = 50
    max_words: float | None = 100_000
    min_mean_word_chars: float | None = 3
    max_mean_word_chars: float | None = 10
    max_hashes: float | None = 0.1
    max_ellipses: float | None = 0.1
    max_bullet_lines: float | None = 0.9
    max_ellipsis_lines: float | None = 0.3
    min_alphabetic_words: float | None = 0.8
    min_stop_words: float | None = 2
    stop_words: tuple[str, ...] = ("the", "be", "to", "of", "and", "that", "have", "with")

    def __post_init__(self) -> None:
        super().__post_init__()
        for word in self.stop_words:
            data = word.encode()
            whole = Documents(data, np.array([0, len(data)])).words
            if whole.starts.tolist() != [0] or whole.ends.tolist() != [len(data)]:
                raise ConfigError(
                    f"The step {self.name!r}: got the stop word {word!r}, but expected one word: only "
                    "letters and digits, without spaces or apostrophes."
                )
        different = len(set(self.stop_words))
        if (self.min_stop_words or 0) > different:
            raise ConfigError(
                f"The step {self.name!r}: got min_stop_words = {self.min_stop_words}, but only "
                f"{different} different stop_words, so no text would stay.",
                remedy="To check none, give min_stop_words = 0.",
            )

    def judge(self, documents: Documents) -> Checks:
        """Measure words, symbols and lines."""
        checks = Checks(len(documents))
        words = documents.words
        all_words = np.diff(words.offsets)
        counted = documents.counted_words
        n_counted = total(counted, words.offsets)
        checks.below("too_few_words", n_counted, self.min_words)
        checks.above("too_many_words", n_counted, self.max_words)
        chars = total(documents.word_chars * counted, words.offsets)
        mean = np.full(len(documents), np.nan)  # no word has no length, and fails nothing
        np.divide(chars, n_counted, out=mean, where=n_counted > 0)
        checks.below("words_too_short", mean, self.min_mean_word_chars)
        checks.above("words_too_long", mean, self.max_mean_word_chars)
        hashes = documents.count(np.flatnonzero(documents.codes == ord("#")))
        checks.above("too_many_hashes", share(hashes, all_words), self.max_hashes)
        checks.above("too_many_ellipses", share(_ellipses(documents), all_words), self.max_ellipses)
        lines = documents.lines
        stripped, n_lines = documents.strip(lines), np.diff(lines.offsets)
        bullets = [documents.starts_with(stripped, mark.encode()) for mark in _BULLETS]
        ends = [documents.ends_with(stripped, mark.encode()) for mark in _ELLIPSES]
        bullet_lines = total(np.logical_or(*bullets), lines.offsets)
        ellipsis_lines = total(np.logical_or(*ends), lines.offsets)
        checks.above("too_many_bullet_lines", share(bullet_lines, n_lines), self.max_bullet_lines)
        checks.above(
            "too_many_ellipsis_lines", share(ellipsis_lines, n_lines), self.max_ellipsis_lines
        )
        alphabetic = total((documents.word_bits & ALPHA) != 0, words.offsets)
        checks.below(
            "too_few_alphabetic_words", share(alphabetic, all_words), self.min_alphabetic_words
        )
        checks.below("too_few_stop_words", self._stop_words(documents), self.min_stop_words)
        return checks

    def _stop_words(self, documents: Documents) -> Positions:
        found = np.zeros(len(documents), np.int64)
        for word in sorted(set(self.stop_words)):
            same = np.flatnonzero(documents.word_hashes == np.uint64(hash_bytes(word.encode())))
            found += np.diff(np.searchsorted(same, documents.words.offsets)) > 0
        return found


def _ellipses(documents: Documents) -> Positions:
    # As str.count("...") does, a run of dots holds a third as many ellipses, rounded down.
    dots = np.flatnonzero(documents.codes == ord("."))
    opens = np.ones(len(dots), np.bool_)
    opens[1:] = dots[1:] != dots[:-1] + 1
    opens |= np.isin(dots, documents.offsets)
    first = np.flatnonzero(opens)
    length = np.diff(np.append(first, len(dots)))
    found = total(length // 3, np.searchsorted(dots[first], documents.offsets))
    if not documents.data.isascii():
        found += documents.count(documents.find("…".encode()))
    return found
