"""Predictors of single papers against the papers' formulas, scikit-learn or a closed form."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.neural_network import MLPClassifier
from sklearn.svm import SVC

from pilotfish.errors import InputError
from pilotfish.infer.predictors.agreement import Agreement, noise_variance
from pilotfish.infer.predictors.expert_loss import ExpertLoss
from pilotfish.infer.predictors.hybrid import best_relaxation, mean_difference, shares
from pilotfish.infer.predictors.mlp import Perceptron
from pilotfish.infer.predictors.reward_distilled import RewardDistilled, smooth
from pilotfish.infer.predictors.svm import SupportVectors, best_model
from tests.infer.predictors.plane import NAN, Plane, noisy, outcomes_of


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


def test_rewards_are_smoothed_by_their_tag() -> None:
    reward = np.array([[1, 0], [0, 0], [0.5, 1]], np.float32)
    smoothed = smooth(reward, np.array(["math", "math", "law"], object), 0.3)
    assert smoothed == pytest.approx(
        np.array([[0.3 * 1 + 0.7 * 0.5, 0], [0.7 * 0.5, 0], [0.5, 1]]), abs=1e-6
    )


@pytest.mark.parametrize("temperature", [0.5, 2.0])
def test_the_distilled_router_says_the_softmax_of_rewards(temperature: float) -> None:
    """With enough weight on the data, KL(softmax(r / T) || router) is 0 for questions of two kinds."""
    reward = np.array([[1, 0.2, 0], [0, 0.5, 1]])
    data = outcomes_of([f"{i % 2} 1" for i in range(40)], np.tile(reward, (20, 1)))
    made = RewardDistilled.fit(data, Plane(), 0, temperature=temperature, clusters=2, strength=1e4)
    odds = np.exp(reward / temperature)
    expected = odds / odds.sum(axis=1, keepdims=True)
    assert made.predict(["0 1", "1 1"]).mean == pytest.approx(expected, abs=0.01)


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
    answers = np.array([["a", "b"]] * 3, object)
    data = outcomes_of(["1 0", "0 1", "1 1"], np.full((3, 2), NAN), answers=answers)
    with pytest.raises(InputError, match="3 at least"):
        Agreement.fit(data, Plane(), 0)


def test_answers_that_were_never_compared_are_no_agreement() -> None:
    """Near "1 0" the third model did not answer; there its noise is that of all questions."""
    texts = ["1 0"] * 4 + ["0 1"] * 4
    near = [["1 0", "1 0", None]] * 4
    far = [["0 1", "0 1", "0 -1"]] * 4
    data = outcomes_of(texts, np.full((8, 3), NAN), answers=np.array(near + far, object))
    said = Agreement.fit(data, Plane(), 0, k=3).predict(["1 0", "0 1"]).mean
    # |(0, 1) - (0, -1)|^2 = 4 = v_1 + v_3 = v_2 + v_3 and v_1 + v_2 = 0, so v = 0, 0, 4.
    assert said == pytest.approx(np.array([[1, 1, 0], [1, 1, 0]]))
    silent = outcomes_of(["1 0"], np.full((1, 3), NAN), answers=np.array([["a", "b", None]]))
    with pytest.raises(InputError, match="No answer was recorded of c"):
        Agreement.fit(silent, Plane(), 0)


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
