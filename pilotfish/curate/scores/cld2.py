"""What CLD2, Chrome's compact language detector, takes a text for: a second opinion.

Its errors are other ones than those of :mod:`pilotfish.curate.scores.byte_bayes`, so where that one
wavers between two languages its vote is worth having, though alone it is right less often.
"""

from __future__ import annotations

from typing import Any

from pilotfish.errors import MissingExtra

# Its codes, where they differ from ISO 639-1 and from what py3langid's model has.
_CODES = {"nb": "no", "iw": "he", "in": "id", "jw": "jv", "zh-Hant": "zh", "sh": "sr"}


def load() -> Any:
    """The library.

    Raises:
        MissingExtra: pycld2 is not installed.
    """
    try:
        import pycld2
    except ImportError:
        raise MissingExtra("The step 'language'", "curate") from None
    return pycld2


def vote(text: str) -> tuple[str, float]:
    """The language that most of a text is in, and how much of it, 0 to 1; ``("", 0)`` for none."""
    library = load()
    try:
        _, _, found = library.detect(text, bestEffort=True)
    except library.error:  # control characters, which it takes for damage
        return "", 0.0
    _, code, percent, _ = found[0]
    return ("", 0.0) if code == "un" else (_CODES.get(code, code), percent / 100)
