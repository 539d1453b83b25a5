"""The user's prompt as a template: ``{field}`` stands for a column of the file, ``{{`` for a brace.

Deliberately less than :meth:`str.format`: no conversions, formats, attributes or indices. A prompt is
text that a user typed, so everything that is not a plain field name is answered with what to write
instead, and rendering can never run or reach anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

from pilotfish.errors import InputError

TOKEN = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")

Part = tuple[str, str | None]  # literal text, then the field that follows it (None at the end)


def as_text(value: Any) -> str:
    """A scalar as the prompt shows it: text as it is, numbers as written, booleans as JSON does.

    >>> as_text("a"), as_text(3), as_text(True), as_text(None)
    ('a', '3', 'true', '')
    """
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)


class Template:
    """A prompt with ``{field}`` places.

    Args:
        prompt: The text; ``{{`` and ``}}`` stand for literal braces.

    Attributes:
        prompt: As given.
        fields: Field names in order of first use, each once.

    Raises:
        InputError: A brace is unbalanced, a place has no plain name, or there is no place at all.

    >>> t = Template("Topic of {title}? Answer as {{topic}}.")
    >>> t.fields, t.render({"title": "Fish"})
    (('title',), 'Topic of Fish? Answer as {topic}.')
    >>> t.match("Topic of Fish? Answer as {topic}.")
    {'title': 'Fish'}
    """

    __slots__ = ("_parts", "fields", "prompt")

    def __init__(self, prompt: str) -> None:
        self.prompt = prompt
        self._parts, self.fields = _parse(prompt)

    def __repr__(self) -> str:
        return f"Template({self.prompt!r})"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Template) and other.prompt == self.prompt

    def __hash__(self) -> int:
        return hash(self.prompt)

    def render(self, row: Mapping[str, Any]) -> str:
        """The prompt with the row's values in its places.

        Raises:
            InputError: The row lacks a field.
        """
        pieces: list[str] = []
        for literal, name in self._parts:
            pieces.append(literal)
            if name is not None:
                pieces.append(as_text(self._value(row, name)))
        return "".join(pieces)

    def input_text(self, row: Mapping[str, Any]) -> str:
        r"""What students read: the field's value, or one ``name: value`` line per field.

        Raises:
            InputError: The row lacks a field.

        >>> Template("{a} and {b}").input_text({"a": "x", "b": 2})
        'a: x\nb: 2'
        """
        if len(self.fields) == 1:
            return as_text(self._value(row, self.fields[0]))
        return "\n".join(f"{name}: {as_text(self._value(row, name))}" for name in self.fields)

    def match(self, text: str) -> dict[str, str] | None:
        """The field values that a rendered prompt was made of, or None when it was not.

        Each value ends where the following literal text occurs first, so this is the inverse of
        :meth:`render` whenever no value contains the text that follows it. Of two adjacent places the
        first gets nothing. Linear in the length of the text.
        """
        values: dict[str, str] = {}
        first = self._parts[0][0]
        if not text.startswith(first):
            return None
        at = len(first)
        for (_, name), (literal, following) in zip(self._parts, self._parts[1:], strict=False):
            assert name is not None  # only the last part has no field
            if name in values:
                end = at + len(values[name])
                if text[at:end] != values[name] or not text.startswith(literal, end):
                    return None
            elif following is None:
                end = len(text) - len(literal)
            else:
                end = text.find(literal, at)
            if end < at or not text.startswith(literal, end):
                return None
            values[name] = text[at:end]
            at = end + len(literal)
        return values if at == len(text) else None

    @staticmethod
    def _value(row: Mapping[str, Any], name: str) -> Any:
        try:
            return row[name]
        except KeyError:
            raise InputError(
                f"The prompt uses {{{name}}}, but the row has {sorted(row)}.",
            ) from None


@lru_cache(maxsize=256)
def _parse(prompt: str) -> tuple[tuple[Part, ...], tuple[str, ...]]:
    parts: list[Part] = []
    literal: list[str] = []
    at = 0
    for token in TOKEN.finditer(prompt):
        literal.append(prompt[at : token.start()])
        at = token.end()
        if token[0] in ("{{", "}}"):
            literal.append(token[0][0])
        elif token[1] is None:
            raise InputError(
                f"The prompt has an unbalanced {token[0]!r} at character {token.start() + 1}: "
                f"{_around(prompt, token.start())!r}.",
                remedy="Write {{ and }} for literal braces, and {field} for a column of the file.",
            )
        else:
            parts.append(("".join(literal), _field(token[1], prompt, token.start())))
            literal = []
    parts.append(("".join([*literal, prompt[at:]]), None))
    names = tuple(dict.fromkeys(name for _, name in parts if name is not None))
    if not names:
        raise InputError(
            f"The prompt has no {{field}}: {prompt[:80]!r}.",
            remedy="Say where the input goes, for example: 'Topic of this text: {text}'",
        )
    return tuple(parts), names


def _field(inside: str, prompt: str, at: int) -> str:
    name = inside.strip()
    if name and not re.search(r"[!:\[\]\"'\n]", name):
        return name
    raise InputError(
        f"Got {{{inside}}} at character {at + 1} of the prompt, but expected a plain column name.",
        remedy=f"Write {{{{{inside}}}}} if the braces are part of the text, else {{field}} without "
        "conversion or format.",
    )


def _around(prompt: str, at: int) -> str:
    return prompt[max(0, at - 20) : at + 20]
