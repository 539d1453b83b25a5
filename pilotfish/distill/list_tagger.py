"""A tagger that finds a list of things in a text: every stretch that may be meant is one, or is not.

The scores are those of :mod:`pilotfish.distill.tagger`; what differs is that each stretch has a
probability of its own (a logistic model) instead of one softmax over all. The list is what is more
likely meant than not, in the order of the text; stretches that overlap a likelier one are left out. Its
probability takes the stretches as independent, which the score of the whole object corrects.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray
from scipy.special import expit

from pilotfish.distill.spans import PLACES, Span, Spans, choose_spans, meant
from pilotfish.distill.tagger import STEPS, STRENGTH, Doubles, Problem, Weights
from pilotfish.distill.tokens import Ints, Matrix, Tokens
from pilotfish.models.objects import canonical_value

EMPTY = ("[]", "null", "")  # how a text without any may be answered
MOST_ITEMS = 100


@dataclass(frozen=True)
class ListTagger:
    """A fitted tagger of lists.

    Attributes:
        spans: Which stretches may be meant.
        empty: Canonical answer where there is none: ``[]``, ``null``, or "" for an absent key.
        unique: Whether a list never has a value twice.
        weights: What was fitted; those of fixed values are not used.
        temperature: Divides the scores.
    """

    spans: Spans
    empty: str
    unique: bool
    weights: Weights
    temperature: float = 1.0

    def predict(self, tokens: Tokens, columns: Ints) -> tuple[str, float]:
        """The most likely list, as canonical JSON, and its probability.

        Args:
            tokens: The text.
            columns: Features of its tokens ``[t, 15]``.
        """
        spans, dense = self.spans.of(tokens)
        if not spans:
            return self.empty, 1.0
        weights = self.weights
        by_token = weights.tokens[columns].sum(axis=1, dtype=np.float64)
        inside = np.concatenate([[0.0], by_token[:, 2].cumsum()])
        start, end, _ = np.array(spans).T
        scores = by_token[start, 0] + by_token[end, 1] + inside[end + 1] - inside[start]
        scores = scores + dense @ weights.places + weights.bias[0]
        return self.listed(tokens, spans, scores)

    def listed(self, tokens: Tokens, spans: Sequence[Span], scores: Doubles) -> tuple[str, float]:
        """The list that scores make."""
        proba = expit(scores / self.temperature)
        sure = float(np.log(np.maximum(np.maximum(proba, 1 - proba), 1e-12)).sum())
        taken: list[tuple[int, int, Any]] = []
        for at in np.argsort(-proba, kind="stable")[:MOST_ITEMS]:
            if proba[at] <= 0.5:
                break
            start, end, how = spans[int(at)]
            value = self.spans.value(tokens, start, end, how)
            if value is None or any(start <= b and a <= end for a, b, _ in taken):
                continue
            taken.append((start, end, value))
        values = [value for *_, value in sorted(taken, key=lambda one: one[:2])]
        if self.unique:
            values = list({canonical_value(value): value for value in values}.values())
        return (canonical_value(values) if values else self.empty), float(np.exp(sure))

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON settings and arrays."""
        settings = {
            "spans": self.spans.to_dict(),
            "empty": self.empty,
            "unique": self.unique,
            "temperature": self.temperature,
        }
        return settings, dict(self.weights.arrays())

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> ListTagger:
        """Rebuild from :meth:`state`."""
        weights = Weights(*(arrays[name] for name in ("tokens", "places", "fixed", "bias")))
        spans = Spans.from_dict(settings["spans"])
        return cls(
            spans,
            str(settings["empty"]),
            bool(settings["unique"]),
            weights,
            float(settings["temperature"]),
        )


def choose_items(texts: Sequence[Tokens], keys: Sequence[str]) -> tuple[Spans, float] | None:
    """Format and transformations of the things in lists; None when they are no texts and no numbers."""
    pairs = [
        (tokens, canonical_value(item))
        for tokens, key in zip(texts, keys, strict=True)
        if key.startswith("[")
        for item in json.loads(key)
    ]
    if not pairs or any(key[:1] in "[{tfn" for _, key in pairs):
        return None
    return choose_spans([tokens for tokens, _ in pairs], [key for _, key in pairs])


def fit_list_tagger(
    spans: Spans,
    texts: Sequence[Tokens],
    keys: Sequence[str],
    weights: Doubles,
    fold: Ints,
    features: Matrix,
    bags: Matrix,
) -> tuple[ListTagger, list[tuple[str, float]]]:
    """Fit a tagger of lists, and give its out-of-fold lists with their probabilities.

    Arguments as of :func:`pilotfish.distill.tagger.fit_tagger`; ``keys`` are lists, null or "".
    """
    problem = Problem(spans.all(texts), features, bags, 1)
    found = problem.candidates
    lists = [json.loads(key) if key.startswith("[") else [] for key in keys]
    firsts = np.cumsum([0, *(len(tokens) for tokens in texts)])
    gold = {
        (int(firsts[i]) + start, int(firsts[i]) + end, how)
        for i, (tokens, items) in enumerate(zip(texts, lists, strict=True))
        for item in items
        for start, end, how in meant(tokens, spans, canonical_value(item))
    }
    rows = list(zip(found.start.tolist(), found.end.tolist(), found.how.tolist(), strict=True))
    target = np.array([row in gold for row in rows], np.float64)
    held = np.zeros(len(rows))
    for number in np.unique(fold):
        part = _fit(problem, target, np.where(fold == number, 0.0, weights))
        mine = (fold == number)[found.text]
        held[mine] = _scores(problem, part)[mine]
    empty = max(EMPTY, key=lambda key: sum(one == key for one in keys))
    unique = all(len({canonical_value(x) for x in items}) == len(items) for items in lists)
    tagger = ListTagger(spans, empty, unique, _fit(problem, target, weights))
    tagger = replace(tagger, temperature=_temperature(held, target, weights[found.text]))
    out = []
    ends = np.searchsorted(found.text, np.arange(len(texts) + 1))
    for i, tokens in enumerate(texts):
        some = slice(int(ends[i]), int(ends[i + 1]))
        own = [(a - int(firsts[i]), b - int(firsts[i]), how) for a, b, how in rows[some]]
        out.append(tagger.listed(tokens, own, held[some]))
    return tagger, out


def _scores(problem: Problem, weights: Weights) -> Doubles:
    return np.asarray(problem.scores(weights)[problem.at_span] + weights.bias[0])


def _fit(problem: Problem, target: Doubles, weights: Doubles) -> Weights:
    """Logistic regression on the stretches; the bias of the one fixed value is the intercept."""
    width, words = problem.rows.shape[1], problem.bags.shape[1]
    sizes = [3 * width, PLACES, 1]
    scale = STRENGTH * weights / weights.sum() * (weights > 0).sum()
    each = scale[problem.candidates.text]

    def split(flat: Doubles) -> Weights:
        tokens, places, bias = np.split(flat.astype(np.float32), np.cumsum(sizes)[:-1])
        return Weights(tokens.reshape(width, 3), places, np.zeros((words, 1), np.float32), bias)

    def objective(flat: Doubles) -> tuple[float, Doubles]:
        z = _scores(problem, split(flat))
        pull = np.zeros(problem.size)
        error = (expit(z) - target) * each
        pull[problem.at_span] = error
        slope = problem.gradient(pull)
        gradient = np.concatenate([slope.tokens.ravel(), slope.places, [error.sum()]]) + flat
        loss = float(each @ (np.logaddexp(0, z) - target * z))
        return loss + 0.5 * float(flat @ flat), gradient.astype(np.float64)

    options = {"maxiter": STEPS, "maxcor": 5, "ftol": 1e-4, "gtol": 1e-4}
    start = np.zeros(sum(sizes))
    found = scipy.optimize.minimize(objective, start, jac=True, method="L-BFGS-B", options=options)
    return split(found.x)


def _temperature(scores: Doubles, target: Doubles, weights: Doubles) -> float:
    """The temperature in [0.2, 10] with the least log loss (Guo et al. 2017)."""

    def loss(log_temperature: float) -> float:
        z = scores / np.exp(log_temperature)
        return float(weights @ (np.logaddexp(0, z) - target * z))

    bounds = (np.log(0.2), np.log(10.0))
    found = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))
