"""Check that the trees of a loaded gradient-boosted model stay inside themselves.

scikit-learn's compiled predictor follows child, feature and bit-set numbers without checking them
(github.com/scikit-learn/scikit-learn/pull/34558), so a crafted model could read memory that is not its
own, or never end. Here each number is held against the array that it points into, and every child must
come after its parent, as scikit-learn writes them; then every walk ends in a leaf.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from pilotfish.errors import UnsafeArtifact


def check_trees(model: Any, where: str) -> None:
    """Check every boosted model anywhere inside a loaded object.

    Raises:
        UnsafeArtifact: A number points outside, or the parts do not belong together.
    """
    from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
    from sklearn.ensemble._hist_gradient_boosting.predictor import TreePredictor

    checked: set[int] = set()
    trees: set[int] = set()
    for part in _parts(model):
        if isinstance(part, TreePredictor):
            trees.add(id(part))
        elif isinstance(part, (HistGradientBoostingClassifier, HistGradientBoostingRegressor)):
            try:
                checked.update(_check_model(part))
            except (AttributeError, TypeError, ValueError, KeyError, IndexError) as error:
                raise UnsafeArtifact(f"{where}: a boosted model is malformed: {error}.") from error
    if trees - checked:
        raise UnsafeArtifact(f"{where} holds trees outside of any model.")


def _parts(root: Any) -> Iterator[Any]:
    seen: dict[int, Any] = {}
    waiting = [root]
    while waiting:
        part = waiting.pop()
        if id(part) in seen or isinstance(part, (str, bytes, int, float, type)) or part is None:
            continue
        seen[id(part)] = part  # kept, so that no id is used again meanwhile
        yield part
        if isinstance(part, dict):
            waiting.extend((*part.keys(), *part.values()))
        elif isinstance(part, (list, tuple, set)):
            waiting.extend(part)
        elif isinstance(part, np.ndarray):
            waiting.extend(part.ravel().tolist() if part.dtype == object else ())
        else:
            waiting.extend(getattr(part, "__dict__", {}).values())


def _check_model(model: Any) -> Iterator[int]:
    if "_predictors" not in vars(model):
        return  # never fitted: a template inside another model; it refuses to predict
    width = model.n_features_in_
    categorical = model._bin_mapper.is_categorical_
    _demand(isinstance(width, int) and width > 0, "its number of features")
    _demand(
        isinstance(categorical, np.ndarray)
        and categorical.dtype in (np.bool_, np.uint8)
        and categorical.shape == (width,),
        "its categorical features",
    )
    if model._preprocessor is not None:
        _check_preprocessor(model._preprocessor, width)
    per_round = model.n_trees_per_iteration_
    for trees in model._predictors:
        _demand(isinstance(trees, list) and len(trees) == per_round, "its trees per iteration")
        for tree in trees:
            _check_tree(tree, width, categorical)
            yield id(tree)


def _check_preprocessor(preprocessor: Any, width: int) -> None:
    """It must hand on exactly as many columns as the trees may look at."""
    from sklearn.compose import ColumnTransformer
    from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder

    _demand(isinstance(preprocessor, ColumnTransformer), "its preprocessor")
    _demand(preprocessor.n_features_in_ == width, "its preprocessor's width")
    columns: list[int] = []
    for _, part, chosen in preprocessor.transformers_:
        taken = np.arange(width)[chosen].tolist()
        one_to_one = isinstance(part, (OrdinalEncoder, FunctionTransformer))
        _demand(one_to_one or not taken, "its preprocessor's steps")  # "drop" of no column is usual
        columns += taken
    _demand(sorted(columns) == list(range(width)), "its preprocessor's columns")


def _check_tree(tree: Any, width: int, categorical: Any) -> None:
    nodes, bitsets = tree.nodes, tree.raw_left_cat_bitsets
    _demand(isinstance(nodes, np.ndarray) and nodes.ndim == 1 and len(nodes) > 0, "its nodes")
    _demand(bitsets.ndim == 2 and bitsets.shape[1] == 8, "its bit sets")
    inner = nodes["is_leaf"] == 0
    here = np.flatnonzero(inner)
    for side in ("left", "right"):
        child = nodes[side][inner].astype(np.int64)
        _demand(bool(np.all((child > here) & (child < len(nodes)))), f"its {side} children")
    feature = nodes["feature_idx"][inner]
    _demand(bool(np.all((feature >= 0) & (feature < width))), "its feature numbers")
    by_category = nodes["is_categorical"][inner] != 0
    _demand(bool(np.all(categorical[feature[by_category]] != 0)), "its categorical splits")
    slots = nodes["bitset_idx"][inner][by_category]
    _demand(bool(np.all(slots < len(bitsets))), "its bit set numbers")


def _demand(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(f"{what} are out of bounds or of the wrong type")
