"""Distil the rewards of all models' answers into a router.

Zooter (Lu et al. 2024, "Routing to the Expert"): the router's distribution over models is fitted to the
softmax of the answers' rewards, ``KL(softmax(r / T) || router)``, and rewards are smoothed by the
question's tag against the noise of the reward model: ``r' = beta r + (1 - beta) mean of r over the
tag``.

Differences: recorded qualities are the rewards; the tag is the question's category where one is
recorded, else one of k-means clusters of the embedding (the paper asks a tagging model); a linear model
on n-grams, embedding and surface takes the place of a fine-tuned mDeBERTa.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.features import embed
from pilotfish.infer.predictors.logistic import STRENGTH, fit_logistic_map, softmax
from pilotfish.infer.predictors.mapped import Mapped
from pilotfish.infer.predictors.settings import AtLeastOne, Positive, Share
from pilotfish.models.protocols import Encoder


@dataclass(eq=False)
class RewardDistilled(Mapped):
    """Logits of a distribution over models."""

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        temperature: Positive = 1.0,
        smoothing: Share = 0.3,
        clusters: AtLeastOne = 20,
        strength: Positive = STRENGTH,
    ) -> Self:
        """Learn from outcomes.

        Args:
            outcomes: What was recorded; an unknown quality counts as the model's mean.
            encoder: For the embedding.
            seed: Of the clusters.
            temperature: Of the softmax over rewards, the paper's T.
            smoothing: The paper's beta: how much a question's own reward counts against its tag's.
            clusters: Tags to make where the outcomes have no groups.
            strength: How much the data count against the prior.
        """
        assert encoder is not None  # fit_predictor brings one
        reward = np.where(np.isnan(outcomes.quality), outcomes.mean_quality(), outcomes.quality)
        tags = np.array(outcomes.groups, object) if outcomes.groups else None
        if tags is None:
            from sklearn.cluster import KMeans

            count = min(clusters, len(outcomes))
            rows = embed(encoder, outcomes.texts)
            tags = KMeans(count, n_init=1, random_state=seed).fit_predict(rows)
        target = softmax(smooth(reward, tags, smoothing) / temperature)
        fitted = fit_logistic_map(
            outcomes.texts, target, encoder, strength=strength, multilabel=False
        )
        return cls.of(outcomes.models, fitted)

    def link(self, out: Floats) -> Floats:
        """The distribution over models; rows sum to 1."""
        return softmax(out)


def smooth(reward: Floats, tags: NDArray[Any], beta: float) -> Floats:
    """``beta r + (1 - beta) mean of r over the same tag``, ``[n, models]``."""
    _, of_row = np.unique(tags, return_inverse=True)
    count = np.bincount(of_row)[:, None]
    total = np.zeros((len(count), reward.shape[1]))
    np.add.at(total, of_row, reward)
    out: Floats = (beta * reward + (1 - beta) * (total / count)[of_row]).astype(np.float32)
    return out
