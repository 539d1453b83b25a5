"""Request bodies: JSON objects, of which only the fields that the gateway itself reads are checked."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from pilotfish.gateway.refusals import Refusal

S = TypeVar("S", bound=msgspec.Struct)


def read_object(body: bytes) -> dict[str, Any]:
    """The body as a JSON object.

    Raises:
        Refusal: It is none.
    """
    try:
        data = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        words = str(error) or type(error).__name__
        raise Refusal(400, "invalid_json", f"The body is not JSON: {words[:200]}.") from None
    if not isinstance(data, dict):
        raise Refusal(
            400, "invalid_json", f"The body is {_kind(data)}, but expected a JSON object."
        )
    return data


def check(data: dict[str, Any], kind: type[S]) -> S:
    """Check the fields that the gateway reads; others are not looked at.

    Raises:
        Refusal: One of them is wrong; ``param`` names it.
    """
    try:
        try:
            return msgspec.convert(data, kind)
        except msgspec.ValidationError:  # JSON knows one kind of number: 70.0 is the integer 70
            return msgspec.convert({k: _whole(v) for k, v in data.items()}, kind)
    except msgspec.ValidationError as error:
        words, _, path = str(error).partition(" - at `$")
        inner = (path.rstrip("`").lstrip("."), _missing(words))
        param = ".".join(name for name in inner if name)
        where = f" in {param}" if param else ""
        raise Refusal(400, "invalid_value", f"{words}{where}.", param=param or None) from None


def _whole(value: Any) -> Any:
    whole = isinstance(value, float) and value.is_integer() and abs(value) < 2**63
    return int(value) if whole else value


def _missing(words: str) -> str:
    """The name in "Object missing required field `messages`"."""
    return words.split("`")[1] if "missing required field" in words else ""


def _kind(value: Any) -> str:
    names = {
        list: "a list",
        str: "a text",
        int: "a number",
        float: "a number",
        bool: "true or false",
    }
    return names.get(type(value), "null")
