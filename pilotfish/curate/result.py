"""What a curation run did: the funnel, reasons, rejects, scores and examples."""

from __future__ import annotations

import msgspec

from pilotfish.curate.tally import StepTally


class CurateResult(msgspec.Struct, kw_only=True):
    """What a run did.

    Attributes:
        output: The folder of the shards; "" for a sample.
        shards: Names of the shards, in order.
        files: How many files were read.
        empty_files: How many of them have no bytes.
        rows_read: Usable rows that were read.
        bytes_read: Bytes of the files, as stored.
        rows_kept: Rows that were written.
        rejected: Reason to rows that could not be used; they stand in ``_rejects.jsonl``.
        steps: What each step did, in order.
        sample: Share of the bytes that was looked at, when this is a sample; else 1.
        seconds: On the clock, of this run alone; a resumed run did not do all.
        resumed: Pieces of work that an earlier run had done.
        engine: Where it ran.
        created: When it ended, ISO 8601.
        fingerprint: Of the inputs, steps and settings.
        pipeline: The steps and their settings, for people.
        notes: What to know of a step: of a sample, where it says less than the whole would, or what was
            not asked; of a fit, that it is to a part of the texts.
    """

    output: str
    shards: list[str]
    files: int
    empty_files: int
    rows_read: int
    bytes_read: int
    rows_kept: int
    rejected: dict[str, int]
    steps: list[StepTally]
    sample: float = 1.0
    seconds: float = 0.0
    resumed: int = 0
    engine: str = ""
    created: str = ""
    fingerprint: str = ""
    pipeline: list[str] = []
    notes: list[str] = []

    @property
    def rows_rejected(self) -> int:
        """Rows that could not be used."""
        return sum(self.rejected.values())

    @property
    def reasons(self) -> dict[str, int]:
        """Rows dropped for each reason, by all steps; the most frequent first."""
        found: dict[str, int] = {}
        for step in self.steps:
            for reason, count in step.reasons.items():
                found[reason] = found.get(reason, 0) + count
        return dict(sorted(found.items(), key=lambda item: (-item[1], item[0])))

    def to_json(self) -> str:
        """Everything, as JSON."""
        return msgspec.json.encode(self).decode()
