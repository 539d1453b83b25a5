"""Which run this is: a fingerprint of inputs, steps and settings; only the same run is resumed."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from typing import Any

import msgspec
import numpy as np

from pilotfish.curate.formats.files import InputFile

LAYOUT = 3  # of the work folder and the numbering of rows; a new one resumes nothing


def describe(value: Any) -> Any:
    """What decides how a step behaves, as JSON values: its class and all it holds.

    Arrays and bytes count by their hash, patterns by their text, functions by their name, and what has no
    attributes (dates, paths, decimals) as it is pickled.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray):
        held = np.ascontiguousarray(value)
        return [str(held.dtype), held.shape, hashlib.sha256(held.tobytes()).hexdigest()]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, bytes):
        return hashlib.sha256(value).hexdigest()
    if isinstance(value, Mapping):
        return {str(key): describe(item) for key, item in value.items()}
    if isinstance(value, set | frozenset):
        return sorted(map(str, map(describe, value)))
    if isinstance(value, Sequence):
        return [describe(item) for item in value]
    if isinstance(value, re.Pattern):
        return [describe(value.pattern), value.flags]
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    kind = f"{type(value).__module__}.{type(value).__qualname__}"
    if isinstance(value, msgspec.Struct):
        names: Sequence[str] = value.__struct_fields__
    elif is_dataclass(value):
        names = [field.name for field in fields(value)]
    else:
        names = sorted(getattr(value, "__dict__", {}))
    if not names:
        with contextlib.suppress(pickle.PicklingError, TypeError, AttributeError):
            return {"kind": kind, "pickled": hashlib.sha256(pickle.dumps(value, 4)).hexdigest()}
    return {"kind": kind, **{name: describe(getattr(value, name)) for name in names}}


def fingerprint(files: Sequence[InputFile], settings: Mapping[str, Any]) -> str:
    """A hash of what decides the result."""
    facts = [LAYOUT, msgspec.to_builtins(files), describe(settings)]
    return hashlib.sha256(msgspec.json.encode(facts, order="sorted")).hexdigest()[:32]


def shown(step: Any) -> str:
    """A step and its settings, on one line.

    >>> from pilotfish.curate.scores.length import Length
    >>> shown(Length(min_chars=20))
    'length: min_chars = 20, tag = False'
    """
    facts = describe(step)
    pairs = [
        f"{key} = {value}"
        for key, value in facts.items()
        if key not in ("kind", "name")
        and key[0] != "_"
        and value is not None
        and len(str(value)) <= 60
    ]
    return f"{step.name}: {', '.join(pairs)}" if pairs else str(step.name)
