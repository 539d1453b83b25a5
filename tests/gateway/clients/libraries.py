"""Client libraries that only tests use: found, skipped or demanded, and their warnings.

They are the extra ``clients`` (and ``litellm``); where one is missing its tests are skipped, or fail if
``PILOTFISH_TEST_CLIENTS=require``.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from typing import Any

import pytest

# The libraries warn of their own deprecations while they are imported and used.
WARNINGS_ARE_THEIRS = [
    pytest.mark.filterwarnings("default"),
    pytest.mark.filterwarnings("default::pytest.PytestUnraisableExceptionWarning"),
]


def needed(module: str) -> Any:
    """A client library; skips where it is not installed."""
    extra = "litellm" if module == "litellm" else "clients"
    if importlib.util.find_spec(module) is None:
        why = f"{module} is a client that only tests use: pip install 'pilotfish[{extra}]'"
        if os.environ.get("PILOTFISH_TEST_CLIENTS") == "require":
            pytest.fail(why)
        pytest.skip(why)
    return importlib.import_module(module)
