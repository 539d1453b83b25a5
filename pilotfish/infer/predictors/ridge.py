"""Ridge regression from a Gram matrix, its strength chosen by the leave-one-out error in closed form.

With ``K + a I = Q (L + a) Q'``, the dual solution is ``c = (K + a I)^-1 (y - mean)`` and the error at a
row when it is left out is ``c_i / ((K + a I)^-1)_ii`` (Wahba 1990; Rasmussen and Williams 2006, section
5.4.2), so one decomposition serves every strength and nothing is fitted twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats

Doubles = NDArray[np.float64]

STRENGTHS = (3.0, 6.0, 12.0, 25.0, 50.0, 100.0)
MAX_ROWS = 4000
"""Rows that are learned from at most; the decomposition of 4,000 takes half a minute on one core."""


@dataclass(frozen=True)
class Ridge:
    """A solution.

    Attributes:
        dual: ``[n, outputs]``; zero at rows whose target is unknown.
        bias: Mean target ``[outputs]``.
        strength: What was chosen for each output's deviation ``[outputs]``.
        left_out: Prediction for each row from all others, ``[n, outputs]``; NaN where unknown.
    """

    dual: Floats
    bias: Floats
    strength: Floats
    left_out: Floats


def gram_matrix(blocks: Sequence[Any]) -> Doubles:
    """The sum of ``block @ block.T`` over blocks ``[n, width]``, sparse or dense."""
    n = blocks[0].shape[0]
    gram: Doubles = np.zeros((n, n))
    for block in blocks:
        if not sp.issparse(block):
            wide = np.asarray(block, np.float64)
            gram += wide @ wide.T
            continue
        for start in range(0, n, 256):  # sparse times a dense slab: see pilotfish.models.logistic
            slab = block[start : start + 256].T.tocsr().toarray()
            gram[:, start : start + 256] += block @ slab
    return gram


def solve_ridge(gram: Doubles, targets: Floats, strengths: Sequence[float] = STRENGTHS) -> Ridge:
    """Solve for all outputs, choosing strengths by the leave-one-out error.

    Outputs are the models' qualities. Their mean over the models, how easy a question is, and each
    one's deviation from it, who answers it better, get a strength of their own: the first is
    far easier to predict, and its strength would let the second fit noise (on 1,500 labels of MMLU the
    choice by the sum of errors lost 0.005 of APGR), though the second is what routing depends on.

    Args:
        gram: ``[n, n]``.
        targets: ``[n, outputs]``, NaN where unknown.
        strengths: What is added to the diagonal.
    """
    n, outputs = targets.shape
    dual, left_out = np.zeros((n, outputs)), np.zeros((n, outputs))
    bias, chosen = np.zeros(outputs), np.zeros(outputs)
    known = ~np.isnan(targets)
    patterns, group = np.unique(known, axis=1, return_inverse=True)
    for g in range(patterns.shape[1]):
        rows, columns = np.flatnonzero(patterns[:, g]), np.flatnonzero(group == g)
        y = targets[np.ix_(rows, columns)].astype(np.float64)
        mean = y.mean(axis=0)
        values, vectors = np.linalg.eigh(gram[np.ix_(rows, rows)])
        level = (y - mean).mean(axis=1, keepdims=True)
        for part in (level, y - mean - level) if len(columns) > 1 else (y - mean,):
            projected = vectors.T @ part
            best = np.inf
            for strength in strengths:
                scale = 1 / (np.maximum(values, 0) + strength)
                c = vectors @ (projected * scale[:, None])
                error = c / ((vectors**2) @ scale)[:, None]
                if (score := float((error**2).sum())) < best:
                    best, kept = score, (c, part - error, strength)
            dual[np.ix_(rows, columns)] += kept[0]
            left_out[np.ix_(rows, columns)] += kept[1]
            chosen[columns] = kept[2]
        left_out[np.ix_(rows, columns)] += mean
        bias[columns] = mean
    left_out[~known] = np.nan
    return Ridge(
        dual.astype(np.float32),
        bias.astype(np.float32),
        chosen.astype(np.float32),
        left_out.astype(np.float32),
    )
