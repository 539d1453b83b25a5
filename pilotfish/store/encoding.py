"""How records become bytes and columns that both databases give back exactly.

PostgreSQL refuses NUL in text, both databases refuse lone surrogates, and models produce both. So
records travel as UTF-8 JSON in binary columns (JSON writes NUL as an escape; ``surrogatepass`` keeps a
lone surrogate, and keeps two of them apart, which ASCII escapes would merge into one character). Short
text columns, which people filter by, stay readable text: only NUL, lone surrogates and the backslash
itself are escaped.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

from pilotfish.records import Completion, Decision, Request, Usage

_UNSTORABLE = re.compile("[\x00\\\\\ud800-\udfff]")
_ESCAPED = re.compile(r"\\(u[0-9a-f]{4}|\\)")
_KINDS: tuple[type[Any], ...] = (Request, Completion, Usage, Decision)
_FIELDS = {kind: tuple(f.name for f in fields(kind)) for kind in _KINDS}


def _plain(value: Any) -> dict[str, Any]:
    if isinstance(value, (Usage, Decision)):
        return {name: getattr(value, name) for name in _FIELDS[type(value)]}
    if isinstance(value, Mapping):
        return dict(value)
    raise TypeError(f"Got a {type(value).__name__} in a record, but expected JSON values.")


# Built once, and unsorted: half the time of records.canonical_json, and nothing here is hashed.
_encode = json.JSONEncoder(
    ensure_ascii=False, check_circular=False, separators=(",", ":"), default=_plain
).encode


def pack_json(value: Any) -> bytes:
    """JSON values as bytes; :func:`unpack_json` is the inverse."""
    return _encode(value).encode("utf-8", "surrogatepass")


def unpack_json(blob: bytes) -> Any:
    """The JSON values that :func:`pack_json` wrote."""
    return json.loads(bytes(blob).decode("utf-8", "surrogatepass"))


def pack_record(record: Request | Completion) -> bytes:
    """A request or completion as the bytes of its JSON object."""
    return pack_json({name: getattr(record, name) for name in _FIELDS[type(record)]})


def json_text(blob: bytes) -> str:
    r"""Packed JSON as text that Arrow accepts: lone surrogates become escapes.

    >>> json_text(pack_json({"a": "x\ud800"}))
    '{"a":"x\\ud800"}'
    """
    try:
        return bytes(blob).decode("utf-8")
    except UnicodeDecodeError:
        return json.dumps(unpack_json(blob), separators=(",", ":"))


def escape(text: str) -> str:
    r"""Text that both databases store; :func:`unescape` is the inverse.

    >>> escape("a\x00b\\c"), unescape(escape("a\x00b\\c")) == "a\x00b\\c"
    ('a\\u0000b\\\\c', True)
    """
    return _UNSTORABLE.sub(lambda m: "\\\\" if m[0] == "\\" else f"\\u{ord(m[0]):04x}", text)


def unescape(text: str) -> str:
    """The text that :func:`escape` wrote."""
    if "\\" not in text:
        return text
    return _ESCAPED.sub(lambda m: "\\" if m[1] == "\\" else chr(int(m[1][1:], 16)), text)
