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

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.features import LinearMap, embed
from pilotfish.infer.predictors.logistic import STRENGTH, fit_logistic_map, softmax
from pilotfish.infer.predictors.predictor import Arrays, Prediction, State
from pilotfish.models.protocols import Encoder


class RewardDistilled:
    """Logits of a distribution over models.

    Args:
        models: Their names.
        map: Features to logits ``[n, models]``.
        coverage: Gives the standard deviation.
    """

    embeds: ClassVar[bool] = True
    needs: ClassVar[str] = "quality"

    def __init__(self, models: tuple[str, ...], map: LinearMap, coverage: Coverage) -> None:
        self.models = models
        self.map = map
        self.coverage = coverage

    @classmethod
    def fit(
        cls,
        outcomes: Outcomes,
        encoder: Encoder | None,
        seed: int,
        *,
        temperature: float = 1.0,
        smoothing: float = 0.3,
        clusters: int = 20,
        strength: float = STRENGTH,
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
        map, residuals, dense = fit_logistic_map(
            outcomes.texts, target, encoder, strength=strength, multilabel=False
        )
        return cls(outcomes.models, map, Coverage.fit(dense, residuals))

    def predict(self, texts: Sequence[str]) -> Prediction:
        """The distribution over models ``[n, models]``; rows sum to 1."""
        out, dense = self.map(texts)
        return Prediction(softmax(out), self.coverage.std(dense))

    def state(self) -> State:
        """Coefficients and the inverse of the coverage."""
        settings, arrays = self.map.state()
        return {"map": settings}, {**arrays, **self.coverage.state()}

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from :meth:`state`."""
        map = LinearMap.restore(settings["map"], arrays, encoder)
        return cls(settings["models"], map, Coverage.restore(arrays))


def smooth(reward: Floats, tags: NDArray[Any], beta: float) -> Floats:
    """``beta r + (1 - beta) mean of r over the same tag``, ``[n, models]``."""
    _, of_row = np.unique(tags, return_inverse=True)
    count = np.bincount(of_row)[:, None]
    total = np.zeros((len(count), reward.shape[1]))
    np.add.at(total, of_row, reward)
    out: Floats = (beta * reward + (1 - beta) * (total / count)[of_row]).astype(np.float32)
    return out
