"""What fitted predictors and judges have in common: their fields are what is stored.

A method is a dataclass. A field that is an array is stored as one under its own name, a list of arrays
as ``name.0``, ``name.1`` and so on, a number or a text in the settings, and a part, such as a linear
map or the features it reads, as its own ``state`` says. The encoder is not stored; it is the one that
the state is restored with. So a paper's file holds its formula, and nothing of how it is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any, ClassVar, Self, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from pilotfish.infer.outcomes import Floats
from pilotfish.models.protocols import Encoder

Arrays = Mapping[str, NDArray[Any]]
State = tuple[dict[str, Any], dict[str, NDArray[Any]]]


@dataclass(eq=False)
class Fitted:
    """A method after fitting; a dataclass whose constructor takes all that is stored.

    Attributes:
        models: The models' names, in the order of its columns.
    """

    embeds: ClassVar[bool] = True
    needs: ClassVar[str] = "quality"

    models: tuple[str, ...]

    def state(self) -> State:
        """JSON settings and arrays; :meth:`restore` is the inverse."""
        settings: dict[str, Any] = {}
        arrays: dict[str, NDArray[Any]] = {}
        for name, (kind, _) in _kinds(type(self)).items():
            value = getattr(self, name)
            if kind == "setting":
                settings[name] = value
            elif kind == "array":
                arrays[name] = value
            elif kind == "arrays":
                arrays |= {f"{name}.{i}": array for i, array in enumerate(value)}
            elif kind == "part":
                own, parts = value.state()
                arrays |= parts
                if own:
                    settings[name] = own
        return settings, arrays

    @classmethod
    def restore(cls, settings: Mapping[str, Any], arrays: Arrays, encoder: Encoder | None) -> Self:
        """Rebuild from a state and the encoder that it was fitted with.

        Args:
            settings: Those of :meth:`state`, and ``models``.
            arrays: Those of :meth:`state`.
            encoder: What embeds; None for a method that does not.

        Raises:
            KeyError: Something is missing.
        """
        values: dict[str, Any] = {"models": tuple(settings["models"])}
        for name, (kind, of) in _kinds(cls).items():
            if kind == "setting":
                values[name] = of(settings[name])
            elif kind == "array":
                values[name] = arrays[name]
            elif kind == "arrays":
                count = sum(key.startswith(f"{name}.") for key in arrays)
                values[name] = [arrays[f"{name}.{i}"] for i in range(count)]
            elif kind == "part":
                values[name] = of.restore(settings.get(name, {}), arrays, encoder)
            else:
                values[name] = encoder
        return cls(**values)


def _kinds(cls: Any) -> dict[str, tuple[str, Any]]:
    """How each field is stored, and what restores it, in the order of the constructor."""
    hints = get_type_hints(cls)
    return {f.name: _kind(hints[f.name]) for f in fields(cls) if f.init and f.name != "models"}


def _kind(hint: Any) -> tuple[str, Any]:
    origin, inner = get_origin(hint), get_args(hint)
    if hint is Encoder or Encoder in inner:
        return "encoder", None
    if origin is np.ndarray:
        return "array", None
    if origin is list and get_origin(inner[0]) is np.ndarray:
        return "arrays", None
    if hasattr(hint, "restore"):
        return "part", hint
    return "setting", origin or hint


def unit_rows(rows: Floats) -> Floats:
    """Rows scaled to length 1; a row of zeros stays one."""
    unit: Floats = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-6)
    return unit


def same_for_all(row: Floats, texts: Sequence[str]) -> Floats:
    """One row repeated for every text, ``[n, models]``, in memory of its own."""
    return np.repeat(row[None], len(texts), axis=0)
