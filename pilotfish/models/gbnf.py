r"""Grammars in llama.cpp's notation (GBNF), rewritten for llguidance.

llguidance reads a dialect of Lark, which has a lexer: a terminal takes as many characters as it can, and
is never cut shorter afterwards. GBNF has none; ``[a-z]+ "ab"`` accepts "xab". So every terminal that is
written here is one character: the lexer then has nothing to choose, and the language is GBNF's own.
llguidance's converter makes terminals of whole words, which is faster and another language.

As in llama.cpp, ``.`` and ``[^...]`` are any character but U+0000. Differs from it: rules that begin with
themselves are accepted, bytes that no UTF-8 has are not; tokens (``<think>``, ``<[1000]>``) are refused.
"""

from __future__ import annotations

import re
from typing import NoReturn

from pilotfish.errors import RequestRefused

_NAME = re.compile(r"[A-Za-z0-9-]+")
_COUNT = re.compile(r"\{[ \t]*(\d+)[ \t]*(?:(,)[ \t]*(\d*)[ \t]*)?\}")
_SHORT = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "[": "[", "]": "]"}
_LONG = {"x": 2, "u": 4, "U": 8}
_EMPTY = '""'
# What is not closed goes to the end, so that the whole takes one pass.
_MARK = re.compile(r'"(?:\\.|[^"\\])*"?|\[(?:\\.|[^\]\\])*\]?|#[^\r\n]*|[()]', re.DOTALL)
LONGEST = 100_000  # characters
DEEPEST = 100  # brackets in each other
# Else, where only one text can follow, only the tokens are allowed that the tokenizer makes of it.
_OPTIONS = '%llguidance {"no_forcing": true}'


def gbnf_to_lark(text: str) -> str:
    r"""The same language in llguidance's dialect of Lark.

    Raises:
        RequestRefused: It is no GBNF, a rule is missing, or there is no ``root``.

    >>> print(gbnf_to_lark('root ::= "a" [0-9]?'))
    %llguidance {"no_forcing": true}
    start: r0
    r0: /\x{61}/ /[\x{30}-\x{39}]/?
    """
    return _Reader(text).grammar()


def refuse_huge(text: str) -> None:
    """Refuse a grammar that a parser which calls itself may have no stack for.

    llama.cpp's ends the process at some 100,000 brackets in each other, or rules of which each asks for
    the next.

    Raises:
        RequestRefused: It has more than :data:`LONGEST` characters, or :data:`DEEPEST` brackets in each
            other.
    """
    depth = deepest = 0
    for mark in _MARK.finditer(text[:LONGEST]):
        depth += {"(": 1, ")": -1}.get(mark.group(), 0)
        deepest = max(deepest, depth)
    if len(text) > LONGEST or deepest > DEEPEST:
        raise RequestRefused(
            f"Got a grammar of {len(text)} characters with {deepest} brackets in each other, but "
            f"expected at most {LONGEST} and {DEEPEST}.",
            remedy="Give rules names in place of brackets.",
        )


class _Reader:
    """Reads from left to right; :attr:`_at` is where."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._numbers: dict[str, int] = {}  # of rules, in the order in which their names are met
        self._asked: dict[str, int] = {}  # where a rule was first asked for
        self._bodies: dict[str, str] = {}

    def grammar(self) -> str:
        self._skip(newlines=True)
        while self._at < len(self._text):
            name = self._name()
            self._skip(newlines=False)
            if not self._take("::="):
                self._refuse("expected ::=")
            self._skip(newlines=True)
            self._number(name)
            self._bodies[name] = self._alternatives(nested=False)
            self._skip(newlines=False)
            if self._at < len(self._text) and self._text[self._at] not in "\r\n":
                self._refuse("expected the end of the line")
            self._skip(newlines=True)
        for name, at in self._asked.items():
            if name not in self._bodies:
                self._at = at
                self._refuse(f"there is no rule {name!r}")
        if "root" not in self._bodies:
            self._refuse("there is no rule 'root'")
        lines = [f"r{self._numbers[name]}: {body}" for name, body in self._bodies.items()]
        return "\n".join([_OPTIONS, f"start: r{self._numbers['root']}", *lines])

    def _number(self, name: str) -> str:
        return f"r{self._numbers.setdefault(name, len(self._numbers))}"

    def _alternatives(self, *, nested: bool) -> str:
        found = [self._sequence(nested=nested)]
        while self._take("|"):
            self._skip(newlines=True)
            found.append(self._sequence(nested=nested))
        return " | ".join(found)

    def _sequence(self, *, nested: bool) -> str:
        parts: list[str] = []
        while (part := self._part()) is not None:
            self._skip(newlines=nested)
            parts.append(part + self._repetition(part))
            self._skip(newlines=nested)
        return " ".join(parts) or _EMPTY

    def _part(self) -> str | None:
        here = self._text[self._at : self._at + 1]
        if here == '"':
            return self._literal()
        if here == "[":
            return self._characters()
        if self._take("."):
            return r"/[\x{1}-\x{10FFFF}]/"
        if self._take("("):
            self._skip(newlines=True)
            inner = self._alternatives(nested=True)
            if not self._take(")"):
                self._refuse("expected )")
            return f"({inner})"
        if here in ("<", "!"):
            self._refuse("tokens are not supported, only characters")
        if _NAME.match(self._text, self._at):
            at, name = self._at, self._name()
            self._asked.setdefault(name, at)
            return self._number(name)
        return None

    def _repetition(self, part: str) -> str:
        for sign in "*+?":
            if self._take(sign):
                return sign
        if not self._text.startswith("{", self._at):
            return ""
        found = _COUNT.match(self._text, self._at)
        if found is None:
            self._refuse("expected a repetition such as {2}, {2,} or {2,5}")
        low, comma, high = found.groups()
        if high and int(high) < int(low):
            self._refuse(f"expected at least {low} repetitions at most")
        self._at = found.end()
        return f"{{{low},{high if comma else low}}}"

    def _literal(self) -> str:
        self._at += 1
        letters = []
        while not self._text.startswith('"', self._at):
            letters.append(f"/{_code(self._character())}/")
        self._at += 1
        # In brackets, so that a repetition is that of the whole literal.
        return letters[0] if len(letters) == 1 else f"({' '.join(letters) or _EMPTY})"

    def _characters(self) -> str:
        self._at += 1
        sign = r"^\x{0}" if self._take("^") else ""
        ranges = []
        while not self._text.startswith("]", self._at):
            low = high = self._character()
            if self._text.startswith("-", self._at) and self._text[self._at + 1 :][:1] != "]":
                self._at += 1
                high = self._character()
            ranges.append(f"{_code(low)}-{_code(high)}")
        self._at += 1
        return f"/[{sign}{''.join(ranges)}]/"

    def _character(self) -> str:
        here = self._text[self._at : self._at + 1]
        if not here:
            self._refuse('expected " or ]')
        self._at += 1
        if here != "\\":
            return here
        kind = self._text[self._at : self._at + 1]
        self._at += 1
        if kind in _SHORT and kind:
            return _SHORT[kind]
        digits = self._text[self._at : self._at + _LONG.get(kind, 0)]
        if kind not in _LONG or not re.fullmatch(f"[0-9A-Fa-f]{{{_LONG[kind]}}}", digits):
            self._at -= 2
            self._refuse("expected an escape such as \\n, \\x41, \\u263a or \\U0001f600")
        self._at += len(digits)
        number = int(digits, 16)
        if number > 0x10FFFF or 0xD800 <= number < 0xE000:
            self._refuse(f"U+{number:04X} is no character")
        return chr(number)

    def _name(self) -> str:
        found = _NAME.match(self._text, self._at)
        if found is None:
            self._refuse("expected the name of a rule")
        self._at = found.end()
        return found.group()

    def _take(self, sign: str) -> bool:
        found = self._text.startswith(sign, self._at)
        self._at += len(sign) if found else 0
        return found

    def _skip(self, *, newlines: bool) -> None:
        spaces = " \t\r\n" if newlines else " \t"
        while (here := self._text[self._at : self._at + 1]) and (here in spaces or here == "#"):
            if here == "#":
                end = re.compile(r"[^\r\n]*").match(self._text, self._at)
                self._at = end.end() if end else len(self._text)
            else:
                self._at += 1

    def _refuse(self, why: str) -> NoReturn:
        line = self._text.count("\n", 0, self._at) + 1
        raise RequestRefused(
            f"The grammar cannot be read: line {line}, at {self._text[self._at :][:20]!r}: {why}.",
            remedy="Write GBNF, as llama.cpp reads it: root ::= ...",
        )


def _code(character: str) -> str:
    return f"\\x{{{ord(character):X}}}"
