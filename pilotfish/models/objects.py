"""JSON objects as answers: read strictly from what a model wrote, and compared by value.

Two objects are the same answer when every key holds the same value: the order of keys, white space, code
fences and the notation of a number (``12``, ``12.0``, ``1.2e1``) do not count, everything else does.
"""

from __future__ import annotations

import json
import re
from typing import Any

from pilotfish.errors import BadAnswer
from pilotfish.records import canonical_json

FENCE = re.compile(r"```(?:json)?\s*\n?(.*?)\s*```", re.DOTALL | re.IGNORECASE)


def parse_object(text: str) -> dict[str, Any]:
    r"""The JSON object that a text is, with or without a code fence.

    Raises:
        BadAnswer: It is no object, is surrounded by other words, or holds ``NaN`` or ``Infinity``.

    >>> parse_object('```json\n{"city": "Lyon"}\n```')
    {'city': 'Lyon'}
    """
    core = text.strip()
    fenced = FENCE.fullmatch(core)
    try:
        value = json.loads(fenced[1] if fenced else core, parse_constant=_no_number)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise BadAnswer(f"Got the answer {text!r:.200}, but expected a JSON object.")
    return value


def canonical_value(value: Any) -> str:
    """JSON text that is equal for equal values.

    >>> canonical_value({"b": 12.0, "a": [True, 1]})
    '{"a":[true,1],"b":12}'
    """
    return canonical_json(_plain(value))


def same_object(one: str, other: str) -> bool:
    """Whether two answers are the same object; what is no object is never the same.

    >>> same_object('{"a": 1, "b": null}', '{"b": null, "a": 1.0}'), same_object("[]", "[]")
    (True, False)
    """
    try:
        return canonical_value(parse_object(one)) == canonical_value(parse_object(other))
    except BadAnswer:
        return False


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_plain(inner) for inner in value]
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value
