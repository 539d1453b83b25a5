"""Forests and boosted trees against scikit-learn's, and the directions that they split along."""

from __future__ import annotations

import math

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor

from pilotfish.errors import ArtifactError
from pilotfish.infer.predictors.forest import Forest
from pilotfish.infer.predictors.trees import Trees
from tests.infer.predictors.plane import Plane, noisy


@pytest.mark.parametrize("bootstrap", [False, True])
def test_the_forest_is_scikit_learns(bootstrap: bool) -> None:
    data = noisy(120)
    made = Forest.fit(data, Plane(), 5, trees=20, leaf=3, bootstrap=bootstrap)
    x = Forest._inputs(made.features, made.directions, True, data.texts)
    trees = ExtraTreesRegressor(
        20,
        min_samples_leaf=3,
        max_features=0.3,
        bootstrap=bootstrap,
        random_state=5,
        oob_score=bootstrap,
    ).fit(x, data.quality)
    assert made.predict(data.texts).mean == pytest.approx(trees.predict(x), abs=1e-5)
    alone = np.vstack([made.predict([text]).mean for text in data.texts[:20]])
    assert alone == pytest.approx(trees.predict(x[:20]), abs=1e-5)
    if not bootstrap:
        assert made.left_out is None
        return
    assert made.left_out is not None
    seen = ~np.isnan(made.left_out)
    assert made.left_out[seen] == pytest.approx(trees.oob_prediction_[seen], abs=1e-5)


def test_boosted_trees_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 5)).astype(np.float32)
    targets = [x[:, 0] * x[:, 1] + 3, np.sin(x[:, 2])]
    models = [
        HistGradientBoostingRegressor(max_iter=15, max_leaf_nodes=8, random_state=0).fit(x, y)
        for y in targets
    ]
    trees = Trees.of_boosted(models)
    told = np.stack([model.predict(x) for model in models], axis=1)
    assert trees.total(x) == pytest.approx(told, abs=1e-5)
    for output in (0, 1):
        alone = trees.part(output, 2).total(x)[:, 0]
        assert alone == pytest.approx(told[:, output], abs=1e-5)
    again = Trees.restore(*trees.state(), None)
    assert np.array_equal(again.total(x), trees.total(x))
    with pytest.raises(ArtifactError, match="outside"):
        again.check(2)
    assert Trees.none(2).total(x).tolist() == np.zeros((300, 2)).tolist()


def test_several_leaf_sizes_are_chosen_from_by_the_out_of_bag_error() -> None:
    data = noisy(120)
    errors = []
    for leaf in (2, 30):
        left_out = Forest.fit(data, Plane(), 1, trees=30, leaf=leaf, bootstrap=True).left_out
        assert left_out is not None
        off = data.quality - left_out
        errors.append(np.nanmean((off - off.mean(axis=1, keepdims=True)) ** 2))
    chosen = Forest.fit(data, Plane(), 1, trees=30, leaf=[2, 30])
    alone = Forest.fit(data, Plane(), 1, trees=30, leaf=(2, 30)[int(np.argmin(errors))])
    assert np.array_equal(chosen.predict(data.texts).mean, alone.predict(data.texts).mean)


def test_joined_encoders_stand_side_by_side() -> None:
    from pilotfish.infer.predictors.forest import main_directions
    from pilotfish.infer.predictors.joined import Joined

    both = Joined([Plane(), Plane()])
    assert both.dim == 4
    assert both.name == "plane+plane"
    assert both.encode(["3 4"])[0] == pytest.approx(np.array([3, 4, 3, 4]) / math.sqrt(2))
    rows = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    found = main_directions(rows, (3, 1), 2)
    assert found.shape == (4, 3)
    assert (found[3, :2] == 0).all(), "directions of one encoder leave the other's columns alone"
    assert abs(found[:3, 0] @ np.linalg.svd(rows[:, :3])[2][0]) == pytest.approx(1, abs=1e-5)


def test_a_forest_that_points_outside_itself_is_refused() -> None:
    made = Forest.fit(noisy(60), Plane(), 0, trees=3, leaf=5)
    settings, arrays = made.state()
    for column, value in ((1, 10**6), (2, 0), (0, 999)):
        nodes = arrays["nodes"].copy()
        nodes[np.flatnonzero(nodes[:, 0] >= 0)[-1], column] = value
        with pytest.raises(ArtifactError, match="outside"):
            Forest.restore({**settings, "models": ("a", "b")}, {**arrays, "nodes": nodes}, Plane())
