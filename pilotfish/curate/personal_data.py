"""Find personal data in texts, and take it out, tag the rows or drop them.

What has a form of its own is found by the patterns of :mod:`pilotfish.models.redaction`, with check
digits where there are any. Names and postal addresses have no form: name a function that finds them, such
as a model for named entities, as ``finder``. Pseudonyms that can be undone are a step of their own
(:mod:`pilotfish.curate.pseudonyms`).

Only the text is looked at: other columns go to the output as they are, and rows that could not be
read go to the rejects. A report shows texts of the steps before this one, so put it first.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Iterable
from functools import cache
from typing import Literal

import pyarrow as pa

from pilotfish.curate.step import TEXT, Verdict
from pilotfish.errors import ConfigError, UnknownName
from pilotfish.models.redaction import KINDS, Found, find_personal, replace_found

Finder = Callable[[str], Iterable[tuple[int, int, str]]]


class Search:
    """Where personal data stands in a text.

    Args:
        step: The step that asks, for messages.
        kinds: Names of :data:`~pilotfish.models.redaction.KINDS`; None for all.
        finder: ``"module:function"`` that finds more: from a text to ``(start, end, kind)``, in
            characters; "" for none. What overlaps an earlier find is left out, the patterns' finds first.

    Raises:
        UnknownName: There is no such kind.
        ConfigError: There is no such function.
    """

    def __init__(self, step: str, kinds: list[str] | None, finder: str) -> None:
        for kind in kinds or ():
            if kind not in KINDS:
                raise UnknownName("kind of personal data", kind, KINDS)
        self.step = step
        self.kinds = tuple(KINDS) if kinds is None else tuple(kinds)
        self.finder = finder
        if finder:
            _load(finder)

    def __call__(self, text: str) -> list[Found]:
        """What was found, in order, none overlapping.

        Raises:
            ConfigError: The finder gave something that is no place in the text.
        """
        found = find_personal(text, self.kinds)
        if not self.finder:
            return found
        for start, end, kind in _load(self.finder)(text):
            if not (0 <= start < end <= len(text) and kind.isascii() and kind.isidentifier()):
                raise ConfigError(
                    f"The step {self.step!r}: {self.finder} found {kind!r} at {start} to {end} "
                    f"of a text of {len(text)} characters."
                )
            if all(end <= other.start or start >= other.end for other in found):
                found.append(Found(start, end, kind))
        return sorted(found)


@cache
def _load(finder: str) -> Finder:
    module, _, name = finder.partition(":")
    try:
        function: Finder = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"Got finder = {finder!r}, which cannot be loaded: {error}.",
            remedy='Expected "module:function", importable from where this is started.',
        ) from None
    return function


class PersonalData:
    """Redact personal data, or tag or drop the rows that have some.

    The column ``personal_data`` says which kinds a text had, such as ``email,phone``; null for none.

    Args:
        action: ``"redact"``: each find becomes its kind in brackets, ``[email]``. ``"tag"``: only the
            column is added. ``"drop"``: rows are dropped as ``personal_data.KIND``, by what stands first.
        kinds: What to look for; all of :data:`~pilotfish.models.redaction.KINDS` by default.
        finder: A function that finds more; see :class:`Search`.

    Raises:
        UnknownName: There is no such kind.
        ConfigError: There is no such function.
    """

    name = "personal_data"

    def __init__(
        self,
        action: Literal["redact", "tag", "drop"] = "redact",
        kinds: list[str] | None = None,
        finder: str = "",
    ) -> None:
        self.action = action
        self.search = Search(self.name, kinds, finder)

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Look at each text; in the report, what was dropped or redacted is not shown."""
        texts = batch.column(TEXT).to_pylist()
        found = [self.search(text) for text in texts]
        kinds = [
            ",".join(dict.fromkeys(f.kind for f in sorted(fs, key=_kind))) or None for fs in found
        ]
        columns = {"personal_data": pa.array(kinds, pa.string()).dictionary_encode()}
        reasons = None
        if self.action == "drop":
            names = [f"{self.name}.{fs[0].kind}" if fs else None for fs in found]
            reasons = pa.array(names, pa.string())
        elif self.action == "redact":
            redacted = [
                replace_found(text, fs, lambda kind, _: f"[{kind}]")
                for text, fs in zip(texts, found, strict=True)
            ]
            columns[TEXT] = pa.array(redacted, pa.string())
        return Verdict(columns, reasons, private=self.action != "tag")


def _kind(found: Found) -> str:
    return found.kind
