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


@pytest.mark.parametrize("settings", SETTINGS)
@pytest.mark.parametrize("kind", ["with", "without", "certain", "mixed"])
def test_several_proposals_leave_the_distribution_the_targets(
    settings: dict[str, float], kind: str
) -> None:
    """Three candidates in turn: drawn with or without replacement, certain, or certain and drawn."""
    sampler = Sampler({**settings, "seed": 1})
    rng = np.random.default_rng(2)
    counts, taken = np.zeros(len(LOGITS)), 0
    draws = DRAWS // 4
    for _ in range(draws):
        q, drawn = DRAFT.copy(), []
        for place in range(3):
            if kind == "certain" or (kind == "mixed" and place == 1):
                drawn.append((3 - place, None))
            else:
                token = int(np.searchsorted(np.cumsum(q), rng.random() * q.sum(), side="right"))
                drawn.append((token, q))
            if kind == "without":
                q = np.where(np.arange(len(q)) == drawn[-1][0], 0.0, q)
                q /= q.sum()
        proposal = None
        for token, of in reversed(drawn):
            proposal = Proposal(token, of, proposal)
        chosen = sampler.choose(LOGITS, proposal)
        counts[chosen] += 1
        taken += chosen in [token for token, _ in drawn]
    p = exact(settings)
    assert counts[p == 0].sum() == 0
    assert stats.chisquare(counts[p > 0], draws * p[p > 0]).pvalue > 1e-3
    one = p[3] if kind == "certain" else np.minimum(p, DRAFT).sum()
    if (p[[1, 2, 3]] > 0).all():
        assert taken / draws > one + 0.02  # they are taken more often than one alone would be


def test_greedy_takes_no_advice() -> None:
    assert Sampler({}).choose(LOGITS, Proposal(3)) == 0
