"""Each predictor against its paper's formula, a closed form, or another library."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.ensemble import ExtraTreesRegressor, HistGradientBoostingRegressor
from sklearn.kernel_ridge import KernelRidge
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from pilotfish.errors import ArtifactError, InputError
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.predictors.agreement import noise_variance
from pilotfish.infer.predictors.average import Average
from pilotfish.infer.predictors.bradley_terry import BradleyTerry
from pilotfish.infer.predictors.contrastive import contrast_gradient
from pilotfish.infer.predictors.coverage import Coverage
from pilotfish.infer.predictors.cues import WIDTH, question_cues
from pilotfish.infer.predictors.elo import Elo
from pilotfish.infer.predictors.expert_loss import ExpertLoss
from pilotfish.infer.predictors.features import Features, LinearMap, Shared
from pilotfish.infer.predictors.forest import Forest
from pilotfish.infer.predictors.hybrid import best_relaxation, mean_difference, shares
from pilotfish.infer.predictors.kernel import Kernel, gaussian_kernel
from pilotfish.infer.predictors.knn import Neighbours
from pilotfish.infer.predictors.logistic import fit_logistic_map, sigmoid
from pilotfish.infer.predictors.matrix_factorization import pair_gradient
from pilotfish.infer.predictors.mlp import Perceptron
from pilotfish.infer.predictors.preferences import bradley_terry, win_rate, wins
from pilotfish.infer.predictors.reward_distilled import smooth
from pilotfish.infer.predictors.ridge import gram_matrix, solve_ridge
from pilotfish.infer.predictors.stacked import Stacked, stacking_weights
from pilotfish.infer.predictors.svm import SupportVectors, best_model
from pilotfish.infer.predictors.text_statistics import NAMES, text_statistics
from pilotfish.infer.predictors.trees import Trees

NAN = float("nan")


class Plane:
    """Texts are points ``"x y"`` of a plane; an encoder that a test can read."""

    name = "plane"
    dim = 2

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        return np.array([text.split()[:2] for text in texts], np.float32).reshape(-1, 2)


def outcomes_of(texts: Sequence[str], quality: Sequence[Sequence[float]], **more: Any) -> Outcomes:
    table = np.array(quality, np.float32)
    names = tuple("abcdef"[: table.shape[1]])
    return Outcomes(tuple(texts), names, table, **more)


def noisy(n: int = 60, m: int = 2, seed: int = 0) -> Outcomes:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(n, 2))
    quality = (rng.random((n, m)) < sigmoid(x @ rng.normal(size=(2, m)) * 2)).astype(np.float32)
    return outcomes_of(
        [f"{a:.3f} {b:.3f} some words {i % 7}" for i, (a, b) in enumerate(x)], quality
    )


def test_neighbours_are_averaged() -> None:
    texts = ["1 0", "0.9 0.1", "-1 0", "-0.9 0.1"]
    data = outcomes_of(texts, [[1, 0], [1, NAN], [0, 1], [0, 0]])
    near = Neighbours.fit(data, Plane(), 0, k=2, prior=0)
    assert near.predict(["5 0"]).mean.tolist() == [[1, 0]]
    assert near.predict(["-5 0"]).mean.tolist() == [[0, 0.5]]
    # Two neighbours with one success each of the first model, shrunk as if 2 more had its mean of .5.
    shrunk = Neighbours.fit(data, Plane(), 0, k=2, prior=2).predict(["5 0"])
    assert shrunk.mean[0, 0] == pytest.approx((2 + 2 * 0.5) / 4)
    everything = Neighbours.fit(data, Plane(), 0, k=4, prior=0).predict(["0 7"])
    assert everything.mean.tolist() == [Average.fit(data, None, 0).mean.tolist()]


def test_a_neighbour_is_left_out_of_its_own_prediction() -> None:
    data = noisy(30)
    kept = Neighbours.fit(data, Plane(), 0, k=3, prior=0).left_out
    for i in (0, 7, 29):
        others = np.delete(np.arange(30), i)
        # The same center, so that only the row itself is missing.
        near = Neighbours.fit(data, Plane(), 0, k=3, prior=0)
        alike = near.rows[others] @ near.rows[i]
        best = others[np.argsort(-alike)[:3]]
        assert kept is not None
        assert kept[i] == pytest.approx(data.quality[best].mean(axis=0))


def test_ridge_leaves_out_as_a_second_fit_would() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(25, 4)), rng.random((25, 3)).astype(np.float32)
    y[3, 1] = NAN
    solved = solve_ridge(gram_matrix([x]), y, strengths=[2.0])
    for j in range(3):
        known = ~np.isnan(y[:, j])
        mean = y[known, j].mean()
        ridge = KernelRidge(alpha=2.0, kernel="linear").fit(x[known], y[known, j] - mean)
        assert x @ (x.T @ solved.dual[:, j]) == pytest.approx(ridge.predict(x), abs=1e-5)
        i = 5
        rest = known.copy()
        rest[i] = False
        again = KernelRidge(alpha=2.0, kernel="linear").fit(x[rest], y[rest, j] - mean)
        assert solved.left_out[i, j] == pytest.approx(
            float(again.predict(x[i : i + 1])[0] + mean), abs=1e-5
        )
    assert np.isnan(solved.left_out[3, 1])
    # How easy a question is, and who answers it better, get strengths of their own.
    signal = x[:, :1] + rng.normal(size=(25, 1)) * [3, -3]
    own = solve_ridge(gram_matrix([x]), signal.astype(np.float32), strengths=[0.1, 1e6])
    assert own.strength.tolist() == [1e6, 1e6]
    assert np.corrcoef((x @ (x.T @ own.dual)).mean(axis=1), x[:, 0])[0, 1] > 0.9
    both = solve_ridge(gram_matrix([x]), y[:, :1], strengths=[0.5, 2.0, 100.0])
    errors = [
        np.mean((solve_ridge(gram_matrix([x]), y[:, :1], strengths=[s]).left_out - y[:, :1]) ** 2)
        for s in (0.5, 2.0, 100.0)
    ]
    assert both.strength[0] == (0.5, 2.0, 100.0)[int(np.argmin(errors))]


def test_a_linear_map_is_the_product_with_its_blocks() -> None:
    texts = ["one two three", "two three 4?", "Grüße\nund 5", "", "one one one"]
    features = Features.fit(texts, Plane2())
    rng = np.random.default_rng(0)
    blocks = features.blocks(texts)
    coefficients = [rng.normal(size=(b.shape[1], 3)).astype(np.float32) for b in blocks]
    bias = rng.normal(size=3).astype(np.float32)
    made = LinearMap(features, coefficients, bias)
    by_hand = bias + sum(b @ c for b, c in zip(blocks, coefficients, strict=True))
    assert made(texts)[0] == pytest.approx(by_hand, abs=1e-4)
    assert made([texts[2]])[0] == pytest.approx(by_hand[2:3], abs=1e-4)


class Plane2:
    """Any text is a point: its length and its first letter."""

    name = "plane2"
    dim = 2

    def __init__(self) -> None:
        self.calls = 0

    def encode(self, texts: Sequence[str]) -> np.ndarray[Any, Any]:
        self.calls += 1
        return np.array([[len(t) + 1, ord((t or "a")[0])] for t in texts], np.float32).reshape(
            -1, 2
        )


def test_a_shared_encoder_embeds_a_batch_once() -> None:
    inner = Plane2()
    shared = Shared(inner)
    first = shared.encode(["a", "bc"])
    assert shared.encode(["a", "bc"]) is first
    assert inner.calls == 1
    assert np.array_equal(shared.encode(["a"]), first[:1])
    assert np.array_equal(shared.statistics(["a b"]), text_statistics(["a b"]))


def test_logistic_with_soft_labels_is_stationary() -> None:
    """At the optimum the gradient of the loss equals the pull of the prior, feature by feature."""
    data = noisy(80)
    soft = np.clip(data.quality * 0.8 + 0.1, 0, 1)
    made, residuals, dense = fit_logistic_map(data.texts, soft, Plane(), strength=0.5, ngrams=False)
    for block, own in zip(dense, made.coefficients, strict=True):
        assert own == pytest.approx(0.5 * block.T @ residuals, abs=2e-2)


def test_the_kernel_is_a_gaussian_process_mean() -> None:
    data = noisy(50)
    made = Kernel.fit(data, Plane(), 0, strengths=[3.0], ngrams=False)
    features = Features.fit(data.texts, Plane(), ngrams=False)
    dense = features.dense(data.texts)
    gram = sum(
        gaussian_kernel(block, block, width) for block, width in zip(dense, (1.0, 0.5), strict=True)
    )
    mean = data.quality.mean(axis=0)
    oracle = KernelRidge(alpha=3.0, kernel="precomputed").fit(gram, data.quality - mean)
    expected = np.clip(oracle.predict(gram) + mean, 0, 1)
    assert made.predict(data.texts).mean == pytest.approx(expected, abs=1e-4)


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


def test_hybrid_labels_are_the_papers() -> None:
    hits = np.array([1, 0, 1, NAN, 1], np.float32)
    texts = ["x", "x", "y", "y", "z"]
    assert shares(hits, texts).tolist() == pytest.approx([0.5, 0.5, 1, NAN, 1], nan_ok=True)
    labels = np.random.default_rng(0).random(30)
    pairs = np.abs(labels[:, None] - labels[None]).mean()
    assert mean_difference(labels) == pytest.approx(pairs)
    # 0.2 worse on half of the questions and 0.6 worse on the rest: without relaxation all labels are
    # 0; with t = 0.2 half are 1, which is as different as labels can be.
    gap = np.array([-0.2] * 10 + [-0.6] * 10, np.float32)
    assert best_relaxation(gap + 1e-6, [str(i) for i in range(20)]) == pytest.approx(0.2)


def test_bradley_terry_of_two_is_the_log_odds() -> None:
    won = np.array([[0, 30.0], [10, 0]])
    log = bradley_terry(won)
    assert log[0] - log[1] == pytest.approx(math.log(30.5 / 10.5), abs=1e-4)
    assert win_rate(log) == pytest.approx([30.5 / 41, 10.5 / 41], abs=1e-4)


def test_bradley_terry_is_the_maximum_of_the_likelihood() -> None:
    won = np.random.default_rng(0).integers(1, 20, (4, 4)).astype(float)
    np.fill_diagonal(won, 0)
    log = bradley_terry(won, rounds=2000)
    counted = won + 0.5 * (1 - np.eye(4))
    p = sigmoid(log[:, None] - log[None])
    surplus = (counted - (counted + counted.T) * p).sum(axis=1)  # the likelihood's gradient
    assert surplus == pytest.approx(np.zeros(4), abs=1e-3)


def test_preferences_count_ties_half_and_leave_out_the_unknown() -> None:
    won = wins(np.array([[1, 0.5, 0.5], [1, NAN, 0]], np.float32))
    assert won[0].tolist() == [[0, 1, 1], [0, 0, 0.5], [0, 0.5, 0]]
    assert won[1].tolist() == [[0, 0, 1], [0, 0, 0], [0, 0, 0]]


def test_similarity_weights_are_the_papers() -> None:
    data = outcomes_of(["1 0", "0 1", "0.6 0.8"], [[1, 0], [0, 1], [1, 0]])
    made = BradleyTerry.fit(data, Plane(), 0)
    alike = np.array([0.8, 0.6, 0.6 * 0.8 + 0.8 * 0.6])
    assert made.weights(["0.8 0.6"])[0] == pytest.approx(10 * 10 ** (alike / 0.96), rel=1e-4)
    flat = BradleyTerry.fit(data, Plane(), 0, base=1.0).predict(["1 0"]).mean[0]
    assert flat == pytest.approx([2.5 / 4, 1.5 / 4], abs=1e-3)


def test_four_hundred_elo_points_are_odds_of_ten_to_one() -> None:
    quality = [[1, 0]] * 199 + [[0, 1]] * 19  # with the half win for each: 199.5 to 19.5
    made = Elo.fit(outcomes_of([str(i) for i in range(218)], quality), None, 0)
    assert made.rating[0] - made.rating[1] == pytest.approx(400 * math.log10(199.5 / 19.5), abs=0.1)
    assert made.rating.mean() == pytest.approx(1000)
    assert made.predict(["x"]).mean[0] == pytest.approx([199.5 / 219, 19.5 / 219], abs=1e-4)


def numerical(loss: Any, z: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    out = np.zeros_like(z)
    for at in np.ndindex(z.shape):
        step = np.zeros_like(z)
        step[at] = 1e-5
        out[at] = (loss(z + step) - loss(z - step)) / 2e-5
    return out


def test_the_factorisations_gradient_is_that_of_its_loss() -> None:
    rng = np.random.default_rng(0)
    z, won = rng.normal(size=(3, 4)), wins(rng.random((3, 4)).astype(np.float32)).astype(float)

    def loss(z: np.ndarray[Any, Any]) -> float:
        return float(-(won * np.log(1 / (1 + np.exp(z[:, None, :] - z[:, :, None])))).sum())

    assert pair_gradient(z, won) == pytest.approx(numerical(loss, z), abs=1e-6)


def test_the_contrasts_gradient_is_that_of_its_loss() -> None:
    rng = np.random.default_rng(1)
    z = rng.normal(size=(4, 5))
    good = rng.random((4, 5)) < 0.4
    bad = ~good & (rng.random((4, 5)) < 0.7)
    good[3] = False

    def loss(z: np.ndarray[Any, Any]) -> float:
        e = np.exp(z)
        worse = np.where(bad, e, 0).sum(axis=1, keepdims=True)
        each = np.log(e / (e + worse))
        return float(-each[good & (worse > 0)].sum())

    assert contrast_gradient(z, good, bad) == pytest.approx(numerical(loss, z), abs=1e-6)


def test_rewards_are_smoothed_by_their_tag() -> None:
    reward = np.array([[1, 0], [0, 0], [0.5, 1]], np.float32)
    smoothed = smooth(reward, np.array(["math", "math", "law"], object), 0.3)
    assert smoothed == pytest.approx(
        np.array([[0.3 * 1 + 0.7 * 0.5, 0], [0.7 * 0.5, 0], [0.5, 1]]), abs=1e-6
    )


def test_losses_become_likelihoods() -> None:
    texts = [f"{i % 2} 1" for i in range(40)]
    losses = np.array([[0.1, 2.0] if i % 2 else [2.0, 0.1] for i in range(40)], np.float32)
    data = outcomes_of(texts, np.full((40, 2), 0.5), signals={"loss": losses})
    made = ExpertLoss.fit(data, Plane(), 0)
    told = made.losses(["0 1", "1 1"])
    assert made.predict(["0 1", "1 1"]).mean == pytest.approx(np.exp(-told))
    assert told.argmin(axis=1).tolist() == [1, 0]
    plain = ExpertLoss.fit(outcomes_of(texts, 1 - losses / 2), Plane(), 0)
    assert plain.predict(texts[:1]).mean == pytest.approx(1 - plain.losses(texts[:1]))


def test_noise_is_recovered_from_distances() -> None:
    noise = np.array([0.1, 0.5, 0.3, 0.9])
    distance = noise[:, None] + noise[None]
    np.fill_diagonal(distance, 0)
    assert noise_variance(distance) == pytest.approx(noise)
    v = noise[:3]  # the paper's own case of three: (d_01 + d_02 - d_12) / 2
    d = distance[:3, :3]
    assert noise_variance(d)[0] == pytest.approx((d[0, 1] + d[0, 2] - d[1, 2]) / 2)
    assert noise_variance(np.stack([d, 2 * d]))[1] == pytest.approx(2 * v)
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(4000, 1, 5))
    answers = truth + rng.normal(size=(4000, 4, 5)) * np.sqrt(noise / 5)[:, None]
    seen = ((answers[:, :, None] - answers[:, None]) ** 2).sum(axis=3).mean(axis=0)
    assert noise_variance(seen) == pytest.approx(noise, abs=0.03)


def test_agreement_of_two_models_tells_nothing() -> None:
    from pilotfish.infer.predictors.agreement import Agreement

    answers = np.array([["a", "b"]] * 3, object)
    data = outcomes_of(["1 0", "0 1", "1 1"], np.full((3, 2), NAN), answers=answers)
    with pytest.raises(InputError, match="3 at least"):
        Agreement.fit(data, Plane(), 0)


@pytest.mark.parametrize("models", [2, 4])
def test_the_machines_decide_as_scikit_learns(models: int) -> None:
    data = noisy(120, models)
    made = SupportVectors.fit(data, Plane(), 0)
    x = Plane().encode(data.texts)
    machine = SVC(gamma="scale", decision_function_shape="ovo").fit(x, best_model(data))
    sign = -1 if models == 2 else 1
    theirs = sign * machine.decision_function(x).reshape(len(x), -1)
    assert made.decisions(data.texts) == pytest.approx(theirs, abs=1e-4)
    ours = made.predict(data.texts).mean.argmax(axis=1)
    assert np.mean(ours == machine.predict(x)) > 0.97  # ties are broken otherwise


def test_of_equally_good_models_the_better_on_average_is_the_label() -> None:
    data = outcomes_of("wxyz", [[1, 1, 0], [0, 1, 0], [0, 0, 0], [NAN, 0.2, 0.3]])
    assert best_model(data).tolist() == [1, 1, 1, 2]


@pytest.mark.parametrize("models", [2, 4])
def test_the_network_is_scikit_learns(models: int) -> None:
    data = noisy(100, models)
    made = Perceptron.fit(data, Plane(), 7, hidden=8, epochs=20)
    x = Plane().encode(data.texts) - made.center
    x = x / np.linalg.norm(x, axis=1, keepdims=True)
    with pytest.warns(match="Maximum iterations"):
        network = MLPClassifier((8,), alpha=1e-2, max_iter=20, random_state=7).fit(
            x, best_model(data)
        )
    theirs = np.zeros((100, models))
    theirs[:, network.classes_] = network.predict_proba(x)
    assert made.predict(data.texts).mean == pytest.approx(theirs, abs=1e-4)


def test_the_spread_is_the_leverage() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3)).astype(np.float32)
    residuals = rng.normal(size=(40, 2)).astype(np.float32)
    residuals[0, 1] = NAN
    made = Coverage.fit([x[:, :1], x[:, 1:]], residuals)
    at = np.array([[5, 0, 0], [0.1, 0, 0]], np.float32)
    inverse = np.linalg.inv(x.T @ x + np.eye(3))
    sigma = [np.sqrt((residuals[:, 0] ** 2).mean()), np.sqrt((residuals[1:, 1] ** 2).mean())]
    expected = np.sqrt(np.diag(at @ inverse @ at.T) + 1 / 40)[:, None] * sigma
    assert made.std([at[:, :1], at[:, 1:]]) == pytest.approx(expected, rel=1e-4)


def test_stacking_finds_the_weights_of_a_sum() -> None:
    rng = np.random.default_rng(0)
    parts = rng.normal(0, 0.1, (3, 500, 2)) + 0.5
    center = np.array([0.5, 0.5], np.float32)
    truth = 0.5 + 0.7 * (parts[0] - 0.5) + 0.2 * (parts[1] - 0.5)
    found = stacking_weights(parts.astype(np.float32), truth.astype(np.float32), center)
    assert found == pytest.approx(np.array([[0.7, 0.2, 0.0]] * 2), abs=1e-3)
    half = stacking_weights(parts.astype(np.float32), truth.astype(np.float32), center, 0.5)
    assert half[1] == pytest.approx(0.5 * np.array([0.7, 0.2, 0]) + 0.5 * 0.3, abs=1e-3)
    # One part knows how easy a question is, another who answers it better.
    level = parts[0].mean(axis=1, keepdims=True)
    apart = parts[1] - parts[1].mean(axis=1, keepdims=True)
    mixed = stacking_weights(parts.astype(np.float32), (level + apart).astype(np.float32), center)
    assert mixed == pytest.approx(np.array([[1, 0, 0], [0, 1, 0]]), abs=1e-3)


def test_a_stacks_parts_have_settings_of_their_own() -> None:
    data = noisy(80)
    alone = Neighbours.fit(data, Plane(), 0, k=3, prior=0).predict(data.texts)
    one = Stacked.fit(data, Plane(), 0, parts=[("knn", {"k": 3, "prior": 0})])
    assert one.predict(data.texts).mean == pytest.approx(alone.mean, abs=1e-6)
    two = Stacked.fit(data, Plane(), 0, parts=["average", ("knn", {"k": 3})], shrinkage=1)
    settings, arrays = two.state()
    assert settings["names"] == ["average", "knn"]
    again = Stacked.restore({**settings, "models": data.models}, arrays, Plane())
    assert np.array_equal(again.predict(data.texts).mean, two.predict(data.texts).mean)
    assert two.weights[1, 0] == pytest.approx(two.weights[1, 1]), "equal weights"


def test_statistics_by_hand() -> None:
    text = "Is 12 = 3x?\n\nA. yes"
    values = dict(zip(NAMES, text_statistics([text])[0].tolist(), strict=True))
    assert values["characters"] == pytest.approx(math.log1p(19))
    assert values["words"] == pytest.approx(math.log1p(6))  # Is 12 = 3x? A. yes
    assert values["lines"] == pytest.approx(math.log1p(2))
    assert values["first_line"] == pytest.approx(math.log1p(11))
    assert values["last_line"] == pytest.approx(math.log1p(6))
    assert values["word_mean"] == pytest.approx((2 + 2 + 1 + 3 + 2 + 3) / 6)
    assert values["digits"] == pytest.approx(3 / 20)
    assert values["capitals"] == pytest.approx(2 / 20)
    assert values["operators"] == pytest.approx(1 / 20)
    assert values["words_with_digit"] == pytest.approx(2 / 7)
    assert values["words_capitalised"] == pytest.approx(2 / 7)
    assert values["question_marks"] == 1
    assert text_statistics(["", "\ud800"]).shape == (2, len(NAMES))


def test_cues_by_hand() -> None:
    text = (
        "According to the passage, which of the following did she NOT say in 1968?\n"
        "A. 12\nB. All of the above, if so\n(c) x = 3\nAnswer: "
    )
    found = question_cues([text])[0].tolist()
    lengths = np.array([2, 23, 5])
    assert found[0] == pytest.approx(math.log1p(3))
    assert found[1] == pytest.approx(math.log1p(lengths.mean()))
    assert found[2] == pytest.approx(math.log1p(23))
    assert found[3] == pytest.approx(math.log1p(lengths.std()))
    assert found[4] == pytest.approx(2 / 3), "options with a digit"
    assert found[5] == pytest.approx(2 / 3), "options that are numbers or terms alone"
    assert found[6] == pytest.approx(math.log1p(2)), "commas"
    assert found[7] == pytest.approx(math.log1p(text.count(". ")))
    # no blank, a year, a formula; "which of the following", "all of the above" and a source are said
    assert found[8:11] == [0, 1, 1]
    assert found[11:21] == [1, 0, 1, 0, 0, 0, 0, 1, 0, 0]
    # a negation, no first person, a third person, no question of who or when, no list, a condition
    assert found[21:] == [1, 0, 1, 0, 0, 1]
    assert question_cues(["", "\ud800", "a" * 10**6]).shape == (3, WIDTH)
    assert question_cues([""]).tolist() == [[0.0] * WIDTH]


def test_a_transformer_reads_the_order_of_words(tmp_path: Path) -> None:
    """Who bites whom: one model answers when dogs bite, the other when men do."""
    from tests.contract_rows import load_learner

    learner = load_learner()
    from pilotfish.infer.predictors.transformer import TextLearner, Transformer
    from tests.models.tiny_bert import write_bert

    def told(n: int, seed: int) -> Outcomes:
        rng = np.random.default_rng(seed)
        fillers = ["the", "a", "big", "old", "small", "red"]
        first = rng.integers(2, size=n)
        words = [("dog", "man") if one else ("man", "dog") for one in first]
        texts = [
            "{} {} bites {} {}".format(*np.insert(rng.choice(fillers, 2), [1, 2], w)) for w in words
        ]
        return outcomes_of(texts, np.stack([first, 1 - first], axis=1))

    base = write_bert(tmp_path, ["dog", "man", "bites", "the", "a", "big", "old", "small", "red"])
    data = told(160, 0)
    made = Transformer.fit(data, None, 0, base=str(base), epochs=8)
    assert isinstance(made.learner, learner)
    assert isinstance(made.learner, TextLearner)
    test = told(100, 1)
    said = made.predict(test.texts)
    assert np.mean(said.mean.argmax(axis=1) == test.quality.argmax(axis=1)) > 0.9
    # The head's log-odds of the encoder's own rows are the scorer's logits.
    from pilotfish.records import Inputs

    logits = made.learner.scorer.logits(Inputs(list(test.texts)))
    assert said.mean == pytest.approx(sigmoid(logits), abs=1e-5)
