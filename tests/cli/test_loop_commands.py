"""tasks, learn, rollback, account and forget, from recorded traffic to a version and back."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from pilotfish.cli.main import app
from pilotfish.errors import ConfigError, InputError, UnknownName
from pilotfish.records import Completion, Request
from pilotfish.store.ledger import Day
from pilotfish.store.store import Store, open_store
from pilotfish.store.traffic import Exchange
from tests.loop.traffic import mixed

STORE = "sqlite:///pilotfish.db"
TASK = "which-team-handle"
CONFIG = """
[models.auto]
kind = "learned"
models = ["large"]

[models.large]
backend = "fake"
"""


def run(*arguments: str, code: int = 0) -> Result:
    if arguments[0] == "learn":
        arguments = (*arguments, "--nice", "0")  # or all later tests of this process would give way
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == code, result.output
    return result


def plain(*arguments: str):
    return json.loads(run(*arguments, "--json").stdout)


def fill(count: int = 700) -> None:
    """Traffic as the gateway records it, every tenth request from ann."""
    exchanges = []
    for i, (prompt, answer) in enumerate(mixed(count)):
        request = Request(
            ({"role": "user", "content": prompt},), user="ann" if i % 10 == 0 else "bob"
        )
        exchanges.append(
            Exchange(
                id=f"req_{i:024x}", time=1_700_000_000.0 + i, caller="", task="", asked="auto",
                endpoint="chat", streamed=False, status=200, error="", latency=0.2, first_byte=None,
                request=request, completion=Completion(answer, "large", cost=0.001), baseline=0.001,
            )
        )  # fmt: skip
    with open_store(STORE) as store:
        store.traffic.add(exchanges)


@pytest.fixture
def _filled() -> None:
    Path("pilotfish.toml").write_text(CONFIG)
    fill()


def learned() -> dict[str, object]:
    found: dict[str, object] = plain(
        "learn", TASK, "--fewest", "150", "--student", "tfidf-embedding-linear"
    )
    return found


def opened() -> Store:
    return open_store(STORE)


@pytest.mark.usefixtures("_filled")
def test_tasks_are_ranked_by_money() -> None:
    tasks = plain("tasks")
    assert tasks[0]["kind"] == "label"
    assert [t["cost"] for t in tasks] == sorted((t["cost"] for t in tasks), reverse=True)
    assert {t["kind"] for t in tasks} == {"label", "rating", "extraction", "text"}
    shown = run("tasks", "--no-estimate").stdout
    assert "extraction" in shown


@pytest.mark.usefixtures("_filled")
def test_learn_once_then_roll_back_and_account() -> None:
    outcome = learned()[TASK]
    assert isinstance(outcome, dict)
    assert (outcome["reason"], outcome["version"], outcome["asked"]) == ("certified", 1, 0)
    with opened() as store:
        assert store.versions.pointer(TASK).shadow == 1
        store.versions.move(TASK, "promoted", version=1, evidence={}, serving=1, shadow=None)
    assert f"serving: {TASK}@1" in run("tasks", TASK).stdout
    assert plain("tasks", TASK)["pointer"]["serving"] == 1
    assert "answered by the large model" in run("rollback", TASK).stdout
    kinds = [event["kind"] for event in plain("tasks", TASK)["events"]]
    assert kinds == ["shadow", "promoted", "rolled-back"]
    days = plain("account", "--days", "100000")
    assert sum(day["requests"] for day in days) == 700
    assert sum(day["baseline"] for day in days) == pytest.approx(0.7)
    assert "Saved in all: $0.00" in run("account", "--days", "100000").stdout
    assert run("learn", "--fewest", "5000").stdout.startswith("No task is due")


@pytest.mark.usefixtures("_filled")
def test_forget_names_what_has_learned() -> None:
    learned()
    gone = plain("forget", "--user", "ann", "--yes")
    assert gone["requests"] == 70
    assert list(gone["artifacts"]) == [f"{TASK}@1"]
    assert Path(gone["artifacts"][f"{TASK}@1"]).is_dir()
    with opened() as store:
        assert store.traffic.count() == 630
    assert run("forget", "--user", "ann", code=1).stdout  # it asks, and nobody says yes
    assert plain("forget", "--before", "1990-01-01", "--yes")["requests"] == 0
    assert plain("forget", "--before", "2990-01-01", "--yes")["requests"] == 630
    for wrong in ([], ["--user", "ann", "--request", "req_1"]):
        with pytest.raises(InputError, match="--user"):
            run("forget", *wrong, "--yes")


@pytest.mark.usefixtures("_filled")
def test_marks_are_kept_and_shown() -> None:
    learned()
    run("tasks", TASK, "--local-only", "--no-record")
    run("tasks", TASK, "--may-leave")
    assert plain("tasks", TASK)["marks"] == {"local_only": False, "unrecorded": True}
    with pytest.raises(ConfigError, match="cannot be loaded"):
        run("tasks", TASK, "--redact", "no_such_module:nothing")
    with pytest.raises(UnknownName, match="no-such-task"):
        run("tasks", "no-such-task", "--local-only")


def test_what_has_no_price_is_called_unknown_and_its_calls_are_counted() -> None:
    today = int(time.time() // 86_400)
    with opened() as store:
        store.ledger.commit(
            {},
            [
                Day("local", today, 100, 80, unknown=100, checks=8, unpriced=8),
                Day("priced", today, 10, 5, 0.05, 0.1),
            ],
        )
    local, priced = plain("account")
    assert (local["saving"], local["avoided"], local["unpriced"]) == (None, 72, 8)
    assert (priced["saving"], priced["avoided"]) == (pytest.approx(0.05), 5)
    shown = run("account").stdout
    assert "Saved in all: unknown; 77 calls of the large model avoided" in shown
    assert "8 checks, lessons or judges have an unknown price" in shown
    assert "$0.050" in run("account", "priced").stdout


def test_without_traffic_it_says_so() -> None:
    assert "No recurring tasks yet" in run("tasks").stdout
    assert "No task is due" in run("learn").stdout
    with pytest.raises(InputError, match="share"):
        run("learn", "--check-share", "2")
    with pytest.raises(UnknownName):
        run("rollback", "nothing")
