"""The number of guesses against a simulation, and lookups against a plain search."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.infer.speculate.cost import CostCurve
from pilotfish.infer.speculate.length import PROBE_FIRST, Length, expected_tokens
from pilotfish.infer.speculate.lookup import LookupDraft
from pilotfish.records import Request

CURVES = {
    "flat": CostCurve({1: 1.0, 2: 1.2, 4: 1.45, 8: 1.56, 16: 2.1}),  # torch, float32, two cores
    "steep": CostCurve({1: 7.5, 2: 10.4, 4: 16.3, 8: 28.1, 16: 51.7}),  # llama.cpp, Q4, two cores
}


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.8])
def test_expected_tokens_are_those_of_a_simulation(rate: float) -> None:
    rng = np.random.default_rng(0)
    right = rng.random((40_000, 5)) < rate
    mean = (1 + np.cumprod(right, axis=1).sum(axis=1)).mean()
    assert expected_tokens(rate, 5) == pytest.approx(mean, abs=0.03)


def simulated_speed(curve: CostCurve, rate: float, k: int, draft: float, n: int = 4000) -> float:
    rng = np.random.default_rng(1)
    right = rng.random((n, max(k, 1))) < rate
    tokens = n + (np.cumprod(right[:, :k], axis=1).sum() if k else 0)
    return float(tokens / (n * (curve(k + 1) + k * draft)))


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("rate", [0.05, 0.4, 0.7, 0.95])
@pytest.mark.parametrize("draft", [0.0, 0.1, 0.6])
def test_the_chosen_length_is_nearly_the_fastest_and_never_slower(
    curve: str, rate: float, draft: float
) -> None:
    verify = CURVES[curve]
    draft *= verify(1)
    length = Length(verify, draft)
    rng = np.random.default_rng(2)
    for _ in range(400):
        length.tell(0, bool(rng.random() < rate))
    speeds = {k: simulated_speed(verify, rate, k, draft) for k in range(17)}
    chosen = length.best(0)
    assert speeds[chosen] >= 0.99 * speeds[0]
    assert speeds[chosen] >= 0.9 * max(speeds.values())


def test_a_useless_draft_costs_next_to_nothing() -> None:
    """Over 10,000 tokens with guesses that never hold: at most 1% slower than without a draft."""
    verify = CURVES["flat"]
    length = Length(verify, 0.3)
    time, tokens = 0.0, 0
    while tokens < 10_000:
        k = length.choose()
        time += verify(k + 1) + 0.3 * k
        if k:
            length.tell(0, False)
        tokens += 1
    assert time <= 1.01 * tokens * verify(1)


def test_a_draft_that_becomes_useful_is_noticed() -> None:
    length = Length(CURVES["flat"], 0.1)
    for _ in range(200):
        length.tell(0, False)
    assert length.best(0) == 0
    tokens = 0
    while length.best(0) == 0:
        if length.choose():
            length.tell(0, True)
        tokens += 1
        assert tokens < 200 * PROBE_FIRST


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 8), st.integers(0, 60))
def test_a_lookup_is_the_last_earlier_occurrence_of_the_longest_end(
    tokens: list[int], most: int, cut: int
) -> None:
    cut = min(cut, len(tokens))
    draft = LookupDraft(longest=4, shortest=2)
    draft.begin(Request.of("x"), tokens[:cut])
    draft.extend(tokens[cut:])
    expected: list[int] = []
    for n in range(min(4, len(tokens)), 1, -1):
        starts = [i for i in range(len(tokens) - n) if tokens[i : i + n] == tokens[-n:]]
        if starts:
            at = starts[-1] + n
            expected = tokens[at : at + most]
            break
    drafted = draft.propose(most, lambda: None)
    assert [proposal.token for proposal in drafted.proposals] == expected
