"""The package's face: every name resolves, says what it is, and is what the docs list."""

from __future__ import annotations

import inspect
import subprocess
import sys
import tomllib

import pytest

import pilotfish as pf
from tests.conftest import REPOSITORY


@pytest.mark.parametrize("name", [name for name in pf.__all__ if name != "__version__"])
def test_every_exported_name_resolves_and_is_documented(name: str) -> None:
    value = getattr(pf, name)
    assert value is getattr(pf, name)
    docstring = inspect.getdoc(value)
    assert docstring
    assert not docstring.startswith(f"{name}("), "that is dataclass's own signature, no description"


def test_the_list_is_whole_and_names_nothing_else() -> None:
    assert len(set(pf.__all__)) == len(pf.__all__)
    assert dir(pf) == sorted(pf.__all__)
    with pytest.raises(AttributeError, match="no_such_name"):
        pf.no_such_name  # noqa: B018


def test_the_version_is_the_projects() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text("utf-8"))["project"]
    assert pf.__version__ == project["version"]
    assert f"## [{pf.__version__}]" in (REPOSITORY / "CHANGELOG.md").read_text("utf-8")


def test_pages_made_from_the_code_are_fresh() -> None:
    made = subprocess.run(
        [sys.executable, str(REPOSITORY / "docs" / "build.py"), "--check"],
        capture_output=True,
        text=True,
    )
    assert made.returncode == 0, made.stderr
