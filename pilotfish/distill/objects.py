"""JSON objects of one schema: their fields, what may stand in them, and how they are written.

An object is its leaves by path; lists are leaves, objects inside objects are not. The schema holds what
the recorded answers show: which keys are always there, and the types of each. The style is how the large
model writes them (order, indentation, code fence), so that clients get what they are used to.
"""

from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pilotfish.errors import BadAnswer
from pilotfish.models.objects import FENCE, canonical_value, parse_object

Path = tuple[str, ...]

ABSENT = ""  # instead of a value's canonical JSON: the key is not there
SEEN = 500  # answers that tell the style


def leaves(value: Mapping[str, Any], path: Path = ()) -> dict[Path, Any]:
    """The leaves of an object; an empty object is one itself.

    >>> leaves({"id": 7, "to": {"city": "Lyon", "lines": ["a", "b"]}})
    {('id',): 7, ('to', 'city'): 'Lyon', ('to', 'lines'): ['a', 'b']}
    """
    out: dict[Path, Any] = {}
    for key, inner in value.items():
        if isinstance(inner, Mapping) and inner:
            out.update(leaves(inner, (*path, key)))
        else:
            out[(*path, key)] = inner
    return out


def assemble(values: Mapping[Path, Any]) -> dict[str, Any] | None:
    """Inverse of :func:`leaves`; None where a path leads through a value that is no object.

    >>> assemble({("to", "city"): "Lyon", ("to",): None}) is None
    True
    """
    out: dict[str, Any] = {}
    for path, value in values.items():
        at = out
        for key in path[:-1]:
            at = at.setdefault(key, {})
            if not isinstance(at, dict):
                return None
        if path[-1] in at:
            return None
        at[path[-1]] = value
    return out


def name_of(path: Path) -> str:
    """A path as people write it: ``to.city``."""
    return ".".join(path)


def schema_of(objects: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The JSON schema that objects show: keys, which are required, and types.

    >>> schema_of([{"n": 1, "to": None}, {"n": 2.5}])["required"]
    ['n']
    """
    keys = Counter(key for value in objects for key in value)
    return {
        "type": "object",
        "properties": {
            key: _schema([value[key] for value in objects if key in value]) for key in keys
        },
        "required": [key for key, count in keys.items() if count == len(objects)],
        "additionalProperties": False,
    }


def _schema(values: Sequence[Any]) -> dict[str, Any]:
    types = sorted({_type(value) for value in values})
    if "integer" in types and "number" in types:
        types.remove("integer")
    out: dict[str, Any] = {"type": types[0] if len(types) == 1 else types}
    objects = [value for value in values if isinstance(value, Mapping)]
    items = [item for value in values if isinstance(value, list) for item in value]
    if objects:
        inner = schema_of(objects)
        out |= {key: inner[key] for key in ("properties", "required", "additionalProperties")}
    if items:
        out["items"] = _schema(items)
    return out


def _type(value: Any) -> str:
    for name, kind in (
        ("boolean", bool), ("integer", int), ("string", str), ("array", list), ("object", dict),
    ):  # fmt: skip
        if isinstance(value, kind):
            return name
    if value is None:
        return "null"
    return "integer" if value.is_integer() else "number"


class Validator:
    """Tells whether objects are valid under a JSON schema; references outside of it are not followed.

    Args:
        schema: JSON schema, draft 2020-12 unless it names another.

    Raises:
        jsonschema.exceptions.SchemaError: It is no JSON schema.
    """

    def __init__(self, schema: Mapping[str, Any]) -> None:
        from jsonschema.validators import Draft202012Validator, validator_for
        from referencing import Registry

        kind = validator_for(schema, default=Draft202012Validator)
        kind.check_schema(schema)
        self.schema = schema
        self._validator = kind(schema, registry=Registry())

    def __call__(self, value: Any) -> bool:
        """Whether a value is valid; a schema that cannot be followed allows nothing."""
        from referencing.exceptions import Unresolvable

        try:
            return bool(self._validator.is_valid(value))
        except (Unresolvable, RecursionError):
            return False


def is_schema(schema: Mapping[str, Any]) -> bool:
    """Whether a JSON object is a JSON schema."""
    from jsonschema.exceptions import SchemaError

    try:
        Validator(schema)
    except SchemaError:
        return False
    return True


def asked_schema(params: Mapping[str, Any]) -> dict[str, Any] | None:
    """The JSON schema that a request asks its answer to follow (``response_format``), or None."""
    form = params.get("response_format")
    named = form.get("json_schema") if isinstance(form, Mapping) else None
    schema = named.get("schema") if isinstance(named, Mapping) else None
    return dict(schema) if isinstance(schema, Mapping) else None


@dataclass(frozen=True)
class Style:
    """How objects are written.

    Attributes:
        indent: Spaces of indentation, None for one line.
        compact: No spaces after commas and colons.
        ascii: Other characters than ASCII are escaped.
        fence: In a Markdown code fence.
    """

    indent: int | None = None
    compact: bool = False
    ascii: bool = False
    fence: bool = False

    @classmethod
    def of(cls, answers: Iterable[str]) -> Style:
        """The style that reproduces most answers to the letter."""
        seen = [text.strip() for text in itertools.islice(answers, SEEN)]
        fenced = [FENCE.fullmatch(text) for text in seen]
        fence = 2 * sum(match is not None for match in fenced) > len(seen)
        bodies = [match[1] if match else text for match, text in zip(fenced, seen, strict=True)]
        styles = [
            cls(indent, compact, ascii)
            for indent, compact in ((None, False), (None, True), (2, False), (4, False))
            for ascii in (False, True)
        ]
        hits: Counter[Style] = Counter()
        for body in bodies:
            try:
                value = parse_object(body)
            except BadAnswer:
                continue
            hits.update(style for style in styles if style.write(value) == body)
        best = max(styles, key=lambda style: hits[style])
        return cls(best.indent, best.compact, best.ascii, fence)

    def write(self, value: Mapping[str, Any]) -> str:
        """An object in this style.

        >>> Style(compact=True).write({"a": 1, "b": None})
        '{"a":1,"b":null}'
        """
        separators = (",", ":") if self.compact else None
        text = json.dumps(value, indent=self.indent, separators=separators, ensure_ascii=self.ascii)
        return f"```json\n{text}\n```" if self.fence else text

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


def agreement_by_field(pairs: Sequence[tuple[str, str | None]]) -> dict[str, tuple[int, int]]:
    """For each field of small answers how often the large model's has the same, and of how many."""
    out: dict[str, tuple[int, int]] = {}
    for small, large in pairs:
        other = {} if large is None else leaves(parse_object(large))
        for path, value in leaves(parse_object(small)).items():
            same = path in other and canonical_value(other[path]) == canonical_value(value)
            agreed, seen = out.get(name_of(path), (0, 0))
            out[name_of(path)] = (agreed + same, seen + 1)
    return out
