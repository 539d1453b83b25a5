"""The outcome of an offload run: everything that the report, the table and ``--json`` show.

The run fills it once; whoever shows it computes nothing. Money is US dollars, None where a price is
unknown, never 0. Times are seconds unless the name ends in ``_ms``. Shares are in [0, 1].
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import msgspec

from pilotfish.errors import ArtifactError

VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskInfo:
    """What was asked.

    Attributes:
        prompt: The template.
        kind: ``"label"``, ``"labels"`` or ``"rating"``.
        labels: The closed set, empty for a continuous rating.
        tolerance: Ratings that differ by no more than this count as the same.
    """

    prompt: str
    kind: str = "label"
    labels: list[str] = field(default_factory=list)
    tolerance: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PriceInfo:
    """US dollars per million tokens, and the day they were read."""

    input: float
    output: float
    date: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class LargeModel:
    """The large model and what asking it took in this run.

    Attributes:
        name: As the user names it.
        price: None when unknown, or when it runs on this machine.
        calls: Answers used, those from the cache included.
        cost: US dollars of these calls.
        seconds: Wall-clock seconds spent waiting for it.
        p50_ms: Median time of one call.
        p95_ms: 95th percentile of the same.
        local: It runs on this machine: costs are seconds, not money.
    """

    name: str
    price: PriceInfo | None = None
    calls: int = 0
    cost: float | None = None
    seconds: float = 0.0
    p50_ms: float | None = None
    p95_ms: float | None = None
    local: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class RowCounts:
    """Rows of the user's file: read, refused, and different inputs among the rest."""

    read: int = 0
    rejected: int = 0
    unique: int = 0
    reject_reasons: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Asked:
    """Answers of the large model by purpose.

    Attributes:
        discover: To find the labels.
        train: To teach students (chosen to be informative).
        calibrate: To certify (drawn with known probabilities).
        evaluate: To compare with the user's own labels.
        evaluate: To compare with gold labels.
        unparsed: Of all these, answers that were no allowed answer.
        from_cache: Of all these, answers paid for in an earlier run.
        cost: US dollars of all.
        seconds: Wall-clock seconds of all.
    """

    discover: int = 0
    train: int = 0
    calibrate: int = 0
    evaluate: int = 0
    unparsed: int = 0
    from_cache: int = 0
    cost: float | None = None
    seconds: float = 0.0

    @property
    def calls(self) -> int:
        """Answers asked for in all."""
        return self.discover + self.train + self.calibrate + self.evaluate


@dataclass(frozen=True, slots=True, kw_only=True)
class RaceEntry:
    """One student of the race; all figures cross-fitted on training answers.

    Attributes:
        student: Registry name.
        agreement: Share of its answers that are the large model's.
        coverage: Share it could serve at the target, estimated.
        log_loss: Nats per input.
        ece: Expected calibration error.
        fit_seconds: Time to fit it.
        per_second: Texts per second in batches, one core.
        p50_ms: Median time of one text alone.
        chosen: Whether it won.
        note: Why it lost, or could not run; "" lets the report say it from the figures.
    """

    student: str
    agreement: float | None = None
    coverage: float | None = None
    log_loss: float | None = None
    ece: float | None = None
    fit_seconds: float | None = None
    per_second: float | None = None
    p50_ms: float | None = None
    chosen: bool = False
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class ClassRow:
    """One class: share of inputs, share of those served small, agreement of the served (``n`` seen)."""

    label: str
    share: float
    served: float
    agreement: float | None = None
    n: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Median and 95th percentile of the time of one answer, in milliseconds.

    Of answers that were made many at once only ``mean_ms`` is known, and the others are None.
    """

    p50_ms: float | None = None
    p95_ms: float | None = None
    mean_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """How long one answer takes; ``cascade_mean_ms`` over inputs like the file's."""

    small: Percentiles = field(default_factory=Percentiles)
    large: Percentiles = field(default_factory=Percentiles)
    cascade_mean_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class WaterfallItem:
    """One bar of the cost waterfall; see :attr:`OffloadResult.waterfall`."""

    item: str
    calls: float
    cost: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """An input that small and large answer differently; ``served``: the small answer would be used."""

    text: str
    small: str
    large: str
    score: float
    served: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Gold:
    """Accuracy against the user's own labels, on ``n`` rows; ``baseline``: the most frequent label."""

    column: str
    n: int
    large: float
    student: float
    cascade: float
    baseline: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Saving:
    """What the cascade saves, net of everything asked.

    Attributes:
        file_calls: Share of calls avoided on this file; negative when asking cost more than it saved.
        future_calls: Share avoided on later inputs like these: the coverage.
        file_cost: US dollars saved on this file.
        future_cost: US dollars saved per 1,000 later inputs.
        break_even: Inputs after which it has paid for itself; None if never.
    """

    file_calls: float
    future_calls: float
    file_cost: float | None = None
    future_cost: float | None = None
    break_even: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class OffloadResult:
    """The outcome of one run.

    Attributes:
        certificate: The certificate as JSON values: ``constraints`` (each ``kind``, ``target``,
            ``label``, ``on``), ``delta``, ``method``, ``threshold`` (None: everything goes to the
            large model), ``coverage``, ``risk``, ``bound``, ``draws``, ``asked``, ``reason``, ``curve``
            (each ``threshold``, ``coverage``, ``risk``, ``bound``).
        waterfall: ``always-large`` (what it would have been without Pilotfish); what came off it:
            ``answered small`` and ``repeated inputs``; what was paid all the same: ``teacher labels``,
            ``calibration``, ``comparison`` (with gold labels), ``escalated``; and ``net``, what is paid
            in all. No value is negative; the saving is ``always-large`` minus ``net``.
        hardware: ``cpu``, ``cores``, ``memory_gb``, ``platform``.
        seconds: Wall-clock seconds per stage.
        created: When, ISO 8601.
        artifact: Folder of the artifact.
        command: The command that made this run, "" when it was called from Python.
    """

    name: str
    task: TaskInfo
    large: LargeModel
    rows: RowCounts = field(default_factory=RowCounts)
    asked: Asked = field(default_factory=Asked)
    race: list[RaceEntry] = field(default_factory=list)
    certificate: dict[str, Any] = field(default_factory=dict)
    per_class: list[ClassRow] = field(default_factory=list)
    latency: Latency = field(default_factory=Latency)
    waterfall: list[WaterfallItem] = field(default_factory=list)
    disagreements: list[Disagreement] = field(default_factory=list)
    gold: Gold | None = None
    saving: Saving = field(default_factory=lambda: Saving(file_calls=0.0, future_calls=0.0))
    warnings: list[str] = field(default_factory=list)
    hardware: dict[str, Any] = field(default_factory=dict)
    versions: dict[str, str] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    created: str = ""
    artifact: str = ""
    command: str = ""
    version: int = VERSION

    def to_json(self) -> str:
        """JSON text, indented; numbers that are not finite become null."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2).decode()

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, text: str | bytes) -> OffloadResult:
        """Inverse of :meth:`to_json`; unknown keys are ignored.

        Raises:
            ArtifactError: It is no result, or a later version's.
        """
        try:
            result = msgspec.json.decode(text, type=cls)
        except (ValueError, RecursionError) as error:
            raise ArtifactError(
                f"This is not the result of an offload run: {error}.",
                remedy="Expected what `pilotfish offload --json` wrote.",
            ) from error
        if result.version > VERSION:
            raise ArtifactError(
                f"The result has version {result.version}, but this Pilotfish reads up to {VERSION}.",
                remedy="pip install --upgrade pilotfish",
            )
        return result
