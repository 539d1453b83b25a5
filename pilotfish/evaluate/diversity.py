"""How repetitive generated texts are, how varied, and how close to what people wrote.

Repetition within a text: rep-n (Welleck et al. 2020, "Neural Text Generation With Unlikelihood Training";
the diversity made of it: Su et al. 2022, "A Contrastive Framework for Neural Text Generation"). Variety
over all texts: distinct-n (Li et al. 2016, "A Diversity-Promoting Objective Function for Neural
Conversation Models"). Closeness: the area under the divergence frontier of two samples of embeddings,
MAUVE (Pillutla et al. 2021, "MAUVE: Measuring the Gap Between Neural Text and Human Text using Divergence
Frontiers"), with their later smoothing for small samples (Pillutla et al. 2023, "MAUVE Scores for
Generative Models", JMLR).

Known differences: shares are in [0, 1], not per cent. The published script for rep-n leaves out the last
n-gram of each text; here all count. The embeddings are any encoder's, not GPT-2's last state, so values
are compared with one another and not with published ones.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from pilotfish.errors import InputError

Doubles = NDArray[np.float64]
Ints = NDArray[np.int64]
Words: TypeAlias = str | Sequence[Hashable]  # a text, split at white space, or its words or tokens

POINTS = 2001  # of the frontier; the area is right to 1e-5


def rep_n(texts: Sequence[Words], n: int) -> float:
    """Share of n-grams that occurred before in their own text, in [0, 1]; nan without any n-gram.

    >>> rep_n(["a b a b a", "c d"], 2)  # 2 + 1 different ones of 4 + 1
    0.4
    """
    grams = [_ngrams(text, n) for text in texts]
    total = sum(map(len, grams))
    return 1 - sum(len(set(some)) for some in grams) / total if total else float("nan")


def diversity(texts: Sequence[Words]) -> float:
    """Product of 1 - rep-n over n = 2, 3 and 4, in [0, 1]: 1 where no n-gram is repeated.

    nan where no text has four words.

    >>> diversity(["a b c d e"])
    1.0
    """
    return float(np.prod([1 - rep_n(texts, n) for n in (2, 3, 4)]))


def distinct_n(texts: Sequence[Words], n: int) -> float:
    """Different n-grams over all texts, as a share of all n-grams, in (0, 1]; nan without any.

    It falls with the amount of text: compare samples of the same size.

    >>> distinct_n(["a b", "a c"], 1)
    0.75
    """
    grams = [gram for text in texts for gram in _ngrams(text, n)]
    return len(set(grams)) / len(grams) if grams else float("nan")


def divergence_frontier(
    texts: ArrayLike,
    references: ArrayLike,
    *,
    bins: int | None = None,
    scaling: float = 5.0,
    smoothing: float = 0.5,
    seed: int = 0,
) -> float:
    """How much the embeddings of generated texts are like those of references; MAUVE.

    Args:
        texts: ``[n, dim]``, such as ``encoder.encode(texts)``.
        references: ``[m, dim]`` by the same encoder.
        bins: Clusters that both are counted in; default: a tenth of the smaller sample, at least 2.
        scaling: Their c.
        smoothing: Added to the count of each bin: 0.5 is Krichevsky and Trofimov's estimate, which
            their later paper recommends for small samples; 0 is that of the first paper.
        seed: Of the clustering.

    Returns:
        In (0, 1]; 1 where both fill all bins alike.

    Raises:
        InputError: As of :func:`quantise`.
    """
    ours, theirs, bins = quantise(texts, references, bins=bins, seed=seed)
    counts = [np.bincount(labels, minlength=bins) + smoothing for labels in (ours, theirs)]
    return frontier_area(*counts, scaling=scaling)


def quantise(
    texts: ArrayLike, references: ArrayLike, *, bins: int | None = None, seed: int = 0
) -> tuple[Ints, Ints, int]:
    """The cluster of each embedding, and how many clusters there are.

    Rows are made unit length and reduced to the principal components with nine tenths of the variance;
    k-means runs on both samples together, the best of five starts.

    Args:
        texts: ``[n, dim]``.
        references: ``[m, dim]``.
        bins: Clusters; default: a tenth of the smaller sample, at least 2.
        seed: Of both.

    Raises:
        InputError: A sample is empty, the dimensions differ, a number is not finite, or ``bins`` is
            below 1.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize

    ours, theirs = np.asarray(texts, np.float64), np.asarray(references, np.float64)
    if ours.ndim != 2 or theirs.ndim != 2 or ours.shape[1:] != theirs.shape[1:]:
        raise InputError(
            f"Got embeddings of shapes {ours.shape} and {theirs.shape}, but expected [n, dim], [m, dim]."
        )
    if not len(ours) or not len(theirs):
        raise InputError(f"Got {len(ours)} texts and {len(theirs)} references, but expected some.")
    rows = np.vstack([ours, theirs])
    if not np.isfinite(rows).all() or (bins is not None and bins < 1):
        raise InputError(
            f"Got embeddings that are not finite, or bins={bins}, but expected 1 or more."
        )
    rows = normalize(rows)
    if bins is None:
        bins = max(2, round(min(len(ours), len(theirs)) / 10))
    bins = min(bins, len(np.unique(rows, axis=0)))
    if bins == 1:  # all alike: there is no variance to reduce
        return np.zeros(len(ours), np.int64), np.zeros(len(theirs), np.int64), 1
    reduced = PCA(random_state=seed).fit(rows)
    kept = int(np.searchsorted(np.cumsum(reduced.explained_variance_ratio_), 0.9)) + 1
    points = reduced.transform(rows)[:, :kept]
    labels = KMeans(bins, n_init=5, random_state=seed).fit_predict(points).astype(np.int64)
    return labels[: len(ours)], labels[len(ours) :], bins


def frontier_area(p: ArrayLike, q: ArrayLike, *, scaling: float = 5.0) -> float:
    """Area under the frontier of ``exp(-scaling KL(q | r))`` and ``exp(-scaling KL(p | r))``.

    ``r`` runs over the mixtures of ``p`` and ``q``: how much of each the other leaves out, at every
    exchange rate between the two.

    Args:
        p: Counts or probabilities ``[bins]``.
        q: The same of the other.
        scaling: How fast divergence counts, above 0.

    Returns:
        In (0, 1]: 1 where they are equal; where nothing is in common
        ``gamma(c + 1)^2 / gamma(2 c + 1)`` with the scaling c, which is 1/252 for 5.

    >>> round(frontier_area([1, 0], [0, 1]) * 252, 3), frontier_area([3, 1], [6, 2])
    (1.0, 1.0)
    """
    one, other = (np.asarray(x, np.float64) / np.sum(x) for x in (p, q))
    share = np.linspace(0, 1, POINTS)[:, None]
    mixed = share * one + (1 - share) * other
    x, y = (np.exp(-scaling * _divergence(each, mixed)) for each in (other, one))
    # Beyond the last mixture on each side the frontier goes straight to the axis.
    x, y = np.append(x, 0.0), np.append(y, 1.0)
    return float(np.sum((x[:-1] - x[1:]) * (y[:-1] + y[1:])) / 2)


def _divergence(p: Doubles, rows: Doubles) -> Doubles:
    """Kullback-Leibler divergence of ``p`` from each row, in nats; infinite where a row lacks a bin."""
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = np.where(p > 0, p * (np.log(p) - np.log(rows)), 0.0)
    return np.asarray(np.maximum(parts.sum(axis=1), 0.0))


def _ngrams(text: Words, n: int) -> list[tuple[Hashable, ...]]:
    words = text.split() if isinstance(text, str) else list(text)
    return list(zip(*(words[i:] for i in range(n)), strict=False))
