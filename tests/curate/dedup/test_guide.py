"""docs/guides/curate-dedup.md names every setting with the default of the code, and its table is true."""

from __future__ import annotations

import re
from dataclasses import fields

import pytest

from pilotfish.curate import STEPS
from pilotfish.curate.dedup.minhash import MinHash
from tests.conftest import REPOSITORY

GUIDE = (REPOSITORY / "docs" / "guides" / "curate-dedup.md").read_text("utf-8")
EXPLAINED = {"keep", "column", "tag"}  # by a section of their own, for all three


def table(section: str) -> list[list[str]]:
    text = re.split(r"\n## ", GUIDE.partition(f"\n## {section}\n")[2])[0]
    return [
        [cell.strip() for cell in line.strip("| ").split("|")]
        for line in text.splitlines()
        if line.startswith("|")
    ]


@pytest.mark.parametrize("name", ["exact", "minhash", "semantic"])
def test_settings_and_defaults(name: str) -> None:
    rows = [row[:2] for row in table(name) if row[0].startswith("`")]
    assert rows == [
        [f"`{f.name}`", f"`{str(f.default).lower()}`"]
        for f in fields(STEPS.load(name))
        if f.name not in EXPLAINED
    ]


def test_the_curves() -> None:
    head, _, *curves = table("minhash")[:4]
    for step, row in zip((MinHash(), MinHash(bands=20, rows=5)), curves, strict=True):
        assert row[0].startswith(f"{step.bands} bands of {step.rows} rows")
        shown = [f"{step.found(float(s)):.2f}".removeprefix("0") for s in head[1:]]
        assert row[1:] == shown
