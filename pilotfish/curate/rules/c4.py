"""The rules of C4: keep lines that are sentences, drop pages of code and filler.

Raffel et al. 2020, "Exploring the Limits of Transfer Learning with a Unified Text-to-Text Transformer",
section 2.2, and the authors' code, which the paper leaves out in part (the policy phrases, the longest
word, citations). Kept texts are rewritten: they hold the kept lines only.

Known differences from that code: a sentence ends where ``.``, ``?`` or ``!`` (and quotes or brackets that
close) comes before white space or the end of the line, so ``Dr. No`` counts one too many; and upper and
lower case are those of ASCII letters.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import to_arrow, truths
from pilotfish.curate.rules.checks import Checks, RuleSet
from pilotfish.curate.rules.documents import Documents, Spans, total
from pilotfish.curate.rules.line_edits import (
    any_of,
    count_sentences,
    first_of,
    join_lines,
    large_strings,
    without_citations,
)
from pilotfish.errors import ConfigError, InputError


@dataclass(frozen=True)
class C4(RuleSet):
    """Keep texts of enough sentences, without the lines that are none.

    Lines are those of ``str.splitlines``, stripped. The rules are applied to a line in the order of the
    settings, the first one decides; None, False, an empty list, 0 as the least or inf as the most check
    nothing. The first line with filler or a curly bracket decides the text.

    Args:
        max_word_chars: Lines with a longer word (between white space) are removed.
        remove_citations: Cut out ``[1]``, ``[]``, ``[edit]`` and ``[citation needed]``.
        end_marks: Lines must end with one of these.
        end_ellipsis: Whether lines may end with ``...``.
        min_words_per_line: Lines with fewer words are removed.
        lorem_ipsum: Drop texts with "lorem ipsum" in a line that is left.
        javascript: Remove lines with "javascript".
        curly_bracket: Drop texts with ``{`` in a line that is left.
        policy_phrases: Lines with one of these, in lower case, are removed.
        min_sentences: Drop texts with fewer sentences in the lines that are left.
        bad_words: Drop texts in which one of these, in any case, stands between other than letters,
            digits and underscores.
        bad_words_file: More of them, one in each line.
        tag: As in :class:`~pilotfish.curate.rules.checks.RuleSet`; dropped texts keep all lines.
        scores: As there.

    Raises:
        ConfigError: A threshold is negative, or a phrase blank.
        InputError: The file cannot be read.
    """

    name = "c4"

    max_word_chars: float | None = 1000
    remove_citations: bool = True
    end_marks: tuple[str, ...] = (".", "?", "!", '"', "'")
    end_ellipsis: bool = False
    min_words_per_line: float | None = 3
    lorem_ipsum: bool = True
    javascript: bool = True
    curly_bracket: bool = True
    policy_phrases: tuple[str, ...] = (
        "terms of use",
        "privacy policy",
        "cookie policy",
        "uses cookies",
        "use of cookies",
        "use cookies",
    )
    min_sentences: float | None = 5
    bad_words: tuple[str, ...] = ()
    bad_words_file: str | None = None
    _bad_words: str = field(default="", init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not all(phrase.strip() for phrase in self.policy_phrases):
            raise ConfigError(
                f"The step {self.name!r}: got a blank one among policy_phrases, but expected words."
            )
        words = list(self.bad_words)
        if self.bad_words_file is not None:
            try:
                path = Path(self.bad_words_file).expanduser()
                words += path.read_text(encoding="utf-8").splitlines()
            except (OSError, UnicodeDecodeError) as error:
                raise InputError(
                    f"The step {self.name!r} cannot read bad_words_file = {self.bad_words_file!r}: "
                    f"{error}.",
                    remedy="Give a file in UTF-8 with one word or phrase in each line.",
                ) from error
        object.__setattr__(self, "_bad_words", any_of(words))

    def judge(self, documents: Documents) -> Checks:
        """Choose lines, count their sentences, and put the texts together again."""
        checks = Checks(len(documents))
        page = documents
        lines = documents.strip(documents.lines)
        kept = self._words_allow(documents, lines)
        if self.remove_citations:
            page, lines = without_citations(documents, lines)
        if self.end_marks:
            kept &= np.logical_or.reduce(
                [page.ends_with(lines, m.encode()) for m in self.end_marks]
            )
        if not self.end_ellipsis:
            kept &= ~page.ends_with(lines, b"...")
        lower = page.data.lower()
        filler = kept & self._holding(page, lines, lower, [b"lorem ipsum"] * self.lorem_ipsum)
        kept &= ~self._holding(page, lines, lower, [b"javascript"] * self.javascript)
        bracket = kept & self._holding(page, lines, lower, [b"{"] * self.curly_bracket)
        phrases = [phrase.lower().encode() for phrase in self.policy_phrases]
        kept &= ~self._holding(page, lines, lower, phrases)

        # Read line by line, the first line with either decides.
        first_filler, first_bracket = first_of(filler, lines), first_of(bracket, lines)
        decided = first_filler < len(filler)
        checks.fail("lorem_ipsum", decided & (first_filler <= first_bracket))
        checks.fail("curly_bracket", first_bracket < len(bracket))
        sentences = total(count_sentences(page, lines) * kept, lines.offsets)
        checks.below("too_few_sentences", sentences, self.min_sentences)
        texts = join_lines(page, lines.only(kept), strip=True)
        if self._bad_words:
            bad = pc.match_substring_regex(texts, self._bad_words, ignore_case=True)
            checks.fail("bad_word", truths(bad))
        dropped = to_arrow(~checks.open)
        original = large_strings(documents.data, documents.offsets)
        checks.rewritten = pc.if_else(dropped, original, texts)
        return checks

    def _words_allow(self, documents: Documents, lines: Spans) -> NDArray[np.bool_]:
        """Which lines have enough words, and none that is too long."""
        tokens = documents.tokens
        last = np.searchsorted(tokens.starts, lines.ends)
        n_words = last - np.searchsorted(tokens.starts, lines.starts)
        allowed: NDArray[np.bool_] = n_words >= (self.min_words_per_line or 0)
        if self.max_word_chars is not None:
            long = tokens.starts[documents.chars(tokens) > self.max_word_chars]
            allowed[np.searchsorted(lines.starts, long, side="right") - 1] = False
        return allowed

    @staticmethod
    def _holding(
        page: Documents, lines: Spans, lower: bytes, patterns: list[bytes]
    ) -> NDArray[np.bool_]:
        """Which lines hold one of the patterns."""
        found = np.zeros(len(lines.starts), np.bool_)
        for pattern in patterns:
            at = page.find(pattern, lower)
            line = np.searchsorted(lines.starts, at, side="right") - 1
            inside = (line >= 0) & (at + len(pattern) <= lines.ends[line])
            found[line[inside]] = True
        return found
