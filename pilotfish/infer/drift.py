"""Do today's inputs still look like those that the small model learned from?

A two-sample test on embeddings: the maximum mean discrepancy with a Gaussian kernel (Gretton et al.
2012), with the kernel written as random Fourier features (Rahimi and Recht 2007). Both samples become
one matrix of features; the statistic is the squared distance of the two mean feature vectors, and a
permutation of who belongs to which sample is a product with that matrix, so time and memory grow
linearly with the number of texts. (The exact statistic and the energy distance need every pair; a
classifier two-sample test needs a fit per permutation, or half of the data.) The p-value is by
permutation and so exact at any size: where nothing has changed, P(p <= a) <= a.

The width of the kernel is the median distance within both samples together, which a permutation does not
change. Differences from the papers: the biased statistic is used, which ranks permutations like the
unbiased one when the sizes are fixed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError

FEATURES = 256  # random directions; each gives a cosine and a sine
PERMUTATIONS = 999
FEWEST = 10  # per sample: with fewer, hardly anything can be told apart
_WIDTH_SAMPLE = 500
_BLOCK = 64  # permutations at a time: bounds memory at 64 * n numbers

Floats = NDArray[np.floating]


@dataclass(frozen=True, slots=True)
class Drift:
    """The outcome of a two-sample test.

    Attributes:
        p_value: Chance of so large a statistic if both samples came from one source, in (0, 1].
        statistic: Squared maximum mean discrepancy, in [0, 2].
        before: Size of the first sample.
        after: Size of the second.
    """

    p_value: float
    statistic: float
    before: int
    after: int


def two_sample(
    before: Floats, after: Floats, *, permutations: int = PERMUTATIONS, seed: int = 0
) -> Drift:
    """Test whether two samples of vectors come from one source.

    Args:
        before: Vectors of the reference ``[n, dim]``.
        after: Vectors to compare with it ``[m, dim]``.
        permutations: The p-value is a multiple of 1 / (permutations + 1).
        seed: Of the random features and permutations.

    Raises:
        InputError: A sample has fewer than 10 vectors, or the dimensions differ.
    """
    if before.ndim != 2 or after.ndim != 2 or before.shape[1] != after.shape[1]:
        raise InputError(
            f"Got samples of shape {before.shape} and {after.shape}, but expected rows of one length."
        )
    n, m = len(before), len(after)
    if min(n, m) < FEWEST:
        raise InputError(f"Got samples of {n} and {m}, but expected at least {FEWEST} in each.")
    rng = np.random.default_rng(seed)
    pooled = np.concatenate([before, after]).astype(np.float32)
    features = fourier_features(pooled, width(pooled, rng), rng)
    features -= features.mean(axis=0)  # changes no difference of means, and keeps float32 exact
    is_after = np.zeros(n + m, np.float32)
    is_after[n:] = 1.0
    observed = float(_discrepancies(features, is_after[None], n, m)[0])
    at_least = 0
    for start in range(0, permutations, _BLOCK):
        block = np.tile(is_after, (min(_BLOCK, permutations - start), 1))
        shuffled = rng.permuted(block, axis=1)
        at_least += int((_discrepancies(features, shuffled, n, m) >= observed * (1 - 1e-6)).sum())
    return Drift((1 + at_least) / (1 + permutations), observed, n, m)


def width(vectors: Floats, rng: np.random.Generator) -> float:
    """The median distance between vectors, over at most 500 of them; 1 when all are the same."""
    some = vectors
    if len(vectors) > _WIDTH_SAMPLE:
        some = vectors[rng.choice(len(vectors), _WIDTH_SAMPLE, replace=False)]
    squares = (some**2).sum(axis=1)
    apart = squares[:, None] + squares[None, :] - 2.0 * some @ some.T
    median = float(np.median(apart[np.triu_indices(len(some), 1)]))
    return float(np.sqrt(median)) if median > 1e-12 else 1.0


def fourier_features(
    vectors: Floats, width: float, rng: np.random.Generator, count: int = FEATURES
) -> NDArray[np.float32]:
    """Features whose inner products approximate ``exp(-|x - y|^2 / (2 width^2))``, ``[n, 2 count]``.

    Args:
        vectors: ``[n, dim]``.
        width: Of the kernel, > 0.
        rng: Draws the directions.
        count: Directions; the error of an inner product is about ``1 / sqrt(count)``.
    """
    directions = rng.standard_normal((vectors.shape[1], count)).astype(np.float32) / width
    angles = vectors.astype(np.float32) @ directions
    both = np.concatenate([np.cos(angles), np.sin(angles)], axis=1)
    return np.asarray(both / np.sqrt(count), dtype=np.float32)


def _discrepancies(
    features: NDArray[np.float32], is_after: NDArray[np.float32], n: int, m: int
) -> Floats:
    """Squared distances of the two means for each assignment ``[k, n + m]``; features are centred."""
    sums = is_after @ features
    # centred: the sum over "before" is minus the sum over "after"
    return np.asarray((sums**2).sum(axis=1) * (1.0 / n + 1.0 / m) ** 2, dtype=np.float64)
