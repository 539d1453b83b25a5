"""The choice of guesses against simulations and every other choice; lookups against a plain search."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.infer.speculate.cost import CostCurve
from pilotfish.infer.speculate.drafts import Node
from pilotfish.infer.speculate.length import (
    MARGIN,
    TREE_MARGIN,
    Acceptance,
    Length,
    expected_tokens,
)
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


def chain(n: int, kind: int = 0) -> list[Node]:
    return [Node(0, i - 1, kind=kind) for i in range(n)]


def taught(verify: CostCurve, rates: dict[int, float], draft: float = 0.0) -> Length:
    """A chooser that saw 400 guesses of each kind."""
    length, rng = Length(verify, draft), np.random.default_rng(2)
    for _ in range(400):
        for kind, rate in rates.items():
            length.tell(Node(0, kind=kind), bool(rng.random() < rate))
    return length


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("rate", [0.05, 0.4, 0.7, 0.95])
def test_the_chosen_chain_is_nearly_the_fastest_and_never_slower(curve: str, rate: float) -> None:
    verify = CURVES[curve]
    chosen = len(taught(verify, {0: rate}).best(chain(16), 16))
    speeds = {k: simulated_speed(verify, rate, k, 0.0) for k in range(17)}
    assert speeds[chosen] >= 0.99 * speeds[0]
    assert speeds[chosen] >= 0.9 * max(speeds.values())


@given(st.lists(st.tuples(st.integers(-1, 6), st.floats(0.02, 0.98)), max_size=8), st.booleans())
def test_the_chosen_tree_is_the_best_of_all(grown: list[tuple[int, float]], flat: bool) -> None:
    """Against every set of guesses that holds with each one its parent and its elders."""
    verify = CURVES["flat" if flat else "steep"]
    length = Length(verify)
    nodes: list[Node] = []
    for i, (parent, rate) in enumerate(grown):
        parent = min(parent, i - 1)
        rank = sum(node.parent == parent for node in nodes)
        nodes.append(Node(i, parent, kind=i, rank=rank))
        length.rates[i, rank] = Acceptance(rate, weight=1e9)
    chances = length.chances(nodes)

    def speed(chosen: Sequence[int]) -> float:
        return (1 + sum(chances[i] for i in chosen)) / verify(1 + len(chosen))

    def whole(chosen: tuple[int, ...]) -> bool:
        return all(nodes[i].parent in (-1, *chosen) for i in chosen)

    every = [
        c for n in range(len(nodes) + 1) for c in combinations(range(len(nodes)), n) if whole(c)
    ]
    chosen = tuple(length.best(nodes, 16))
    assert whole(chosen)
    assert speed(chosen) * MARGIN * TREE_MARGIN >= max(map(speed, every)) - 1e-12
    if chosen:
        assert speed(chosen) > MARGIN * speed(())
    trunk = [i for i, node in enumerate(nodes) if not node.rank and node.parent == i - 1]
    chains = max(speed(trunk[:n]) for n in range(len(trunk) + 1))
    if any(nodes[i].parent != at - 1 for at, i in enumerate(chosen)):
        assert speed(chosen) > chains


def test_chances_add_up_as_trials_in_turn_do() -> None:
    length = Length(CURVES["flat"])
    for kind, rank, rate in ((0, 0, 0.5), (1, 1, 0.4), (2, 0, 0.9)):
        length.rates[kind, rank] = Acceptance(rate)
    nodes = [Node(0, -1, kind=0), Node(1, -1, kind=1, rank=1), Node(2, 1, kind=2)]
    assert length.chances(nodes) == pytest.approx([0.5, 0.5 * 0.4, 0.5 * 0.4 * 0.9])


def test_a_kind_never_seen_is_like_the_next_lower_one() -> None:
    length = taught(CURVES["flat"], {3: 0.9})
    assert length.rate(4) == pytest.approx(length.rate(3))
    assert length.rate(9) == pytest.approx(0.5)


def written(
    length: Length, curve: CostCurve, rates: Sequence[float], tokens: int, draft: float
) -> tuple[float, float]:
    """Seconds for so many tokens with a draft that costs, and without it."""
    rng, seconds, done = np.random.default_rng(4), 0.0, 0
    while done < tokens:
        right = rates[min(done * len(rates) // tokens, len(rates) - 1)]
        took, nodes = 0.0, list[Node]()
        if length.begins(0.0, 64):
            nodes, took = chain(1), draft
            while length.worth(nodes):
                nodes, took = chain(len(nodes) + 1), took + draft
        chosen = length.best(nodes, 16, sunk=True)
        took += curve(1 + len(chosen))
        held = 0
        for node in nodes[: len(chosen) + 1]:
            hit = bool(rng.random() < right)
            length.tell(node, hit)
            if not hit:
                break
            held += held < len(chosen)
        length.timed(1 + len(chosen), curve(1 + len(chosen)))
        length.account(1 + held, took, drafted=bool(nodes))
        seconds, done = seconds + took, done + 1 + held
    return seconds, done * curve(1)


@pytest.mark.parametrize("curve", CURVES)
@pytest.mark.parametrize("draft", [0.1, 0.3, 0.9])
def test_a_useless_draft_costs_next_to_nothing(curve: str, draft: float) -> None:
    """Over 10,000 tokens with guesses that never hold: at most 2% slower than without a draft."""
    verify = CURVES[curve]
    cost = draft * verify(1)
    seconds, plain = written(Length(verify, cost), verify, [0.0], 10_000, cost)
    assert seconds <= 1.02 * plain


def test_a_useful_draft_is_used() -> None:
    verify = CURVES["flat"]
    seconds, plain = written(Length(verify, 0.1), verify, [0.8], 5_000, 0.1)
    assert seconds < 0.6 * plain


def test_a_draft_that_becomes_useful_is_noticed_and_one_that_ceases_to_be_too() -> None:
    verify = CURVES["flat"]
    seconds, plain = written(Length(verify, 0.1), verify, [0.0, 0.9], 10_000, 0.1)
    assert seconds < 0.8 * plain
    seconds, plain = written(Length(verify, 0.1), verify, [0.9, 0.0], 10_000, 0.1)
    assert seconds < 0.8 * plain


def test_a_draft_that_has_much_to_read_first_is_left_where_the_answer_is_short() -> None:
    length = taught(CURVES["flat"], {0: 0.8}, draft=0.1)
    length._idle = 0.0
    assert length.begins(0.5, 64)
    assert not length.begins(64.0, 64)


def test_costs_follow_the_machine() -> None:
    """Everything takes twice as long, reading eight at once four times: the estimates learn both."""
    length = Length(CURVES["flat"])
    before = length.cost(8) / length.cost(1)
    for _ in range(300):
        length.timed(1, 2 * CURVES["flat"](1))
        length.timed(8, 4 * CURVES["flat"](8))
    assert length.cost(1) == pytest.approx(2 * CURVES["flat"](1), rel=0.25)
    assert length.cost(8) / length.cost(1) == pytest.approx(2 * before, rel=0.25)


def test_a_curve_of_another_hour_is_corrected_one_size_at_a_time() -> None:
    """It says that two tokens take no longer than one; each size is right after a few readings."""
    stored = CostCurve({1: 53.3, 2: 53.3, 3: 85.3, 6: 98.0, 8: 116.0, 17: 226.0})
    true = CostCurve({1: 38.0, 2: 56.0, 3: 80.0, 6: 98.0, 8: 125.0, 17: 250.0})
    length, rng = Length(stored), np.random.default_rng(5)
    for k in (1, 1, 1, 2, 1, 8) * 2:
        length.timed(k, true(k) * float(np.exp(rng.normal(0, 0.05))))
    for k in (1, 2, 8):
        assert length.cost(k) == pytest.approx(true(k), rel=0.1)
    half = length.best(chain(1), 1)  # one guess in two holds: 1.5 tokens in the time of 1.47
    assert not half


def test_readings_that_take_less_although_they_are_longer_are_preferred() -> None:
    """As torch reads them on some processors: eight tokens at once sooner than two."""
    curve = CostCurve({1: 55.0, 2: 90.0, 4: 77.0, 8: 74.0, 12: 83.0, 17: 92.0})
    sizes = {len(taught(curve, {0: r}).best(chain(16), 16)) for r in np.linspace(0.05, 0.95, 19)}
    assert 0 in sizes
    assert min(sizes - {0}) >= 3
    speed = {k: expected_tokens(0.5, k) / curve(k + 1) for k in range(17)}
    assert len(taught(curve, {0: 0.5}).best(chain(16), 16)) == max(speed, key=lambda k: speed[k])


def test_what_is_known_from_few_outcomes_is_taken_with_caution() -> None:
    few, many = Acceptance(0.6, weight=3.0), Acceptance(0.6, weight=3000.0)
    assert few.rate == many.rate == pytest.approx(0.6)
    assert few.cautious == pytest.approx(0.6 - 0.5 * (0.6 * 0.4 / 4) ** 0.5)
    assert many.cautious == pytest.approx(0.6, abs=0.01)


def test_what_loses_is_stopped() -> None:
    length = Length(CURVES["flat"])
    assert length.may()
    for _ in range(100):
        length.account(1, 1.5, drafted=True)
    assert not length.may()
    for _ in range(4000):
        length.account(1, 1.0, drafted=False)
    assert length.may()


@given(st.lists(st.integers(0, 3), max_size=60), st.integers(1, 8), st.integers(0, 60))
def test_a_lookup_finds_what_followed_the_longest_end(
    tokens: list[int], most: int, cut: int
) -> None:
    """Against a plain search: of its last eight places, those that agree most first."""
    cut = min(cut, len(tokens))
    draft = LookupDraft(longest=4, shortest=2)
    draft.begin(Request.of("x"), tokens[:cut])
    for token in tokens[cut:]:
        draft.extend(token)
    expected: list[list[int]] = []
    for n in range(min(4, len(tokens)), 1, -1):
        starts = [i for i in range(len(tokens) - n) if tokens[i : i + n] == tokens[-n:]][-8:]
        if starts:
            ends = [i + n for i in starts]

            def agreement(end: int) -> int:
                return next(
                    (k for k in range(min(end, 32)) if tokens[end - 1 - k] != tokens[-1 - k]),
                    min(end, 32),
                )

            for end in sorted(ends, key=lambda end: (agreement(end), end), reverse=True):
                if tokens[end] not in [way[0] for way in expected] and len(expected) < 3:
                    expected.append(tokens[end : end + most])
            break
    nodes = draft.propose(most, 3, lambda nodes: True, lambda: None)
    chains: list[list[int]] = []
    for at, node in enumerate(nodes):
        if node.parent == -1:
            assert node.rank == len(chains)
            chains.append([])
        else:
            assert node.parent == at - 1
        chains[-1].append(node.token)
    assert chains == expected
