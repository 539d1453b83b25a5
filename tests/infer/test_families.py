"""Families of policies: their measures, and that no judge sees what was not asked."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pilotfish.errors import ConfigError, InputError, UnknownName
from pilotfish.infer.families import JUDGED, Family, fit_family, points_of, price_weights
from pilotfish.infer.operating import Dials, operate
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.chain import Chain
from pilotfish.infer.replay import replay


def telling(n: int = 500) -> Outcomes:
    """A signal that says well whether the answer is right; the question alone says nothing."""
    rng = np.random.default_rng(0)
    quality = (rng.random((n, 3)) < [0.55, 0.7, 0.9]).astype(np.float32)
    signal = np.clip(0.1 + 0.8 * quality + 0.1 * rng.normal(size=(n, 3)), 0, 1)
    texts = tuple(f"question number {i}" for i in range(n))
    cost = np.tile(np.array([1, 3, 10], np.float32), (n, 1))
    signals = {"probability": signal.astype(np.float32)}
    return Outcomes(texts, ("small", "middle", "large"), quality, cost, signals=signals)


def test_judging_answers_beats_predicting_them_where_questions_say_nothing() -> None:
    names = ["logistic", "oracle", *(f"{kind}:probability" for kind in JUDGED)]
    scores = {s.policy: s for s in replay(telling(), names, seeds=1, samples=0)}
    aiq = {name: s.measures["aiq"].value for name, s in scores.items() if "aiq" in s.measures}
    for kind in set(JUDGED) - {"synergy"}:  # which always asks all the small ones
        assert aiq[f"{kind}:probability"] > aiq["logistic"] + 0.05, aiq
        best = scores[f"{kind}:probability"].measures["quality"].value
        assert best <= scores["oracle"].measures["quality"].value + 1e-9
        assert best >= 0.9


@pytest.mark.parametrize("kind", JUDGED)
def test_no_judge_sees_answers_that_were_not_asked_for(kind: str) -> None:
    """Small and large agree exactly where small is right; that shows only once both were asked.

    Who peeked would keep the right small answers and have all right for little; who does not can only
    draw lots between the two.
    """
    rng = np.random.default_rng(1)
    n = 600
    right = rng.random(n) < 0.5
    number = rng.integers(100, 999, n)
    answers = np.empty((n, 2), object)
    answers[:, 1] = [f"It is {k}" for k in number]
    answers[:, 0] = [f"It is {k if r else k + 1}" for k, r in zip(number, right, strict=True)]
    quality = np.stack([right, np.ones(n)], axis=1).astype(np.float32)
    cost = np.tile(np.array([1, 10], np.float32), (n, 1))
    texts = tuple(f"question {i}" for i in range(n))
    rows = Outcomes(texts, ("small", "large"), quality, cost, answers=answers)
    learn, test = rows.split(0, fit=0.6)
    points = points_of(fit_family(f"{kind}:learned", learn), test)
    reached, spent, _ = points.means()
    lots = test.quality[:, 0].mean() + 0.5 * np.clip((spent - 1) / 9, 0, 1)
    assert np.all(reached <= lots + 0.08), (reached, spent)


def test_synergy_asks_all_the_small_ones_first() -> None:
    family = fit_family("synergy:probability", telling(), large="large")
    for policy in family.settings:
        assert isinstance(policy, Chain)
        assert policy.stages == ((0, 1), (2,))
    played = family.replayer(telling())(family.settings[len(family.settings) // 2])
    assert played.asked[:, :2].all()
    assert 0 < played.asked[:, 2].mean() < 1


def test_single_is_every_model_alone() -> None:
    rows = telling()
    family = fit_family("single", rows)
    means = [family.replayer(rows)(policy).quality.mean() for policy in family.settings]
    assert means == pytest.approx(rows.quality.mean(axis=0).tolist()[::-1]), "the best first"
    assert family.large == 2


@pytest.mark.parametrize("kind", ["cascade-routing", "reservation"])
def test_beliefs_move_as_on_questions_that_the_predictor_did_not_see(kind: str) -> None:
    """What was judged of the half that the predictor learned from must change nothing."""
    rows = telling(200)
    first, _ = rows.split(0, fit=0.5)
    learned = np.isin(np.array(rows.texts), first.texts)[:, None]
    signal = np.where(learned, 1 - rows.signals["probability"], rows.signals["probability"])
    other = dataclasses.replace(rows, signals={"probability": signal})
    found = [fit_family(f"{kind}:probability", each).settings[0] for each in (rows, other)]
    assert np.array_equal(*(policy.covariance for policy in found))  # type: ignore[attr-defined]


@pytest.mark.parametrize("kind", ["random", "logistic", "reservation:probability"])
def test_every_budget_down_to_the_cheapest_models_can_be_kept(kind: str) -> None:
    """Prices of 1, 20 and 10,000: what tells the first two apart is beyond all worth for the third."""
    rows = telling(200)
    cost = np.tile(np.array([1, 20, 10_000], np.float32), (len(rows), 1))
    skewed = dataclasses.replace(rows, cost=cost)
    family = fit_family(kind, skewed)
    played = [family.replayer(skewed)(policy) for policy in family.settings]
    assert played[-1].cost.tolist() == [1] * len(rows)
    policy = operate(family, skewed, Dials(max_cost=5.0))
    assert family.replayer(skewed)(policy).cost.mean() == pytest.approx(5, rel=0.2)
    weights = price_weights(cost[0], 20)
    assert weights == sorted(set(weights)), "each once, ever larger"
    assert price_weights(cost[0, :2], 20)[-1] == pytest.approx(10 / 19), "enough for two"
    assert price_weights(cost[:3, 0], 20) == [0.0]


def test_a_prefix_begins_with_the_cheapest_however_models_are_listed() -> None:
    rows = telling(200).select(["large", "small", "middle"])
    family = fit_family("cascade-routing:probability,family=prefix", rows)
    played = [family.replayer(rows)(policy) for policy in family.settings]
    patterns = {tuple(row) for one in played for row in one.asked.tolist()}
    assert (False, True, False) in patterns, "the small one alone"
    assert (True, False, False) not in patterns, "never the large one first"


def test_seconds_are_traded_where_they_are_wanted() -> None:
    rows = telling()
    slow = np.tile(np.array([9.0, 1.0, 1.0], np.float32), (len(rows), 1))
    timed = Outcomes(rows.texts, rows.models, rows.quality, np.ones_like(rows.cost), latency=slow)
    family = fit_family("average", timed, latency=True)
    assert family.latency.tolist() == [9, 1, 1]
    asked = {int(family.replayer(timed)(p).answered[0]) for p in family.settings}
    assert asked == {2}, "the best one is as fast and as cheap as any"
    turned = Outcomes(
        rows.texts, rows.models, rows.quality, np.ones_like(rows.cost), latency=slow[:, ::-1]
    )
    family = fit_family("average", turned, latency=True)
    asked = {int(family.replayer(turned)(p).answered[0]) for p in family.settings}
    assert asked == {1, 2}, "and where it is slow, the second best"


def test_without_costs_the_large_model_counts_as_dear() -> None:
    rows = telling()
    bare = Outcomes(rows.texts, rows.models, rows.quality, signals=rows.signals)
    family: Family = fit_family("average", bare, large="middle")
    assert family.cost.tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("name", "error", "words"),
    [
        ("cascade:mood", UnknownName, "Unknown judge 'mood'"),
        ("cascade:learned", InputError, "reads answers"),
        ("cascade:model-agreement", InputError, "reads answers"),
        ("reservation:probability,predictor=knn2", UnknownName, "Did you mean 'knn'"),
        ("verification-pomdp:probability,bins=5000", InputError, "histories"),
        ("oracel", UnknownName, "policy"),
        ("knn:neighbours=3", ConfigError, "no setting"),
        ("knn:k=many", ConfigError, "got k = 'many': expected `int`"),
        ("knn:k=0", ConfigError, "got k = 0: expected `int` >= 1"),
        (
            "linear:strengths=[]",
            ConfigError,
            r"got strengths = \[\]: expected `array` of length >= 1",
        ),
        ("forest:leaf=[5,0]", InputError, "NAME=VALUE"),
        ("hybrid:labels=x", ConfigError, "expected one of deterministic, soft, transformed"),
        ("cascade:probability,max_stages=0", ConfigError, "max_stages = 0: expected `int` >= 1"),
        ("cascade:probability,answer=first", ConfigError, "expected one of last, all"),
        ("cascade:probability,max_stage=2", ConfigError, "has no setting max_stage"),
        ("cascade:probability,confidence=3", ConfigError, "expected `str`"),
        (
            "cascade-routing:probability,family=many",
            ConfigError,
            "expected one of any, one, prefix",
        ),
    ],
)
def test_what_cannot_be_fitted_says_why(name: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        fit_family(name, telling(120))


def test_a_cascade_needs_complete_questions() -> None:
    rows = telling(60)
    holes = rows.quality.copy()
    holes[:58, 1] = np.nan
    gaps = Outcomes(rows.texts, rows.models, holes, rows.cost, signals=rows.signals)
    with pytest.raises(InputError, match="there are 2 of 60"):
        fit_family("cascade:probability", gaps)
    with pytest.raises(UnknownName, match="large model"):
        fit_family("average", rows, large="huge")
