"""Which stretches of a text may be meant by a field, learned from its recorded values.

A field's values choose one format and at most three transformations
(:mod:`pilotfish.distill.values`): those that explain most of the values with the fewest candidates in a
text. What the tagger then scores are these candidates only, so a field of dates is never answered with
a name.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.distill.tokens import MAX_CHARS, Ints, Tokens
from pilotfish.distill.values import BY_FORMAT, FORMATS, TOKENS, TRANSFORMATIONS, find_value
from pilotfish.models.objects import canonical_value

LONGEST = 16  # tokens of a span
LONGEST_VALUE = 300  # characters
CHOSEN_ON = 300  # texts that format and transformations are chosen on
AS_GOOD = 0.01  # formats that explain this much less are as good, and fewer candidates decide
WORTH = 0.02  # share of the values that a further transformation must explain
MOST_TRANSFORMATIONS = 3
LENGTHS = (1, 2, 3, 4, 6)  # upper ends of the length classes; one more is for longer ones
PLACES = len(LENGTHS) + 1 + MOST_TRANSFORMATIONS + 4  # dense features of a candidate
TYPES: Mapping[str, type] = {"number": float, "integer": int, "string": str}

Span = tuple[int, int, int]  # first token, last token, transformation


@dataclass(frozen=True)
class Candidates:
    """The candidates of many texts, in the order of the texts.

    Attributes:
        text: Text of each ``[c]``.
        start: Its first token, counted over all texts ``[c]``.
        end: Its last token ``[c]``.
        how: Which of the transformations ``[c]``.
        dense: Length, transformation, place and size among the text's candidates ``[c, PLACES]``.
    """

    text: Ints
    start: Ints
    end: Ints
    how: Ints
    dense: NDArray[np.float32]


@dataclass(frozen=True)
class Spans:
    """The stretches that a field may mean.

    Attributes:
        format: A name of :data:`pilotfish.distill.values.FORMATS`, or ``"tokens"``.
        transformations: Names of :data:`pilotfish.distill.values.TRANSFORMATIONS`.
        type: Of the values: ``"string"``, ``"integer"`` or ``"number"``.
        longest: Tokens of a stretch at most; the rest is for ``"tokens"``.
        first: Shapes that a stretch may begin with.
        last: Shapes that it may end with.
        lines: Whether it may go on over a line break.
    """

    format: str
    transformations: tuple[str, ...]
    type: str
    longest: int = LONGEST
    first: frozenset[str] = frozenset()
    last: frozenset[str] = frozenset()
    lines: bool = False

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "format": self.format,
            "transformations": list(self.transformations),
            "type": self.type,
            "longest": self.longest,
            "first": sorted(self.first),
            "last": sorted(self.last),
            "lines": self.lines,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Spans:
        """Inverse of :meth:`to_dict`."""
        lists = {"transformations": tuple, "first": frozenset, "last": frozenset}
        return cls(**{k: lists[k](v) if k in lists else v for k, v in values.items()})

    @cached_property
    def _functions(self) -> list[Any]:
        return [TRANSFORMATIONS[name] for name in self.transformations]

    def value(self, tokens: Tokens, start: int, end: int, how: int) -> Any:
        """What a stretch means, or None when it has no value of the field's type."""
        found = self._functions[how](tokens.text[tokens.starts[start] : tokens.ends[end]])
        return found if has_type(found, self.type) else None

    def stretches(self, tokens: Tokens) -> Iterator[tuple[int, int]]:
        """First and last token of every stretch that may be meant."""
        if self.format != TOKENS:
            yield from by_format(tokens, self.format)
            return
        shapes = tokens.shapes
        for start in range(len(tokens)):
            if shapes[start].lstrip(" >") not in self.first:
                continue
            for end in range(start, min(start + self.longest, len(tokens))):
                if end > start and shapes[end][0] == ">" and not self.lines:
                    break
                if shapes[end].lstrip(" >") in self.last:
                    yield start, end

    def of(self, tokens: Tokens) -> tuple[list[Span], NDArray[np.float32]]:
        """The candidates of one text, and their dense features ``[c, PLACES]``."""
        spans: list[Span] = []
        sizes: list[float] = []
        numeric = self.type != "string"
        for start, end in self.stretches(tokens):
            seen = []
            for how in range(len(self._functions)):
                if self.format == TOKENS:
                    spans.append((start, end, how))
                    sizes.append(0.0)
                    continue
                value = self.value(tokens, start, end, how)
                if value is not None and value not in seen:
                    seen.append(value)
                    spans.append((start, end, how))
                    sizes.append(float(value) if numeric else 0.0)
        return spans, self._dense(spans, sizes)

    def all(self, texts: Sequence[Tokens]) -> Candidates:
        """The candidates of many texts."""
        rows: list[tuple[int, int, int, int]] = []
        parts = []
        first = 0
        for number, tokens in enumerate(texts):
            spans, dense = self.of(tokens)
            rows.extend((number, first + start, first + end, how) for start, end, how in spans)
            parts.append(dense)
            first += len(tokens)
        table = np.array(rows, np.int64).reshape(-1, 4)
        dense = np.vstack(parts) if parts else np.zeros((0, PLACES), np.float32)
        return Candidates(table[:, 0], table[:, 1], table[:, 2], table[:, 3], dense)

    def _dense(self, spans: Sequence[Span], sizes: Sequence[float]) -> NDArray[np.float32]:
        out = np.zeros((len(spans), PLACES), np.float32)
        if not spans:
            return out
        table = np.array(spans, np.int64)
        rows = np.arange(len(spans))
        out[rows, np.searchsorted(LENGTHS, table[:, 1] - table[:, 0] + 1)] = 1
        after = len(LENGTHS) + 1
        out[rows, after + table[:, 2]] = 1
        if self.format != TOKENS:
            after += MOST_TRANSFORMATIONS
            size = np.array(sizes)
            out[:, after] = table[:, 0] == table[0, 0]
            out[:, after + 1] = table[:, 0] == table[-1, 0]
            if self.type != "string":
                out[:, after + 2] = size == size.max()
                out[:, after + 3] = size == size.min()
        return out


def has_type(value: Any, wanted: str) -> bool:
    """Whether a value has the type of a field; every integer is a number."""
    if value is None or isinstance(value, bool):
        return False
    if wanted == "string":
        return isinstance(value, str)
    if isinstance(value, float):
        return wanted == "number" or value.is_integer()
    return isinstance(value, int)


def by_format(tokens: Tokens, name: str) -> Iterator[tuple[int, int]]:
    """The stretches of a format that begin and end with a token."""
    starts = {at: i for i, at in enumerate(tokens.starts)}
    ends = {at: i for i, at in enumerate(tokens.ends)}
    for match in FORMATS[name].finditer(tokens.text[:MAX_CHARS]):
        first, last = starts.get(match.start()), ends.get(match.end())
        if first is not None and last is not None and last < first + LONGEST:
            yield first, last


def by_words(tokens: Tokens, value: Any) -> Iterator[tuple[int, int]]:
    """The stretches that are a value's words, whatever their case."""
    if not isinstance(value, str) or len(value) > LONGEST_VALUE:
        return
    starts = {at: i for i, at in enumerate(tokens.starts)}
    ends = {at: i for i, at in enumerate(tokens.ends)}
    for start, end in find_value(tokens.text[:MAX_CHARS], value):
        first, last = starts.get(start), ends.get(end)
        if first is not None and last is not None and last < first + LONGEST:
            yield first, last


def meant(tokens: Tokens, spans: Spans, key: str) -> set[Span]:
    """The candidates of a text that mean a value, given as canonical JSON."""
    value = json.loads(key)
    pairs = by_words(tokens, value) if spans.format == TOKENS else by_format(tokens, spans.format)
    return {
        (start, end, how)
        for start, end in pairs
        for how in range(len(spans.transformations))
        if (found := spans.value(tokens, start, end, how)) is not None
        and canonical_value(found) == key
    }


def choose_spans(texts: Sequence[Tokens], keys: Sequence[str]) -> tuple[Spans, float] | None:
    """The format and the transformations that explain most values.

    Args:
        texts: ``n`` texts.
        keys: The value of each as canonical JSON; only texts and numbers.

    Returns:
        What they are and which share of the values they explain, in (0, 1]; None when nothing does.
    """
    step = max(1, len(texts) // CHOSEN_ON)
    texts, keys = texts[::step], keys[::step]
    values = [json.loads(key) for key in keys]
    kind = _type(values)
    found: list[tuple[float, float, Spans]] = []
    for name, transformations in BY_FORMAT.items():
        every = Spans(name, transformations, kind)
        explained = [meant(tokens, every, key) for tokens, key in zip(texts, keys, strict=True)]
        chosen = _greedy([{how for *_, how in spans} for spans in explained])
        if not chosen:
            continue
        spans = Spans(name, tuple(transformations[i] for i in chosen), kind)
        kept = [{s for s in one if s[2] in chosen} for one in explained]
        if name == TOKENS:
            spans = _bounded(spans, texts, kept)
        share = sum(bool(one) for one in kept) / len(texts)
        sample = texts[:: max(1, len(texts) // 50)]
        many = sum(sum(1 for _ in spans.stretches(tokens)) for tokens in sample) / len(sample)
        found.append((share, many, spans))
    if not found:
        return None
    best = max(share for share, _, _ in found)
    share, _, spans = min(
        (row for row in found if row[0] >= best - AS_GOOD), key=lambda row: row[1]
    )
    return spans, share


def _type(values: Sequence[Any]) -> str:
    if all(isinstance(value, str) for value in values):
        return "string"
    return "integer" if all(isinstance(value, int) for value in values) else "number"


def _greedy(explained: Sequence[set[int]]) -> list[int]:
    """Few transformations that explain most values; of equal ones the plainest."""
    chosen: list[int] = []
    left = [one for one in explained if one]
    least = max(2.0, WORTH * len(explained))
    while left and len(chosen) < MOST_TRANSFORMATIONS:
        counts = Counter(how for one in left for how in one)
        how, count = min(counts.items(), key=lambda item: (-item[1], item[0]))
        if count < least:
            break
        chosen.append(how)
        left = [one for one in left if how not in one]
    return sorted(chosen)


def _bounded(spans: Spans, texts: Sequence[Tokens], explained: Sequence[set[Span]]) -> Spans:
    """What the stretches have in common: length, first and last shapes, line breaks."""
    first, last = set(), set()
    longest, lines = 1, False
    for tokens, found in zip(texts, explained, strict=True):
        for start, end, _ in found:
            first.add(tokens.shapes[start].lstrip(" >"))
            last.add(tokens.shapes[end].lstrip(" >"))
            longest = max(longest, end - start + 1)
            lines = lines or any(tokens.shapes[i][0] == ">" for i in range(start + 1, end + 1))
    return Spans(
        spans.format,
        spans.transformations,
        spans.type,
        min(longest + 1, LONGEST),
        frozenset(first),
        frozenset(last),
        lines,
    )
