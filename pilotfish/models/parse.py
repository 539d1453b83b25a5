"""What a model wrote, read strictly as a label, a set of labels or a rating.

Strict on purpose: an answer that names two labels, or hides one in a sentence, is no answer, because a
guess made here would be taught to a student and certified. Accepted around a label: white space, quotes,
Markdown emphasis, a trailing period, a leading "Label:" or "Answer:", and JSON.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from pilotfish.errors import BadAnswer, InputError

_LEAD = re.compile(
    r"[\s*_`]*(?:the\s+)?(?:final\s+)?(?:labels?|answers?|rating|category|class)\s*(?:is|are)?"
    r"[\s*_`]*[:=][\s*_`]*",
    re.IGNORECASE,
)
_WRAP = "\"'`*_“”‘’«» \t\r\n"
_FENCE = re.compile(r"\s*```(?:json)?\s*\n(.*?)\n?\s*```\s*", re.DOTALL)
_NUMBER = re.compile(r"[+-]?\d+(?:\.\d+)?")
_KEYS = ("label", "labels", "answer", "rating", "category", "class")


def check_labels(labels: Sequence[str]) -> dict[str, str]:
    """Case-folded label to label.

    Raises:
        InputError: No labels, an empty one, or two that differ in case only.

    >>> check_labels(["Yes", "no"])
    {'yes': 'Yes', 'no': 'no'}
    """
    if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
        raise InputError(f"Got labels {labels!r:.200}, but expected a list of texts.")
    folded = {_fold(label): label for label in labels}
    if not labels or "" in folded or len(folded) < len(labels):
        raise InputError(
            f"Got labels {list(labels)!r:.200}, but expected different, non-empty names "
            "(upper and lower case count as the same)."
        )
    return folded


def parse_label(text: str, labels: Sequence[str]) -> str:
    """The one label that an answer is.

    Args:
        text: What the model wrote.
        labels: The closed set.

    Returns:
        The label as the set writes it.

    Raises:
        BadAnswer: It is no label, more than one, or a label inside other words.
        InputError: The set is empty, or has empty or equal names.

    >>> parse_label(' Answer: "Sports". ', ["news", "sports"])
    'sports'
    >>> parse_label('{"label": "news"}', ["news", "sports"])
    'news'
    """
    known = check_labels(labels)
    if (found := _known(text, known)) is not None:
        return found
    value = _json(text)
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if isinstance(value, (str, int, float)) and not isinstance(value, bool):
        found = _known(str(value), known)
        if found is not None:
            return found
    raise BadAnswer(
        f"Got the answer {text!r:.200}, but expected exactly one of {_listing(labels)}."
    )


def parse_labels(text: str, labels: Sequence[str]) -> list[str]:
    """The labels of a multi-label answer, in the order of the set, each once.

    A JSON list or object is read as such; else labels separated by commas, semicolons or lines
    (commas inside a label are understood). ``[]``, ``none`` and an empty answer are the empty set, unless
    "none" is a label.

    Raises:
        BadAnswer: A part of it is no label.
        InputError: See :func:`parse_label`.

    >>> parse_labels("red, salt, pepper", ["salt, pepper", "blue", "red"])
    ['salt, pepper', 'red']
    """
    known = check_labels(labels)
    if (whole := _known(text, known)) is not None:
        return [whole]
    value = _json(text)
    if isinstance(value, list) and all(isinstance(part, (str, int, float)) for part in value):
        found = [_known(str(part), known) for part in value]
    else:
        stripped = _core(value if isinstance(value, str) else text)
        if _fold(stripped) in {"", "none", "no label", "no labels", "n/a"}:
            return []
        found = _split(stripped, known)
    if None in found:
        raise BadAnswer(
            f"Got the answer {text!r:.200}, but expected a list of labels out of {_listing(labels)}."
        )
    return [label for label in labels if label in found]


def parse_rating(
    text: str, labels: Sequence[str] = (), *, scale: tuple[float, float] | None = None
) -> str:
    """A rating: one of the values, or a number on the scale.

    Args:
        text: What the model wrote; "4/5" and "4 out of 5" are read when 5 is the highest value.
        labels: The values in ascending order, as text.
        scale: Lowest and highest number, instead of values.

    Returns:
        The value as the list writes it; on a scale, the number in its shortest form.

    Raises:
        BadAnswer: No number, several, or one that is not allowed.
        InputError: Neither usable values nor a scale.

    >>> parse_rating("Rating: 4.0", ["1", "2", "3", "4", "5"]), parse_rating("72.50", scale=(0, 100))
    ('4', '72.5')
    """
    if scale is None:
        check_labels(labels)
        values = {_as_number(label): label for label in labels}
        if None in values or len(values) < len(labels):
            raise InputError(f"Got ratings {list(labels)!r:.200}, but expected different numbers.")
        low, high = (edge(v for v in values if v is not None) for edge in (min, max))
    else:
        low, high = (float(edge) for edge in scale)
        if not (math.isfinite(low) and math.isfinite(high) and low < high):
            raise InputError(f"Got the range [{low:g}, {high:g}], but expected low < high.")
    value = _json(text)
    plain = value if isinstance(value, (str, int, float)) and not isinstance(value, bool) else text
    core = _core(str(plain))
    core = re.sub(rf"\s*(?:/|out of)\s*{re.escape(f'{high:g}')}$", "", core)
    number = _as_number(core)
    if number is not None and scale is None and number in values:
        return values[number]
    if number is not None and scale is not None and low <= number <= high:
        return repr(number).removesuffix(".0")
    allowed = _listing(labels) if scale is None else f"a number in [{low:g}, {high:g}]"
    raise BadAnswer(f"Got the answer {text!r:.200}, but expected {allowed}.")


def _fold(text: str) -> str:
    return " ".join(text.split()).casefold()


def _core(text: str) -> str:
    """The answer without what may stand around it."""
    text = _LEAD.sub("", text, count=1) if _LEAD.match(text) else text
    return text.strip(_WRAP).removesuffix(".").strip(_WRAP)


def _known(text: str, known: Mapping[str, str]) -> str | None:
    """The label that a text is, from the most literal reading to the least."""
    bare = text.strip(_WRAP)
    readings = (text, bare, bare.removesuffix("."), _core(text))
    return next((known[r] for r in map(_fold, readings) if r in known), None)


def _json(text: str) -> Any:
    """The JSON value of an answer (of an object, its label field); None when it is none."""
    fenced = _FENCE.fullmatch(text)
    body = fenced[1] if fenced else _LEAD.sub("", text, count=1) if _LEAD.match(text) else text
    try:
        value = json.loads(body.strip())
    except ValueError:
        return None
    if isinstance(value, dict):
        named = [value[key] for key in value if str(key).casefold() in _KEYS]
        return named[0] if len(named) == 1 else None
    return value


def _split(text: str, known: Mapping[str, str]) -> list[str | None]:
    """Labels separated by commas, semicolons or lines; the longest label that fits is taken."""
    parts = re.split(r"\s*[,;\n]\s*", text)
    found: list[str | None] = []
    at = 0
    while at < len(parts):
        for end in range(len(parts), at, -1):
            label = _known(re.sub(r"^[-*•]\s+", "", ", ".join(parts[at:end])), known)
            if label is not None or end == at + 1:
                found.append(label)
                at = end
                break
    return found


def _as_number(text: str) -> float | None:
    return float(text) if _NUMBER.fullmatch(text.strip()) else None


def _listing(labels: Sequence[str]) -> str:
    shown = ", ".join(repr(label) for label in labels[:8])
    return f"{shown}, ... ({len(labels)} labels)" if len(labels) > 8 else shown
