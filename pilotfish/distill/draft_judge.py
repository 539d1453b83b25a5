"""How a student's guesses fare on its teacher's own continuations."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import torch
from torch.nn import functional

from pilotfish.distill.acceptance import (
    expected_acceptance,
    held_guesses,
    rate_by_position,
    tokens_a_read,
)
from pilotfish.distill.continuations import Continuation
from pilotfish.distill.language_model import make_batch, predicted_logits
from pilotfish.distill.teacher_states import TeacherStates
from pilotfish.models.protocols import Floats

POSITIONS = 4  # guesses in a row whose acceptance is reported


class Acceptance(msgspec.Struct, frozen=True):
    """How a draft's guesses fare on held-out continuations of one temperature.

    Attributes:
        temperature: Of target and draft.
        tokens: Compared.
        rate: Expected share of guesses that hold, ``sum min(p, q)``; at temperature 0 the share of
            likeliest tokens that are the same.
        by_position: Share of the 1st, 2nd, ... guess in a row that holds where those before it did;
            None where those before it never did.
        tokens_a_read: Tokens that one reading of the target gives with 1, 2, ... guesses.
    """

    temperature: float
    tokens: int
    rate: float
    by_position: tuple[float | None, ...]
    tokens_a_read: tuple[float, ...]


class Judge:
    """Compares a student with its teacher on held-out continuations.

    Args:
        head: The teacher's output layer, ``[vocab, hidden]``.
        kept: Tokens that the student can guess, in the order of its outputs.
        texts: The teacher's continuations.
        states: The teacher's, of these.
    """

    def __init__(
        self, head: Any, kept: Sequence[int], texts: Sequence[Continuation], states: TeacherStates
    ) -> None:
        self._head = head
        self._kept = list(kept)
        self._place = {token: i for i, token in enumerate(kept)}
        self._texts = texts
        self._states = states

    def accept(self, student: Any) -> tuple[Acceptance, ...]:
        """By temperature, ascending."""
        found = []
        for heat in sorted({text.temperature for text in self._texts}):
            held, rates = [], []
            for row, text in enumerate(self._texts):
                if text.temperature == heat:
                    target, draft = self._rows(student, row, heat)
                    tokens = [self._place.get(token, len(self._kept)) for token in text.answer]
                    held.append(held_guesses(target, draft, tokens, heat))
                    rates.append(expected_acceptance(target, draft, heat))
            found.append(
                Acceptance(
                    heat,
                    sum(map(len, held)),
                    float(np.concatenate(rates).mean()),
                    tuple(None if r != r else r for r in rate_by_position(held, POSITIONS)),
                    tuple(tokens_a_read(held, k) for k in range(1, POSITIONS + 1)),
                )
            )
        return tuple(found)

    def _rows(self, student: Any, row: int, heat: float) -> tuple[Floats, Floats]:
        """Logits of teacher and student before each token of an answer, ``[n, kept + 1]``.

        The last column is all that the student never guesses, as one: what it is made of makes no
        difference to which guesses hold, and five sixths of the columns are saved.
        """
        device = self._head.device
        with torch.inference_mode():
            target = functional.linear(self._states.of([row], device), self._head)
            some = target[:, self._kept]
            target[:, self._kept] = float("-inf")
            rest = heat * (target / heat).logsumexp(-1) if heat else target.max(-1).values
            target = torch.cat([some, rest[:, None]], dim=1)
            draft = torch.full_like(target, float("-inf"))
            texts = [self._texts[row].sequence()]
            draft[:, :-1] = predicted_logits(student, make_batch(texts, [0], device))
        return target.cpu().numpy(), draft.cpu().numpy()
