"""A tagger that finds one field in a text: a log-linear model over the stretches that may be meant.

The score of a stretch is the sum of what its first token, its last token and the tokens inside say, plus
its length and place; one softmax over all stretches of a text and a few fixed values ("nothing", "not
given") makes probabilities of them. This is a semi-Markov conditional random field (Sarawagi and Cohen
2004) with one segment. Where a value stands several times, the sum over its stretches is fitted and
given: nobody knows which of them the large model read.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import scipy.optimize
from numpy.typing import NDArray

from pilotfish.distill.spans import PLACES, Candidates, Spans, meant
from pilotfish.distill.tokens import Ints, Matrix, Tokens
from pilotfish.models.objects import canonical_value

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

STRENGTH = 3.0  # scikit-learn's C; 1 and 10 were within a point of agreement
STEPS = 60  # of L-BFGS
OTHER = "?"  # a value that is neither a stretch nor one of the fixed ones
LEAST = 1e-4  # probability of a stretch that is looked at


@dataclass(frozen=True)
class Weights:
    """What is fitted.

    Attributes:
        tokens: Of a token's features as first, last and inside ``[width, 3]``.
        places: Of the dense features ``[PLACES]``.
        fixed: Of the words of the text, for each fixed value ``[words, f]``.
        bias: Of each fixed value ``[f]``.
    """

    tokens: Floats
    places: Floats
    fixed: Floats
    bias: Floats

    def arrays(self) -> dict[str, Floats]:
        """By name."""
        return dict(vars(self))


@dataclass(frozen=True)
class Tagger:
    """A fitted tagger of one field.

    Attributes:
        spans: Which stretches may be meant.
        fixed: Values besides them, as canonical JSON, "" for an absent key; :data:`OTHER` is the last.
        weights: What was fitted.
        temperature: Divides the scores; fitted on out-of-fold answers.
    """

    spans: Spans
    fixed: tuple[str, ...]
    weights: Weights
    temperature: float = 1.0

    def predict(self, tokens: Tokens, columns: Ints, bag: Ints) -> dict[str, float]:
        """The probability of each value that may be meant.

        The same as :class:`Problem` says, for one text and without its matrices: a tenth of the time.

        Args:
            tokens: The text.
            columns: Features of its tokens ``[t, 15]``.
            bag: Its words.
        """
        weights = self.weights
        fixed = weights.bias + weights.fixed[bag].sum(axis=0) * max(len(bag), 1) ** -0.5
        spans, dense = self.spans.of(tokens)
        scores = fixed.astype(np.float64)
        if spans:
            by_token = weights.tokens[columns].sum(axis=1, dtype=np.float64)
            inside = np.concatenate([[0.0], by_token[:, 2].cumsum()])
            start, end, _ = np.array(spans).T
            stretch = by_token[start, 0] + by_token[end, 1] + inside[end + 1] - inside[start]
            scores = np.concatenate([scores, stretch + dense @ weights.places])
        scores = np.exp((scores - scores.max()) / self.temperature)
        proba = (scores / scores.sum()).tolist()
        out = dict(zip(self.fixed, proba, strict=False))
        for (start, end, how), p in zip(spans, proba[len(self.fixed) :], strict=True):
            if p > LEAST and (value := self.spans.value(tokens, start, end, how)) is not None:
                key = canonical_value(value)
                out[key] = out.get(key, 0.0) + p
        return out

    def values(
        self, texts: Sequence[Tokens], problem: Problem, proba: Doubles
    ) -> list[dict[str, float]]:
        """Probabilities of stretches, summed by what they mean."""
        out: list[dict[str, float]] = []
        fixed = proba[problem.at_fixed].reshape(len(texts), len(self.fixed))
        for row in fixed:
            out.append({key: float(p) for key, p in zip(self.fixed, row, strict=True)})
        firsts = np.cumsum([0, *(len(tokens) for tokens in texts)])
        found, of_span = problem.candidates, proba[problem.at_span]
        for i in np.flatnonzero(of_span > LEAST):
            number = int(found.text[i])
            first = int(firsts[number])
            start, end = int(found.start[i]) - first, int(found.end[i]) - first
            value = self.spans.value(texts[number], start, end, int(found.how[i]))
            if value is not None:
                key = canonical_value(value)
                out[number][key] = out[number].get(key, 0.0) + float(of_span[i])
        return out

    def state(self) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
        """JSON settings and arrays."""
        settings = {
            "spans": self.spans.to_dict(),
            "fixed": list(self.fixed),
            "temperature": self.temperature,
        }
        return settings, dict(self.weights.arrays())

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> Tagger:
        """Rebuild from :meth:`state`."""
        names = ("tokens", "places", "fixed", "bias")
        return cls(
            Spans.from_dict(settings["spans"]),
            tuple(settings["fixed"]),
            Weights(*(arrays[name] for name in names)),
            float(settings["temperature"]),
        )


class Problem:
    """The stretches and fixed values of many texts side by side, text by text.

    Args:
        candidates: The stretches.
        features: Of all tokens ``[tokens, width]``.
        bags: Words of each text ``[n, words]``.
        fixed: How many fixed values there are, one or more.

    Attributes:
        at_fixed: Where the fixed values stand in the joint order ``[n * fixed]``.
        at_span: Where the stretches do ``[c]``.
        begins: Where each text begins ``[n]``.
    """

    def __init__(self, candidates: Candidates, features: Matrix, bags: Matrix, fixed: int) -> None:
        n = bags.shape[0]
        self.candidates = candidates
        self.fixed = fixed
        each = np.bincount(candidates.text, minlength=n)
        self.begins: Ints = np.concatenate([[0], np.cumsum(each + fixed)[:-1]]).astype(np.int64)
        self.at_fixed: Ints = (self.begins[:, None] + np.arange(fixed)).ravel()
        before = np.concatenate([[0], np.cumsum(each)[:-1]]).astype(np.int64)
        within = np.arange(len(candidates.text)) - before[candidates.text]
        self.at_span: Ints = self.begins[candidates.text] + fixed + within
        self.size = n * fixed + len(candidates.text)
        self.text_of = np.repeat(np.arange(n), each + fixed)
        # Only tokens of some stretch are scored.
        cover = np.zeros(features.shape[0] + 1, np.int64)
        np.add.at(cover, candidates.start, 1)
        np.add.at(cover, candidates.end + 1, -1)
        used = np.cumsum(cover)[:-1] > 0
        number = np.cumsum(used) - 1
        self.rows = features[np.flatnonzero(used)]
        self.start, self.end = number[candidates.start], number[candidates.end]
        self.bags = bags

    @cached_property
    def _transposed(self) -> tuple[Matrix, Matrix]:
        return self.rows.T.tocsr(), self.bags.T.tocsr()

    def scores(self, weights: Weights) -> Doubles:
        """Scores in the joint order."""
        by_token = self.rows @ weights.tokens
        inside = np.concatenate([[0.0], np.cumsum(by_token[:, 2], dtype=np.float64)])
        out = np.empty(self.size)
        out[self.at_fixed] = (self.bags @ weights.fixed + weights.bias).ravel()
        out[self.at_span] = (
            by_token[self.start, 0]
            + by_token[self.end, 1]
            + (inside[self.end + 1] - inside[self.start])
            + self.candidates.dense @ weights.places
        )
        return out

    def gradient(self, pull: Doubles) -> Weights:
        """From the derivative by each score to that by each weight."""
        span = pull[self.at_span]
        size = self.rows.shape[0]
        ends = np.bincount(self.start, span, size + 1) - np.bincount(self.end + 1, span, size + 1)
        by_token = np.stack(
            [
                np.bincount(self.start, span, size),
                np.bincount(self.end, span, size),
                np.cumsum(ends)[:-1],
            ],
            axis=1,
        ).astype(np.float32)
        rows, bags = self._transposed
        fixed = pull[self.at_fixed].reshape(-1, self.fixed).astype(np.float32)
        return Weights(
            rows @ by_token,
            self.candidates.dense.T @ span.astype(np.float32),
            bags @ fixed,
            fixed.sum(axis=0),
        )

    def log_sums(self, scores: Doubles) -> Doubles:
        """Log of the summed exponentials of each text ``[n]``."""
        if not len(self.begins):
            return np.zeros(0)
        top = np.maximum.reduceat(scores, self.begins)
        sums = np.add.reduceat(np.exp(scores - top[self.text_of]), self.begins)
        return np.asarray(top + np.log(sums))

    def softmax(self, scores: Doubles) -> Doubles:
        """Probabilities in the joint order; those of a text sum to 1."""
        return np.asarray(np.exp(scores - self.log_sums(scores)[self.text_of]))


def gold_of(
    problem: Problem,
    tagger: Spans,
    fixed: Sequence[str],
    texts: Sequence[Tokens],
    keys: Sequence[str],
) -> NDArray[np.bool_]:
    """Which entries of the joint order mean the recorded value; :data:`OTHER` where none does."""
    gold = np.zeros(problem.size, bool)
    firsts = np.cumsum([0, *(len(tokens) for tokens in texts)])
    where: dict[tuple[int, int, int], int] = {}
    found = problem.candidates
    for at, *span in zip(
        problem.at_span.tolist(), found.start.tolist(), found.end.tolist(), found.how.tolist(),
        strict=True,
    ):  # fmt: skip
        where[span[0], span[1], span[2]] = at
    for i, (tokens, key) in enumerate(zip(texts, keys, strict=True)):
        if key in fixed:
            gold[problem.begins[i] + fixed.index(key)] = True
            continue
        hits = []
        if key and isinstance(json.loads(key), (str, int, float)):
            first = int(firsts[i])
            spans = meant(tokens, tagger, key)
            hits = [where.get((first + a, first + b, how)) for a, b, how in spans]
        known = [at for at in hits if at is not None]
        gold[known or [int(problem.begins[i]) + len(fixed) - 1]] = True
    return gold


def fit_weights(problem: Problem, gold: NDArray[np.bool_], weights: Doubles) -> Weights:
    """Minimise ``STRENGTH * sum_i w_i (-log p(gold_i)) + |W|^2 / 2``.

    Args:
        problem: All texts.
        gold: What was recorded, in the joint order.
        weights: ``[n]``; texts of weight 0 are left out.
    """
    shapes = {
        "tokens": (problem.rows.shape[1], 3),
        "places": (PLACES,),
        "fixed": (problem.bags.shape[1], problem.fixed),
        "bias": (problem.fixed,),
    }
    sizes = [int(np.prod(shape)) for shape in shapes.values()]
    cuts = np.cumsum(sizes)[:-1]
    scale = STRENGTH * weights / max(weights.sum(), 1e-9) * (weights > 0).sum()

    def split(flat: Doubles) -> Weights:
        parts = np.split(flat.astype(np.float32), cuts)
        return Weights(*(p.reshape(s) for p, s in zip(parts, shapes.values(), strict=True)))

    def objective(flat: Doubles) -> tuple[float, Doubles]:
        scores = problem.scores(split(flat))
        every = problem.log_sums(scores)
        among = np.where(gold, scores, -1e30)
        right = problem.log_sums(among)
        pull = np.exp(scores - every[problem.text_of]) - np.exp(among - right[problem.text_of])
        gradient = problem.gradient(pull * scale[problem.text_of])
        slope = np.concatenate([g.ravel() for g in gradient.arrays().values()]) + flat
        return float(scale @ (every - right)) + 0.5 * float(flat @ flat), slope.astype(np.float64)

    found = scipy.optimize.minimize(
        objective,
        np.zeros(sum(sizes)),
        jac=True,
        method="L-BFGS-B",
        options={"maxiter": STEPS, "maxcor": 5, "ftol": 1e-4, "gtol": 1e-4},
    )
    return split(found.x)


def fit_tagger(
    spans: Spans,
    fixed: Sequence[str],
    texts: Sequence[Tokens],
    keys: Sequence[str],
    weights: Doubles,
    fold: Ints,
    features: Matrix,
    bags: Matrix,
) -> tuple[Tagger, list[dict[str, float]]]:
    """Fit a tagger, and give its calibrated out-of-fold answers.

    Args:
        spans: Which stretches may be meant.
        fixed: Values besides them.
        texts: ``n`` texts.
        keys: The recorded value of each, canonical; "" for an absent key.
        weights: ``[n]``, positive.
        fold: ``[n]``; the answers of a fold come from a fit to the others.
        features: Of all tokens.
        bags: Words of each text.

    Returns:
        The tagger, and for each text the probability of each value.
    """
    named = (*fixed, OTHER)
    problem = Problem(spans.all(texts), features, bags, len(named))
    gold = gold_of(problem, spans, named, texts, keys)
    held = np.zeros(problem.size)
    for number in np.unique(fold):
        part = fit_weights(problem, gold, np.where(fold == number, 0.0, weights))
        mine = (fold == number)[problem.text_of]
        held[mine] = problem.scores(part)[mine]
    temperature = _temperature(problem, held, gold, weights)
    tagger = Tagger(spans, named, fit_weights(problem, gold, weights), temperature)
    return tagger, tagger.values(texts, problem, problem.softmax(held / temperature))


def _temperature(
    problem: Problem, scores: Doubles, gold: NDArray[np.bool_], weights: Doubles
) -> float:
    """The temperature in [0.2, 10] with the least log loss (Guo et al. 2017)."""

    def loss(log_temperature: float) -> float:
        z = scores / np.exp(log_temperature)
        lost = problem.log_sums(z) - problem.log_sums(np.where(gold, z, -1e30))
        return float(np.average(lost, weights=weights))

    bounds = (np.log(0.2), np.log(10.0))
    found = scipy.optimize.minimize_scalar(loss, bounds=bounds, method="bounded")
    return float(np.exp(found.x))
