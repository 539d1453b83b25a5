"""The policy artifact: dials, storing, serving."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.errors import ArtifactError, ConfigError, InputError
from pilotfish.infer.operating import Dials
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.policies.mixed import Mixed
from pilotfish.infer.router import Router
from pilotfish.infer.routing import Narrowing, Routing, fit_routing, tune_routing
from pilotfish.models.calls import wait
from pilotfish.models.load import load_classifier, load_encoder, load_model
from pilotfish.models.protocols import Classifier
from pilotfish.records import Request
from pilotfish.store.artifacts import load_artifact, save_artifact
from pilotfish.store.card import Card
from tests.infer.test_families import telling
from tests.infer.test_policy_model import lesson
from tests.infer.test_replay import topics

PARTS = (topics(), topics(seed=1), topics(seed=3))


def fit(policy: str = "logistic", **settings: Any) -> Routing:
    return fit_routing(*PARTS, policy=policy, **settings)


@pytest.fixture(scope="module")
def routing() -> Routing:
    return fit()


def tune(routing: Routing, **dials: Any) -> Routing:
    return tune_routing(routing, *PARTS[1:], Dials(**dials))


def test_without_a_dial_only_quality_counts(routing: Routing) -> None:
    measured = routing.measured
    assert measured is not None
    assert measured.questions == 300
    assert measured.value("quality") == pytest.approx(measured.value("large_quality"), abs=0.03)
    assert measured.value("cost") < 0.8 * measured.value("large_cost"), "sums go to the small one"
    assert routing.large == "large"
    assert isinstance(routing, Classifier)
    said = routing.choose(["add the numbers 7", "prove the theorem of 12"])
    assert said[1] == "large"


@pytest.mark.parametrize("limit", [1.5, 4.0, 9.0])
def test_a_request_costs_at_most_the_dial(routing: Routing, limit: float) -> None:
    """In the mean on the questions it is set on; on others the interval holds it."""
    tuned = tune(routing, max_cost=limit)
    there = tune_routing(routing, PARTS[1], PARTS[1], Dials(max_cost=limit)).measured
    assert there is not None
    assert there.value("cost") <= limit + 0.6  # the coin of a mix
    assert tuned.measured is not None
    assert tuned.measured.measures["cost"].low <= limit
    dearer = tune(routing, max_cost=limit * 2)
    assert dearer.measured is not None
    assert dearer.measured.value("quality") >= tuned.measured.value("quality") - 0.01


def test_a_budget_between_two_settings_is_spent_by_a_coin() -> None:
    single = fit("single", dials=Dials(max_cost=5.5))
    assert isinstance(single.policy, Mixed)
    assert single.policy.share == pytest.approx(0.5)
    assert single.measured is not None
    cost = single.measured.measures["cost"]
    assert cost.low < 5.5 < cost.high
    assert cost.high - cost.low < 1.5


def test_the_other_dials(routing: Routing) -> None:
    shared = tune(routing, strong_share=0.2).measured
    assert shared is not None
    assert shared.measures["strong_share"].low <= 0.2
    good = tune(routing, min_quality=0.6).measured
    assert good is not None
    assert good.measures["quality"].high >= 0.6
    assert routing.measured is not None
    assert good.value("cost") < routing.measured.value("cost")
    with pytest.raises(InputError, match="the best that can be had is"):
        tune(routing, min_quality=0.999)
    with pytest.raises(InputError, match="the least that can be had is 1"):
        tune(routing, max_cost=0.1)
    with pytest.raises(InputError, match="within the other limits"):
        tune(routing, max_cost=1.5, min_quality=0.9)
    with pytest.raises(InputError, match="mean latency, but none was recorded"):
        tune(routing, max_latency=3)


def test_figures_are_of_questions_that_nothing_was_chosen_on(routing: Routing) -> None:
    """Those of the check part, recomputed by hand."""
    tuned = tune(routing, min_quality=0.6)
    at = [tuned.classes.index(name) for name in tuned.choose(PARTS[2].texts)]
    rows = np.arange(len(at))
    quality, cost = PARTS[2].quality[rows, at], PARTS[2].cost[rows, at]
    assert tuned.measured is not None
    assert tuned.measured.value("quality") == pytest.approx(quality.mean())
    assert tuned.measured.value("cost") == pytest.approx(cost.mean())
    interval = tuned.measured.measures["quality"]
    spread = quality.std() / np.sqrt(len(rows))
    assert interval.high - interval.low == pytest.approx(2 * 1.96 * spread, rel=0.15)


def test_without_costs_the_best_model_counts_as_dear() -> None:
    parts = [topics(seed=seed, cost=False) for seed in (0, 1, 3)]
    made = fit_routing(*parts, policy="logistic", dials=Dials(strong_share=0.3))
    assert made.family.cost.tolist() == [0, 1]
    assert made.measured is not None
    assert 0 < made.measured.value("strong_share") <= 0.36
    assert "cost" not in made.measured.measures


def test_a_weight_is_quality_per_cost(routing: Routing) -> None:
    texts = topics(seed=2).texts[:20]
    policy = next(p for p in routing.family.settings if p.weight > 0.01)  # type: ignore[attr-defined]
    made = dataclasses.replace(routing, policy=policy)
    plain = routing.family.predictor.predict(texts).mean
    weight = policy.weight  # type: ignore[attr-defined]
    assert made.predict_proba(texts) == pytest.approx(plain - weight * routing.family.cost)


@pytest.mark.parametrize("dials", [Dials(max_cost=4), Dials(min_quality=0.6)])
def test_an_artifact_serves_what_was_fitted(routing: Routing, tmp_path: Path, dials: Dials) -> None:
    tuned = tune_routing(routing, *PARTS[1:], dials)
    tuned.save(tmp_path / "router", learned_from={"outcomes": "x"})
    again = Routing.load(tmp_path / "router", load_encoder)
    texts = topics(seed=2).texts
    assert again.choose(texts) == tuned.choose(texts)
    assert again.measured == tuned.measured
    assert again.dials == dials
    loaded = load_classifier(str(tmp_path / "router"), Config())
    assert loaded.classes == ("small", "large")
    member = {"backend": "fake", "answers": dict.fromkeys(texts, "An answer")}
    folder = str(tmp_path / "router")
    tables: dict[str, dict[str, Any]] = {
        "small": member,
        "large": member,
        "both": {"kind": "router", "models": ["large", "small"], "by": folder},
        "policy": {"kind": "policy", "models": ["large", "small"], "by": folder},
    }
    router = load_model("both", Config(models=tables))
    policy = load_model("policy", Config(models=tables))
    assert isinstance(router, Router)
    for text, name in zip(texts[:20], tuned.choose(texts[:20]), strict=True):
        assert wait(router.complete(Request.of(text))).decisions[-1].chose == name
        last = wait(policy.complete(Request.of(text))).decisions[-1]
        assert (last.by, last.chose, last.reason) == ("policy", name, "chosen")
        assert last.score == pytest.approx(
            tuned.look([text]).expected[0, tuned.classes.index(name)], abs=1e-6
        )


@pytest.mark.parametrize(
    "policy",
    [
        "cascade:learned,pattern=[0-9]+",
        "cascade-routing:learned,predictor=average",
        "reservation:pairwise,predictor=knn",
        "verification-pomdp:learned",
        "synergy:model-agreement,pattern=[0-9]+",
        "knn:k=5",
        "single",
    ],
)
@pytest.mark.parametrize("dials", [Dials(max_cost=0.06), Dials(agree=0.8)])
def test_every_policy_is_the_same_after_storing(policy: str, dials: Dials, tmp_path: Path) -> None:
    rows = lesson(600)
    learn, choose, check = (rows.take(slice(i, i + 200)) for i in (0, 200, 400))
    made = fit_routing(learn, choose, check, policy=policy, dials=dials)
    made.save(tmp_path / "policy")
    again = Routing.load(tmp_path / "policy", load_encoder)
    one = made.family.replayer(check)(made.policy)
    two = again.family.replayer(check)(again.policy)
    assert np.array_equal(one.answered, two.answered)
    assert np.array_equal(one.asked, two.asked)
    assert np.array_equal(one.margin, two.margin)
    assert len(again.family.settings) == len(made.family.settings)
    assert tune_routing(again, choose, check, dials).measured == made.measured
    card = load_artifact(tmp_path / "policy").card
    assert (card.certificate is not None) == (dials.agree is not None)
    assert card.extra["policy"] == policy


def test_costs_may_be_unknown_in_a_stored_artifact(tmp_path: Path) -> None:
    parts = [topics(seed=seed, cost=False) for seed in (0, 1, 3)]
    fit_routing(*parts, policy="average").save(tmp_path / "router")
    measured = Routing.load(tmp_path / "router", load_encoder).measured
    assert measured is not None
    assert np.isnan(measured.value("cost"))


def test_another_artifact_is_no_router(tmp_path: Path) -> None:
    save_artifact(tmp_path / "other", Card.new(name="other", kind="offload"))
    with pytest.raises(ArtifactError, match="kind 'offload'"):
        Routing.load(tmp_path / "other", load_encoder)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 1}, "Fit it again"),
        ({"policy": {"kind": "chain", "stages": [[7]], "thresholds": []}}, "no policy of"),
        ({"policy": {"kind": "weighted", "wait": 3}}, "no policy of"),
        ({"policy": {"kind": "magic"}}, "no policy of"),
        ({"large": 9}, "no large model"),
        ({"models": ["a", "b", "c"]}, "damaged|holds no|no policy"),
    ],
)
def test_a_file_that_is_no_policy_is_refused(
    routing: Routing, tmp_path: Path, change: dict[str, Any], words: str
) -> None:
    routing.save(tmp_path / "good")
    good = load_artifact(tmp_path / "good")
    stems = [name.partition(".")[0] for name in good.card.files if name.endswith(".safetensors")]
    save_artifact(
        tmp_path / "bad",
        Card.new(name="bad", kind="routing"),
        tensors={stem: good.tensors(stem) for stem in stems},
        json_files={
            "routing": {**good.json("routing"), **change},
            "predictor": good.json("predictor"),
        },
    )
    with pytest.raises(ArtifactError, match=words):
        Routing.load(tmp_path / "bad", load_encoder)


def test_all_models_at_one_price_leave_nothing_to_trade() -> None:
    data = topics(60)
    flat = Outcomes(data.texts, data.models, data.quality, np.ones((60, 2), np.float32))
    measured = fit_routing(flat, flat, flat, policy="average").measured
    assert measured is not None
    assert measured.value("cost") == 1
    with pytest.raises(InputError, match="the least that can be had is 1"):
        fit_routing(flat, flat, flat, policy="average", dials=Dials(max_cost=0.5))


def test_what_does_more_than_choose_is_no_classifier() -> None:
    rows = telling()
    learn, choose, check = (rows.take(slice(i, i + 160)) for i in (0, 160, 320))
    made = fit_routing(learn, choose, check, policy="cascade:probability")
    with pytest.raises(ConfigError, match='kind = "policy"'):
        made.predict_proba(["x"])
    with pytest.raises(ConfigError, match="baseline"):
        fit_routing(learn, choose, check, policy="random")
    with pytest.raises(ConfigError, match="narrowed question"):
        fit("average", dials=Dials(agree=0.9), narrowing=Narrowing(3))


def test_the_card_can_be_read_by_people(routing: Routing, tmp_path: Path) -> None:
    tune(routing, max_cost=4).save(tmp_path / "router")
    card = json.loads((tmp_path / "router" / "card.json").read_text())
    assert card["extra"]["dials"]["max_cost"] == 4
    assert card["extra"]["large"] == "large"
    assert set(card["quality"]["quality"]) == {"value", "low", "high"}
