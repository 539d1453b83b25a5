"""From class probabilities to an answer and a confidence, for every kind of closed answer.

One rule serves all three kinds: give the answer with the largest probability of agreeing with the
truth under the student's own distribution, and report that probability as the score.

- ``label``: the most probable class; the score is its probability.
- ``labels`` (several may hold): every class above one half; the score is the probability that the
  whole set is right, taking the classes as independent.
- ``rating``: the value whose neighbourhood (``tolerance`` to each side) holds the most probability;
  the score is that probability. With tolerance 0 this is the label rule.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import InputError
from pilotfish.models.objects import same_object

KINDS = ("label", "labels", "rating")
SLACK = 1e-9


def decide(
    proba: NDArray[np.float32], classes: Sequence[str], kind: str, *, tolerance: float = 0.0
) -> tuple[list[str], NDArray[np.float32]]:
    """Answers and scores of a batch.

    Args:
        proba: Probabilities ``[n, classes]`` in [0, 1].
        classes: Class names; numbers as text for ``rating``.
        kind: ``"label"``, ``"labels"`` or ``"rating"``.
        tolerance: Ratings that differ by no more than this agree.

    Returns:
        ``n`` answers (a set of labels as a JSON list in class order) and scores ``[n]`` in [0, 1].

    Raises:
        InputError: ``kind`` is none of the three.

    >>> decide(np.array([[0.2, 0.45, 0.35]], np.float32), ["1", "2", "3"], "rating", tolerance=1)[0]
    ['2']
    """
    if kind == "labels":
        chosen = proba > 0.5
        score = np.where(chosen, proba, 1.0 - proba).prod(axis=1)
        names = np.array(classes, dtype=object)
        return [json.dumps(list(names[row]), ensure_ascii=False) for row in chosen], _f32(score)
    if kind == "rating" and tolerance > 0:
        values = np.array([float(name) for name in classes])
        near = np.abs(values[:, None] - values[None, :]) <= tolerance + SLACK
        proba = np.minimum(proba @ near.astype(np.float32), 1.0)
    elif kind not in KINDS:
        raise InputError(f"Got kind {kind!r}, but expected one of {', '.join(KINDS)}.")
    best = proba.argmax(axis=1) if proba.shape[1] else np.zeros(len(proba), int)
    return [classes[i] for i in best], _f32(proba[np.arange(len(proba)), best])


def agrees(small: str, large: str | None, kind: str, *, tolerance: float = 0.0) -> bool:
    """Whether two answers count as the same; an answer that did not parse (None) never agrees.

    Extracted objects (``"extraction"``) are the same when every key holds the same value.

    >>> agrees('["a", "b"]', '["b", "a"]', "labels"), agrees("3", "3.5", "rating", tolerance=0.5)
    (True, True)
    """
    if large is None:
        return False
    if kind == "extraction":
        return same_object(small, large)
    if kind == "labels":
        return set(json.loads(small)) == set(json.loads(large))
    if kind == "rating":
        return abs(float(small) - float(large)) <= tolerance + SLACK
    return small == large


def _f32(values: NDArray[np.floating]) -> NDArray[np.float32]:
    return values.astype(np.float32)
