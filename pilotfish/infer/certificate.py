"""What a calibration ends with: a threshold, and what may be said about it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from pilotfish.errors import InputError
from pilotfish.infer.constraints import Constraint


@dataclass(frozen=True)
class Certificate:
    """A threshold that keeps its promises with probability >= 1 - delta, or None.

    Attributes:
        constraints: The promises, all kept at ``threshold``.
        delta: Allowed probability, over the draw of the calibration rows, that one is broken.
        method: ``"binomial"`` or ``"betting"``.
        threshold: The small model answers where score >= threshold; None: it never does.
        coverage: Share of calibration rows served, in [0, 1].
        risk: Estimated share broken, of the first promise; None without a threshold.
        bound: Upper confidence bound on it (at delta / number of promises); None likewise.
        draws: Calibration rows the test rests on.
        asked: Answers of the large model that it used.
        reason: ``"certified"``, ``"no-threshold"`` (a better student is needed),
            ``"too-few-answers"`` (even perfect agreement would not have been enough) or ``"budget"``
            (nothing certified when the budget was spent).
        curve: Per threshold ``{threshold, coverage, risk, bound}``, pointwise; for plots only.
        population: ``"inputs"`` drawn like the sample, or this very ``"file"``.
    """

    constraints: tuple[Constraint, ...]
    delta: float
    method: str
    threshold: float | None
    coverage: float
    risk: float | None
    bound: float | None
    draws: int
    asked: int
    reason: str
    curve: tuple[Mapping[str, float | None], ...] = field(default=(), repr=False)
    population: str = "inputs"

    def to_json(self) -> str:
        """The certificate as JSON text; :meth:`from_json` reads it."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Certificate:
        """Read what :meth:`to_json` wrote; unknown keys are ignored.

        Raises:
            InputError: The text is no certificate.
        """
        try:
            data: dict[str, Any] = json.loads(text)
            known = {k: v for k, v in data.items() if k in cls.__dataclass_fields__}
            known["constraints"] = tuple(Constraint(**c) for c in known["constraints"])
            known["curve"] = tuple(known.get("curve", ()))
            return cls(**known)
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"This is no certificate: {error}.") from error
