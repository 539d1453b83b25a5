"""What kind of answer a question asks for: options to choose from, a negation, a number, a source.

Yes-or-no and counting features for trees, which find where they matter; a linear model gained nothing
from them on MMLU. The words are English; in other languages the counts of options, digits and marks
remain.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

import numpy as np

from pilotfish.infer.outcomes import Floats

MAX_CHARS = 20_000

_OPTION = re.compile(r"^[ \t]*\(?(?:[A-J]|[a-j]|[1-9])[.):][ \t]*(.*)$", re.MULTILINE)
_DIGIT = re.compile(r"\d")
_NUMBERS = re.compile(r"[-+$\u20ac\u00a3.,%\d\s/^*=()a-z]{1,12}")
_YEAR = re.compile(r"\b(?:1\d{3}|20\d{2})\b")
_FORMULA = re.compile(r"[=^\\<>]|\bd[xyt]\b")
_WORDS = re.compile(r"[a-z']+")

_PHRASES: tuple[tuple[str, ...], ...] = (
    ("which of the following",),
    ("except", "incorrect", "false", "least"),
    ("all of the above", "none of the", "both a and b"),
    ("true", "correct"),
    ("most likely", "best", "primarily"),
    ("calculate", "compute", "find ", "solve", "evaluate"),
    ("how many", "how much", "what is the value", "percent"),
    ("refers to", "according to", "passage", "source", "excerpt", "following information"),
    ("why", "explain", "because", "therefore"),
    ("suppose", "assume", "consider", "given that", "let "),
)
_SETS = (
    frozenset(("not", "never", "no", "cannot", "isn't", "doesn't", "don't")),
    frozenset(("i", "me", "my", "mine", "we", "our")),
    frozenset(("he", "she", "his", "her", "him", "they", "their")),
    frozenset(("who", "whom", "whose", "when", "where")),
    frozenset(("i", "ii", "iii", "iv")),
    frozenset(("if", "then", "each", "every", "only")),
)
WIDTH = 11 + len(_PHRASES) + len(_SETS)


def question_cues(texts: Sequence[str]) -> Floats:
    """The cues of each text, ``[n, 27]``; counts and lengths are logarithms, the rest 0 or 1 or shares.

    Only the first 20,000 characters of a text are read.
    """
    out = np.zeros((len(texts), WIDTH))
    for i, text in enumerate(texts):
        out[i] = _one(text[:MAX_CHARS])
    return out.astype(np.float32)


def _one(text: str) -> list[float]:
    options = _OPTION.findall(text)
    lengths = [len(option) for option in options] or [0]
    count = max(len(options), 1)
    mean = sum(lengths) / len(lengths)
    lower = text.lower()
    words = set(_WORDS.findall(lower))
    return [
        math.log1p(len(options)),
        math.log1p(mean),
        math.log1p(max(lengths)),
        math.log1p(math.sqrt(sum((length - mean) ** 2 for length in lengths) / len(lengths))),
        sum(_DIGIT.search(option) is not None for option in options) / count,
        sum(_NUMBERS.fullmatch(option.strip()) is not None for option in options) / count,
        math.log1p(text.count(",")),
        math.log1p(text.count(". ")),
        float("__" in text),
        float(_YEAR.search(text) is not None),
        float(_FORMULA.search(text) is not None),
        *(float(any(phrase in lower for phrase in group)) for group in _PHRASES),
        *(float(not words.isdisjoint(group)) for group in _SETS),
    ]
