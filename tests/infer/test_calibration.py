"""Asking while certifying: still true, cheaper, and resumable."""

from __future__ import annotations

import json
import time

import numpy as np
import pytest
from scipy import stats

from pilotfish.errors import InputError
from pilotfish.infer.calibration import Calibration
from pilotfish.infer.certify import Constraint

Array = np.ndarray


def finish(
    calibration: Calibration, agreed: Array, large: Array | None = None, k: int = 60
) -> None:
    while (rows := calibration.next(k)).size:
        calibration.tell(rows, agreed[rows], None if large is None else large[rows])


def hairline(rng: np.random.Generator, n: int) -> tuple[Array, Array, float]:
    """Scores on five levels; serving the lower three as well breaks 0.8 by a hair."""
    level = rng.integers(5, size=n)
    wrong = rng.random(n) < np.array([0.9, 0.4, 0.6000001, 0.2, 0.2])[level]
    return (level + 0.5) / 5, wrong, 0.5


@pytest.mark.parametrize("settings", [{"remaining": 500}, {"method": "betting"}])
def test_broken_at_most_delta_of_the_time(settings: dict[str, object]) -> None:
    """Below the level at 0.5 the risk is above .2: (.2 + .2 + .6000001) / 5."""
    broken, draws, delta = 0, 2000, 0.15
    rng = np.random.default_rng(1)
    for seed in range(draws):
        scores, wrong, _ = hairline(rng, 60)
        expected = np.clip(1.1 - scores, 0, 1) * 0.5
        calibration = Calibration(
            scores, constraints=(Constraint("agree", 0.8),), delta=delta, seed=seed,
            thresholds=[0.1, 0.3, 0.5, 0.7, 0.9], expected_disagreement=expected, **settings,
        )  # fmt: skip
        finish(calibration, ~wrong)
        threshold = calibration.certificate(curve=0).threshold
        broken += threshold is not None and threshold <= 0.5
    assert stats.binomtest(broken, draws, delta, alternative="greater").pvalue > 1e-4
    assert broken > 0


def test_file_promise_is_broken_at_most_delta_of_the_time() -> None:
    """A file with one error too many among its upper half; only order and coins are random."""
    n, draws, delta = 100, 2000, 0.15
    scores = np.arange(n) / n
    wrong = np.zeros(n, dtype=bool)
    wrong[50:71] = True  # 21 errors from 0.5 up, 20 allowed
    broken = 0
    for seed in range(draws):
        calibration = Calibration(
            scores, constraints=(Constraint("agree", 0.8),), delta=delta, population="file",
            thresholds=[0.8, 0.5, 0.2], seed=seed,
        )  # fmt: skip
        finish(calibration, ~wrong, k=20)
        threshold = calibration.certificate(curve=0).threshold
        broken += threshold is not None and threshold <= 0.5
    assert stats.binomtest(broken, draws, delta, alternative="greater").pvalue > 1e-4


@pytest.mark.parametrize("kind", ["precision", "recall", "served"])
def test_class_promises(kind: str) -> None:
    rng = np.random.default_rng(4)
    n = 6000
    scores = rng.random(n)
    small = np.where(rng.random(n) < 0.5, "yes", "no")
    wrong = rng.random(n) < 0.4 * (1 - scores)
    large = np.where(wrong, np.where(small == "yes", "no", "yes"), small)
    promise = Constraint("agree", 0.9, on="served") if kind == "served" else Constraint(
        "precision" if kind == "precision" else "recall", 0.9, "yes"
    )  # fmt: skip
    calibration = Calibration(
        scores, small=small, constraints=(promise,), expected_disagreement=0.4 * (1 - scores)
    )
    finish(calibration, ~wrong, large)
    certificate = calibration.certificate()
    assert certificate.reason == "certified"
    assert certificate.threshold is not None
    oracle = np.sqrt(0.5) if kind == "recall" else 0.5
    assert oracle - 0.15 < certificate.coverage < oracle + 0.02
    assert certificate.bound is not None
    assert certificate.bound <= 0.1 + 1e-9
    if kind == "precision":  # nobody pays for rows that the small model calls "no"
        assert all(small[row] == "yes" for row, *_ in calibration._log)


@pytest.mark.parametrize("method", ["binomial", "betting"])
def test_asks_only_what_it_needs(method: str) -> None:
    rng = np.random.default_rng(5)
    scores = rng.beta(4, 1, 10_000)
    wrong = rng.random(10_000) < 1 - scores
    everything = Calibration(scores, method=method, expected_disagreement=1 - scores)
    finish(everything, ~wrong)
    frugal = Calibration(scores, method=method, expected_disagreement=1 - scores, remaining=20_000)
    finish(frugal, ~wrong)
    much, little = everything.certificate(), frugal.certificate()
    assert little.asked < 0.6 * much.asked < 0.4 * 10_000
    assert little.coverage > much.coverage - 0.1
    assert much.coverage > 0.5  # the oracle's is 0.58


def test_killed_anywhere_it_goes_on_as_if_nothing_had_happened() -> None:
    rng = np.random.default_rng(6)
    scores = rng.random(800)
    wrong = rng.random(800) < 0.15 * (1 - scores)
    settings = {"expected_disagreement": 0.15 * (1 - scores), "seed": 3, "remaining": 5000}

    def run(killed: bool) -> tuple[list[int], str]:
        calibration = Calibration(scores, method="betting", **settings)
        order: list[int] = []
        while (rows := calibration.next(17)).size:
            if killed:
                lost = Calibration.from_json(calibration.to_json())  # before the answers came
                again = lost.next(17)
                assert list(again) == list(rows)
                calibration = lost
            calibration.tell(rows, ~wrong[rows])
            order += [int(r) for r in rows]
            if killed:
                calibration = Calibration.from_json(json.dumps(json.loads(calibration.to_json())))
        return order, calibration.certificate().to_json()

    whole, broken = run(False), run(True)
    assert whole == broken
    assert len(set(whole[0])) == len(whole[0])


def test_answers_in_any_order_and_late() -> None:
    scores = np.linspace(0, 1, 400)
    one, other = Calibration(scores, seed=1), Calibration(scores, seed=1)
    rows = one.next(70)
    assert list(other.next(70)) == list(rows)
    one.tell(rows, np.ones(70, bool))
    other.tell(rows[::-1][:30], np.ones(30, bool))
    assert not set(other.next(60)) & set(rows)  # those under way are not asked again
    other.tell(rows[:40], np.ones(40, bool))
    assert one.certificate(curve=0).threshold == other.certificate(curve=0).threshold
    one.tell(rows, np.zeros(70, bool))  # known answers stand
    assert one.asked == 70


def test_a_certificate_is_there_at_any_moment() -> None:
    calibration = Calibration(np.full(500, 0.9), seed=2, budget=100)
    assert calibration.certificate().reason == "no-threshold"
    while (rows := calibration.next(10)).size:
        calibration.tell(rows, np.zeros(rows.size, bool))
        assert calibration.certificate().threshold is None
    assert calibration.done
    assert calibration.asked <= 100


@pytest.mark.parametrize("n", [0, 1, 20])
def test_tiny_samples(n: int) -> None:
    calibration = Calibration(np.full(n, 0.7))
    finish(calibration, np.ones(n, bool))
    certificate = calibration.certificate()
    assert (certificate.threshold, certificate.reason) == (None, "too-few-answers")
    assert calibration.done


def test_budget_is_kept() -> None:
    scores = np.random.default_rng(0).random(2000)
    calibration = Calibration(scores, budget=30)
    finish(calibration, np.ones(2000, bool))
    assert calibration.asked <= 30


def test_unanswerable_rows_count_against_the_promise() -> None:
    scores = np.full(400, 0.9)
    small = np.full(400, "no")
    calibration = Calibration(scores, small=small, constraints=(Constraint("recall", 0.9, "yes"),))
    finish(calibration, np.zeros(400, bool), np.full(400, None, dtype=object))
    assert calibration.certificate().threshold is None


def test_speed() -> None:
    """5,000 rows, 200 thresholds: well under a second on an idle machine."""
    rng = np.random.default_rng(7)
    scores = rng.beta(4, 1, 5000)
    wrong = rng.random(5000) < 1 - scores
    begun = time.perf_counter()
    calibration = Calibration(scores, thresholds=np.linspace(0, 1, 200), remaining=50_000)
    finish(calibration, ~wrong)
    assert calibration.certificate(curve=0).coverage > 0.4
    assert time.perf_counter() - begun < 5.0


@pytest.mark.parametrize(
    "call",
    [
        lambda: Calibration([np.nan]),
        lambda: Calibration([0.5], delta=2.0),
        lambda: Calibration([0.5], method="guess"),  # type: ignore[arg-type]
        lambda: Calibration([0.5], population="town"),  # type: ignore[arg-type]
        lambda: Calibration([0.5], population="file", method="betting"),
        lambda: Calibration([0.5], budget=-1),
        lambda: Calibration([0.5], expected_disagreement=[0.1, 0.2]),
        lambda: Calibration([0.5], constraints=(Constraint("precision", 0.9, "a"),)),
        lambda: Calibration([0.5], small=["a", "b"]),
        lambda: Calibration([0.5]).tell([3], [True]),
        lambda: Calibration([0.5]).tell([0], [True, False]),
        lambda: Calibration([0.5], small=["a"], constraints=(Constraint("recall", 0.9, "a"),)).tell(
            [0], [True]
        ),
        lambda: Calibration.from_json("[]"),
    ],
)
def test_bad_input_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]
