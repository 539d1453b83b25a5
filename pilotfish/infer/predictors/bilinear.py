"""Scores of the form ``(W x) . V_m``: fitting by Adam, prediction, storage.

Matrix factorisation and contrastive learning give every model a vector and project the question's
embedding to the same space; they differ in the loss alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats
from pilotfish.infer.predictors.features import embed
from pilotfish.models.protocols import Encoder

Doubles = NDArray[np.float64]
Loss = Callable[[Doubles, NDArray[np.intp]], Doubles]


def scores(x: Doubles, projection: Doubles, vectors: Doubles) -> Doubles:
    """``(x W) V'``, ``[n, models]``; the last column of ``x`` is 1, which gives ``W`` a bias."""
    out: Doubles = (x @ projection) @ vectors.T
    return out


def with_one(x: Floats) -> Doubles:
    """A column of ones at the end."""
    return np.hstack([x, np.ones((len(x), 1))]).astype(np.float64)


def fit_bilinear(
    x: Doubles,
    models: int,
    gradient: Loss,
    *,
    rank: int,
    epochs: int,
    rate: float,
    decay: float,
    seed: int,
    batch: int = 64,
) -> tuple[Doubles, Doubles]:
    """Projection ``[width, rank]`` and vectors ``[models, rank]`` by Adam with weight decay.

    Args:
        x: ``[n, width]``.
        models: Their number.
        gradient: From scores ``[batch, models]`` and the rows' positions to the gradient of the loss.
        rank: Length of the vectors.
        epochs: Passes over the rows.
        rate: Adam's step.
        decay: Weight decay (decoupled, as in AdamW).
        seed: Of start and order.
        batch: Rows of a step.
    """
    rng = np.random.default_rng(seed)
    weights = [
        rng.normal(0, 1 / np.sqrt(x.shape[1]), (x.shape[1], rank)),
        rng.normal(0, 1 / np.sqrt(rank), (models, rank)),
    ]
    first = [np.zeros_like(w) for w in weights]
    second = [np.zeros_like(w) for w in weights]
    step = 0
    for _ in range(epochs):
        order = rng.permutation(len(x))
        for start in range(0, len(x), batch):
            rows = order[start : start + batch]
            part = x[rows]
            hidden = part @ weights[0]
            error = gradient(hidden @ weights[1].T, rows) / len(rows)
            own = [part.T @ (error @ weights[1]), error.T @ hidden]
            step += 1
            for w, g, m, v in zip(weights, own, first, second, strict=True):
                m += 0.1 * (g - m)
                v += 0.001 * (g * g - v)
                move = (m / (1 - 0.9**step)) / (np.sqrt(v / (1 - 0.999**step)) + 1e-8)
                w -= rate * (move + decay * w)
    return weights[0], weights[1]


def centred(encoder: Encoder, texts: Sequence[str], center: Floats | None) -> tuple[Floats, Floats]:
    """Embeddings about a center (default: their mean), as unit rows; and the center."""
    rows = embed(encoder, texts)
    middle = rows.mean(axis=0) if center is None else center
    rows = rows - middle
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6), middle
