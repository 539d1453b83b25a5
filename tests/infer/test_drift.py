"""The two-sample test against closed forms, scipy and simulation."""

from __future__ import annotations

import time

import numpy as np
import pytest
from scipy import stats
from scipy.spatial.distance import cdist

from pilotfish.errors import InputError
from pilotfish.infer.drift import fourier_features, two_sample, width


def normal(rng: np.random.Generator, n: int, shift: float = 0.0, dim: int = 16) -> np.ndarray:
    return (rng.standard_normal((n, dim)) + shift).astype(np.float32)


def test_features_approximate_the_gaussian_kernel_of_scipy() -> None:
    rng = np.random.default_rng(0)
    x = normal(rng, 60)
    sigma = width(x, rng)
    assert sigma == pytest.approx(np.median(cdist(x, x)[np.triu_indices(60, 1)]), rel=1e-3)
    features = fourier_features(x, sigma, rng, count=8000)
    exact = np.exp(-cdist(x, x, "sqeuclidean") / (2 * sigma**2))
    assert np.abs(features @ features.T - exact).max() < 0.06


def test_statistic_is_the_maximum_mean_discrepancy() -> None:
    """The exact, quadratic statistic, with scipy's distances; features err by a few percent of it."""
    rng = np.random.default_rng(1)
    x, y = normal(rng, 150), normal(rng, 120, 0.6)
    pooled = np.concatenate([x, y])
    kernel = np.exp(-cdist(pooled, pooled, "sqeuclidean") / (2 * width(pooled, rng) ** 2))
    exact = kernel[:150, :150].mean() + kernel[150:, 150:].mean() - 2 * kernel[:150, 150:].mean()
    found = np.mean([two_sample(x, y, permutations=1, seed=s).statistic for s in range(10)])
    assert found == pytest.approx(exact, rel=0.1)


def test_p_value_agrees_with_scipys_permutation_test() -> None:
    """In one dimension and for a shift, the test ranks permutations much like the difference of means."""
    rng = np.random.default_rng(2)
    x, y = normal(rng, 40, dim=1), normal(rng, 40, 0.45, dim=1)
    ours = two_sample(x, y, permutations=4999, seed=3).p_value
    theirs = stats.permutation_test(
        (x[:, 0], y[:, 0]), lambda a, b: abs(a.mean() - b.mean()), n_resamples=4999,
        rng=np.random.default_rng(4),
    ).pvalue  # fmt: skip
    assert abs(np.log10(ours) - np.log10(theirs)) < 0.5


def test_p_values_are_uniform_where_nothing_changed() -> None:
    """400 pairs of samples from one source: no share of small p-values above what chance allows."""
    rng = np.random.default_rng(5)
    found = np.array(
        [
            two_sample(normal(rng, 60), normal(rng, 40), permutations=99, seed=s).p_value
            for s in range(400)
        ]
    )
    for level in (0.05, 0.1, 0.2, 0.5):
        assert (found <= level).sum() <= stats.binom.ppf(0.999, 400, level)
    assert stats.kstest(found - 0.005, "uniform").pvalue > 0.001  # nor is it shy


def test_finds_a_new_topic_among_the_inputs() -> None:
    """A tenth of the traffic moves elsewhere: found nearly always; the same shift in 1% is not."""
    rng = np.random.default_rng(6)

    def power(share: float) -> float:
        hits = 0
        for seed in range(20):
            today = normal(rng, 300)
            today[: int(share * 300)] += 2.0
            hits += two_sample(normal(rng, 300), today, permutations=199, seed=seed).p_value <= 0.05
        return hits / 20

    assert power(0.1) >= 0.9
    assert power(0.0) <= 0.25


def test_time_is_linear() -> None:
    """4 times the texts take at most 8 times as long; all pairs would take 16."""
    rng = np.random.default_rng(7)

    def seconds(n: int) -> float:
        x, y = normal(rng, n), normal(rng, n)
        best = np.inf
        for _ in range(3):
            began = time.process_time()
            two_sample(x, y, permutations=100)
            best = min(best, time.process_time() - began)
        return float(best)

    assert seconds(8000) < 8 * seconds(2000)


def test_same_texts_and_too_few_are_answered() -> None:
    same = np.ones((20, 4), np.float32)
    assert two_sample(same, same).p_value == 1.0
    with pytest.raises(InputError, match="at least 10"):
        two_sample(same, same[:5])
    with pytest.raises(InputError, match="one length"):
        two_sample(same, same[:, :3])
