"""Stores that are named on the command line: a misspelt one is told, and not made."""

from __future__ import annotations

from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilotfish.cli.main import app
from pilotfish.errors import StoreError


@pytest.mark.parametrize(
    "words",
    [
        ["replay", "{}"],
        ["route", "fit", "{}", "--out", "router"],
        ["account", "--store", "{}"],
        ["rollback", "task", "--store", "{}"],
        ["forget", "--user", "jo", "--yes", "--store", "{}"],
    ],
    ids=lambda words: words[0],
)
def test_a_misspelt_store_is_told_and_not_made(
    words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    url = f"sqlite:///{tmp_path}/typo.db"
    done = CliRunner().invoke(app, [word.format(url) for word in words])
    assert isinstance(done.exception, StoreError), done.output
    assert "There is no store at" in str(done.exception)
    assert not list(tmp_path.iterdir())


def test_the_store_of_the_settings_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the first request there is none, which is no mistake."""
    monkeypatch.setenv("PILOTFISH_STORE", f"sqlite:///{tmp_path}/pilotfish.db")
    assert CliRunner().invoke(app, ["account"]).exit_code == 0
    assert (tmp_path / "pilotfish.db").exists()
