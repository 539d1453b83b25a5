"""A forest of extremely randomised trees on the text's surface and the embedding's main directions.

Trees (Geurts et al. 2006) find what sums cannot: long questions are hard in one field and not in
another. Fitted by scikit-learn; kept as arrays and walked by all trees at once, so that nothing that
runs is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ArtifactError
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.features import STATISTICS_SCALE, Features
from pilotfish.infer.predictors.fitted import Arrays, Fitted
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.models.protocols import Encoder

BATCH = 256


@dataclass(eq=False)
class Forest(Fitted):
    """Trees as arrays.

    Attributes:
        features: Computes the dense blocks.
        directions: Of the embedding that are used ``[dim, kept]``.
        nodes: For each node its feature (-1 at a leaf), and its left and right child; ``[nodes, 3]``.
        cuts: Threshold of each node ``[nodes]``.
        values: Qualities at each node ``[nodes, models]``.
        roots: Where each tree starts ``[trees]``.
    """

    features: Features
    directions: Floats
    nodes: NDArray[np.int32]
    cuts: Floats
    values: Floats
    roots: NDArray[np.int32]
    left_out: Floats | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        # A leaf is its own child, so that all trees are walked for as long as the deepest.
        own = np.arange(len(self.nodes), dtype=np.int32)
        leaf = self.nodes[:, 0] < 0
        self._feature = np.where(leaf, 0, self.nodes[:, 0])
        self._child = np.where(leaf[:, None], own[:, None], self.nodes[:, 1:]).ravel()
        self._depth, level = 0, self.roots
        while not leaf[level].all():
            level = np.unique(self._child.reshape(-1, 2)[level])
            self._depth += 1

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        trees: int = 200,
        leaf: int | Sequence[int] = 20,
        directions: int = 40,
    ) -> Self:
        """Grow the trees.

        Args:
            outcomes: What was recorded; an unknown quality counts as the model's mean.
            encoder: For the embedding.
            seed: Of the trees.
            trees: How many.
            leaf: Questions in a leaf at least; of several, the one with the least out-of-bag error.
            directions: Main directions of each encoder's embedding that are used.
        """
        from sklearn.ensemble import ExtraTreesRegressor

        features = Features.fit(outcomes.texts, encoder, ngrams=False)
        embedded, _ = features.dense(outcomes.texts)
        main = main_directions(
            embedded, getattr(encoder, "widths", (embedded.shape[1],)), directions
        )
        filled = np.where(np.isnan(outcomes.quality), outcomes.mean_quality(), outcomes.quality)
        x = cls._inputs(features, main, outcomes.texts)
        # Drawn with replacement, so that each question is predicted by the trees that did not see it.
        found = []
        for size in leaf if isinstance(leaf, Sequence) else [leaf]:
            grown = ExtraTreesRegressor(
                trees, min_samples_leaf=size, max_features=0.3, bootstrap=True, random_state=seed
            ).fit(x, filled)
            unseen = _out_of_bag(grown, x, filled.shape[1])
            off = filled - unseen  # what counts is who answers better, not how easy the question is
            apart = off - off.mean(axis=1, keepdims=True) if off.shape[1] > 1 else off
            found.append((float(np.nanmean(apart**2)), grown, unseen))
        _, grown, unseen = min(found, key=lambda one: one[0])
        nodes, cuts, values, roots, start = [], [], [], [], 0
        for one in grown.estimators_:
            tree = one.tree_
            inner = tree.children_left >= 0
            left = np.where(inner, tree.children_left + start, -1)
            right = np.where(inner, tree.children_right + start, -1)
            nodes.append(np.stack([np.where(inner, tree.feature, -1), left, right], axis=1))
            cuts.append(tree.threshold)
            values.append(tree.value[:, :, 0])
            roots.append(start)
            start += tree.node_count
        made = cls(
            outcomes.models,
            features,
            main,
            np.vstack(nodes).astype(np.int32),
            np.concatenate(cuts).astype(np.float32),
            np.vstack(values).astype(np.float32),
            np.array(roots, np.int32),
        )
        made.left_out = unseen
        return made

    @staticmethod
    def _inputs(features: Features, directions: Floats, texts: Sequence[str]) -> Floats:
        embedded, surface = features.dense(texts)
        return np.hstack([surface / STATISTICS_SCALE, embedded @ directions]).astype(np.float32)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Mean over the trees ``[n, models]``, and its standard error from their spread."""
        x = self._inputs(self.features, self.directions, texts)
        width = x.shape[1]
        mean = np.empty((len(x), len(self.models)), np.float32)
        std = np.empty_like(mean)
        for start in range(0, len(x), BATCH):
            part = x[start : start + BATCH]
            flat = np.ascontiguousarray(part).ravel()
            first = (np.arange(len(part)) * width)[:, None]
            at = np.repeat(self.roots[None], len(part), axis=0)
            for _ in range(self._depth):
                right = flat.take(self._feature.take(at) + first) > self.cuts.take(at)
                at = self._child.take(2 * at + right)
            votes = self.values[at]
            mean[start : start + BATCH] = votes.mean(axis=1)
            std[start : start + BATCH] = votes.std(axis=1)
        return Prediction(mean, std)

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`.

        Raises:
            ArtifactError: A node points outside the trees, or back.
        """
        nodes, roots = arrays["nodes"], arrays["roots"]
        width = arrays["directions"].shape[1] + len(arrays["features.scale"])
        own = np.arange(len(nodes))[:, None]
        inner = nodes[:, 0] >= 0
        children = nodes[inner, 1:]
        # A child comes after its parent, so that every walk ends.
        sound = (children > own[inner]).all() and (children < len(nodes)).all()
        if not sound or nodes[:, 0].max(initial=0) >= width or (roots >= len(nodes)).any():
            raise ArtifactError("The forest's nodes point outside it.", remedy="Fit it again.")
        return super().restore(settings, arrays, encoder)


def main_directions(rows: Floats, widths: Sequence[int], most: int) -> Floats:
    """The main directions of each encoder's columns ``[dim, kept]``, at most ``most`` of each."""
    blocks, start = [], 0
    for width in widths:
        size, basis = np.linalg.svd(rows[:, start : start + width], full_matrices=False)[1:]
        # Directions without texts are rounding errors, and a tree that splits there is unstable.
        kept = max(min(most, int((size > 1e-3 * size[0]).sum())), 1)
        block = np.zeros((rows.shape[1], kept), np.float32)
        block[start : start + width] = basis[:kept].T
        blocks.append(block)
        start += width
    return np.hstack(blocks)


def _out_of_bag(grown: Any, x: Floats, outputs: int) -> Floats:
    """For each row the mean over the trees that were grown without it; NaN without any."""
    total, count = np.zeros((len(x), outputs)), np.zeros(len(x))
    for tree, drawn in zip(grown.estimators_, grown.estimators_samples_, strict=True):
        unseen = np.bincount(drawn, minlength=len(x)) == 0
        total[unseen] += tree.predict(x[unseen]).reshape(-1, outputs)
        count += unseen
    out: Floats = np.where(count[:, None] > 0, total / np.maximum(count, 1)[:, None], np.nan)
    return out.astype(np.float32)
