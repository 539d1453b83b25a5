"""docs/guides/curate-rules.md names every threshold with the default of the code, and real reasons."""

from __future__ import annotations

import re
from dataclasses import fields

import numpy as np
import pytest

from pilotfish.curate import STEPS
from pilotfish.curate.rules.checks import RuleSet
from pilotfish.curate.rules.documents import Documents
from tests.conftest import REPOSITORY

GUIDE = (REPOSITORY / "docs" / "guides" / "curate-rules.md").read_text("utf-8")
SETS = ("c4", "ccnet", "fineweb", "gopher_quality", "gopher_repetition")


def shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f"`{part}`" for part in value) or "none"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    return "none" if value is None else f"`{value}`"


@pytest.mark.parametrize("name", SETS)
def test_thresholds_and_reasons_of_the_guide_are_those_of_the_code(name: str) -> None:
    section = re.split(r"\n## ", GUIDE.partition(f"\n## {name}\n")[2])[0]
    rows = [
        line.strip("| ").split(" | ") for line in section.splitlines() if line.startswith("| `")
    ]
    step: RuleSet = STEPS.load(name)()
    settings = [f for f in fields(step) if f.init and f.name not in {"tag", "scores"}]
    assert [(row[0], row[1]) for row in rows] == [
        (f"`{setting.name}`", shown(setting.default)) for setting in settings
    ]
    if name == "c4":
        step = STEPS.load(name)(bad_words=("x",))
    names = step.judge(Documents(b"x", np.array([0, 1]))).names
    reasons = {f"`{name}.{reason}`" for reason in names if reason != "empty"}
    assert {row[3] for row in rows if len(row) > 3} == reasons
