"""Find personal data in texts, and take it out, tag the rows or drop them.

How it is found says :mod:`pilotfish.curate.personal.search`. Pseudonyms that can be undone are a step of
their own (:mod:`pilotfish.curate.personal.pseudonyms`).

Only the text is looked at: other columns go to the output as they are, and rows that could not be
read go to the rejects. A report shows texts of the steps before this one, so put it first.
"""

from __future__ import annotations

from typing import Literal, get_args

import pyarrow as pa

from pilotfish.curate.personal.search import Search
from pilotfish.curate.step import TEXT, Verdict
from pilotfish.errors import UnknownName
from pilotfish.models.redaction import Found, replace_found

Action = Literal["redact", "tag", "drop"]
ACTIONS = get_args(Action)


class PersonalData:
    """Redact personal data, or tag or drop the rows that have some.

    The column ``personal_data`` says which kinds a text had, such as ``email,phone``; null for none.

    Args:
        action: ``"redact"``: each find becomes its kind in brackets, ``[email]``. ``"tag"``: only the
            column is added. ``"drop"``: rows are dropped as ``personal_data.KIND``, by what stands first.
        kinds: What to look for; all of :data:`~pilotfish.models.redaction.KINDS` by default, and all
            that the model finds but ``url``.
        finder: A function that finds more; see :class:`~pilotfish.curate.personal.search.Search`.
        model: A model that finds names, addresses and other things without a form, such as ``rampart``.
        min_confidence: How sure the model must be, above 0 to 1; less finds more, also by mistake.

    Raises:
        UnknownName: There is no such action, kind or model.
        MissingModel: The model was not pulled.
        ConfigError: There is no such function, or a number is out of range.
    """

    name = "personal_data"

    def __init__(
        self,
        action: Action = "redact",
        kinds: list[str] | None = None,
        finder: str = "",
        model: str = "",
        min_confidence: float = 0.5,
    ) -> None:
        if action not in ACTIONS:  # else a text would pass as it is
            raise UnknownName("action of the step 'personal_data':", action, ACTIONS)
        self.action = action
        self.search = Search(self.name, kinds, finder, model, min_confidence)

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Look at each text; in the report, what was dropped or redacted is not shown."""
        texts = batch.column(TEXT).to_pylist()
        found = self.search(texts)
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
