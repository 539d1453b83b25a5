"""Where personal data stands in a text: by patterns, by a model, by a function of the user's.

What has a form of its own is found by the patterns of :mod:`pilotfish.models.redaction`, with check
digits where there are any. Names and addresses have none; a token classifier
(:func:`~pilotfish.models.load.load_tagger`) finds them by how they are used. The patterns' finds count
first, then the function's, then the model's: what a later one finds is cut around what is found already.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache, lru_cache

from pilotfish.errors import ConfigError, UnknownName
from pilotfish.models.load import load_tagger
from pilotfish.models.protocols import Tagger
from pilotfish.models.redaction import KINDS, Found, find_personal
from pilotfish.registry import load_function

Finder = Callable[[str], Iterable[tuple[int, int, str]]]

# Kinds of the labels that models use; another label is a kind of its own, in lower case.
_LABELS = {
    "name": ("GIVEN_NAME", "SURNAME", "PER", "PERSON"),
    "address": ("BUILDING_NUMBER", "STREET_NAME", "SECONDARY_ADDRESS", "CITY", "STATE", "ZIP_CODE"),
    "account": ("BANK_ACCOUNT", "ROUTING_NUMBER"),
    "identity": ("TAX_ID", "GOVERNMENT_ID", "PASSPORT", "DRIVERS_LICENSE"),
}
_KIND_OF = {label: kind for kind, labels in _LABELS.items() for label in labels}
ASKED_FOR = ("url",)  # kinds that are looked for only where they are named: most are nobody's
# What may stand between two parts of one name or address.
_BETWEEN = {"name": re.compile(r"[ .'’-]{0,2}"), "address": re.compile(r"[\s,./#-]{0,3}")}


class Search:
    """Finds personal data in texts.

    Args:
        step: The step that asks, for messages.
        kinds: Names of :data:`~pilotfish.models.redaction.KINDS` and of what the model finds; None for
            all but ``url``.
        finder: ``"module:function"`` that finds more: from a text to ``(start, end, kind)``, in
            characters; "" for none. All it finds counts, whatever ``kinds`` says.
        model: A tagger, as in :func:`~pilotfish.models.load.load_tagger`; "" for none.
        min_confidence: How sure the model must be that there is something, above 0 to 1.

    Raises:
        UnknownName: There is no such kind or model.
        MissingModel: The model was not pulled.
        ConfigError: There is no such function, or a number is out of range.
    """

    def __init__(
        self,
        step: str,
        kinds: Sequence[str] | None = None,
        finder: str = "",
        model: str = "",
        min_confidence: float = 0.5,
    ) -> None:
        if not 0 < min_confidence <= 1:
            raise ConfigError(
                f"The step {step!r}: got min_confidence = {min_confidence}, but expected above 0 to 1."
            )
        if kinds is not None and not kinds and not finder:
            raise ConfigError(
                f"The step {step!r}: got kinds = [], which finds nothing.",
                remedy="Leave kinds out to look for all.",
            )
        known = dict.fromkeys(KINDS)
        if model:
            known |= dict.fromkeys(kind_of(label) for label in _tagger(model).labels)
        for kind in kinds or ():
            if kind not in known:
                needs = 'Names and addresses need a model, such as model = "rampart".'
                remedy = needs if kind in _LABELS and not model else ""
                raise UnknownName("kind of personal data", kind, known, remedy=remedy)
        if finder:
            _load(finder)
        self.step = step
        self.kinds = tuple(kinds) if kinds is not None else tuple(known.keys() - set(ASKED_FOR))
        self.kinds = tuple(sorted(self.kinds))
        self.finder = finder
        self.model = model
        self.min_confidence = min_confidence

    def __call__(self, texts: Sequence[str]) -> list[list[Found]]:
        """What was found in each text, in order, none overlapping.

        Raises:
            ConfigError: The finder gave something that is no place in the text.
        """
        found = [find_personal(text, self.kinds) for text in texts]
        if self.finder:
            found = [
                _with(text, places, self._by_finder(text))
                for text, places in zip(texts, found, strict=True)
            ]
        if not self.model:
            return found
        tagged = _tagger(self.model).find(texts, self.min_confidence)
        return [
            _with(text, places, self._by_model(text, more))
            for text, places, more in zip(texts, found, tagged, strict=True)
        ]

    def _by_finder(self, text: str) -> Iterator[Found]:
        found = _load(self.finder)(text)
        if not isinstance(found, Iterable):
            raise ConfigError(
                f"The step {self.step!r}: {self.finder} gave {found!r:.80}, but expected places: "
                "(start, end, kind) for each."
            )
        for start, end, kind in found:
            if not (0 <= start < end <= len(text) and kind.isascii() and kind.isidentifier()):
                raise ConfigError(
                    f"The step {self.step!r}: {self.finder} found {kind!r} at {start} to {end} "
                    f"of a text of {len(text)} characters."
                )
            yield Found(start, end, kind)

    def _by_model(self, text: str, tagged: Iterable[Found]) -> list[Found]:
        """Finds of the kinds that are looked for; the parts of a name or an address as one."""
        joined: list[Found] = []
        for start, end, label in tagged:
            kind = kind_of(label)
            if kind not in self.kinds:
                continue
            last = joined[-1] if joined else None
            between = _BETWEEN.get(kind)
            if last and last.kind == kind and between and between.fullmatch(text, last.end, start):
                joined[-1] = Found(last.start, end, kind)
            else:
                joined.append(Found(start, end, kind))
        return joined


def kind_of(label: str) -> str:
    """The kind of a model's label.

    >>> kind_of("SURNAME"), kind_of("PHONE")
    ('name', 'phone')
    """
    return _KIND_OF.get(label, label.lower())


def _with(text: str, found: list[Found], more: Iterable[Found]) -> list[Found]:
    """The finds and what of others lies outside them, without the marks at its ends."""
    for one in more:
        start = one.start
        pieces = []
        for other in [*found, Found(one.end, one.end, "")]:
            if other.end <= start or other.start > one.end:
                continue
            pieces.append((start, min(other.start, one.end)))
            start = other.end
        for first, last in pieces:
            while first < last and not text[first].isalnum() and first > one.start:
                first += 1
            while last > first and not text[last - 1].isalnum() and last < one.end:
                last -= 1
            if any(c.isalnum() for c in text[first:last]):
                found = sorted([*found, Found(first, last, one.kind)])
    return found


@lru_cache(maxsize=2)
def _tagger(spec: str) -> Tagger:
    return load_tagger(spec)


@cache
def _load(finder: str) -> Finder:
    return load_function("finder", finder)
