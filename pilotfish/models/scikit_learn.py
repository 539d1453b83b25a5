"""Fitted scikit-learn text pipelines as classifiers.

Gives any fitted estimator that takes texts the face of
:class:`pilotfish.models.protocols.Classifier`, so that a classifier a user has already can answer in a
cascade or be compared with a student. Loading one from disk is the store's work
(:meth:`pilotfish.store.artifacts.Artifact.skops`), which refuses types that could run code.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ConfigError


class SklearnClassifier:
    """A fitted estimator whose input is texts.

    Args:
        estimator: A pipeline with ``classes_`` and ``predict_proba``, e.g.
            ``make_pipeline(TfidfVectorizer(), LogisticRegression()).fit(texts, labels)``.

    Attributes:
        classes: Class names, in the order of the columns.

    Raises:
        ConfigError: It is not fitted, or gives no probabilities.
    """

    def __init__(self, estimator: Any) -> None:
        missing = [a for a in ("classes_", "predict_proba") if not hasattr(estimator, a)]
        if missing:
            raise ConfigError(
                f"Got a {type(estimator).__name__} without {' and '.join(missing)}, but expected a "
                "fitted classifier that gives probabilities.",
                remedy="Fit it first; wrap one without probabilities in CalibratedClassifierCV.",
            )
        self.estimator = estimator
        self.classes: tuple[str, ...] = tuple(str(name) for name in estimator.classes_)

    def predict_proba(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """Probabilities ``[n, classes]``; rows sum to 1 unless the estimator is multi-label."""
        if not len(texts):
            return np.zeros((0, len(self.classes)), np.float32)
        return np.asarray(self.estimator.predict_proba(list(texts)), np.float32)
