"""The alarm: how often it is false, how soon it is right, and that it survives everything."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from pilotfish.errors import InputError
from pilotfish.infer.watch import Watch, cash, is_checked, simulate, stakes

TARGET, DELTA = 0.05, 0.05


def alarms(rng: np.random.Generator, runs: int, risks: np.ndarray) -> np.ndarray:
    return simulate(rng.random((runs, len(risks))) < risks, TARGET, DELTA)


def test_false_alarms_over_a_thousand_days_at_the_boundary() -> None:
    """Each day is a watch of its own with 300 checks, and the risk is exactly what was promised."""
    days = 1000
    false = (alarms(np.random.default_rng(0), days, np.full(300, TARGET)) > 0).sum()
    assert false <= stats.binom.ppf(0.999, days, DELTA)  # what delta allows, and chance above it
    assert false <= DELTA * days


def test_false_alarms_of_one_watch_that_runs_for_a_thousand_days() -> None:
    """20 checks a day for 1,000 days, never started anew: still at most delta in all."""
    false = (alarms(np.random.default_rng(1), 300, np.full(20_000, TARGET)) > 0).mean()
    assert false <= DELTA


def test_wealth_is_a_fair_game_at_the_boundary() -> None:
    """By enumeration of all 2^10 outcomes: the expected wealth is exactly 1, stopped or not."""
    for delta in (1e-30, 0.05):
        expected = 0.0
        for outcome in range(2**10):
            watch = Watch(TARGET, delta)
            for i in range(10):
                watch.observe(bool(outcome >> i & 1))
            wrong = outcome.bit_count()
            expected += watch.wealth * TARGET**wrong * (1 - TARGET) ** (10 - wrong)
        assert expected == pytest.approx(1.0)


@pytest.mark.parametrize("target", [0.01, 0.05, 0.2])
def test_wealth_is_never_negative(target: float) -> None:
    assert (1 - stakes(target) * target > 0).all()
    schedule = cash(np.arange(100_000))
    assert (np.diff(schedule) <= 0).all()
    assert schedule[0] == 1
    assert schedule[-1] > 0


@pytest.mark.parametrize(
    ("risk", "start", "most"),
    [
        (0.5, 0, 16),
        (0.25, 0, 60),
        (0.5, 500, 30),
        (0.25, 500, 110),
        (0.15, 500, 320),
        (0.10, 0, 600),
    ],
)
def test_delay(risk: float, start: int, most: int) -> None:
    """Nine in ten alarms come within so many checks of a drift, after a time of kept promises."""
    risks = np.concatenate([np.full(start, 0.03), np.full(2 * most, risk)])
    found = alarms(np.random.default_rng(2), 300, risks)
    delay = np.where(found > start, found - start, np.inf)
    assert np.quantile(delay, 0.9) <= most


def test_simulation_and_watch_agree() -> None:
    outcomes = np.random.default_rng(3).random((40, 400)) < 0.12
    for row, expected in zip(outcomes, simulate(outcomes, TARGET, DELTA), strict=True):
        watch = Watch(TARGET, DELTA)
        for disagreed in row:
            watch.observe(bool(disagreed))
        assert (watch.alarm_at or 0) == expected


def test_checks_of_unequal_probability_stay_fair() -> None:
    """Unsure answers are checked more often and are wrong more often; the promise is kept on average.

    Counted without weights these checks would disagree twice as often as was promised.
    """
    rng = np.random.default_rng(4)
    false = naive = 0
    for _ in range(200):
        weighted, plain = Watch(TARGET, DELTA, floor=0.1), Watch(TARGET, DELTA)
        unsure = rng.random(3000) < 0.2
        wrong = rng.random(3000) < np.where(unsure, 0.17, 0.02)  # 0.05 in all
        q = np.where(unsure, 0.4, 0.1)
        for i in np.flatnonzero(rng.random(3000) < q):
            weighted.observe(bool(wrong[i]), float(q[i]))
            plain.observe(bool(wrong[i]))
        false += weighted.alarm
        naive += plain.alarm
    assert false / 200 <= DELTA
    assert naive / 200 > 0.3


@given(st.lists(st.booleans(), max_size=120), st.integers(0, 120))
def test_state_goes_on_exactly(outcomes: list[bool], cut: int) -> None:
    whole, first = Watch(0.1, 0.05), Watch(0.1, 0.05)
    for x in outcomes:
        whole.observe(x)
    for x in outcomes[:cut]:
        first.observe(x)
    second = Watch.from_dict(json.loads(json.dumps(first.to_dict())))
    for x in outcomes[cut:]:
        second.observe(x)
    assert second.to_dict() == whole.to_dict()


def test_alarm_stays_and_p_value_is_the_inverse_of_the_peak() -> None:
    watch = Watch(TARGET, DELTA)
    assert (watch.p_value, watch.rate) == (1.0, None)
    while not watch.observe(True):
        pass
    assert watch.p_value == pytest.approx(1 / watch.peak)
    assert watch.p_value <= DELTA
    at = watch.alarm_at
    for _ in range(1000):
        assert watch.observe(False)
    assert watch.alarm_at == at


def test_which_answers_are_checked_depends_on_the_id_alone() -> None:
    ids = [f"req_{i:032x}" for i in range(20_000)]
    chosen = [i for i in ids if is_checked(i, 0.1)]
    assert stats.binomtest(len(chosen), len(ids), 0.1).pvalue > 0.001
    assert set(chosen) <= {i for i in ids if is_checked(i, 0.2)}


def test_wrong_numbers_are_refused() -> None:
    with pytest.raises(InputError, match="target"):
        Watch(target=0.0, delta=0.05)
    with pytest.raises(InputError, match="floor"):
        Watch(0.05, 0.05, floor=0.0)
    with pytest.raises(InputError, match="probability"):
        Watch(0.05, 0.05, floor=0.2).observe(True, 0.1)
    with pytest.raises(InputError, match="state of a watch"):
        Watch.from_dict({"target": 0.1})
