"""The routing artifact: dials, storing, serving."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.errors import ArtifactError, InputError
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.router import Router
from pilotfish.infer.routing import Routing, fit_routing, tune_routing
from pilotfish.models.calls import wait
from pilotfish.models.load import load_classifier, load_encoder, load_model
from pilotfish.models.protocols import Classifier
from pilotfish.records import Request
from pilotfish.store.artifacts import save_artifact
from pilotfish.store.card import Card
from tests.infer.test_replay import topics


@pytest.fixture(scope="module")
def routing() -> Routing:
    return fit_routing(topics(), topics(seed=1), predictor="logistic")


def test_without_a_dial_only_quality_counts(routing: Routing) -> None:
    assert routing.weight == 0
    assert routing.tuned.quality == pytest.approx(routing.tuned.best_quality, abs=0.02)
    assert routing.tuned.cost < 0.8 * routing.tuned.best_cost, "sums go to the small one as well"
    assert routing.tuned.best_single == "large"
    assert isinstance(routing, Classifier)
    said = routing.choose(["add the numbers 7", "prove the theorem of 12"])
    assert said[1] == "large"


@pytest.mark.parametrize("limit", [1.5, 4.0, 9.0])
def test_a_request_costs_at_most_the_dial(routing: Routing, limit: float) -> None:
    tuned = tune_routing(routing, topics(seed=1), max_cost=limit)
    assert tuned.tuned.cost <= limit
    dearer = tune_routing(routing, topics(seed=1), max_cost=limit * 2)
    assert dearer.tuned.quality >= tuned.tuned.quality


def test_the_other_dials(routing: Routing) -> None:
    data = topics(seed=1)
    assert tune_routing(routing, data, strong_share=0.2).tuned.strong_share <= 0.2
    good = tune_routing(routing, data, min_quality=0.6).tuned
    assert good.quality >= 0.6
    assert good.cost < routing.tuned.cost
    with pytest.raises(InputError, match="the most that was reached"):
        tune_routing(routing, data, min_quality=0.999)
    with pytest.raises(InputError, match="the least that was reached is 1"):
        tune_routing(routing, data, max_cost=0.1)
    with pytest.raises(InputError, match="more than one"):
        tune_routing(routing, data, max_cost=1, min_quality=0.1)


def test_without_costs_the_best_model_counts_as_dear() -> None:
    made = fit_routing(
        topics(cost=False), topics(seed=1, cost=False), predictor="logistic", strong_share=0.3
    )
    assert made.cost.tolist() == [0, 1]
    assert 0 < made.tuned.strong_share <= 0.3
    assert np.isnan(made.tuned.cost)


def test_a_weight_is_quality_per_cost(routing: Routing) -> None:
    texts = topics(seed=2).texts[:20]
    tuned = tune_routing(routing, topics(seed=1), max_cost=3)
    plain = routing.predictor.predict(texts).mean
    assert tuned.predict_proba(texts) == pytest.approx(plain - tuned.weight * tuned.cost)


def test_an_artifact_serves_what_was_fitted(routing: Routing, tmp_path: Path) -> None:
    tuned = tune_routing(routing, topics(seed=1), max_cost=4)
    tuned.save(tmp_path / "router", learned_from={"outcomes": "x"})
    again = Routing.load(tmp_path / "router", load_encoder)
    texts = topics(seed=2).texts
    assert again.choose(texts) == tuned.choose(texts)
    assert again.tuned == tuned.tuned
    loaded = load_classifier(str(tmp_path / "router"), Config())
    assert loaded.classes == ("small", "large")
    member = {"backend": "fake", "answers": dict.fromkeys(texts, "An answer")}
    table = {"kind": "router", "models": ["large", "small"], "by": str(tmp_path / "router")}
    model = load_model("both", Config(models={"small": member, "large": member, "both": table}))
    assert isinstance(model, Router)
    for text, name in zip(texts[:20], tuned.choose(texts[:20]), strict=True):
        assert wait(model.complete(Request.of(text))).decisions[-1].chose == name


def test_costs_may_be_unknown_in_a_stored_artifact(tmp_path: Path) -> None:
    made = fit_routing(topics(cost=False), topics(seed=1, cost=False), predictor="average")
    made.save(tmp_path / "router")
    assert np.isnan(Routing.load(tmp_path / "router", load_encoder).tuned.cost)


def test_another_artifact_is_no_router(tmp_path: Path) -> None:
    save_artifact(tmp_path / "other", Card.new(name="other", kind="offload"))
    with pytest.raises(ArtifactError, match="kind 'offload'"):
        Routing.load(tmp_path / "other", load_encoder)


def test_all_models_at_one_price_leave_nothing_to_trade() -> None:
    data = topics(60)
    flat = Outcomes(data.texts, data.models, data.quality, np.ones((60, 2), np.float32))
    assert fit_routing(flat, flat, predictor="average").tuned.cost == 1
    with pytest.raises(InputError, match="nothing to trade"):
        fit_routing(flat, flat, predictor="average", max_cost=0.5)
