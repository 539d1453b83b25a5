"""From a stretch of text to the value that a large model writes for it.

An extracted value is seldom invented: it stands in the input, in the same words or in another notation.
A *format* says which stretches may be meant (numbers, dates, codes, or any few words), and a
*transformation* makes the value of one (``1,234.50`` to ``1234.5``, ``3 May 2026`` to ``2026-05-03``).
Both are chosen by how many recorded values they explain; what no recorded answer shows is not guessed.
"""

from __future__ import annotations

import datetime
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

MONTHS = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")
_MONTH = r"(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)[a-z]*\.?"
_NUMBER_WORDS = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"),
    *("eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen"),
    *("nineteen", "twenty"),
)
TOKENS = "tokens"  # the format of any few words

FORMATS: Mapping[str, re.Pattern[str]] = {
    "e-mail": re.compile(r"(?<![\w.+-])[\w.+-]+@[\w-]+(?:\.[\w-]+)+"),
    "url": re.compile(r"(?:https?://|www\.)[^\s<>\"')\]]*[\w/]"),
    "date": re.compile(
        rf"\b(?:\d{{4}}-\d{{1,2}}-\d{{1,2}}|\d{{1,2}}[./-]\d{{1,2}}[./-](?:\d{{4}}|\d{{2}})"
        rf"|\d{{1,2}}(?:st|nd|rd|th)?\s(?:of\s)?{_MONTH},?\s\d{{4}}"
        rf"|{_MONTH}\s\d{{1,2}}(?:st|nd|rd|th)?,?\s\d{{4}})\b",
        re.IGNORECASE,
    ),
    "time": re.compile(r"\b\d{1,2}:\d{2}(?::\d{2})?(?:\s?[ap]\.?m\b\.?)?", re.IGNORECASE),
    "phone": re.compile(r"(?<![\w.-])(?:\+|\()?\d[\d ().\u00a0/-]{4,24}\d"),
    "number": re.compile(
        r"(?:(?<![\w)])[-+])?(?:\d{1,3}(?:[ \u00a0]\d{3})+(?:[.,]\d+)?\b|\d+(?:[.,'’]\d+)*)"
    ),
    "number word": re.compile(rf"\b(?:{'|'.join(_NUMBER_WORDS)})\b", re.IGNORECASE),
    "code": re.compile(r"\b(?=[A-Za-z_/#:.-]{0,30}\d)[A-Za-z0-9]+(?:[-_/.#:][A-Za-z0-9]+)*\b"),
}
"""Formats from the special to the general; :data:`TOKENS` comes after all of them."""


def _point(text: str) -> str | None:
    """A number written with a decimal point, without its thousands separators."""
    plain = re.sub(r"(?<=\d)[,'’ \u00a0](?=\d{3}(?!\d))", "", text).removeprefix("+")
    return plain if re.fullmatch(r"-?\d+(?:\.\d+)?", plain) else None


def _comma(text: str) -> str | None:
    """A number written with a decimal comma."""
    plain = re.sub(r"(?<=\d)[.'’ \u00a0](?=\d{3}(?!\d))", "", text).removeprefix("+")
    return plain.replace(",", ".") if re.fullmatch(r"-?\d+(?:,\d+)?", plain) else None


def _number(text: str | None) -> int | float | None:
    if text is None or len(text) > 30:
        return None
    return float(text) if "." in text else int(text)


def _cents(text: str | None) -> str | None:
    number = _number(text)
    return None if number is None else f"{number:.2f}"


def _number_word(text: str) -> int | None:
    word = text.casefold()
    return _NUMBER_WORDS.index(word) if word in _NUMBER_WORDS else None


def _date(text: str, *, day_first: bool) -> str | None:
    """A date as ISO 8601 writes it."""
    parts = re.findall(r"\d+|[A-Za-z]{3,}", text)
    named = [MONTHS.index(p[:3].lower()) + 1 for p in parts if p[:3].lower() in MONTHS]
    numbers = [int(p) for p in parts if p.isdigit()]
    if len(numbers) + len(named) != 3 or len(named) > 1:
        return None
    if named:
        year, month, day = numbers[1], named[0], numbers[0]
    elif len(parts[0]) == 4:
        year, month, day = numbers
    else:
        first, second, year = numbers
        day, month = (first, second) if day_first else (second, first)
    try:
        return datetime.date(year + 2000 if year < 100 else year, month, day).isoformat()
    except ValueError:
        return None


def _clock(text: str) -> str | None:
    """A time of day on 24 hours."""
    match = re.fullmatch(r"(\d{1,2}):(\d{2})(:\d{2})?\s?([ap])?\.?m?\.?", text, re.IGNORECASE)
    if match is None:
        return None
    hour = int(match[1])
    if match[4]:
        hour = hour % 12 + (12 if match[4].lower() == "p" else 0)
    return f"{hour:02d}:{match[2]}{match[3] or ''}" if hour < 24 else None


def _collapse(text: str) -> str:
    return " ".join(text.split())


TRANSFORMATIONS: Mapping[str, Callable[[str], Any]] = {
    "as is": lambda text: text,
    "one space": _collapse,
    "lower": lambda text: _collapse(text).lower(),
    "upper": lambda text: _collapse(text).upper(),
    "title": lambda text: _collapse(text).title(),
    "capital": lambda text: _collapse(text).capitalize(),
    "digits": lambda text: re.sub(r"\D", "", text) or None,
    "plus and digits": lambda text: re.sub(r"[^\d+]", "", text) or None,
    "letters and digits": lambda text: re.sub(r"[\W_]", "", text) or None,
    "number": lambda text: _number(_point(text)),
    "number, comma": lambda text: _number(_comma(text)),
    "number word": _number_word,
    "number as text": _point,
    "number as text, comma": _comma,
    "cents": lambda text: _cents(_point(text)),
    "cents, comma": lambda text: _cents(_comma(text)),
    "date": lambda text: _date(text, day_first=True),
    "date, month first": lambda text: _date(text, day_first=False),
    "clock": _clock,
}
"""What can be made of a stretch of text; None where it has no such value."""

WORDS_ONLY = ("as is", "one space", "lower", "upper", "title", "capital")
BY_FORMAT: Mapping[str, tuple[str, ...]] = {
    "e-mail": ("as is", "lower"),
    "url": ("as is", "lower"),
    "date": ("as is", "date", "date, month first"),
    "time": ("as is", "clock"),
    "phone": ("as is", "digits", "plus and digits"),
    "number": (
        *("as is", "number", "number, comma", "number as text", "number as text, comma"),
        *("cents", "cents, comma", "digits"),
    ),
    "number word": ("number word", "as is", "lower"),
    "code": ("as is", "upper", "lower", "letters and digits", "digits"),
    TOKENS: WORDS_ONLY,
}
"""The transformations that are tried on each format, the plainest first."""


def find_value(text: str, value: str) -> Iterator[tuple[int, int]]:
    """Where a text stands in another, whatever its case and spaces: start and end, in characters.

    >>> list(find_value("From: Ada  Lovelace", "ada lovelace"))
    [(6, 19)]
    """
    words = value.split()
    if words:
        pattern = r"\s+".join(map(re.escape, words))
        for match in re.finditer(pattern, text, re.IGNORECASE):
            yield match.start(), match.end()
