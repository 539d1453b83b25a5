"""Conformal sets against their exact coverage, entropies by hand, and the cascade that they are."""

from __future__ import annotations

import math

import numpy as np
import pytest

import pilotfish as pf
from pilotfish.errors import InputError
from pilotfish.infer.confidence import singleton
from pilotfish.infer.conformal import (
    conformal_quantile,
    fit_conformal,
    set_sizes,
    size_entropy,
)
from pilotfish.records import Completion, Request


def labelled(seed: int, n: int, labels: int = 4) -> tuple[np.ndarray, np.ndarray]:
    """Probabilities that are honest: the right label is drawn from them."""
    rng = np.random.default_rng(seed)
    given = rng.dirichlet(np.full(labels, 0.5), n)
    return given, np.array([rng.choice(labels, p=row) for row in given])


@pytest.mark.parametrize(("n", "alpha"), [(19, 0.1), (50, 0.2), (99, 0.05)])
def test_the_right_label_is_in_the_set_as_often_as_theory_says(n: int, alpha: float) -> None:
    """Without ties the coverage is Beta distributed with mean ceil((n + 1)(1 - alpha)) / (n + 1)."""
    held, right = labelled(1, 40_000)
    inside = 1 - held[np.arange(len(right)), right]
    covered = []
    for seed in range(300):
        given, at = labelled(1000 + seed, n)
        covered.append((inside <= conformal_quantile(given[np.arange(n), at], alpha)).mean())
    rank = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    mean = rank / (n + 1)
    error = math.sqrt(mean * (1 - mean) / (n + 2) / 300)
    assert np.mean(covered) == pytest.approx(mean, abs=4 * error + 0.003)


def test_too_few_questions_for_an_alpha_leave_all_labels_in() -> None:
    assert conformal_quantile(np.array([0.9, 0.8]), 0.1) == 2
    assert set_sizes(np.array([[0.0, 1.0, 0.0]]), 2.0).tolist() == [3]
    assert conformal_quantile(np.array([0.9, 0.8, 0.5]), 0.25) == pytest.approx(0.5)


def test_full_and_binary_entropy_by_hand() -> None:
    sizes = np.array([1, 1, 1, 2, 2, 4])
    full = -(0.5 * math.log(0.5) + math.log(1 / 3) / 3 + math.log(1 / 6) / 6)
    assert size_entropy(sizes) == pytest.approx(3 * full + math.log(2))
    assert size_entropy(np.array([2, 2])) == 0


def test_the_alpha_is_the_one_of_the_largest_entropy() -> None:
    given, right = labelled(3, 200)
    asked, _ = labelled(4, 500)
    found = fit_conformal(given, right, asked=asked, beta=1.0)
    every = []
    for percent in range(1, 100):
        alpha = percent / 100
        ordered = sorted(1 - given[i, y] for i, y in enumerate(right))
        rank = math.ceil(201 * (1 - alpha) - 1e-9)
        quantile = ordered[rank - 1] if rank <= 200 else 2.0
        sizes = [sum(1 - p <= quantile for p in row) for row in asked]
        shares = [sizes.count(size) / 500 for size in set(sizes)]
        one = sizes.count(1) / 500
        both = [share for share in (one, 1 - one) if share]
        every.append(-sum(s * math.log(s) for s in shares) - sum(s * math.log(s) for s in both))
    assert found.entropy == pytest.approx(max(every))
    assert found.alpha == (1 + int(np.argmax(every))) / 100


async def test_it_is_a_cascade_by_the_second_likeliest_label() -> None:
    """The large model is asked exactly where the small one's set has two labels or more."""
    given, right = labelled(5, 150)
    found = fit_conformal(given, right)
    asked, _ = labelled(6, 60)
    sizes = set_sizes(asked, found.quantile)
    assert 0 < np.sum(sizes > 1) < 60
    rows = iter(asked.tolist())

    def answer(request: Request) -> Completion:
        return Completion("x", "small", label_probs=dict(zip("abcd", next(rows), strict=True)))

    members = [pf.FakeModel(answer, name="small"), pf.FakeModel("y", name="large")]
    cascade = pf.Cascade(members, [found.threshold], confidence=singleton)
    for size in sizes:
        said = await cascade.complete(Request.of("which?"))
        assert (said.text == "y") == (size > 1)


def test_labels_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InputError, match="one question at least"):
        fit_conformal(np.zeros((0, 2)), np.zeros(0, int))
    with pytest.raises(InputError, match="there are 2 labels"):
        fit_conformal(np.array([[0.5, 0.5]]), np.array([2]))
