"""What the rule sets share: measures against thresholds, the first failure is the reason.

A rule set measures each document in several ways and compares each measure with a threshold. The reason
of a drop is the first check that fails, in the order of the set. The margin of a row is relative: by
which share of the threshold its measure missed it; of a kept row, that of the check it was nearest to.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import KW_ONLY, dataclass, field, fields
from typing import Any, ClassVar

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from pilotfish.curate.rules.arrow import strings, to_arrow
from pilotfish.curate.rules.documents import Documents, pieces
from pilotfish.curate.step import TEXT, Verdict
from pilotfish.errors import ConfigError


@dataclass
class Checks:
    """The checks of one piece of documents.

    Attributes:
        n: How many documents.
        failed: For each, the number of the first check that failed, or -1.
        margin: For each, the distance to the threshold that decided it, as a share of that threshold.
        names: The checks so far, in order.
        measures: What each check measured; ``n`` numbers.
        rewritten: The new texts, where the set rewrites them.
    """

    n: int
    names: list[str] = field(default_factory=list)
    measures: list[NDArray[np.float64]] = field(default_factory=list)
    rewritten: pa.Array | None = None

    def __post_init__(self) -> None:
        self.failed = np.full(self.n, -1, np.int8)
        self.margin = np.full(self.n, np.inf)

    @property
    def open(self) -> NDArray[np.bool_]:
        """Which documents have passed everything so far."""
        return self.failed < 0

    def below(self, name: str, measure: Any, threshold: float | None) -> None:
        """Fail what measures less than the threshold; None checks nothing."""
        if threshold is not None and math.isfinite(threshold):
            self._decide(name, measure, np.asarray(measure) < threshold, threshold)

    def above(self, name: str, measure: Any, threshold: float | None) -> None:
        """Fail what measures more than the threshold; None and infinity check nothing."""
        if threshold is not None and math.isfinite(threshold):
            self._decide(name, measure, np.asarray(measure) > threshold, threshold)

    def fail(self, name: str, fails: NDArray[np.bool_]) -> None:
        """Fail these documents outright; the measure is 1, and the margin says nothing of the others."""
        fails = fails & self.open
        self._add(name, fails.astype(np.float64))
        self.failed[fails] = len(self.names) - 1
        self.margin[fails] = 1.0

    def _decide(self, name: str, measure: Any, fails: NDArray[np.bool_], threshold: float) -> None:
        measure = np.asarray(measure, np.float64)
        distance = np.abs(measure - threshold) / (abs(threshold) or 1.0)
        still = self.open
        self._add(name, measure)
        self.failed[still & fails] = len(self.names) - 1
        nearest = np.where(fails, distance, np.fmin(self.margin, distance))
        self.margin[still] = nearest[still]

    def _add(self, name: str, measure: NDArray[np.float64]) -> None:
        self.names.append(name)
        self.measures.append(measure)


@dataclass(frozen=True)
class RuleSet(ABC):
    """A step that judges each text by rules; subclasses hold the thresholds and the rules.

    Args:
        tag: Keep every row, and write the reason, or null, to a column called like the set.
        scores: Add what each check measured as columns, ``SET.CHECK``.
    """

    name: ClassVar[str]

    _: KW_ONLY
    tag: bool = False
    scores: bool = False

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and not value >= 0:
                raise ConfigError(
                    f"The step {self.name!r}: got {setting.name} = {value!r}, but expected a number of "
                    "at least 0.",
                    remedy="To check nothing, give 0 as the least or inf as the most that is allowed.",
                )

    @abstractmethod
    def judge(self, documents: Documents) -> Checks:
        """Make all checks on some documents; a document's result does not depend on the others."""

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """The first failed check of each row as its reason; see :class:`Checks` for the margin."""
        texts = batch.column(TEXT)
        done = [self.judge(documents) for documents in pieces(texts)]
        names = done[0].names if done else []
        codes = np.concatenate([np.zeros(0, np.int8)] + [checks.failed for checks in done])
        reasons = pa.DictionaryArray.from_arrays(
            to_arrow(codes, codes >= 0),
            strings([f"{self.name}.{name}" for name in names]).cast(pa.string()),
        )
        columns: dict[str, pa.Array] = {}
        rewritten = [checks.rewritten for checks in done if checks.rewritten is not None]
        if rewritten:
            columns[TEXT] = pa.concat_arrays(rewritten).cast(texts.type)
        if self.scores:
            for i, name in enumerate(names):
                measure = np.concatenate([checks.measures[i] for checks in done])
                columns[f"{self.name}.{name}"] = to_arrow(measure)
        if self.tag:
            columns[self.name] = reasons
        margin = np.concatenate([np.zeros(0)] + [checks.margin for checks in done])
        margin[~np.isfinite(margin)] = 1.0  # no check had a threshold to be near to
        return Verdict(columns, None if self.tag else reasons, to_arrow(margin))
