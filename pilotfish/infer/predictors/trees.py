"""Decision trees as arrays, walked all at once: what forests and boosted trees are stored as.

scikit-learn grows them; nothing that runs is stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ArtifactError
from pilotfish.infer.outcomes import Floats
from pilotfish.infer.predictors.fitted import Arrays, State
from pilotfish.models.protocols import Encoder

BATCH = 256


@dataclass(eq=False)
class Trees:
    """Trees over ``width`` features.

    Attributes:
        nodes: For each node its feature (-1 at a leaf), and its left and right child; ``[nodes, 3]``.
        cuts: Threshold of each node ``[nodes]``; at most that goes left.
        values: What each node says ``[nodes, outputs]``.
        roots: Where each tree starts ``[trees]``.
    """

    nodes: NDArray[np.int32]
    cuts: Floats
    values: Floats
    roots: NDArray[np.int32]

    def __post_init__(self) -> None:
        # A leaf is its own child, so that all trees are walked for as long as the deepest. A node stands
        # at twice its number here, so that its children are at its place and the next. Numbers are as
        # wide as NumPy's own indices: looking up by narrower ones takes five times as long.
        own = np.arange(len(self.nodes))
        leaf = self.nodes[:, 0] < 0
        self._leaf = np.repeat(leaf, 2)
        self._feature = np.repeat(np.where(leaf, 0, self.nodes[:, 0]), 2).astype(np.intp)
        self._cut = np.repeat(self.cuts, 2)
        children = np.where(leaf[:, None], own[:, None], self.nodes[:, 1:])
        self._child = 2 * children.ravel().astype(np.intp)
        self._depth, level = 0, self.roots
        while not leaf[level].all():
            level = np.unique(children[level])
            self._depth += 1

    @classmethod
    def of_forest(cls, grown: Sequence[Any]) -> Self:
        """From scikit-learn's fitted regression trees; a value is the mean in the node."""
        parts = [
            (
                tree.feature,
                tree.children_left,
                tree.children_right,
                tree.threshold,
                tree.value[:, :, 0],
            )
            for tree in (one.tree_ for one in grown)
        ]
        return cls._joined(parts)

    @classmethod
    def of_boosted(cls, models: Sequence[Any]) -> Self:
        """From scikit-learn's histogram gradient boosting, one fitted regressor for each output.

        The values of a row's leaves add up to the prediction less its start, ``_baseline_prediction``,
        which is put into the first tree.
        """
        parts = []
        for output, model in enumerate(models):
            start = float(model._baseline_prediction.ravel()[0])
            for step in model._predictors:
                node = step[0].nodes
                leaf = node["is_leaf"].astype(bool)
                value = np.zeros((len(node), len(models)))
                value[:, output] = node["value"] + start
                start = 0.0
                feature = np.where(leaf, -1, node["feature_idx"])
                left, right = (
                    np.where(leaf, -1, node[side].astype(int)) for side in ("left", "right")
                )
                parts.append((feature, left, right, node["num_threshold"], value))
        return cls._joined(parts)

    @classmethod
    def _joined(cls, parts: Sequence[tuple[Any, ...]]) -> Self:
        nodes, cuts, values, roots, start = [], [], [], [], 0
        for feature, left, right, threshold, value in parts:
            inner = left >= 0
            moved = [np.where(inner, side + start, -1) for side in (left, right)]
            nodes.append(np.stack([np.where(inner, feature, -1), *moved], axis=1))
            cuts.append(threshold)
            values.append(value)
            roots.append(start)
            start += len(left)
        return cls(
            np.vstack(nodes).astype(np.int32),
            np.concatenate(cuts).astype(np.float32),
            np.vstack(values).astype(np.float32),
            np.array(roots, np.int32),
        )

    @classmethod
    def none(cls, outputs: int) -> Self:
        """No trees."""
        empty = np.zeros((0, outputs), np.float32)
        nothing = np.zeros(0, np.int32)
        return cls(np.zeros((0, 3), np.int32), np.zeros(0, np.float32), empty, nothing)

    def part(self, output: int, of: int) -> Self:
        """The trees of one of ``of`` boosted outputs, all having equally many."""
        each = len(self.roots) // of
        roots = self.roots[output * each : (output + 1) * each]
        return type(self)(self.nodes, self.cuts, self.values[:, output : output + 1], roots)

    def votes(self, rows: Floats) -> Iterator[tuple[slice, Floats]]:
        """What every tree says of rows ``[n, width]``, in batches: ``[batch, trees, outputs]``."""
        rows = np.asarray(rows, np.float32)
        if len(rows) == 1:  # a decision: a level costs what its operations do, so few of them
            row, at = rows[0], 2 * self.roots.astype(np.intp)
            for level in range(self._depth):
                if level % 4 == 0 and level > 8 and self._leaf.take(at).all():
                    break
                right = row.take(self._feature.take(at)) > self._cut.take(at)
                at = self._child.take(at + right)
            yield slice(0, 1), self.values.take(at >> 1, axis=0)[None]
            return
        width = rows.shape[1]
        for start in range(0, len(rows), BATCH):
            part = slice(start, start + BATCH)
            flat = np.ascontiguousarray(rows[part]).ravel()
            first = (np.arange(len(rows[part])) * width)[:, None]
            at = np.repeat(2 * self.roots[None].astype(np.intp), len(rows[part]), axis=0)
            for _ in range(self._depth):
                right = flat.take(self._feature.take(at) + first) > self._cut.take(at)
                at = self._child.take(at + right)
            yield part, self.values.take(at >> 1, axis=0)

    def total(self, rows: Floats) -> Floats:
        """The sum over the trees ``[n, outputs]``."""
        out = np.empty((len(rows), self.values.shape[1]), np.float32)
        for part, said in self.votes(rows):
            out[part] = said.sum(axis=1)
        return out

    def check(self, width: int) -> None:
        """Refuse trees that read other than ``width`` features, or whose walk would not end.

        Raises:
            ArtifactError: A node points outside the trees, or back.
        """
        nodes = self.nodes
        sound = _ends(nodes, self.roots)
        if not sound or nodes[:, 0].max(initial=0) >= width:
            raise ArtifactError("The trees' nodes point outside them.", remedy="Fit it again.")

    def state(self) -> State:
        """Arrays; :meth:`restore` is the inverse."""
        own = {"nodes": self.nodes, "cuts": self.cuts, "values": self.values, "roots": self.roots}
        return {}, own

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`.

        Raises:
            ArtifactError: A node points outside the trees, or back.
        """
        nodes, roots = arrays["nodes"], arrays["roots"]
        if not _ends(nodes, roots):
            raise ArtifactError("The trees' nodes point outside them.", remedy="Fit it again.")
        return cls(nodes, arrays["cuts"], arrays["values"], roots)


def _ends(nodes: NDArray[np.int32], roots: NDArray[np.int32]) -> bool:
    """Whether every walk stays inside and ends: a child comes after its parent."""
    own = np.arange(len(nodes))[:, None]
    inner = nodes[:, 0] >= 0
    children = nodes[inner, 1:]
    inside = (children > own[inner]).all() and (children < len(nodes)).all()
    return bool(inside and (roots < len(nodes)).all() and (roots >= 0).all())
