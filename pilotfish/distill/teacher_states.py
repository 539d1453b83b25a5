"""What a teacher says of every token of some sequences, kept in files: its last hidden states.

A row of logits over 50,000 tokens is 200 kB; the state that it is computed from is 1 kB and gives all of
them back, whichever part of the vocabulary is asked for, through the output layer. So the teacher reads
each sequence once, however many epochs the student takes, and nothing is cut off as it is where the
likeliest logits alone are kept. Half precision: the error of a logit is about a thousandth of its size.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from pilotfish.distill.language_model import TokenSequence, make_batch
from pilotfish.progress import Progress

SHARD = 64  # sequences in a file
READ = 8  # sequences read at once


class TeacherStates:
    """States before every learned token.

    Args:
        states: For each sequence ``[learned, hidden]``, float16.
    """

    def __init__(self, states: Sequence[Any]) -> None:
        self.states = list(states)

    def of(self, rows: Sequence[int], device: Any) -> Any:
        """Those of some sequences one after another, ``[learned, hidden]``, float32."""
        return torch.cat([self.states[row] for row in rows]).to(device).float()


def read_states(
    network: Any,
    sequences: Sequence[TokenSequence],
    folder: Path,
    *,
    progress: Progress | None = None,
) -> TeacherStates:
    """Let a network read sequences, or take what it read before.

    Args:
        network: A causal language model of ``transformers``.
        sequences: As a student will see them.
        folder: Files of :data:`SHARD` sequences each; one whose tokens differ is made again.
        progress: Told of every sequence.
    """
    folder.mkdir(parents=True, exist_ok=True)
    states: list[Any] = []
    if not sequences:
        return TeacherStates(states)
    with (progress or Progress()).stage("Teacher reads", len(sequences)) as stage:
        for start in range(0, len(sequences), SHARD):
            part = sequences[start : start + SHARD]
            path = folder / f"states-{start // SHARD:05}.safetensors"
            found = _load(path, part)
            if found is None:
                found = _compute(network, part)
                _save(path, part, found)
            states += found
            stage.advance(len(part))
    return TeacherStates(states)


def _compute(network: Any, part: Sequence[TokenSequence]) -> list[Any]:
    order = np.argsort([len(s.tokens) for s in part], kind="stable")
    states: list[Any] = [None] * len(part)
    device = next(network.parameters()).device
    for start in range(0, len(order), READ):
        batch = make_batch(part, order[start : start + READ], device)
        with torch.inference_mode():
            found = network.base_model(input_ids=batch.tokens, use_cache=False).last_hidden_state
        for i, row in enumerate(batch.rows):
            sequence = part[row]
            mine = found[i, sequence.begin - 1 : len(sequence.tokens) - 1]
            states[row] = mine.to(torch.float16).cpu().clone()
    return states


def _flat(part: Sequence[TokenSequence]) -> tuple[NDArray[np.int64], list[int]]:
    tokens = np.concatenate([np.r_[s.begin, len(s.tokens), s.tokens] for s in part])
    return tokens.astype(np.int64), [s.learned for s in part]


def _save(path: Path, part: Sequence[TokenSequence], states: Sequence[Any]) -> None:
    tokens, _ = _flat(part)
    arrays = {"tokens": torch.from_numpy(tokens), "states": torch.cat(list(states))}
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    save_file(arrays, temporary)
    temporary.replace(path)


def _load(path: Path, part: Sequence[TokenSequence]) -> list[Any] | None:
    try:
        arrays = load_file(path)
    except (FileNotFoundError, SafetensorError):
        return None
    tokens, learned = _flat(part)
    if not np.array_equal(arrays["tokens"].numpy(), tokens):
        return None
    return list(arrays["states"].split(learned))
