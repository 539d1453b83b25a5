"""Gradient-boosted trees over tabular fields (Friedman 2001), fitted by scikit-learn's histogram method.

The fitted trees are copied into flat arrays and evaluated here, all trees of a batch at once, so that
serving needs neither scikit-learn nor a format that could run code. Text columns of many values are
left out: the other students read those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.distill.recipe import Floats, Lesson, Recipe, Scorer, State
from pilotfish.errors import InputError
from pilotfish.records import Inputs

MAX_CATEGORIES = 32  # distinct values up to which a column of words is a category
ROUNDS = 60
LEARNING_RATE = 0.1
LEAVES = 15
BATCH_CELLS = 2_000_000  # rows times trees evaluated at once: about 60 MB


@dataclass(frozen=True)
class Column:
    """How one field becomes numbers.

    Attributes:
        name: The field.
        categories: Its values, each a 0/1 column; empty for a numeric field.
    """

    name: str
    categories: tuple[str, ...] = ()

    def encode(self, values: Sequence[Any]) -> Floats:
        """``[n, 1]`` numbers (NaN: missing or no number), or ``[n, categories]`` 0/1."""
        if not self.categories:
            return np.array([_number(v) for v in values], np.float32).reshape(-1, 1)
        index = {c: i for i, c in enumerate(self.categories)}
        out = np.zeros((len(values), len(index)), np.float32)
        for row, value in enumerate(values):
            at = index.get(_word(value))
            if at is not None:
                out[row, at] = 1
        return out


def _number(value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        return np.nan
    return number if abs(number) < 3e38 else np.nan


def _word(value: Any) -> str:
    return "" if value is None else str(value)


def columns_of(inputs: Inputs) -> list[Column]:
    """The fields that trees can use: numeric ones, and words of few distinct values."""
    columns = []
    for name, values in inputs.fields.items():
        present = [v for v in values if v is not None and v != ""]
        if len(set(map(_word, values))) < 2:
            continue
        numeric = sum(not np.isnan(_number(v)) for v in present)
        if numeric >= 0.9 * len(present) and numeric:
            columns.append(Column(name))
            continue
        counts = Counter(map(_word, values))
        if len(counts) <= MAX_CATEGORIES and len(counts) <= max(len(values) / 2, 2):
            columns.append(Column(name, tuple(sorted(counts))))
    return columns


def _unavailable(inputs: Inputs) -> str:
    return "" if columns_of(inputs) else "no numeric or categorical field"


def _table(columns: Sequence[Column], inputs: Inputs) -> Floats:
    absent = [None] * len(inputs)
    parts = [c.encode(inputs.fields.get(c.name, absent)) for c in columns]
    return np.hstack(parts) if parts else np.zeros((len(inputs), 0), np.float32)


class TreeScorer:
    """A boosted forest in flat arrays.

    Args:
        columns: How fields become numbers.
        nodes: ``feature``, ``left``, ``right`` (int32), ``missing_left`` (uint8), ``threshold`` and
            ``value`` (float64), all ``[nodes]``; a leaf points at itself.
        roots: Root node of each tree ``[trees]``.
        outputs: Class that each tree adds to ``[trees]``.
        base: Logits before any tree ``[classes]``.
        depth: Of the deepest tree.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        nodes: Mapping[str, NDArray[Any]],
        roots: NDArray[np.int32],
        outputs: NDArray[np.int32],
        base: Floats,
        depth: int,
    ) -> None:
        self.columns, self.nodes = list(columns), dict(nodes)
        self.roots, self.outputs, self.base, self.depth = roots, outputs, base, depth
        self._add = np.zeros((len(roots), len(base)), np.float32)
        self._add[np.arange(len(roots)), outputs] = 1

    def logits(self, inputs: Inputs) -> Floats:
        """Logits ``[n, classes]``."""
        table = _table(self.columns, inputs)
        out = np.repeat(self.base[None], len(table), axis=0)
        step = max(BATCH_CELLS // max(len(self.roots), 1), 1)
        for start in range(0, len(table), step):
            rows = table[start : start + step]
            out[start : start + step] += self._leaves(rows) @ self._add
        return out

    def _leaves(self, rows: Floats) -> Floats:
        n = self.nodes
        at = np.repeat(self.roots[None], len(rows), axis=0)
        row = np.arange(len(rows))[:, None]
        for _ in range(self.depth):
            value = rows[row, n["feature"][at]]
            left = np.where(np.isnan(value), n["missing_left"][at], value <= n["threshold"][at])
            at = np.where(left, n["left"][at], n["right"][at])
        values: Floats = n["value"][at].astype(np.float32)
        return values

    def state(self) -> State:
        """Columns as settings; nodes, roots, outputs and base as arrays."""
        settings = {
            "columns": [[c.name, list(c.categories)] for c in self.columns],
            "depth": self.depth,
        }
        arrays = {f"nodes.{name}": array for name, array in self.nodes.items()}
        return settings, {**arrays, "roots": self.roots, "outputs": self.outputs, "base": self.base}


def _boost(
    table: Floats, answers: NDArray[Any], weights: NDArray[np.float64], seed: int
) -> tuple[list[Any], Floats]:
    """Trees as ``[(output, nodes), ...]`` and the base logits, outputs counted over seen answers."""
    from sklearn.ensemble import HistGradientBoostingClassifier
    from threadpoolctl import threadpool_limits

    model = HistGradientBoostingClassifier(
        max_iter=ROUNDS,
        learning_rate=LEARNING_RATE,
        max_leaf_nodes=LEAVES,
        min_samples_leaf=int(np.clip(len(table) // 50, 2, 20)),
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    # OpenMP threads that spin beside another busy process made a fit 30 times slower than one thread.
    with threadpool_limits(1, user_api="openmp"):
        model.fit(table, answers, sample_weight=weights / weights.mean())
    # Private, but the only way to the trees; a test compares with the library's own predictions.
    trees = [(j, p.nodes) for step in model._predictors for j, p in enumerate(step)]
    return trees, np.asarray(model._baseline_prediction, np.float32).ravel()


def _fit(lesson: Lesson, settings: Sequence[float]) -> list[Scorer]:
    columns = columns_of(lesson.inputs)
    if not columns:
        raise InputError(
            "Got no numeric or categorical field, but the student 'trees' needs one.",
            remedy="Name such a field in the prompt, or use another student.",
        )
    table = _table(columns, lesson.inputs)
    n = len(table)
    trees: list[tuple[int, Any]] = []
    if lesson.multilabel:
        positive = lesson.targets.sum(axis=0)
        base = np.log((positive + 1) / (n - positive + 1)).astype(np.float32)
        for j in np.flatnonzero((positive > 0) & (positive < n)):
            own, start = _boost(table, lesson.targets[:, j], lesson.weights, lesson.seed)
            base[j] = start[0]
            trees += [(int(j), nodes) for _, nodes in own]
    else:
        seen = np.unique(lesson.targets)
        own, start = _boost(
            table, np.searchsorted(seen, lesson.targets), lesson.weights, lesson.seed
        )
        # Classes never seen start far below the rarest one that was.
        if len(seen) == 2:
            start, seen_trees = np.array([0, start[0]], np.float32), [(1, t) for _, t in own]
        else:
            seen_trees = own
        base = np.full(lesson.classes, start.min() - np.log(n + 1), np.float32)
        base[seen] = start
        trees = [(int(seen[j]), nodes) for j, nodes in seen_trees]
    return [_flatten(columns, trees, base)]


def _flatten(columns: list[Column], trees: list[tuple[int, Any]], base: Floats) -> TreeScorer:
    sizes = np.array([len(nodes) for _, nodes in trees], np.int64)
    roots = np.concatenate([[0], np.cumsum(sizes)[:-1]])
    merged = np.concatenate([nodes for _, nodes in trees])
    offset = np.repeat(roots, sizes)
    own = np.arange(len(merged))
    leaf = merged["is_leaf"].astype(bool)
    nodes: dict[str, NDArray[Any]] = {
        "feature": np.where(leaf, 0, merged["feature_idx"]).astype(np.int32),
        "left": np.where(leaf, own, merged["left"] + offset).astype(np.int32),
        "right": np.where(leaf, own, merged["right"] + offset).astype(np.int32),
        "missing_left": merged["missing_go_to_left"].astype(np.uint8),
        "threshold": merged["num_threshold"].astype(np.float64),
        "value": np.where(leaf, merged["value"], 0.0),
    }
    outputs = np.array([j for j, _ in trees], np.int32)
    depth = int(merged["depth"].max())
    return TreeScorer(columns, nodes, roots.astype(np.int32), outputs, base, depth)


def _restore(
    settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]], encoder: object = None
) -> TreeScorer:
    columns = [Column(name, tuple(categories)) for name, categories in settings["columns"]]
    names = ("feature", "left", "right", "missing_left", "threshold", "value")
    return TreeScorer(
        columns,
        {name: arrays[f"nodes.{name}"] for name in names},
        arrays["roots"],
        arrays["outputs"],
        arrays["base"],
        int(settings["depth"]),
    )


TREES = Recipe(_fit, _restore, _unavailable)
