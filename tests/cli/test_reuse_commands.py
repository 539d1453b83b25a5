"""learn, tasks --reuse, show and forget for a free-text task, with a judge behind a socket."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilotfish.cli.main import app
from pilotfish.errors import InputError
from pilotfish.models.fake_server import FakeServer
from pilotfish.store.store import open_store
from pilotfish.store.traffic import Exchange
from tests.loop import faq

TASK = "customers-small-shop"
CONFIG = """
[models.auto]
kind = "learned"
models = ["large"]

[models.large]
backend = "openai"
model = "scripted"
base_url = "{url}"
price = {{input = 2.0, output = 8.0, date = "2026-11-01"}}
"""


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> Iterator[faq.Large]:
    """Nine hundred recorded questions, and who answered them."""
    monkeypatch.setattr(faq, "TAILS", 0.0)
    scripted = faq.Large()
    with FakeServer(scripted, keep=False) as server, open_store("sqlite:///pilotfish.db") as store:
        Path("pilotfish.toml").write_text(CONFIG.format(url=server.base_url))
        store.traffic.add(
            Exchange(
                id=row.id, time=row.time, caller="", task="", asked="auto", endpoint="chat",
                streamed=False, status=200, error="", latency=0.1, first_byte=None,
                request=row.request, completion=row.completion, baseline=0.001,
            )
            for row in faq.traffic(900)
        )  # fmt: skip
        yield scripted


def test_from_a_closed_door_to_a_version_and_its_withdrawal(large: faq.Large) -> None:
    refused = run("learn", "--nice", "0")
    assert f"pilotfish tasks {TASK} --reuse all" in refused
    assert (large.answers, large.verdicts) == (0, 0)
    with pytest.raises(InputError, match="never, user, key, all"):
        run("tasks", TASK, "--reuse", "everybody")
    run("tasks", TASK, "--reuse", "all")
    assert f"{TASK}@1: may answer" in run("learn", "--nice", "0")
    assert large.verdicts > 0
    (version,) = json.loads(run("tasks", TASK, "--json"))["versions"]
    folder = Path(version["artifact"])
    assert "scope: all" in run("show", str(folder))
    entries = json.loads((folder / "student.json").read_text())["entries"]
    judged = sum(day["judge_cost"] for day in json.loads(run("account", "--json")))
    assert judged > 0
    told = run("forget", "--request", entries[0]["id"], "--yes")
    assert f"{TASK}@1 could give them out: withdrawn" in told
    assert not folder.exists()
    shown = json.loads(run("tasks", TASK, "--json"))
    assert shown["pointer"]["shadow"] is None
    assert [event["kind"] for event in shown["events"]] == ["shadow", "forgotten", "withdrawn"]
