"""Pilotfish: small models that work with a large one.

``import pilotfish as pf`` loads nothing heavy; each name below is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "Request": "pilotfish.records",
    "Completion": "pilotfish.records",
    "Decision": "pilotfish.records",
    "Example": "pilotfish.records",
    "Config": "pilotfish.config",
    "load_config": "pilotfish.config",
    "load_model": "pilotfish.models.load",
    "ask": "pilotfish.models.calls",
    "score": "pilotfish.models.scoring",
    "offload": "pilotfish.loop.offload",
    "apply": "pilotfish.loop.apply",
    "OffloadedModel": "pilotfish.loop.artifact",
    "OffloadResult": "pilotfish.loop.result",
    "certify": "pilotfish.infer.certify",
    "Constraint": "pilotfish.infer.certify",
    "Certificate": "pilotfish.infer.certify",
    "Cascade": "pilotfish.infer.cascade",
    "FakeModel": "pilotfish.models.fake",
    "open_store": "pilotfish.store.store",
}

_ROOMS = ("curate",)  # used as ``pf.curate.Pipeline``

__all__ = ["__version__", *sorted([*_EXPORTS, *_ROOMS])]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f"pilotfish.{name}")
    if name not in _EXPORTS:
        raise AttributeError(f"module 'pilotfish' has no attribute {name!r}")
    value = getattr(importlib.import_module(_EXPORTS[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
