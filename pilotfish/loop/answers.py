"""What kind of answers a task gets: a closed set of labels, a rating, JSON of one shape, or free text.

Told from the answers alone, on the cautious side: what is taken for a closed set is learned as one, so a
few stray answers are let pass (they are no label, and count as disagreements), many are not.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pilotfish.errors import BadAnswer
from pilotfish.loop.task import MAX_VALUES
from pilotfish.models.objects import parse_object
from pilotfish.models.parse import parse_label, parse_rating

MOST_LABELS = 50
LONGEST_LABEL = 60  # characters; a label is a name, not a sentence
STRAY = 0.05  # of the answers may be none of the labels
_NUMBER = re.compile(r"-?\d+(?:\.\d+)?")


@dataclass(frozen=True, slots=True)
class Kind:
    """What the answers of a task are.

    Attributes:
        kind: ``"label"``, ``"rating"``, ``"extraction"`` or ``"text"``.
        labels: The closed set, most frequent first; the values of a rating in ascending order.
        range: Lowest and highest value seen of a rating with more than 21 values.
        keys: The keys of extracted objects, most frequent first.
    """

    kind: str
    labels: tuple[str, ...] = ()
    range: tuple[float, float] | None = None
    keys: tuple[str, ...] = ()

    @property
    def closed(self) -> bool:
        """Whether students for closed answers can learn it."""
        return self.kind in ("label", "rating")

    @property
    def learned(self) -> bool:
        """Whether a student can learn it."""
        return self.closed or self.kind == "extraction"

    def parse(self, text: str) -> str | None:
        """The canonical answer in a text, None when there is none; an object stays as it was written."""
        try:
            if self.kind == "extraction":
                parse_object(text)
                return text.strip()
            if self.kind == "label":
                return parse_label(text, self.labels)
            return parse_rating(text, self.labels, scale=self.range)
        except BadAnswer:
            return None


def kind_of(answers: Sequence[str]) -> Kind:
    """The kind of a task, from its answers.

    >>> kind_of(["Spam", "ham", "spam."] * 20).labels
    ('Spam', 'ham')
    >>> kind_of(["1", "3", "5"] * 10)
    Kind(kind='rating', labels=('1', '3', '5'), range=None, keys=())
    >>> kind_of([f"A story about {i} fish, and so on." for i in range(30)]).kind
    'text'
    """
    if not answers:
        return Kind("text")
    return _rating(answers) or _extraction(answers) or _labels(answers) or Kind("text")


def _rating(answers: Sequence[str]) -> Kind | None:
    found = [text for text in (a.strip().rstrip(".") for a in answers) if _NUMBER.fullmatch(text)]
    if len(found) < (1 - STRAY) * len(answers):
        return None
    counts = Counter(float(number) for number in found)
    frequent = sorted(value for value, count in counts.items() if count > 0.002 * len(found))
    if len(frequent) < 2:
        return None
    if len(counts) <= MAX_VALUES:
        return Kind("rating", tuple(f"{value:g}" for value in frequent))
    return Kind("rating", range=(min(counts), max(counts)))


def _extraction(answers: Sequence[str]) -> Kind | None:
    keys: Counter[str] = Counter()
    objects = 0
    for answer in answers:
        value = object_in(answer)
        if value is not None:
            objects += 1
            keys.update(value.keys())
    if objects < 0.9 * len(answers):
        return None
    usual = tuple(key for key, count in keys.most_common() if count >= 0.5 * objects)
    return Kind("extraction", keys=usual) if usual else None


def _labels(answers: Sequence[str]) -> Kind | None:
    spellings: dict[str, Counter[str]] = {}
    for text in answers:
        label = text.strip().strip("\"'`*").rstrip(".").strip()
        spellings.setdefault(label.casefold(), Counter())[label] += 1
    sizes = Counter({key: sum(spelling.values()) for key, spelling in spellings.items()})
    least = 2 if len(answers) >= 20 else 1
    kept = [
        key
        for key, size in sizes.most_common(MOST_LABELS)
        if key and len(key) <= LONGEST_LABEL and size >= max(least, 0.002 * len(answers))
    ]
    covered = sum(sizes[key] for key in kept)
    if len(kept) < 2 or covered < (1 - STRAY) * len(answers) or len(kept) > 0.34 * len(answers):
        return None
    return Kind("label", tuple(spellings[key].most_common(1)[0][0] for key in kept))


def object_in(text: str) -> Mapping[str, object] | None:
    """The JSON object that a text is, with or without a code fence, or None."""
    try:
        return parse_object(text)
    except BadAnswer:
        return None
