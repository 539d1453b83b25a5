"""Every registry of the package, found in the source: nobody has to remember to list a new one."""

from __future__ import annotations

import ast
import importlib

from pilotfish.registry import Registry
from tests.conftest import REPOSITORY


def _find() -> dict[str, Registry]:
    found = {}
    for path in sorted((REPOSITORY / "pilotfish").rglob("*.py")):
        module = ".".join(path.relative_to(REPOSITORY).with_suffix("").parts)
        for node in ast.parse(path.read_text("utf-8")).body:
            value = getattr(node, "value", None)
            if isinstance(value, ast.Call) and ast.unparse(value.func).endswith("Registry"):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target  # type: ignore[attr-defined]
                name = ast.unparse(target)
                owner = module.removesuffix(".__init__")
                found[f"{owner}.{name}"] = getattr(importlib.import_module(owner), name)
    return found


REGISTRIES = _find()
