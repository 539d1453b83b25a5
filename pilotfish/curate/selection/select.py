"""Choose which inputs to ask the large model about (C13).

- The first batch has no answers yet: :func:`representative` takes inputs that stand for the others
  (:mod:`pilotfish.curate.selection.cover`).
- Later batches have a student: :func:`uncertain_and_diverse` takes inputs that it is unsure about
  (uncertainty sampling, Lewis and Gale 1994; margins, Scheffer et al. 2001), spread out so that they
  do not all ask the same thing (weighted k-means as in Zhdanov 2019).

Measured against random by the student that results (``benchmarks/selection.py``: 2 tasks, 10 seeds
each). A first batch of 100: accuracy +8 and +2 points by facility location, +5 and +2 by k-means, -23
and -13 by k-centre, which asks about outliers. From 100 to 1,000: +1 and +3 by uncertainty with
k-means, whatever the kind of uncertainty; ``"least"`` was ahead of ``"margin"`` by half a point, hardly
more than noise, and is the score that cascades use. At 300, on the task of 50 classes, uncertainty
gained accuracy but lost inputs that could be served at 95% (.18 against .23 at random): the price of
skipping what is easy.

The answers so chosen are not a sample of the inputs: they may train students, but no certificate
may rest on them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.curate.selection.cover import (
    at_random,
    check,
    facility_location,
    k_center_greedy,
    k_means_medoids,
    nearest,
    remaining,
)
from pilotfish.errors import ConfigError

Floats = NDArray[np.float32]
Indices = NDArray[np.int64]
Weights = NDArray[np.floating[Any]]

__all__ = [
    "FIRST",
    "at_random",
    "facility_location",
    "k_center_greedy",
    "k_means_medoids",
    "nearest",
    "representative",
    "uncertain_and_diverse",
    "uncertainty",
]

PREFILTER = 10  # the unsure ones that diversity chooses from, as a multiple of k

FIRST: dict[str, Callable[..., Indices]] = {
    "k-means": k_means_medoids,
    "facility-location": facility_location,
    "k-center": k_center_greedy,
    "random": at_random,
}


def representative(
    embeddings: Floats,
    k: int,
    *,
    weights: Weights | None = None,
    seed: int = 0,
    method: str = "facility-location",
) -> Indices:
    """The first batch: ``k`` inputs that stand for all.

    Args:
        embeddings: Unit rows ``[n, dim]``.
        k: How many.
        weights: How many inputs each row stands for.
        seed: Of every random choice.
        method: A name of :data:`FIRST`.

    Returns:
        ``min(k, n)`` positions, no two alike.

    Raises:
        ConfigError: No such method.
    """
    if method not in FIRST:
        raise ConfigError(f"Got method={method!r}.", remedy=f"Known: {', '.join(FIRST)}")
    return FIRST[method](embeddings, k, weights=weights, seed=seed)


def uncertainty(proba: Floats, *, kind: str = "margin") -> Floats:
    """How unsure a student is, ``[n]`` in [0, 1].

    Args:
        proba: ``[n, classes]``.
        kind: ``"margin"``: one minus the gap between the two likeliest classes; ``"entropy"``: entropy
            of the normalised row over ``log(classes)``; ``"least"``: one minus the likeliest.

    Raises:
        ConfigError: No such kind.
    """
    p = np.asarray(proba, np.float32)
    if kind not in ("margin", "entropy", "least"):
        raise ConfigError(f"Got kind={kind!r}.", remedy="Known: margin, entropy, least")
    if p.shape[1] < 2 or kind == "least":
        return np.asarray(1 - p.max(axis=1), np.float32)
    if kind == "margin":
        top = np.partition(p, -2, axis=1)[:, -2:]
        return np.asarray(1 - (top[:, 1] - top[:, 0]), np.float32)
    share = p / np.maximum(p.sum(axis=1, keepdims=True), 1e-12)
    entropy = -(share * np.log(np.maximum(share, 1e-12))).sum(axis=1)
    return np.asarray(entropy / np.log(p.shape[1]), np.float32)


def uncertain_and_diverse(
    proba: Floats,
    embeddings: Floats,
    k: int,
    *,
    exclude: Sequence[int] | Indices = (),
    weights: Weights | None = None,
    seed: int = 0,
    method: str = "k-means",
    kind: str = "least",
) -> Indices:
    """A later batch: inputs that a student is unsure about, spread out.

    The ``PREFILTER * k`` most unsure ones (counting weights) are kept; of these, one per cluster of
    a k-means weighted by uncertainty is taken (or: ``"k-center"`` away from those asked already,
    ``"top"`` the most unsure ones alone, ``"random"`` any of all).

    Args:
        proba: The student's probabilities ``[n, classes]``.
        embeddings: Unit rows ``[n, dim]``.
        k: How many.
        exclude: Positions asked already.
        weights: How many inputs each row stands for.
        seed: Of every random choice.
        method: ``"k-means"``, ``"k-center"``, ``"top"`` or ``"random"``.
        kind: See :func:`uncertainty`.

    Returns:
        ``min(k, n - len(exclude))`` positions, none of them in ``exclude``.

    Raises:
        ConfigError: No such method or kind.
    """
    x, w = check(embeddings, k, weights)
    if method not in ("k-means", "k-center", "top", "random"):
        raise ConfigError(f"Got method={method!r}.", remedy="Known: k-means, k-center, top, random")
    free = remaining(len(x), exclude)
    if k >= len(free):
        return free
    if method == "random":
        return np.random.default_rng(seed).permutation(free)[:k]
    unsure = uncertainty(proba, kind=kind)[free] * w[free]
    order = free[np.argsort(-unsure, kind="stable")]
    if method == "top":
        return order[:k]
    keep = order[: PREFILTER * k]
    if method == "k-center":
        both = np.concatenate([keep, np.asarray(exclude, np.int64)])
        picked = k_center_greedy(x[both], k, chosen=np.arange(len(keep), len(both)), seed=seed)
        return both[picked]
    mass = np.maximum(np.sort(unsure)[::-1][: len(keep)], 1e-6)
    return keep[k_means_medoids(x[keep], k, weights=mass, seed=seed)]
