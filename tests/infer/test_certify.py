"""The promise: certificates are broken at most delta of the time, and are not timid either."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np
import pytest
from scipy import stats

from pilotfish.errors import InputError
from pilotfish.infer.certify import Certificate, Constraint, certify, threshold_grid

DRAWS = 2000
LEVELS = 8
GRID = (np.arange(LEVELS) / LEVELS)[::-1].copy()


@dataclass(frozen=True)
class World:
    """Scores on eight levels; per level its mass, P(small says "yes") and P(disagree | small)."""

    mass: np.ndarray
    yes: np.ndarray
    wrong_yes: np.ndarray
    wrong_no: np.ndarray

    def draw(self, rng: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
        level = np.searchsorted(np.cumsum(self.mass)[:-1], rng.random(n))
        yes = rng.random(n) < self.yes[level]
        wrong = rng.random(n) < np.where(yes, self.wrong_yes[level], self.wrong_no[level])
        return (level + 0.5) / LEVELS, yes, yes ^ wrong

    def risk(self, constraint: Constraint, threshold: float) -> float:
        served = (np.arange(LEVELS) + 0.5) / LEVELS >= threshold
        says, other = self.mass * self.yes, self.mass * (1 - self.yes)
        wrong = says * self.wrong_yes + other * self.wrong_no
        if constraint.kind == "agree":
            base = 1.0 if constraint.on == "all" else (self.mass * served).sum()
            return float((wrong * served).sum() / base)
        if constraint.kind == "precision":
            return float((says * self.wrong_yes * served).sum() / (says * served).sum())
        positive = (says * (1 - self.wrong_yes) + other * self.wrong_no).sum()
        return float((other * self.wrong_no * served).sum() / positive)


def world(wrong: np.ndarray, mass: np.ndarray | None = None, yes: float = 0.5) -> World:
    mass = np.ones(LEVELS) if mass is None else mass
    return World(mass / mass.sum(), np.full(LEVELS, yes), wrong, wrong)


UP = np.arange(LEVELS)[::-1] / LEVELS
AGREE, SERVED = Constraint("agree", 0.9), Constraint("agree", 0.9, on="served")
PRECISION, RECALL = Constraint("precision", 0.9, "yes"), Constraint("recall", 0.9, "yes")
WORLDS = {
    "calibrated": world(0.4 * UP),
    # the fourth threshold breaks "all" by a hair: every test there is at its limit
    "at the limit": world(np.where(np.arange(LEVELS) >= 4, 0.2000001, 0.5)),
    "flat, at the limit": world(np.full(LEVELS, 0.1000001)),
    "confident and wrong": world(np.where(np.arange(LEVELS) >= 6, 0.12, 0.05)),
    "rare class": world(0.3 * UP, yes=0.08),
    "heavy level": world(0.4 * UP, np.array([1, 1, 1, 1, 1, 1, 30, 1.0])),
}
SETTINGS = [
    ("calibrated", AGREE, 200),
    ("at the limit", AGREE, 300),
    ("flat, at the limit", AGREE, 25),
    ("confident and wrong", AGREE, 200),
    ("heavy level", AGREE, 120),
    ("calibrated", SERVED, 600),
    ("flat, at the limit", SERVED, 600),
    ("confident and wrong", SERVED, 400),
    ("flat, at the limit", PRECISION, 600),
    ("rare class", PRECISION, 700),
    ("flat, at the limit", RECALL, 500),
    ("rare class", RECALL, 500),
]


def broken_share(name: str, constraint: Constraint, n: int, method: str, draws: int = DRAWS) -> int:
    rng = np.random.default_rng(11)
    place = WORLDS[name]
    broken = 0
    for _ in range(draws):
        scores, small, large = place.draw(rng, n)
        certificate = certify(
            scores, small == large, constraints=(constraint,), delta=0.1, method=method,
            thresholds=GRID, small=np.where(small, "yes", "no"), large=np.where(large, "yes", "no"),
            curve=0,
        )  # fmt: skip
        if certificate.threshold is not None:
            broken += place.risk(constraint, certificate.threshold) > constraint.alpha
    return broken


@pytest.mark.parametrize(("name", "constraint", "n"), SETTINGS)
def test_broken_at_most_delta_of_the_time(name: str, constraint: Constraint, n: int) -> None:
    # the two methods take turns, so that every shape and promise meets both somewhere
    method = "binomial" if SETTINGS.index((name, constraint, n)) % 3 else "betting"
    broken = broken_share(name, constraint, n, method)
    assert stats.binomtest(broken, DRAWS, 0.1, alternative="greater").pvalue > 1e-4


def test_the_simulation_can_fail() -> None:
    """The same counting finds fault with the usual practice: take the estimate at its word."""
    rng = np.random.default_rng(2)
    broken = 0
    for _ in range(300):
        scores, small, large = WORLDS["at the limit"].draw(rng, 300)
        risk = [((scores >= t) & (small != large)).mean() for t in GRID]
        passing = [t for t, r in zip(GRID, risk, strict=True) if r <= 0.1]
        broken += bool(passing) and WORLDS["at the limit"].risk(AGREE, min(passing)) > 0.1
    assert stats.binomtest(broken, 300, 0.1, alternative="greater").pvalue < 1e-4


@pytest.mark.parametrize("constraint", [AGREE, SERVED, PRECISION, RECALL])
@pytest.mark.parametrize("method", ["binomial", "betting"])
def test_coverage_comes_close_to_the_oracle(constraint: Constraint, method: str) -> None:
    """With 20,000 rows: within 0.06 of the largest coverage that keeps the promise (bets: 0.1)."""
    rng = np.random.default_rng(4)
    n = 20_000
    scores = rng.random(n)
    small = rng.random(n) < 0.5
    wrong = rng.random(n) < 0.4 * (1 - scores)
    large = small ^ wrong
    certificate = certify(
        scores, ~wrong, constraints=(constraint,), method=method, small=np.where(small, "yes", "no"),
        large=np.where(large, "yes", "no"),
    )  # fmt: skip
    # shares of the served: all: .2 c^2 = .1; served, precision: .2 c = .1; recall: lost / positive
    oracle = {"all": np.sqrt(0.5), "served": 0.5}[constraint.on]
    oracle = {"agree": oracle, "precision": 0.5, "recall": np.sqrt(0.5)}[constraint.kind]
    slack = 0.06 if method == "binomial" else 0.1
    assert oracle - slack <= certificate.coverage <= oracle + 0.02
    assert certificate.reason == "certified"
    assert certificate.bound is not None
    assert certificate.bound <= 0.1


def test_several_promises_hold_together() -> None:
    rng = np.random.default_rng(8)
    scores = rng.random(8000)
    small = rng.random(8000) < 0.5
    wrong = rng.random(8000) < 0.4 * (1 - scores)
    labels = {"small": np.where(small, "yes", "no"), "large": np.where(small ^ wrong, "yes", "no")}
    both = certify(scores, ~wrong, constraints=(AGREE, PRECISION), **labels)
    alone = certify(scores, ~wrong, constraints=(PRECISION,), delta=0.025, **labels)
    assert both.threshold == alone.threshold  # the stricter one decides, at half of delta


def test_equal_to_a_plain_loop() -> None:
    rng = np.random.default_rng(9)
    scores, agreed = rng.random(500), rng.random(500) < 0.97
    grid = np.linspace(0, 1, 50)
    passing = None
    for t in sorted(grid, reverse=True):
        errors = int(((scores >= t) & ~agreed).sum())
        if stats.binomtest(errors, 500, 0.05, alternative="less").pvalue > 0.05:
            break
        passing = t
    assert certify(scores, agreed, thresholds=grid).threshold == passing


def test_unequal_probabilities_and_weights() -> None:
    """Rows asked with probability q, and rows standing for many, certify what plain rows would."""
    rng = np.random.default_rng(10)
    scores = rng.random(6000)
    wrong = rng.random(6000) < 0.1 * (1 - scores)
    q = np.where(scores > 0.7, 0.4, 1.0)
    agreed = np.where(rng.random(6000) < q, ~wrong, np.nan)
    thinned = certify(scores, agreed, probabilities=q, method="betting")
    assert thinned.asked < 5000
    assert thinned.coverage > 0.85  # all rows: 1.0; risk at the bottom is exactly .05
    weighted = certify(scores, ~wrong, weights=np.full(6000, 0.5), method="betting")
    assert weighted.threshold is not None
    assert certify(scores, ~wrong, weights=np.full(6000, 1.0), method="betting") == certify(
        scores, ~wrong, method="betting"
    )


def test_edges() -> None:
    assert certify([], []).reason == "too-few-answers"
    assert certify([0.5], [True]).threshold is None
    assert certify(np.full(200, 0.5), np.zeros(200, bool)).reason == "no-threshold"
    sure = certify(np.full(200, 0.5), np.ones(200, bool))
    assert (sure.coverage, sure.risk) == (1.0, 0.0)
    tied = certify(np.repeat([0.2, 0.8], 300), np.repeat([False, True], 300), thresholds=[0.2, 0.8])
    assert (tied.threshold, tied.coverage) == (0.8, 0.5)
    assert certify(np.full(99, 0.2), np.ones(99, bool), thresholds=[0.9]).threshold is None
    assert certify(np.full(30, 0.9), np.ones(30, bool)).reason == "too-few-answers"


@pytest.mark.parametrize(
    "call",
    [
        lambda: certify([np.nan], [True]),
        lambda: certify([1.5], [True]),
        lambda: certify([0.5], [True, False]),
        lambda: certify([[0.5]], [True]),
        lambda: certify([0.5], [True], delta=0.0),
        lambda: certify([0.5], [True], delta=1.0),
        lambda: certify([0.5], [True], method="guess"),
        lambda: certify([0.5], [True], thresholds=[]),
        lambda: certify([0.5], [True], thresholds=[1.5]),
        lambda: certify([0.5], [True], constraints=()),
        lambda: certify([0.5], [np.nan]),
        lambda: certify([0.5], [True], probabilities=[0.5]),
        lambda: certify([0.5], [True], probabilities=[0.0], method="betting"),
        lambda: certify([0.5], [True], constraints=(PRECISION,)),
        lambda: certify([0.5], [True], constraints=(RECALL,), small=["yes"]),
        lambda: Constraint("agree", 1.0),
        lambda: Constraint("agree", 0.0),
        lambda: Constraint("precision", 0.9),
        lambda: Constraint("f1", 0.9),  # type: ignore[arg-type]
        lambda: Constraint("agree", 0.9, on="some"),  # type: ignore[arg-type]
        lambda: Certificate.from_json("{}"),
    ],
)
def test_bad_input_is_refused(call: object) -> None:
    with pytest.raises(InputError):
        call()  # type: ignore[operator]


def test_json_and_curve() -> None:
    rng = np.random.default_rng(12)
    scores = rng.random(800)
    certificate = certify(scores, rng.random(800) < 0.5 + 0.5 * scores)
    assert Certificate.from_json(certificate.to_json()) == certificate
    coverages = [point["coverage"] for point in certificate.curve]
    assert coverages == sorted(coverages)
    assert all(point["risk"] <= point["bound"] for point in certificate.curve)


def test_a_million_rows_take_seconds() -> None:
    rng = np.random.default_rng(13)
    scores = rng.random(1_000_000)
    agreed = rng.random(1_000_000) < 0.9 + 0.1 * scores
    for method in ("binomial", "betting"):
        begun = time.perf_counter()
        certificate = certify(scores, agreed, method=method, curve=10)
        assert time.perf_counter() - begun < 20.0
        assert 0.95 < certificate.coverage < 1.0
        served = scores >= certificate.threshold
        assert certificate.coverage == pytest.approx(served.mean(), abs=1e-6)
        assert certificate.risk == pytest.approx((served & ~agreed).mean(), abs=1e-6)
        assert certificate.risk < certificate.bound <= 0.05


def test_grid_from_other_rows() -> None:
    grid = threshold_grid(np.random.default_rng(0).random(1000), size=20)
    assert np.all(np.diff(grid) < 0)
    assert grid[-1] == 0.0
    assert threshold_grid().min() >= 0.0
    assert threshold_grid().max() <= 1.0
