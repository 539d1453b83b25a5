"""What every quality predictor promises, over the rows of tests/contract_rows.py."""

from __future__ import annotations

import functools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from pilotfish.config import Config
from pilotfish.errors import ArtifactError, ConfigError, InputError, UnknownName
from pilotfish.infer.outcomes import Outcomes
from pilotfish.infer.predictors.predictor import FittedPredictor, QualityPredictor, fit_predictor
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Classifier, Encoder
from tests.contract_models import TOPICS
from tests.contract_rows import PREDICTORS

ODD = ("", "   ", "\x00", "\ud800", "👋" * 50, "word " * 5000, "日本語", "a", "\n\n\n")
MODELS = ("clerk", "guard", "generalist")


@functools.cache
def static() -> Encoder:
    return load_encoder("static", Config())


def pool(
    n: int = 240, *, seed: int = 1, gaps: bool = False
) -> tuple[Outcomes, np.ndarray[Any, Any]]:
    """One model knows billing, one accounts, one half of everything; the right answers agree."""
    rng = np.random.default_rng(seed)
    topic = rng.integers(0, 2, n)
    names = list(TOPICS)
    words = [[*rng.choice(TOPICS[names[t]], 2), *rng.choice(["my", "the", "a"], 2)] for t in topic]
    quality = np.stack([topic == 0, topic == 1, rng.random(n) < 0.5], axis=1).astype(np.float32)
    answers = np.empty((n, 3), object)
    for i in range(n):
        for j in range(3):
            good = (
                j == topic[i] or j == 2
            )  # the generalist's words are right, to agree with someone
            answers[i, j] = (
                f"About {names[topic[i]]} it is so" if good else f"no {rng.integers(1e9)}"
            )
    if gaps:
        quality[rng.random((n, 3)) < 0.3] = np.nan
    texts = tuple(" ".join(map(str, row)) for row in words)
    return Outcomes(texts, MODELS, quality, answers=answers), topic


def fit(name: str, folder: Path, outcomes: Outcomes) -> FittedPredictor:
    settings = PREDICTORS[name].settings(folder)
    return fit_predictor(name, outcomes, seed=3, encoder=static(), **settings)


@pytest.fixture(params=PREDICTORS)
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_a_predictor_knows_who_is_good_at_what(name: str, tmp_path: Path) -> None:
    fitted = fit(name, tmp_path, pool()[0])
    test, topic = pool(seed=2)
    assert isinstance(fitted.predictor, QualityPredictor)
    assert isinstance(fitted, Classifier)
    assert fitted.classes == fitted.models == MODELS
    said = fitted.predict(test.texts)
    assert said.mean.shape == said.std.shape == (len(test), 3)
    assert said.mean.dtype == np.float32
    assert np.all((said.mean >= 0) & (said.mean <= 1))
    assert np.all(said.std >= 0)
    assert np.isfinite(said.std).all()
    if PREDICTORS[name].reads_texts:
        assert np.mean(said.mean[:, :2].argmax(axis=1) == topic) > 0.9
    assert np.array_equal(fitted.predict_proba(test.texts), said.mean)
    assert fitted.predict([]).mean.shape == (0, 3)
    alone = np.vstack([fitted.predict([text]).mean for text in test.texts[:5]])
    assert np.allclose(alone, said.mean[:5], atol=1e-5)


def test_a_predictor_is_the_same_after_storing(name: str, tmp_path: Path) -> None:
    fitted = fit(name, tmp_path, pool()[0])
    values, arrays = fitted.files()
    values, arrays = json.loads(json.dumps(values)), load(save(arrays))
    again = FittedPredictor.from_files(values, arrays, lambda _: static())
    texts = [*pool(seed=2)[0].texts[:20], *ODD]
    one, other = fitted.predict(texts), again.predict(texts)
    assert np.array_equal(one.mean, other.mean)
    assert np.array_equal(one.std, other.std)
    assert again.models == MODELS
    with pytest.raises(ArtifactError, match="format 2"):
        FittedPredictor.from_files({**values, "format": 2}, arrays, lambda _: static())


def test_a_predictor_is_the_same_for_the_same_seed(name: str, tmp_path: Path) -> None:
    outcomes = pool()[0]
    one, other = (fit(name, tmp_path, outcomes).predict(outcomes.texts) for _ in range(2))
    assert np.array_equal(one.mean, other.mean)


def test_a_predictor_bears_odd_texts_and_gaps(name: str, tmp_path: Path) -> None:
    outcomes, _ = pool(gaps=True)
    fitted = fit(name, tmp_path, outcomes)
    said = fitted.predict(ODD)
    assert np.isfinite(said.mean).all()
    assert np.isfinite(said.std).all()
    if PREDICTORS[name].reads_texts:
        test, topic = pool(seed=2)
        assert np.mean(fitted.predict(test.texts).mean[:, :2].argmax(axis=1) == topic) > 0.9


def test_a_predictor_bears_one_answer_for_all(name: str, tmp_path: Path) -> None:
    outcomes, _ = pool(60)
    same = Outcomes(outcomes.texts, MODELS, np.ones((60, 3), np.float32), answers=outcomes.answers)
    assert np.isfinite(fit(name, tmp_path, same).predict(ODD).mean).all()


def test_a_predictor_has_only_its_settings(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no_such"):
        fit_predictor(name, pool()[0], encoder=static(), no_such=1)


def test_outcomes_that_hold_nothing_to_learn_are_refused() -> None:
    outcomes, _ = pool(20)
    with pytest.raises(UnknownName, match="Did you mean 'kernel'"):
        fit_predictor("kernal", outcomes)
    nothing = Outcomes(outcomes.texts, MODELS, np.full((20, 3), np.nan, np.float32))
    with pytest.raises(InputError, match="No quality was recorded of clerk, guard"):
        fit_predictor("average", nothing)
    with pytest.raises(InputError, match="hold none"):
        fit_predictor("agreement", Outcomes(outcomes.texts, MODELS, outcomes.quality))
    with pytest.raises(InputError, match="2 at least"):
        fit_predictor("average", outcomes.take([0]))
