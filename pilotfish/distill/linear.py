"""Linear students: logistic regression over TF-IDF n-grams, embeddings, or both.

Joining them is the usual winner: n-grams know the task's own words, embeddings know words that the
few labelled texts do not contain. Settings were chosen by measurement (``benchmarks/students.py``).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.distill.recipe import Floats, Lesson, Recipe, Scorer, State
from pilotfish.errors import ArtifactError
from pilotfish.models.logistic import as_matrix, fit_logistic
from pilotfish.models.ngrams import MAX_CHARS, pack
from pilotfish.models.protocols import Encoder
from pilotfish.models.tfidf import Vocabulary, batches
from pilotfish.records import Inputs

WORDS = 2
CHARS = (2, 5)
STRENGTHS = (1.0, 5.0, 30.0)
"""scikit-learn's C, chosen by out-of-fold log loss. No one value serves: with clean answers 30 is best;
with a quarter of 1,000 answers wrong, 1 could serve 7 to 9 points more inputs at 95% than 30 could."""
COEFFICIENTS = 6_000_000  # of one group at most: 24 MB


def embed(encoder: Encoder, texts: Sequence[str]) -> Floats:
    """Unit rows ``[n, dim]``, reading at most :data:`MAX_CHARS` characters of each text."""
    parts = [encoder.encode([text[:MAX_CHARS] for text in texts[part]]) for part in batches(texts)]
    return np.vstack(parts) if parts else np.zeros((0, encoder.dim), np.float32)


class LinearScorer:
    """``logits = sum over groups of TF-IDF @ coefficients + embeddings @ projection + bias``.

    Args:
        groups: Vocabulary and coefficients ``[columns, classes]`` of each group of n-grams.
        projection: ``[dim, classes]``, or None without embeddings.
        bias: ``[classes]``.
        encoder: Needed when there is a projection.
    """

    def __init__(
        self,
        groups: Sequence[tuple[Vocabulary, Floats]],
        projection: Floats | None,
        bias: Floats,
        encoder: Encoder | None,
    ) -> None:
        self.groups = list(groups)
        self.projection = projection
        self.bias = bias
        self.encoder = encoder
        self._tables = [v.score_table(c) for v, c in groups]

    def logits(self, inputs: Inputs) -> Floats:
        """Logits ``[n, classes]``."""
        out = np.empty((len(inputs), len(self.bias)), np.float32)
        for part in batches(inputs.texts):
            texts = inputs.texts[part]
            z = np.repeat(self.bias[None], len(texts), axis=0)
            if self.groups:
                packed = pack(texts)
            for (vocabulary, _), table in zip(self.groups, self._tables, strict=True):
                z += vocabulary.scores(packed, table)
            if self.projection is not None and self.encoder is not None:
                z += self.encoder.encode([t[:MAX_CHARS] for t in texts]) @ self.projection
            out[part] = z
        return out

    def state(self) -> State:
        """Vocabularies, coefficients, projection and bias."""
        arrays: dict[str, NDArray[Any]] = {"bias": self.bias}
        groups = []
        for i, (vocabulary, coefficients) in enumerate(self.groups):
            settings, own = vocabulary.to_state()
            groups.append(settings)
            arrays[f"group{i}.coefficients"] = coefficients
            arrays.update({f"group{i}.{name}": array for name, array in own.items()})
        if self.projection is not None:
            arrays["projection"] = self.projection
        return {"groups": groups}, arrays


def _learn(
    lesson: Lesson, strengths: Sequence[float], *, ngrams: bool, embeddings: bool
) -> list[Scorer]:
    texts = lesson.inputs.texts
    limit = max(COEFFICIENTS // max(lesson.classes, 1), 1)
    vocabularies: list[Vocabulary] = []
    matrices: list[Any] = []
    if ngrams:
        vocabularies = [
            Vocabulary.learn(texts, words=WORDS, max_columns=limit),
            Vocabulary.learn(texts, chars=CHARS, max_columns=limit),
        ]
        matrices = [v.matrix(texts) for v in vocabularies]
    if embeddings:
        assert lesson.encoder is not None  # fit_student checked
        matrices.append(embed(lesson.encoder, texts))
    solutions = fit_logistic(
        matrices,
        as_matrix(lesson.targets, lesson.classes),
        lesson.weights,
        multilabel=lesson.multilabel,
        strengths=strengths,
    )
    scorers: list[Scorer] = []
    for pieces, bias in solutions:
        projection = pieces.pop() if embeddings else None
        groups = list(zip(vocabularies, pieces, strict=True))
        scorers.append(LinearScorer(groups, projection, bias, lesson.encoder))
    return scorers


def _restore(
    settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], encoder: Encoder | None
) -> LinearScorer:
    groups = []
    for i, own in enumerate(settings["groups"]):
        vocabulary = Vocabulary.from_state(
            own, {name: arrays[f"group{i}.{name}"] for name in ("buckets", "idf")}
        )
        groups.append((vocabulary, arrays[f"group{i}.coefficients"]))
    projection = arrays.get("projection")
    if projection is not None and (encoder is None or encoder.dim != len(projection)):
        raise ArtifactError(
            f"Got an encoder of {encoder and encoder.dim} dimensions, but the student was fitted on "
            f"{len(projection)}.",
            remedy="Load it with the encoder that its card names.",
        )
    return LinearScorer(groups, projection, arrays["bias"], encoder)


TFIDF = Recipe(partial(_learn, ngrams=True, embeddings=False), _restore, settings=STRENGTHS)
EMBEDDING = Recipe(
    partial(_learn, ngrams=False, embeddings=True), _restore, embeds=True, settings=STRENGTHS
)
TFIDF_EMBEDDING = Recipe(
    partial(_learn, ngrams=True, embeddings=True), _restore, embeds=True, settings=STRENGTHS
)
