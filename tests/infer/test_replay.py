"""Replaying several policies on the same splits."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from pilotfish.errors import InputError, UnknownName
from pilotfish.infer.operating import Dials
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.replay import parse_settings, replay
from pilotfish.infer.scoreboard import Interval


def topics(n: int = 300, *, seed: int = 0, cost: bool = True) -> Outcomes:
    """A cheap model that knows sums, a dear one that knows everything but poems."""
    rng = np.random.default_rng(seed)
    kinds = rng.integers(0, 3, n)
    words = ("add the numbers", "write a poem about", "prove the theorem of")
    texts = tuple(f"{words[k]} {rng.integers(100)} {i}" for i, k in enumerate(kinds))
    quality = np.stack([kinds == 0, kinds != 1], axis=1).astype(np.float32)
    flip = rng.random((n, 2)) < 0.05
    quality = np.abs(quality - flip)
    prices = np.tile(np.array([1, 10], np.float32), (n, 1)) if cost else np.full((n, 2), np.nan)
    probability = np.where(quality[:, :1] == 1, 0.9, 0.1).repeat(2, axis=1).astype(np.float32)
    return Outcomes(
        texts,
        ("small", "large"),
        quality,
        prices.astype(np.float32),
        signals={"probability": probability},
    )


def test_policies_are_ranked_as_they_must_be() -> None:
    outcomes = topics()
    names = ["single", "random", "logistic", "oracle", "cascade:probability"]
    scores = {s.policy: s for s in replay(outcomes, names, seeds=2, samples=50)}
    quality = {name: s.measures["quality"].value for name, s in scores.items()}
    assert quality["single"] <= quality["oracle"]
    assert quality["logistic"] <= quality["oracle"]
    apgr = {name: s.measures["apgr"].value for name, s in scores.items() if "apgr" in s.measures}
    assert set(apgr) == {"random", "logistic", "cascade:probability"}
    assert apgr["random"] == pytest.approx(0.5, abs=0.1)
    assert apgr["logistic"] > 0.75
    aiq = {name: s.measures["aiq"].value for name, s in scores.items() if "aiq" in s.measures}
    assert aiq["logistic"] > aiq["random"]
    single = scores["single"].measures
    assert single["quality_at_single_cost"].value == pytest.approx(
        single["quality"].value, abs=0.02
    )
    for score in scores.values():
        for found in score.measures.values():
            assert found.low <= found.value + 1e-9
            assert found.value <= found.high + 1e-9
        assert score.curve.shape == (50, 2)


def test_the_order_of_the_policies_changes_nothing() -> None:
    outcomes = topics(120)
    one = replay(outcomes, ["random", "knn"], seeds=1, samples=20)
    other = replay(outcomes, ["knn", "random"], seeds=1, samples=20)
    for a, b in zip(one, reversed(other), strict=True):
        assert a.policy == b.policy
        assert a.measures == b.measures


def test_without_costs_what_needs_none_is_there() -> None:
    (score,) = replay(topics(120, cost=False), ["knn:k=10"], seeds=1, samples=0)
    assert {"apgr", "cpt50", "cpt80", "quality", "strong_share"} == set(score.measures)
    assert score.curve.shape == (0, 2)


def test_gaps_leave_out_what_needs_both_models(recwarn: pytest.WarningsRecorder) -> None:
    """As a store has them, where each request was answered by one model."""
    whole = topics(200)
    holes = whole.quality.copy()
    holes[np.arange(200), np.arange(200) % 2] = np.nan
    gaps = Outcomes(whole.texts, whole.models, holes, np.where(np.isnan(holes), holes, whole.cost))
    (score,) = replay(gaps, ["logistic"], seeds=1, samples=10)
    assert set(score.measures) == {"quality", "strong_share"}
    (score,) = replay(gaps, ["logistic"], seeds=1, samples=10, dials=Dials(strong_share=0.5))
    assert {"quality", "cost", "strong_share"} <= set(score.measures)
    assert score.measures["strong_share"].value == pytest.approx(0.5, abs=0.15)
    assert score.point is not None
    assert not recwarn


def test_names_that_are_none_are_refused_before_anything_is_fitted() -> None:
    outcomes = topics(60)
    with pytest.raises(UnknownName, match="Did you mean 'oracle'"):
        replay(outcomes, ["knn", "oracel"])
    with pytest.raises(UnknownName, match="Unknown judge 'mood'"):
        replay(outcomes, ["cascade:mood"])
    with pytest.raises(InputError, match="NAME=VALUE"):
        replay(outcomes, ["knn:k"])
    assert parse_settings("k=5,labels=soft,x=[1]") == {"k": 5, "labels": "soft", "x": [1]}


def three(n: int = 240, *, seed: int = 0) -> Outcomes:
    """Ever dearer and better models."""
    rng = np.random.default_rng(seed)
    quality = (rng.random((n, 3)) < [0.4, 0.6, 0.8]).astype(np.float32)
    cost = np.tile(np.array([1, 3, 10], np.float32), (n, 1))
    texts = tuple(f"question {i} of {rng.integers(9)}" for i in range(n))
    return Outcomes(texts, ("a", "b", "c"), quality, cost)


def test_a_quality_that_is_missing_does_not_spoil_what_costs_decide() -> None:
    """All costs are known, one quality in ten of the cheapest model is not.

    A judge that says nothing keeps all answers of the first small model, for 4, or none, for 14.
    """
    whole = three()
    quality = whole.quality.copy()
    quality[::10, 0] = np.nan
    signals = {"flat": np.full_like(quality, 0.5)}
    gaps = dataclasses.replace(whole, quality=quality, signals=signals)
    (score,) = replay(gaps, ["synergy:flat"], seeds=1, samples=20)
    mean = np.nanmean(gaps.split(0)[1].quality, axis=0)
    # Of the hull from the cheapest model (1, a) to all of them (14, c), the part from 1 to 10.
    by_hand = mean[0] + (mean[2] - mean[0]) * 4.5 / 13
    assert score.measures["aiq"].value == pytest.approx(by_hand, abs=1e-5)
    at_ten = mean[0] + (mean[2] - mean[0]) * 9 / 13
    assert score.measures["quality_at_single_cost"].value == pytest.approx(at_ten, abs=1e-5)


def test_two_models_have_seconds_as_well() -> None:
    whole = topics(160)
    latency = np.tile(np.array([0.5, 4], np.float32), (160, 1))
    timed = dataclasses.replace(whole, latency=latency)
    (score,) = replay(timed, ["logistic"], seeds=1, samples=0)
    share = score.measures["strong_share"].value
    assert score.measures["latency"].value == pytest.approx(0.5 + 3.5 * share)


@pytest.mark.parametrize("large", ["a", "c"])
def test_the_large_model_is_the_same_one_for_every_policy(large: str) -> None:
    scores = replay(three(), ["average", "single", "oracle"], large=large, seeds=1, samples=0)
    share = {each.policy: each.measures["strong_share"].value for each in scores}
    assert share["average"] == share["single"] == float(large == "c"), "the best one is c"
    assert 0 < share["oracle"] < 1
    pair = topics(160)
    (best,) = replay(pair, ["logistic"], large="small", seeds=1, samples=0)
    (other,) = replay(pair, ["logistic"], large="large", seeds=1, samples=0)
    # (A - low) / (high - low) and, the other way round, (A - high) / (low - high).
    total = best.measures["apgr"].value + other.measures["apgr"].value
    assert total == pytest.approx(1)


def test_a_split_of_which_no_question_was_drawn_does_not_count(
    recwarn: pytest.WarningsRecorder,
) -> None:
    """One question is tested, which one draw in three leaves out."""
    whole = three(60)
    (score,) = replay(whole, ["single"], fit=59, seeds=1, samples=50)
    only = float(whole.split(0, fit=59)[1].quality[0, 2])
    assert score.measures["quality"] == Interval(only, only, only)
    assert score.measures["cost"] == Interval(10, 10, 10)
    assert not recwarn


@pytest.mark.parametrize("dials", [Dials(max_cost=4.0), Dials(min_quality=0.55), Dials(agree=0.7)])
def test_costs_that_are_missing_on_purpose_mislead_nobody(dials: Dials) -> None:
    """A model's cost is the same for all questions, so whichever are missing nothing may change."""
    whole = topics(400)
    cost = whole.cost.copy()
    cost[whole.quality[:, 0] == 0, 1] = (
        np.nan
    )  # the large one's, where the small one would be wrong
    cost[::3, 0] = np.nan
    gaps = dataclasses.replace(whole, cost=cost)
    names = ["logistic", "single", "cascade:probability"]
    for one, other in zip(
        *(replay(o, names, dials=dials, seeds=2, samples=0) for o in (whole, gaps)), strict=True
    ):
        for name in ("quality", "cost", "strong_share"):
            assert one.measures[name].value == pytest.approx(other.measures[name].value), name


def test_what_has_no_range_or_gap_is_left_out(recwarn: pytest.WarningsRecorder) -> None:
    """Models that cost the same have no AIQ, models that are as good no gap to recover."""
    whole = topics(100)
    same = dataclasses.replace(whole, cost=np.ones_like(whole.cost))
    (score,) = replay(same, ["logistic"], seeds=1, samples=10)
    assert {"quality", "cost", "apgr"} <= set(score.measures)
    assert "aiq" not in score.measures
    equal = dataclasses.replace(whole, quality=whole.quality[:, [1, 1]])
    (score,) = replay(equal, ["logistic"], seeds=1, samples=10)
    assert {"quality", "cost", "aiq"} <= set(score.measures)
    assert not {"apgr", "cpt50", "cpt80"} & set(score.measures)
    assert not recwarn
