"""Names to code: lazy, forgiving to read, strict to write."""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from pilotfish.errors import ConfigError, MissingExtra, UnknownName
from pilotfish.registry import Registry, load_function
from tests.conftest import REPOSITORY
from tests.registries import REGISTRIES


@pytest.fixture
def numbers() -> Registry:
    return Registry(
        "number", {"pi": "math:pi", "e": "math:e"}, extras={"absent": "exotic", "broken": "exotic"}
    )


def test_it_is_a_mapping_that_imports_on_load(numbers: Registry) -> None:
    assert list(numbers) == ["pi", "e"]
    assert len(numbers) == 2
    assert numbers["pi"] == "math:pi"
    assert ("pi" in numbers, "tau" in numbers, 3 in numbers) == (True, False, False)
    assert numbers.load("pi") == pytest.approx(3.14159, abs=1e-5)
    numbers.register("tau", "math:tau")
    assert numbers.load("tau") == 2 * numbers.load("pi")


def test_a_typo_names_the_nearest_and_all(numbers: Registry) -> None:
    for call in (numbers.load, numbers.__getitem__):
        with pytest.raises(UnknownName, match=r"(?s)number 'pie'.*Did you mean 'pi'.*e, pi"):
            call("pie")


def test_get_of_an_unknown_name_is_an_error_too(numbers: Registry) -> None:
    """``Mapping.get`` would hide the typo; ``in`` is the way to ask."""
    with pytest.raises(UnknownName):
        numbers.get("pie")


def test_a_taken_name_is_refused_but_the_same_line_twice_is_not(numbers: Registry) -> None:
    numbers.register("pi", "math:pi")
    with pytest.raises(ConfigError, match="already 'math:pi'"):
        numbers.register("pi", "math:e")
    with pytest.raises(ConfigError, match="module:attribute"):
        numbers.register("two", "math.tau")


def test_a_missing_library_names_its_extra(numbers: Registry) -> None:
    numbers.register("absent", "surely_not_installed_xyz:Thing", extra="exotic")
    with pytest.raises(MissingExtra, match=r"pilotfish\[exotic\]"):
        numbers.load("absent")
    numbers.register("bare", "surely_not_installed_xyz:Thing")
    with pytest.raises(ModuleNotFoundError):
        numbers.load("bare")


def test_our_own_missing_module_is_not_blamed_on_an_extra(numbers: Registry) -> None:
    numbers.register("broken", "pilotfish.no_such_module:Thing", extra="exotic")
    with pytest.raises(ModuleNotFoundError, match="no_such_module"):
        numbers.load("broken")


def test_a_missing_attribute_is_said_plainly(numbers: Registry) -> None:
    numbers.register("typo", "math:tua")
    with pytest.raises(ConfigError, match="math has no 'tua'"):
        numbers.load("typo")


def test_registering_and_listing_import_nothing(tmp_path: Path) -> None:
    (tmp_path / "marker.py").write_text("raise SystemExit('imported')")
    code = (
        "from pilotfish.registry import Registry; r = Registry('x', {'a': 'marker:A'}); "
        "r.register('b', 'marker:B'); print(list(r), r['a'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path, check=True
    )
    assert done.stdout == "['a', 'b'] marker:A\n"


@pytest.mark.parametrize("where", REGISTRIES)
def test_extras_of_real_registries_exist(where: str) -> None:
    known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    extras = REGISTRIES[where].extras
    assert set(extras) <= set(REGISTRIES[where])
    assert set(extras.values()) <= set(known["optional-dependencies"])


def source_of(module: str) -> str:
    return (REPOSITORY / (module.replace(".", "/") + ".py")).read_text("utf-8")


@pytest.mark.parametrize("where", REGISTRIES)
def test_an_extra_brings_a_library_that_the_target_imports(where: str) -> None:
    """Otherwise the remedy "pip install pilotfish[extra]" would not mend what it promises to mend."""
    known = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    for name, extra in REGISTRIES[where].extras.items():
        module = REGISTRIES[where][name].partition(":")[0]
        source = source_of(module)
        # What it needs the library for may stand in a module of ours that it builds on.
        source += "".join(
            map(source_of, re.findall(r"^from (pilotfish\.models\.\w+) ", source, re.M))
        )
        brought = [re.split(r"[<>=\[]", row)[0] for row in known["optional-dependencies"][extra]]
        assert any(library.replace("-", "_") in source for library in brought), (name, extra)


def test_a_function_of_the_users_may_lie_where_the_command_was_started(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "lies_where_it_was_started.py").write_text("def find(text): return [len(text)]\n")
    name = "lies_where_it_was_started:find"
    monkeypatch.setattr(sys, "path", list(sys.path))
    with pytest.raises(ConfigError, match=r"finder = .*No module(?s:.*)importable from where"):
        load_function("finder", name)
    monkeypatch.chdir(tmp_path)
    assert load_function("finder", name)("four") == [4]
    with pytest.raises(ConfigError, match='Expected "x", or "module:function"'):
        load_function("finder", "lies_where_it_was_started:none", others='"x"')
