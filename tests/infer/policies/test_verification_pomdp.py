"""AutoMix's decision problem: the solver against every deterministic policy there is."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from pilotfish.errors import InputError
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.policy import play
from pilotfish.infer.policies.verification_pomdp import VerificationPomdp, solve

STATES = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], bool)
PRIOR = np.array([0.2, 0.3, 0.05, 0.45])
SEEN = np.array([[[0.5, 0.3, 0.2], [0.1, 0.3, 0.6]], [[0.6, 0.3, 0.1], [0.2, 0.2, 0.6]]])


def value_of(goes_on: tuple[bool, ...], price: float) -> float:
    """Expected quality less cost of asking the second model for these bins, by enumeration."""
    total = 0.0
    for state, chance in zip(STATES, PRIOR, strict=True):
        for first in range(3):
            p = chance * SEEN[0, int(state[0]), first]
            if not goes_on[first]:
                total += p * state[0]
                continue
            for second in range(3):
                both = p * SEEN[1, int(state[1]), second]
                total += both * (state[best_of(first, second)] - price)
    return total


def best_of(first: int, second: int) -> int:
    """Whose answer is likelier right after both bins, by Bayes' rule."""
    weight = [
        c * SEEN[0, int(s[0]), first] * SEEN[1, int(s[1]), second]
        for s, c in zip(STATES, PRIOR, strict=True)
    ]
    right = [sum(w * s[k] for w, s in zip(weight, STATES, strict=True)) for k in (0, 1)]
    return int(right[1] >= right[0])


@pytest.mark.parametrize("price", [0.0, 0.1, 0.25, 0.4, 0.9])
def test_the_solution_is_the_best_of_all_policies(price: float) -> None:
    goes_on, best, value = solve(STATES, PRIOR, SEEN, np.array([0.0, price]))
    mine = tuple(goes_on[(b,)] for b in range(3))
    every = {p: value_of(p, price) for p in itertools.product((False, True), repeat=3)}
    assert every[mine] == pytest.approx(max(every.values()))
    for history in itertools.product(range(3), repeat=2):
        assert best[history] == best_of(*history)
    # Bayes by hand: P(first right | its best bin).
    right, wrong = PRIOR[2:].sum() * 0.6, PRIOR[:2].sum() * 0.2
    assert value[(2,)] == pytest.approx(right / (right + wrong))


def test_one_judged_model_is_a_threshold_on_its_score() -> None:
    """With two models and a score that says more the higher it is, the POMDP is the threshold form."""
    rng = np.random.default_rng(0)
    n = 5000
    quality = (rng.random((n, 2)) < [0.6, 0.85]).astype(np.float32)
    score = np.clip(0.3 * quality + 0.7 * rng.random((n, 2)), 0, 1).astype(np.float32)
    names = ("small", "large")
    policy = VerificationPomdp.fit(
        names, (0, 1), quality, score, np.array([0.0, 1.0]), weight=0.1, bins=8
    )
    rows = Outcomes(tuple(map(str, range(n))), names, quality, np.tile([0.0, 1.0], (n, 1)))
    played = play(policy, rows, scores=score)
    escalated = played.asked[:, 1]
    assert 0.1 < escalated.mean() < 0.9
    assert score[escalated, 0].max() <= score[~escalated, 0].min() + 1e-6
    gain = played.quality.mean() - 0.1 * played.cost.mean()
    assert gain >= max(quality[:, 0].mean(), quality[:, 1].mean() - 0.1) + 0.01
    # The value of an answer is the share of such answers that are right.
    kept = ~escalated
    assert played.margin[kept].mean() == pytest.approx(quality[kept, 0].mean(), abs=0.02)


def test_too_many_histories_are_refused() -> None:
    ones = np.ones((10, 9))
    with pytest.raises(InputError, match="million"):
        VerificationPomdp.fit(
            tuple("abcdefghi"), tuple(range(9)), ones, ones, np.ones(9), weight=1.0
        )
