"""A forest of extremely randomised trees on the text's surface, what it asks for, and its subject.

Trees (Geurts et al. 2006) find what sums cannot: long questions are hard in one field and not in
another. They read the statistics and the cues of the text, and the embedding's main directions. Fitted
by scikit-learn; kept as arrays and walked by all trees at once, so that nothing that runs is stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

import numpy as np

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.cues import WIDTH as CUES
from pilotfish.infer.predictors.cues import question_cues
from pilotfish.infer.predictors.features import STATISTICS_SCALE, Features
from pilotfish.infer.predictors.fitted import Arrays, Fitted
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.infer.predictors.settings import AtLeastOne
from pilotfish.infer.predictors.trees import Trees
from pilotfish.models.protocols import Encoder


@dataclass(eq=False)
class Forest(Fitted):
    """Trees as arrays.

    Attributes:
        features: Computes the dense blocks.
        directions: Of the embedding that are used ``[dim, kept]``.
        trees: Give the qualities of all models.
        cues: Whether the last inputs are the question's cues.
    """

    features: Features
    directions: Floats
    trees: Trees
    cues: bool
    left_out: Floats | None = field(default=None, init=False)

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        trees: AtLeastOne = 200,
        leaf: AtLeastOne | Sequence[AtLeastOne] = 5,
        directions: AtLeastOne = 40,
        bootstrap: bool = False,
        cues: bool = True,
    ) -> Self:
        """Grow the trees.

        Args:
            outcomes: What was recorded; an unknown quality counts as the model's mean.
            encoder: For the embedding.
            seed: Of the trees.
            trees: How many.
            leaf: Questions in a leaf at least; of several, the one with the least out-of-bag error.
            directions: Main directions of each encoder's embedding that are used.
            bootstrap: Whether each tree sees a sample of the questions with replacement. It then predicts
                what it was fitted on from the trees that did not see it (``left_out``), which a stack
                otherwise fits five more forests for; but with few questions it is less good.
            cues: Whether to read what the question asks for.
        """
        from sklearn.ensemble import ExtraTreesRegressor

        features = Features.fit(outcomes.texts, encoder, ngrams=False)
        embedded, _ = features.dense(outcomes.texts)
        main = main_directions(
            embedded, getattr(encoder, "widths", (embedded.shape[1],)), directions
        )
        filled = np.where(np.isnan(outcomes.quality), outcomes.mean_quality(), outcomes.quality)
        x = cls._inputs(features, main, cues, outcomes.texts)
        sizes = tuple(leaf) if isinstance(leaf, Sequence) else (leaf,)

        def grow(size: int, drawn: bool) -> Any:
            method = ExtraTreesRegressor(
                trees, min_samples_leaf=size, max_features=0.3, bootstrap=drawn, random_state=seed
            )
            return method.fit(x, filled)

        size, unseen = sizes[0], None
        if bootstrap or len(sizes) > 1:
            # Drawn with replacement, so that each question is predicted by the trees that did not see it.
            found = []
            for each in sizes:
                drawn = grow(each, True)
                said = _out_of_bag(drawn, x, filled.shape[1])
                off = (
                    filled - said
                )  # what counts is who answers better, not how easy the question is
                apart = off - off.mean(axis=1, keepdims=True) if off.shape[1] > 1 else off
                found.append((float(np.nanmean(apart**2)), each, drawn, said))
            _, size, grown, unseen = min(found, key=lambda one: one[0])
        if not bootstrap:
            grown, unseen = grow(size, False), None
        made = cls(outcomes.models, features, main, Trees.of_forest(grown.estimators_), cues)
        made.left_out = unseen
        return made

    @staticmethod
    def _inputs(features: Features, directions: Floats, cues: bool, texts: Sequence[str]) -> Floats:
        embedded, surface = features.dense(texts)
        parts = [surface / STATISTICS_SCALE, embedded @ directions]
        if cues:
            parts.append(question_cues(texts))
        return np.hstack(parts).astype(np.float32)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Mean over the trees ``[n, models]``, and its standard error from their spread."""
        x = self._inputs(self.features, self.directions, self.cues, texts)
        mean = np.empty((len(x), len(self.models)), np.float32)
        std = np.empty_like(mean)
        for part, votes in self.trees.votes(x):
            mean[part] = votes.mean(axis=1)
            std[part] = votes.std(axis=1)
        return Prediction(mean, std)

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`.

        Raises:
            ArtifactError: A node points outside the trees, or back.
        """
        made = super().restore(settings, arrays, encoder)
        width = made.directions.shape[1] + len(made.features.scale) + made.cues * CUES
        made.trees.check(width)
        return made


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
