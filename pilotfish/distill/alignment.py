"""An output layer for a student's states before it learns: where they are on their teacher's map.

The states after a few layers are not what the teacher's output layer was made for. The matrix that takes
them nearest to the teacher's own states, by least squares over all learned tokens, has a closed form and
is folded into the output layer, so it costs one reading and nothing later (a tuned lens, Belrose et al.
2023, fitted at once). Training then starts from there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from pilotfish.distill.language_model import TokenSequence, learned_states, make_batch
from pilotfish.distill.teacher_states import TeacherStates

RIDGE = 1e-3  # of the mean square of a state's numbers, so that few tokens do not make it wild
_READ = 16  # sequences read at once


def alignment(student: Any, sequences: Sequence[TokenSequence], states: TeacherStates) -> Any:
    """The matrix ``A`` for which a student's states times ``A`` are nearest to the teacher's.

    Args:
        student: A causal language model.
        sequences: What both read.
        states: The teacher's, of these.

    Returns:
        ``[student, teacher]``, float32, on the student's device; rows ``w`` of the teacher's output layer
        become ``w @ A.T`` for the student.
    """
    device = next(student.parameters()).device
    square: Any = 0.0
    cross: Any = 0.0
    order = sorted(range(len(sequences)), key=lambda row: len(sequences[row].tokens))
    for start in range(0, len(order), _READ):
        rows = order[start : start + _READ]
        with torch.inference_mode():
            mine = learned_states(student, make_batch(sequences, rows, device)).double()
            its = states.of(rows, device).double()
            square = square + mine.T @ mine
            cross = cross + mine.T @ its
    strength = RIDGE * square.diagonal().mean()
    square = square + strength * torch.eye(len(square), dtype=square.dtype, device=device)
    return torch.linalg.solve(square, cross).float().clone()
