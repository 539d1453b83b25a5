"""A draft's token is taken or replaced so that the result follows the target's distribution exactly.

The oracles are the distribution itself (chi-square) and the closed form of the acceptance rate,
``sum(min(p, q))`` (Leviathan et al. 2023, theorem 3.5).
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from pilotfish.models.sampling import Proposal, Sampler

DRAWS = 20_000
LOGITS = np.array([2.0, 1.0, 0.5, 0.0, -1.0, -3.0], dtype=np.float32)
DRAFT = np.array([0.05, 0.5, 0.05, 0.3, 0.1, 0.0])
SETTINGS = [
    {"temperature": 1.0},
    {"temperature": 0.7, "top_p": 0.9},
    {"temperature": 1.5, "top_k": 3},
]


def exact(settings: dict[str, float]) -> np.ndarray:
    p = np.zeros(len(LOGITS))
    kept, some = Sampler(settings).distribution(LOGITS)
    p[kept] = some
    return p


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("certain", [False, True])
def test_the_distribution_is_the_targets(settings: dict[str, float], certain: bool) -> None:
    sampler = Sampler({**settings, "seed": 1})
    drafts = np.random.default_rng(2).choice(len(DRAFT), DRAWS, p=DRAFT)
    counts, taken = np.zeros(len(LOGITS)), 0
    for drafted in drafts:
        drafted = 1 if certain else int(drafted)
        token = sampler.choose(LOGITS, Proposal(drafted, None if certain else DRAFT))
        counts[token] += 1
        taken += token == drafted
    p = exact(settings)
    assert counts[p == 0].sum() == 0
    assert stats.chisquare(counts[p > 0], DRAWS * p[p > 0]).pvalue > 1e-3
    q = np.eye(len(DRAFT))[1] if certain else DRAFT
    rate = np.minimum(p, q).sum()
    assert abs(taken / DRAWS - rate) < 4 * np.sqrt(rate * (1 - rate) / DRAWS) + 1e-9


def test_greedy_takes_no_advice() -> None:
    assert Sampler({}).choose(LOGITS, Proposal(3)) == 0
