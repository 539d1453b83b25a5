"""Hostile models inside artifacts: foreign types, schemas changed by hand, trees that point outside.

Each attack would create a marker file if any of its code ran.
"""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import (
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    RandomForestClassifier,
)
from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression, Ridge, SGDClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer, OrdinalEncoder, StandardScaler

from pilotfish.errors import ArtifactError, UnsafeArtifact
from pilotfish.store import sklearn_files
from pilotfish.store.artifacts import Card, load_artifact, save_artifact
from pilotfish.store.sklearn_files import load_model
from tests.store.hostile import Evil
from tests.store.test_artifacts import relist

RNG = np.random.default_rng(0)
X = RNG.normal(size=(300, 3))
X[:, 1] = RNG.integers(0, 5, 300)
Y = np.array(["a", "b", "c"])[(X[:, 0] > 0).astype(int) + (X[:, 1] > 2)]

MODELS = [
    HistGradientBoostingClassifier(max_iter=3, early_stopping=True, random_state=0),
    HistGradientBoostingClassifier(max_iter=3, categorical_features=[1]),
    CalibratedClassifierCV(HistGradientBoostingClassifier(max_iter=3), cv=2),
    LogisticRegression(),
    SGDClassifier(loss="log_loss"),
    make_pipeline(
        ColumnTransformer([("n", StandardScaler(), [0, 2]), ("c", OrdinalEncoder(), [1])]),
        CalibratedClassifierCV(LogisticRegression(), method="isotonic", cv=2),
    ),
]


@pytest.mark.parametrize("model", MODELS, ids=lambda m: type(m).__name__)
def test_safe_models_come_back(tmp_path, model):
    model.fit(X, Y)
    artifact = save_artifact(
        tmp_path / "a", Card.new(name="x", kind="k"), files={"m.skops": skops.io.dumps(model)}
    )
    loaded = load_artifact(artifact.folder).skops("m")
    np.testing.assert_array_equal(loaded.predict_proba(X), model.predict_proba(X))


@pytest.mark.parametrize(
    "loss", ["squared_error", "absolute_error", "poisson", "gamma", "quantile"]
)
def test_regressors_come_back(loss):
    options = {"quantile": 0.3} if loss == "quantile" else {}
    model = HistGradientBoostingRegressor(loss=loss, max_iter=3, **options)
    model.fit(X, np.abs(X[:, 0]) + 0.1)
    loaded = load_model(skops.io.dumps(model), "m.skops")
    np.testing.assert_array_equal(loaded.predict(X), model.predict(X))


@pytest.mark.parametrize(
    ("model", "named"),
    [
        (RandomForestClassifier(2).fit(X, Y), "sklearn.tree._tree.Tree"),
        (TfidfVectorizer().fit(["some text"]), "TfidfVectorizer"),
        (FunctionTransformer(os.system), "posix.system"),
        (FunctionTransformer(np.load), "numpy.load"),
        (FunctionTransformer(exec), "builtins.exec"),
        (make_pipeline(StandardScaler(), FunctionTransformer(print)), "builtins.print"),
        ({"deep": [({"er": Path("/etc/passwd")},)]}, "pathlib"),
        (Ridge().fit, "MethodNode"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_foreign_types_are_named(folder, marker, model, named):
    blob = skops.io.dumps(model)
    with pytest.raises(UnsafeArtifact, match=named):
        save_artifact(folder.parent / "new", Card.new(name="x", kind="k"), files={"m.skops": blob})
    (folder / "m.skops").write_bytes(blob)
    relist(folder, "m.skops")
    with pytest.raises(UnsafeArtifact, match=named):
        load_artifact(folder).skops("m")


def _rewritten(model, change):
    """A skops file whose schema was changed by hand, as an attacker would."""
    source = io.BytesIO(skops.io.dumps(model))
    target = io.BytesIO()
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            content = old.read(name)
            if name == "schema.json":
                schema = json.loads(content)
                content = json.dumps(change(schema) or schema).encode()
            new.writestr(name, content)
    return target.getvalue()


def _reduce(marker):
    def change(schema):
        arguments = {
            "__class__": "tuple", "__module__": "builtins", "__loader__": "TupleNode", "__id__": 1,
            "content": [{"__class__": "str", "__module__": "builtins", "__loader__": "JsonNode",
                         "__id__": 2, "content": json.dumps(f"touch {marker}"), "is_json": True}],
        }  # fmt: skip
        return schema | {
            "__class__": "system", "__module__": "os", "__loader__": "ConstructorFromReduceNode",
            "content": arguments,
        }  # fmt: skip

    return change


def _operator(marker):
    def change(schema):
        return {
            **_reduce(marker)(schema),
            "__module__": "operator",
            "__loader__": "OperatorFuncNode",
        }

    return change


def _hidden_in_content(marker):
    def change(schema):
        schema["content"]["content"]["coef_"] = _reduce(marker)(dict(schema))

    return change


def _relabelled(marker):
    def change(schema):
        node = _reduce(marker)(dict(schema))
        schema["content"]["content"]["coef_"] = node | {"__loader__": "NdArrayNode", "type": "json"}

    return change


def _borrowed_id(marker):
    def change(schema):
        node = _reduce(marker)(dict(schema))
        schema["content"]["content"]["coef_"] = node | {"__id__": schema["__id__"]}

    return change


@pytest.mark.parametrize(
    "attack", [_reduce, _operator, _hidden_in_content, _relabelled, _borrowed_id]
)
def test_schemas_changed_by_hand(marker, attack):
    blob = _rewritten(LogisticRegression().fit(X, Y), attack(marker))
    with pytest.raises(UnsafeArtifact, match=r"system|tuple"):
        load_model(blob, "m.skops")


@pytest.mark.parametrize(
    "change",
    [
        lambda schema: [schema],
        lambda schema: schema | {"protocol": 99},
        lambda schema: schema | {"protocol": "x"},
        lambda schema: schema | {"content": {"a": 1}},
        lambda schema: {k: v for k, v in schema.items() if k != "__loader__"},
    ],
)
def test_schemas_that_make_no_sense(change):
    model = LogisticRegression().fit(X, Y)
    with pytest.raises(ArtifactError):
        load_model(_rewritten(model, change), "m.skops").predict(X)


def test_pickled_arrays_inside_a_skops_file(marker):
    target, array = io.BytesIO(), io.BytesIO()
    np.save(array, np.array([Evil(marker)], dtype=object), allow_pickle=True)
    source = io.BytesIO(skops.io.dumps(np.ones(3)))
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w") as new:
        for name in old.namelist():
            new.writestr(name, old.read(name) if name == "schema.json" else array.getvalue())
    with pytest.raises(ArtifactError, match="cannot be loaded"):
        load_model(target.getvalue(), "m.skops")


def test_an_archive_of_zeros_is_not_unpacked(monkeypatch):
    monkeypatch.setattr(sklearn_files, "MAX_BYTES", 2**20)
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", bytes(2**21))
    assert len(target.getvalue()) < 2**13
    with pytest.raises(ArtifactError, match="unpacks to"):
        load_model(target.getvalue(), "m.skops")


def _nodes(model):
    return model._predictors[0][0].nodes


@pytest.mark.parametrize(
    ("field", "value"),
    [("left", 2**32 - 1), ("right", 10**6), ("left", 0), ("feature_idx", 99), ("feature_idx", -1)],
)
def test_trees_that_point_outside(field, value):
    model = HistGradientBoostingClassifier(max_iter=2).fit(X, Y)
    _nodes(model)[field][0] = value
    with pytest.raises(UnsafeArtifact, match="malformed"):
        load_model(skops.io.dumps(model), "m.skops")
    wrapped = make_pipeline(StandardScaler(), model)
    with pytest.raises(UnsafeArtifact, match="malformed"):
        load_model(skops.io.dumps({"deep": [wrapped]}), "m.skops")


def test_boosted_models_whose_parts_disagree():
    def attacked(change):
        model = HistGradientBoostingClassifier(max_iter=2, categorical_features=[1]).fit(X, Y)
        change(model)
        return skops.io.dumps(model)

    def bitset(model):
        for trees in model._predictors:
            for tree in trees:
                tree.nodes["bitset_idx"] = 10**6

    def no_categories(model):
        model._bin_mapper.is_categorical_ = np.zeros(3, np.uint8)

    def fewer_columns(model):
        name, encoder, _ = model._preprocessor.transformers_[0]
        model._preprocessor.transformers_[0] = (name, encoder, np.zeros(3, bool))

    def another_width(model):
        model.n_features_in_ = 2

    def stray_tree(model):
        model._predictors = [[]]
        model.stray = HistGradientBoostingClassifier(max_iter=1).fit(X, Y)._predictors

    load_model(attacked(lambda model: None), "m.skops").predict(X)
    for change in (bitset, no_categories, fewer_columns, another_width, stray_tree):
        with pytest.raises(UnsafeArtifact):
            load_model(attacked(change), "m.skops")
