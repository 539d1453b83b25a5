r"""CCNet's rules for one page: long enough, and no line twice.

Wenzek et al. 2020, "CCNet: Extracting High Quality Monolingual Datasets from Web Crawl Data", section 3,
and the authors' code for the length. Lines are compared as there: without white space at the ends, in
lower case, every digit a 0, without control characters and the punctuation that is not ASCII.

The rest of CCNet is in steps of its own: lines that other pages have are a matter of deduplication, the
language and the perplexity of models.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

import numpy as np
import pyarrow.compute as pc
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.rules.characters import SYMBOLS
from pilotfish.curate.rules.checks import Checks, RuleSet
from pilotfish.curate.rules.documents import Documents, Spans
from pilotfish.curate.rules.hashing import hash_spans
from pilotfish.curate.rules.line_edits import join_lines, large_strings
from pilotfish.curate.rules.repeats import again, number, salt

_PUNCTUATION = re.compile(f"[{SYMBOLS}。？！．´\x80-\x9f]")
_DIGIT = re.compile(r"\d")
_ZEROS = bytes.maketrans(b"123456789", b"000000000")
_CONTROLS = bytes(code for code in range(32) if code != ord("\n")) + b"\x7f"


@dataclass(frozen=True)
class CCNet(RuleSet):
    r"""Keep texts that are long enough, without the lines that they have already had.

    Lines are what stands between ``\n``; of several blank ones the first is kept.

    Args:
        min_chars: Fewest characters, before lines are removed; None for any number.
        remove_repeated_lines: Keep only the first of several lines that are the same but for case,
            digits, punctuation that is not ASCII, and white space at the ends.
        tag: As in :class:`~pilotfish.curate.rules.checks.RuleSet`; dropped texts keep all lines.
        scores: As there.

    Raises:
        ConfigError: The threshold is negative.
    """

    name = "ccnet"

    min_chars: float | None = 300
    remove_repeated_lines: bool = True

    def judge(self, documents: Documents) -> Checks:
        """Measure the length, and put the texts together again without the repeated lines."""
        checks = Checks(len(documents))
        checks.below("too_short", documents.length, self.min_chars)
        if self.remove_repeated_lines:
            lines = documents.segments
            hashes = _normalized_hashes(documents, lines)
            first = ~again(number(hashes ^ salt(lines.documents)))
            texts = join_lines(documents, lines.only(first), strip=False)
            original = large_strings(documents.data, documents.offsets)
            checks.rewritten = pc.if_else(to_arrow(checks.open), texts, original)
        return checks


def _normalized_hashes(documents: Documents, lines: Spans) -> NDArray[np.uint64]:
    stripped = join_lines(documents, documents.strip(lines), strip=False)
    text = "\n".join(stripped.to_pylist()).lower()
    if not text.isascii():
        text = _DIGIT.sub("0", _PUNCTUATION.sub("", text))
    data = text.encode().translate(_ZEROS, _CONTROLS)
    page = Documents(data, np.array([0, len(data)]))
    return hash_spans(page.codes, page.segments.starts, page.segments.ends)
