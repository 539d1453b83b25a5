"""Quality from agreement alone: the models whose answers lie near the others' are the good ones.

Smoothie (Guha et al. 2024) takes the embedding of model i's answer to be the true answer's plus noise
of variance ``v_i``, independent between models. Then ``E|a_i - a_j|^2 = v_i + v_j``, so for any two
others ``v_i = (d_ij + d_ik - d_jk) / 2`` in closed form, averaged over all pairs; no label is used.
Smoothie-Local averages the distances over the nearest questions only.

This is the form that the paper calls Smoothie-Train: distances are those of recorded answers, so that
one model is asked at serving time, not all. Differences: two models that none of the nearest questions
has answers of are as far apart as over all questions, and if none has, as two models are in the mean;
reported is ``1 - v_i / 2`` in place of the paper's ``theta_i = dim / (2 v_i)``; both fall with ``v_i``,
so the choice is the same, and with unit rows it is the expected cosine to the true answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Floats, Outcomes
from pilotfish.infer.predictors.features import embed
from pilotfish.infer.predictors.fitted import Fitted
from pilotfish.infer.predictors.predictor import Prediction
from pilotfish.models.protocols import Encoder

BATCH = 512


@dataclass(eq=False)
class Agreement(Fitted):
    """Recorded questions with the distances between the models' answers.

    Attributes:
        rows: Unit rows of the questions ``[n, dim]``.
        distance: Squared distances ``[n, models, models]``; NaN where an answer is missing.
        k: Nearest questions that are averaged; 0 for all.
        encoder: Embeds.
    """

    needs: ClassVar[str] = "answers"

    rows: Floats
    distance: Floats
    k: int
    encoder: Encoder

    def __post_init__(self) -> None:
        self._known = ~np.isnan(self.distance)
        self._values = np.where(self._known, self.distance, 0)
        seen = self._known.sum(axis=0)
        mean = self._values.sum(axis=0) / np.maximum(seen, 1)
        unseen = (seen == 0) & ~np.eye(len(seen), dtype=bool)
        compared = (seen > 0) & ~np.eye(len(seen), dtype=bool)
        self._overall = np.where(unseen, mean[compared].mean() if compared.any() else 0, mean)

    @classmethod
    def fit(cls, outcomes: Outcomes, encoder: Encoder | None, seed: int, *, k: int = 50) -> Self:
        """Compare the recorded answers; qualities are not looked at.

        Args:
            outcomes: With answers of three models at least.
            encoder: Embeds questions and answers.
            seed: Not used; nothing is random.
            k: Nearest questions that are averaged; 0 for all (Smoothie-Global).

        Raises:
            InputError: There are fewer than three models, or one of them gave no answer.
        """
        assert encoder is not None  # fit_predictor brings one
        assert outcomes.answers is not None  # and has looked
        n, m = outcomes.answers.shape
        if m < 3:
            raise InputError(
                f"Got answers of {m} models, but agreement needs 3 at least to tell whose is off."
            )
        there = np.array([[text is not None for text in row] for row in outcomes.answers], bool)
        if silent := [
            name for name, own in zip(outcomes.models, there.T, strict=True) if not own.any()
        ]:
            raise InputError(
                f"No answer was recorded of {', '.join(silent)}.",
                remedy="Leave these models out: --models, in Python outcomes.select([...])",
            )
        if not (there.sum(axis=1) > 1).any():
            raise InputError(
                "No question was answered by two models, so no answers can be compared."
            )
        vectors = np.full((n, m, encoder.dim), np.nan, np.float32)
        for j in range(m):
            said = there[:, j]
            vectors[said, j] = embed(encoder, [str(text) for text in outcomes.answers[said, j]])
        squares = (vectors**2).sum(axis=2)
        inner = np.einsum("nid,njd->nij", vectors, vectors)
        distance = np.maximum(squares[:, :, None] + squares[:, None, :] - 2 * inner, 0)
        rows = embed(encoder, outcomes.texts)
        return cls(outcomes.models, rows, distance, k if k < n else 0, encoder)

    def predict(self, texts: Sequence[str]) -> Prediction:
        """Expected cosine to the true answer ``[n, models]``, clipped to [0, 1]."""
        n, m = len(texts), len(self.models)
        if not self.k:
            noise = np.repeat(noise_variance(self._overall)[None], n, axis=0)
            count = np.full((n, 1), len(self.rows))
        else:
            noise = np.empty((n, m))
            asked = embed(self.encoder, texts)
            for start in range(0, n, BATCH):
                alike = asked[start : start + BATCH] @ self.rows.T
                near = np.argpartition(-alike, self.k - 1, axis=1)[:, : self.k]
                seen = self._known[near].sum(axis=1)
                local = self._values[near].sum(axis=1) / np.maximum(seen, 1)
                local = np.where(seen > 0, local, self._overall)
                noise[start : start + BATCH] = noise_variance(local)
            count = np.full((n, 1), self.k)
        mean = np.clip(1 - noise / 2, 0, 1)
        std = np.sqrt(np.maximum(mean * (1 - mean), 1e-4) / count)
        return Prediction(mean.astype(np.float32), std.astype(np.float32))


def noise_variance(distance: NDArray[Any]) -> NDArray[np.float64]:
    """``v_i``, the mean of ``(d_ij + d_ik - d_jk) / 2`` over all pairs ``j, k`` other than ``i``.

    Args:
        distance: Mean squared distances ``[..., m, m]``, m at least 3.
    """
    m = distance.shape[-1]
    rows = distance.sum(axis=-1)  # the diagonal is 0
    every = rows.sum(axis=-1, keepdims=True)
    # Each d_ij is in m - 2 of the (m - 1)(m - 2) / 2 pairs; the d_jk are those without i.
    others = (every - 2 * rows) / 2
    pairs = (m - 1) * (m - 2) / 2
    out: NDArray[np.float64] = ((m - 2) * rows - others) / (2 * pairs)
    return np.maximum(out, 0)
