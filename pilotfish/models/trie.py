"""A closed label set as a token trie, and which of its labels need to be computed.

A label's likelihood is the product of its tokens' probabilities and of the end of the answer after them,
so that "a" and "ab" compete fairly. The first token's probability is known once the prompt was read; the
rest costs one more token per node of the trie. Most labels need no more: the first token's probability
bounds the whole from above, and the labels whose bounds add up to almost nothing are left at their bound
(:func:`undecided`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Node:
    """One token of the trie, shared by every label that goes through it.

    Attributes:
        token: The token.
        depth: 0 for the first token of a label.
        labels: Positions of the labels through this node, in order.
    """

    token: int
    depth: int
    labels: tuple[int, ...]


def nodes(paths: Sequence[Sequence[int]], chosen: Iterable[int]) -> list[Node]:
    """The trie of some of the labels, parents before children.

    Args:
        paths: The tokens of each label, without the end of the answer.
        chosen: Which of them.

    >>> [(n.token, n.depth, n.labels) for n in nodes([[1, 2], [1, 3], [4]], [0, 1, 2])]
    [(1, 0, (0, 1)), (4, 0, (2,)), (2, 1, (0,)), (3, 1, (1,))]
    """
    members: dict[tuple[int, ...], list[int]] = {}
    for label in chosen:
        path = tuple(paths[label])
        for depth in range(len(path)):
            members.setdefault(path[: depth + 1], []).append(label)
    return [
        Node(prefix[-1], len(prefix) - 1, tuple(labels))
        for prefix, labels in sorted(members.items(), key=lambda item: len(item[0]))
    ]


def undecided(
    scores: NDArray[np.float64], exact: NDArray[np.bool_], tolerance: float
) -> NDArray[np.intp]:
    """The labels of one input to compute next, likeliest first; none when the rest cannot matter.

    Args:
        scores: ``[labels]`` log scores: exact, or bounds from above.
        exact: ``[labels]`` which of them are exact.
        tolerance: Stop once the bounds of the others add up to at most this share of the exact mass;
            0 computes every label.

    Returns:
        Positions of labels. With nothing exact yet, those that hold most of the bounds' mass, since
        the answer is almost surely among them.
    """
    rest = np.flatnonzero(~exact)
    rest = rest[np.argsort(-scores[rest], kind="stable")]
    if tolerance <= 0 or not len(rest):
        return rest
    top = scores.max()
    # From the smallest bound upwards: the mass of this label and of all that are less likely.
    mass = np.cumsum(np.exp(scores[rest] - top)[::-1])[::-1]
    known = np.exp(scores[exact] - top).sum()
    if known > 0:
        return np.asarray(rest[mass > tolerance * known])
    return np.asarray(rest[: max(1, int((mass > 0.05 * mass[0]).sum()))])
