"""Log-probabilities of closed labels on a llama.cpp context, many inputs at a time.

The prompts of one task begin alike: their common prefix is read once and kept. The inputs' own tokens go
through the model together, each input a sequence that shares the prefix's cells; then the labels that can
matter (:func:`pilotfish.models.trie.undecided`), again of all inputs together, each trie node once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import RequestRefused
from pilotfish.models.held import common_prefix
from pilotfish.models.llama_cache import PROMPT, Cache
from pilotfish.models.llama_runtime import Floats
from pilotfish.models.sampling import log_softmax
from pilotfish.models.trie import Node, nodes, undecided

MAX_ROWS = 64  # logit rows per batch: 64 x 152k tokens in float32 are 39 MB

Scores = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Input:
    """One prompt in the cache: where its own tokens are, and how long it is."""

    row: int
    sequence: int
    length: int


def score(
    cache: Cache,
    prompts: Sequence[Sequence[int]],
    paths: Sequence[Sequence[int]],
    end: int,
    *,
    prior: NDArray[np.floating],
    tolerance: float,
    check: Callable[[], None],
) -> Scores:
    """Summed log-probability of each label and of ``end`` after it, minus its prior.

    Args:
        cache: The context's bookkeeping; its lock is held by the caller.
        prompts: Tokens of each prompt, at least one.
        paths: Tokens of each label, at least one.
        end: The token that ends an answer.
        prior: ``[labels]`` log-likelihoods to subtract.
        tolerance: See :func:`pilotfish.models.trie.undecided`; 0 computes every label exactly.
        check: Called between batches; what it raises ends the work.

    Returns:
        ``[prompts, labels]``; a label that was left out carries its bound, the log-probability of its
        first token (minus its prior).

    Raises:
        RequestRefused: A prompt, with a label, does not fit into the context.
    """
    scores = np.zeros((len(prompts), len(paths)))
    shared = min((common_prefix(prompts[0], p) for p in prompts), default=0)
    shared = min(shared, *(len(p) - 1 for p in prompts))
    if shared:
        cache.hold_prompt(list(prompts[0][:shared]), check)
    longest = max(len(path) for path in paths)
    waiting = list(range(len(prompts)))
    while waiting:
        group = _fitting(cache, waiting, [len(p) - shared for p in prompts], longest)
        waiting = waiting[len(group) :]
        inputs: list[_Input] = []
        cache.reserved = sum(len(prompts[row]) - shared for row in group)
        try:
            for row in group:
                inputs.append(_Input(row, cache.take(), len(prompts[row])))
                if shared:
                    cache.context.share(PROMPT, inputs[-1].sequence)
            _read(cache, prompts, shared, inputs, paths, scores, check)
            scores[group] -= prior
            _decide(cache, inputs, paths, end, tolerance, scores, check)
        finally:
            cache.reserved = 0
            for item in inputs:
                cache.give_back(item.sequence)
    return scores


def _fitting(cache: Cache, waiting: list[int], lengths: list[int], longest: int) -> list[int]:
    """The inputs of the next group: their tokens, and room for labels, fit into the cache."""
    room = cache.free_cells - max(4 * longest, 16)
    group: list[int] = []
    for row in waiting:
        room -= lengths[row]
        # Half of the sequences are for the inputs, half for their labels.
        if group and (room < 0 or 2 * len(group) >= cache.free_sequences):
            break
        if room < 0:
            raise RequestRefused(
                f"The input has {lengths[row]} tokens of its own, but the context of "
                f"{cache.context.n_ctx} has room for {room + lengths[row]}.",
                remedy="Shorten the input, or set a longer context",
            )
        group.append(row)
        if len(group) == MAX_ROWS:
            break
    return group


def _read(
    cache: Cache,
    prompts: Sequence[Sequence[int]],
    shared: int,
    inputs: Sequence[_Input],
    paths: Sequence[Sequence[int]],
    scores: Scores,
    check: Callable[[], None],
) -> None:
    """Read the inputs' own tokens and put the first tokens' log-probabilities into ``scores``."""
    first = np.array([path[0] for path in paths])
    stream = [
        (token, at, item.sequence, item if at == item.length - 1 else None)
        for item in inputs
        for at, token in enumerate(prompts[item.row][shared:], start=shared)
    ]
    for begin in range(0, len(stream), cache.context.batch):
        check()
        part = stream[begin : begin + cache.context.batch]
        done = [item for *_, item in part if item is not None]
        logits = cache.decode(
            [token for token, *_ in part],
            [at for _, at, *_ in part],
            [(sequence,) for _, _, sequence, _ in part],
            [item is not None for *_, item in part],
        )
        for item, row in zip(done, logits, strict=True):
            scores[item.row] = log_softmax(row)[first]


def _decide(
    cache: Cache,
    inputs: Sequence[_Input],
    paths: Sequence[Sequence[int]],
    end: int,
    tolerance: float,
    scores: Scores,
    check: Callable[[], None],
) -> None:
    """Replace bounds in ``scores`` by exact values where they can matter."""
    exact = np.zeros(scores.shape, dtype=bool)
    while True:
        pairs = [
            (item, int(label))
            for item in inputs
            for label in undecided(scores[item.row], exact[item.row], tolerance)
        ]
        if not pairs:
            return
        while pairs:
            check()
            pairs = _extend(cache, pairs, paths, end, scores, exact)


def _extend(
    cache: Cache,
    pairs: list[tuple[_Input, int]],
    paths: Sequence[Sequence[int]],
    end: int,
    scores: Scores,
    exact: NDArray[np.bool_],
) -> list[tuple[_Input, int]]:
    """Compute as many pairs of input and label as one batch holds; return the others."""
    size = min(cache.context.batch, MAX_ROWS, max(cache.free_cells, 1))
    chosen: dict[_Input, list[int]] = {}
    used = taken = 0
    for item, label in pairs:
        used += len(paths[label])
        if taken and (used > size or taken >= cache.free_sequences):
            break
        chosen.setdefault(item, []).append(label)
        taken += 1
    sequences = {(item, label): cache.take() for item, labels in chosen.items() for label in labels}
    try:
        for (item, _), sequence in sequences.items():
            cache.context.share(item.sequence, sequence)
        tree = [(item, node) for item, labels in chosen.items() for node in nodes(paths, labels)]
        logits = _decode_tree(cache, tree, sequences)
    finally:
        for sequence in sequences.values():
            cache.give_back(sequence)
    for item, label in sequences:
        exact[item.row, label] = True  # the sum below begins with the first token's, already there
    for (item, node), row in zip(tree, log_softmax(logits), strict=True):
        for label in node.labels:
            path = paths[label]
            scores[item.row, label] += row[
                path[node.depth + 1] if node.depth + 1 < len(path) else end
            ]
    return pairs[taken:]


def _decode_tree(
    cache: Cache,
    tree: Sequence[tuple[_Input, Node]],
    sequences: Mapping[tuple[_Input, int], int],
) -> Floats:
    """Logits after every node ``[nodes, vocab]``; a node is one token of all sequences through it."""
    batch = cache.context.batch
    rows = []
    for begin in range(0, len(tree), batch):
        part = tree[begin : begin + batch]
        rows.append(
            cache.decode(
                [node.token for _, node in part],
                [item.length + node.depth for item, node in part],
                [tuple(sequences[item, label] for label in node.labels) for item, node in part],
                [True] * len(part),
            )
        )
    return np.concatenate(rows)
