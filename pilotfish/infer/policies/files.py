"""Policies as JSON values and arrays, so that they can be stored and loaded without running code.

A policy is a dataclass of numbers, texts, tuples, arrays and other policies, so one rule writes all
of them: each field by its kind. An array is stored once however many policies share it (the settings
of one family share their covariance). What is read is played on an empty view before anybody may use
it: a file that names a model that is not there is refused here, and not in the middle of a request.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ArtifactError, PilotfishError
from pilotfish.infer.certificate import Certificate
from pilotfish.infer.policies import POLICIES
from pilotfish.infer.policies.policy import STOP, Policy, View

Arrays = Mapping[str, NDArray[Any]]


def pack(policies: Sequence[Policy]) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    """JSON values, one for each policy, and the arrays that they name; :func:`unpack` is the inverse.

    Raises:
        ArtifactError: A policy is of no kind in :data:`~pilotfish.infer.policies.POLICIES`.
    """
    arrays: dict[str, NDArray[Any]] = {}
    return [_write(policy, arrays) for policy in policies], arrays


def unpack(values: Sequence[Any], arrays: Arrays, models: tuple[str, ...]) -> list[Policy]:
    """Policies of these models.

    Args:
        values: Of :func:`pack`.
        arrays: Likewise.
        models: Names of all models, in the policies' order.

    Raises:
        ArtifactError: They are no policies of these models.
    """
    policies = []
    for value in values:
        try:
            policy = _read(value, arrays, models)
            _try(policy)
        except (LookupError, TypeError, ValueError, AttributeError, PilotfishError) as error:
            said = getattr(error, "message", None) or f"{type(error).__name__}: {error}"
            raise ArtifactError(
                f"This is no policy of {', '.join(models)}: {said}",
                remedy="Fetch the artifact again, or fit it again: pilotfish route fit",
            ) from error
        policies.append(policy)
    return policies


def _write(value: Any, arrays: dict[str, NDArray[Any]]) -> Any:
    if isinstance(value, Certificate):
        return {"certificate": value.to_json()}
    if isinstance(value, np.ndarray):
        digest = hashlib.sha256(np.ascontiguousarray(value).tobytes()).hexdigest()[:12]
        name = f"array-{'x'.join(map(str, value.shape))}-{digest}"
        arrays[name] = value
        return {"array": name}
    if isinstance(value, Mapping):
        return {"pairs": [[list(key), _write(item, arrays)] for key, item in value.items()]}
    if isinstance(value, (tuple, list)):
        return [_write(item, arrays) for item in value]
    if dataclasses.is_dataclass(value):
        fields = {
            field.name: _write(getattr(value, field.name), arrays)
            for field in dataclasses.fields(value)
            if field.init and field.name != "models"
        }
        return {"kind": _kind(value), **fields}
    return value.item() if isinstance(value, np.generic) else value


def _kind(policy: Any) -> str:
    for name in POLICIES:
        if POLICIES.load(name) is type(policy):
            return name
    raise ArtifactError(f"A {type(policy).__name__} cannot be stored: it is in no registry.")


def _read(value: Any, arrays: Arrays, models: tuple[str, ...]) -> Any:
    if isinstance(value, list):
        return tuple(_read(item, arrays, models) for item in value)
    if not isinstance(value, dict):
        return value
    if "certificate" in value and len(value) == 1:
        return Certificate.from_json(value["certificate"])
    if "array" in value:
        return np.asarray(arrays[value["array"]], np.float32)
    if "pairs" in value:
        return {tuple(key): _read(item, arrays, models) for key, item in value["pairs"]}
    fields = {name: _read(item, arrays, models) for name, item in value.items() if name != "kind"}
    method: Any = POLICIES.load(value["kind"])
    if any(field.name == "models" for field in dataclasses.fields(method)):
        fields["models"] = models
    return method(**fields)


def _try(policy: Policy) -> None:
    """Ask what it does first, and when every model has answered; errors are the caller's to catch."""
    m = len(policy.models)
    blank = np.full((2, m), 0.5, np.float32)
    asked = np.array([[False] * m, [True] * m])
    scores = np.where(asked, np.float32(0.5), np.float32(np.nan))
    for row in range(2):
        at = slice(row, row + 1)
        view = View(asked[at], blank[at], scores[at], blank[at], blank[at], np.zeros(1))
        step = policy.step(view)
        next_, given = int(step.ask[0]), int(step.answer[0])
        if not (0 <= (given if next_ == STOP else next_) < m):
            raise ValueError(f"it names the model at {max(next_, given)} of {m}")
