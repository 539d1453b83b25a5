"""Load scikit-learn models from skops files, only when every type in them is on a fixed list.

skops (github.com/skops-dev/skops) keeps a model as JSON and arrays, and trusts by default every
estimator of scikit-learn. That is wider than needed, and knowing a type is not enough: some compiled code
in scikit-learn trusts indices in a model's arrays, so a crafted file could make it read or write memory
out of bounds. So the list here is short, the file's own JSON is checked against it before skops sees the
file, and the trees of gradient-boosted models, whose nodes point at each other by index, are checked
after loading and before use. Vectorizers and one-hot encoders are left out for the same reason: they
build sparse matrices from stored indices.
"""

from __future__ import annotations

import io
import json
import zipfile
import zlib
from collections.abc import Iterator
from typing import Any

from pilotfish.errors import ArtifactError, UnsafeArtifact

# What skops, zipfile and NumPy raise on files that are not as they should be.
_DAMAGE = (
    ValueError,
    TypeError,
    LookupError,
    AttributeError,
    ImportError,
    RuntimeError,  # also RecursionError, and zipfile's NotImplementedError
    MemoryError,  # an array that claims to be larger than the machine
)
MAX_BYTES = 2**31  # unpacked; a small archive can hold a lot of zeros

_HGB = "sklearn.ensemble._hist_gradient_boosting"
_SCALARS = {"int", "float", "str", "bool"}
_NUMBERS = {f"{kind}{bits}" for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
_NUMPY = {f"numpy.{name}" for name in {*_NUMBERS, "float16", "float32", "float64", "bool", "str_"}}
_LOSSES = {
    "AbsoluteError",
    "HalfBinomialLoss",
    "HalfGammaLoss",
    "HalfMultinomialLoss",
    "HalfPoissonLoss",
    "HalfSquaredError",
    "PinballLoss",
}
_OBJECTS = {
    f"{_HGB}.gradient_boosting.HistGradientBoostingClassifier",
    f"{_HGB}.gradient_boosting.HistGradientBoostingRegressor",
    f"{_HGB}.binning._BinMapper",
    f"{_HGB}.predictor.TreePredictor",
    *(f"sklearn._loss.loss.{name}" for name in _LOSSES),
    *(
        f"sklearn._loss.link.{name}"
        for name in ("HalfLogitLink", "IdentityLink", "Interval", "LogitLink", "LogLink")
    ),
    "sklearn._loss.link.MultinomialLogit",
    "sklearn.linear_model._base.LinearRegression",
    "sklearn.linear_model._logistic.LogisticRegression",
    "sklearn.linear_model._ridge.Ridge",
    "sklearn.linear_model._stochastic_gradient.SGDClassifier",
    "sklearn.linear_model._stochastic_gradient.SGDRegressor",
    "sklearn.svm._classes.LinearSVC",
    "sklearn.calibration.CalibratedClassifierCV",
    "sklearn.calibration._CalibratedClassifier",
    "sklearn.calibration._SigmoidCalibration",
    "sklearn.isotonic.IsotonicRegression",
    "sklearn.compose._column_transformer.ColumnTransformer",
    "sklearn.impute._base.SimpleImputer",
    "sklearn.pipeline.Pipeline",
    "sklearn.preprocessing._data.MinMaxScaler",
    "sklearn.preprocessing._data.RobustScaler",
    "sklearn.preprocessing._data.StandardScaler",
    "sklearn.preprocessing._encoders.OrdinalEncoder",
    "sklearn.preprocessing._function_transformer.FunctionTransformer",
    "sklearn.preprocessing._label.LabelEncoder",
}
# By skops' node type, which decides what is done with the named type when the file is loaded.
_ALLOWED: dict[str, set[str]] = {
    "ObjectNode": _OBJECTS,
    "LossNode": {f"sklearn._loss._loss.Cy{name}" for name in _LOSSES},
    "NdArrayNode": _NUMPY | {"numpy.ndarray"},
    "DTypeNode": {"numpy.dtype"},
    "TypeNode": _NUMPY | {f"builtins.{name}" for name in _SCALARS},
    "JsonNode": {"builtins.str"},
    "DictNode": {"builtins.dict"},
    "ListNode": {"builtins.list"},
    "TupleNode": {"builtins.tuple"},
    "SetNode": {"builtins.set"},
    "SliceNode": {"builtins.slice"},
    "RandomGeneratorNode": {"numpy.random._generator.Generator"},
    # Boosted trees over categories check their input with a partial of this one function.
    "PartialNode": {"functools.partial"},
    "FunctionNode": {"sklearn.utils.validation.check_array"},
}
_TRUSTED = sorted({name for names in _ALLOWED.values() for name in names})


def check_types(blob: bytes, where: str) -> None:
    """Check every type that a skops file names, without loading it.

    Raises:
        UnsafeArtifact: It names others than those on the list.
        ArtifactError: It is damaged.
    """
    try:
        with zipfile.ZipFile(io.BytesIO(blob)) as archive:
            size = sum(item.file_size for item in archive.infolist())
            if size > MAX_BYTES:
                raise ArtifactError(
                    f"{where} unpacks to {size} bytes, but at most {MAX_BYTES} are allowed."
                )
            schema = json.loads(archive.read("schema.json"))
        foreign = sorted(set(_foreign(schema)))
    except (*_DAMAGE, zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise ArtifactError(f"{where} is no readable skops file: {error}.") from error
    if foreign:
        raise UnsafeArtifact(
            f"{where} holds types that are not on the list of safe ones: {', '.join(foreign)}.",
            remedy="Use a linear or histogram gradient boosting model, or export the model to ONNX.",
        )


def _foreign(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if "__loader__" in node or "__class__" in node or "__module__" in node:
            loader = str(node.get("__loader__"))
            name = f"{node.get('__module__')}.{node.get('__class__')}"
            if name not in _ALLOWED.get(loader, ()):
                yield name if loader in _ALLOWED else f"{name} ({loader})"
        for child in node.values():
            yield from _foreign(child)
    elif isinstance(node, list):
        for child in node:
            yield from _foreign(child)


def load_model(blob: bytes, where: str) -> Any:
    """Load the model of a skops file, checked before and after.

    Raises:
        UnsafeArtifact: A type is not on the list, or a tree points outside itself.
        ArtifactError: The file is damaged, or from another version of scikit-learn.
    """
    check_types(blob, where)
    import skops.io
    from skops.io.exceptions import UntrustedTypesFoundException

    try:
        model = skops.io.loads(blob, trusted=_TRUSTED)
    except UntrustedTypesFoundException as error:
        raise UnsafeArtifact(f"{where}: {error}") from error
    except _DAMAGE as error:
        raise ArtifactError(
            f"{where} cannot be loaded: {error}.",
            remedy="Install the library versions that its card names, or make it again.",
        ) from error
    from pilotfish.store.tree_bounds import check_trees

    check_trees(model, where)
    return model
