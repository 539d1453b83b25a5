from __future__ import annotations

import numpy as np
import pytest
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.multiclass import OneVsRestClassifier
from sklearn.pipeline import make_pipeline
from sklearn.svm import LinearSVC

from pilotfish.errors import ConfigError
from pilotfish.models.protocols import Classifier
from pilotfish.models.scikit_learn import SklearnClassifier

TEXTS = ["red car", "red bus", "blue sky", "blue sea"]


def test_a_fitted_pipeline_is_a_classifier() -> None:
    pipeline = make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(TEXTS, [1, 1, 2, 2])
    model = SklearnClassifier(pipeline)
    assert isinstance(model, Classifier)
    assert model.classes == ("1", "2")
    proba = model.predict_proba(["red", "blue"])
    assert proba.dtype == np.float32
    assert proba == pytest.approx(pipeline.predict_proba(["red", "blue"]), abs=1e-6)
    assert proba.argmax(axis=1).tolist() == [0, 1]
    assert model.predict_proba([]).shape == (0, 2)


def test_multilabel_rows_are_separate() -> None:
    targets = np.array([[1, 0], [1, 1], [0, 1], [0, 0]])
    pipeline = make_pipeline(TfidfVectorizer(), OneVsRestClassifier(LogisticRegression()))
    proba = SklearnClassifier(pipeline.fit(TEXTS, targets)).predict_proba(TEXTS)
    assert proba.shape == (4, 2)
    assert abs(proba.sum(axis=1) - 1).max() > 0.01


@pytest.mark.parametrize("estimator", [LogisticRegression(), LinearSVC().fit([[0], [1]], [0, 1])])
def test_what_cannot_answer_is_refused(estimator: object) -> None:
    with pytest.raises(ConfigError, match="fitted classifier"):
        SklearnClassifier(estimator)
