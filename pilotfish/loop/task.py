"""A task: the prompt that is sent again and again, and what counts as its answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pilotfish.errors import InputError
from pilotfish.infer.decide import KINDS
from pilotfish.loop.rows import Template
from pilotfish.records import Json, Request

MAX_VALUES = 21  # a scale with more steps than this is learned as a range, not value by value
BLANKS = ("N/A", "", "[MASK]")  # the content-free inputs of contextual calibration
RANGE = re.compile(r"\s*(-?\d+(?:\.\d+)?)\s*(?:-|\.\.|to|:)\s*(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True, slots=True)
class Task:
    """What is asked, and what an answer may be.

    Attributes:
        prompt: Template with ``{field}`` for the columns of the user's file.
        kind: ``"label"`` (one of a closed set), ``"labels"`` (any number of them) or ``"rating"``; a
            learned version may also be of ``"extraction"`` or ``"text"``.
        labels: The closed set; for ratings the values in ascending order, or empty with ``range``.
        tolerance: Ratings that differ by no more than this count as the same answer.
        range: Lowest and highest rating of a continuous scale, else None.
        system: System prompt, "" for none.
        params: Parameters sent with each request, over ``temperature = 0``.
    """

    prompt: str
    kind: str = "label"
    labels: tuple[str, ...] = ()
    tolerance: float = 0.0
    range: tuple[float, float] | None = None
    system: str = ""
    params: Json = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.kind not in (*KINDS, "extraction", "text"):
            raise InputError(f"Got kind {self.kind!r}, but expected one of {', '.join(KINDS)}.")
        if self.tolerance < 0:
            raise InputError(f"Got tolerance {self.tolerance}, but expected 0 or more.")
        folded = [label.strip().casefold() for label in self.labels]
        if "" in folded or len(set(folded)) < len(folded):
            raise InputError(
                f"Got labels {list(self.labels)}, but expected different, non-empty names "
                "(upper and lower case count as the same)."
            )
        if len(folded) == 1:
            raise InputError(
                f"Got a single label {self.labels[0]!r}, but expected two or more.",
                remedy="Give every label the large model may answer: --labels a,b,c",
            )

    def request(self, row: Mapping[str, Any], *, open_ended: bool = False) -> Request:
        """The request for one row; ``open_ended`` leaves the closed label set out (to discover it)."""
        template = Template(self.prompt)
        params: dict[str, Any] = {"temperature": 0, **self.params}
        if not open_ended:
            params["answer"] = self.kind
            if self.labels:
                params["labels"] = list(self.labels)
                # A local model's liking for some labels is measured on these and taken out. Several
                # labels are asked for one by one with yes or no, where there is nothing to take out.
                filled = [dict.fromkeys(template.fields, blank) for blank in BLANKS]
                params.setdefault("blanks", [template.render(blank) for blank in filled])
            if self.range:
                params["range"] = list(self.range)
        return Request.of(template.render(row), system=self.system, **params)

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        plain = {f.name: getattr(self, f.name) for f in fields(self)}
        return plain | {
            "labels": list(self.labels),
            "range": list(self.range) if self.range else None,
            "params": dict(self.params),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Task:
        """Inverse of :meth:`to_dict`; unknown keys are ignored."""
        known = {f.name: values[f.name] for f in fields(cls) if f.name in values}
        known["labels"] = tuple(known.get("labels", ()))
        known["range"] = tuple(known["range"]) if known.get("range") else None
        return cls(**known)


def parse_scale(text: str) -> tuple[tuple[str, ...], tuple[float, float] | None]:
    """Read ``--rating``: ``1-5`` gives five values, ``0-100`` and ``0.0-1.0`` a range.

    Returns:
        Values as text (empty for a range), and the range (None for values).

    Raises:
        InputError: It is no scale of two numbers in ascending order.

    >>> parse_scale("1-5")[0], parse_scale("0-100")[1]
    (('1', '2', '3', '4', '5'), (0.0, 100.0))
    """
    match = RANGE.fullmatch(text)
    low, high = (float(number) for number in match.groups()) if match else (1.0, 0.0)
    if match is None or low >= high:
        raise InputError(
            f"Got rating scale {text!r}, but expected two numbers in ascending order.",
            remedy="For example: --rating 1-5, or --rating 0-100 --tolerance 5",
        )
    whole = "." not in match[1] + match[2]
    if whole and high - low < MAX_VALUES:
        return tuple(str(value) for value in range(int(low), int(high) + 1)), None
    return (), (low, high)
