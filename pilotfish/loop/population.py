"""The user's inputs as the population that the promise is about: unique inputs, counts and splits.

Rows are split before anything is asked: one part trains, one calibrates, one (when gold labels are
there) evaluates. The split is over rows, not over unique inputs, so that an input which makes up a third
of the file makes up a third of the promise; each unique input is still asked about only once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.loop.rows import Rows, Template
from pilotfish.records import Inputs

MAX_CALIBRATION_ROWS = 3_000  # what settling plans for at the most; the rest can train
MAX_EVALUATION_ROWS = 300  # +-2.5 points of accuracy at 95%; each costs a call

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Population:
    """Rows, their unique inputs, and who is used for what.

    Attributes:
        rows: The rows that can be used, ``n`` of them.
        inputs: The ``u`` unique inputs.
        unique_of: ``[n]``: row to unique input.
        first_row: ``[u]``: unique input to one row that has it.
        train: Row numbers that may train.
        calibrate: Row numbers that may calibrate, in random order.
        evaluate: Row numbers kept for the comparison with gold labels, empty without them.
    """

    rows: Rows
    inputs: Inputs
    unique_of: Ints
    first_row: Ints
    train: Ints
    calibrate: Ints
    evaluate: Ints

    @cached_property
    def counts(self) -> Ints:
        """``[u]``: how many rows each unique input stands for."""
        return np.bincount(self.unique_of, minlength=len(self.inputs))

    @cached_property
    def train_ids(self) -> Ints:
        """Unique inputs among the training rows."""
        return np.unique(self.unique_of[self.train])

    @cached_property
    def train_weights(self) -> NDArray[np.float64]:
        """``[u]``: training rows per unique input."""
        counts = np.bincount(self.unique_of[self.train], minlength=len(self.inputs))
        return counts.astype(np.float64)

    def row(self, unique: int) -> dict[str, Any]:
        """The template's fields of one unique input."""
        return {name: column[unique] for name, column in self.inputs.fields.items()}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the unique inputs and how often each occurs; the same file gives the same."""
        digest = hashlib.sha256()
        for text, count in zip(self.inputs.texts, self.counts, strict=True):
            digest.update(f"{len(text)}:{count}:".encode())
            digest.update(text.encode("utf-8", "surrogatepass"))
        return digest.hexdigest()


def populate(rows: Rows, template: Template, *, seed: int, evaluate: bool = False) -> Population:
    """Find the unique inputs and split the rows.

    Args:
        rows: Accepted rows.
        template: Says which columns make an input.
        seed: Of the split.
        evaluate: Set some rows aside for gold labels.
    """
    columns = [rows.columns[name] for name in template.fields]
    unique_of, first_row = _unique(columns, len(rows))
    inputs = Inputs(
        [template.input_text({f: rows.columns[f][i] for f in template.fields}) for i in first_row],
        {name: [rows.columns[name][i] for i in first_row] for name in template.fields},
    )
    n = len(rows)
    order = np.random.default_rng(seed).permutation(n)
    held = min(MAX_EVALUATION_ROWS, n // 10) if evaluate else 0
    calibrating = min((n - held) // 2, MAX_CALIBRATION_ROWS)
    return Population(
        rows=rows,
        inputs=inputs,
        unique_of=unique_of,
        first_row=first_row,
        train=np.sort(order[held + calibrating :]),
        calibrate=order[held : held + calibrating],
        evaluate=order[:held],
    )


def _unique(columns: Sequence[Sequence[Any]], n: int) -> tuple[Ints, Ints]:
    seen: dict[Any, int] = {}
    unique_of = np.empty(n, np.int64)
    first: list[int] = []
    keys = columns[0] if len(columns) == 1 else zip(*columns, strict=True)
    for i, key in enumerate(keys):
        number = seen.setdefault(key, len(first))
        if number == len(first):
            first.append(i)
        unique_of[i] = number
    return unique_of, np.array(first, np.int64)
