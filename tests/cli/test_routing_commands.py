"""``pilotfish replay`` and ``pilotfish route`` as a user runs them."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from typer.testing import CliRunner

from pilotfish.cli.main import app
from pilotfish.errors import InputError
from pilotfish.infer.outcome_files import write_outcomes
from pilotfish.records import Completion, Request
from pilotfish.store import open_store
from pilotfish.store.feedback import Check
from pilotfish.store.traffic import Exchange
from tests.infer.test_replay import topics


@pytest.fixture
def file(tmp_path: Path) -> Path:
    write_outcomes(topics(200), tmp_path / "outcomes.parquet")
    return tmp_path / "outcomes.parquet"


def call(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    return done.stdout


def test_replay_prints_a_table_and_draws(file: Path, tmp_path: Path) -> None:
    plot = tmp_path / "curves.svg"
    options = ["--seeds", 1, "--samples", 10, "--plot", plot]
    said = call("replay", file, "--policy", "knn", "--policy", "single", *options)
    lines = said.splitlines()
    assert lines[0].startswith("200 questions, 2 models, 1 splits")
    assert lines[2].split() == ["knn", "single"]
    assert any(line.startswith("apgr") and line.count("±") == 1 for line in lines)
    assert any(line.startswith("quality ") and line.count("±") == 2 for line in lines)
    root = ET.parse(plot).getroot()
    assert root.tag.endswith("svg")
    first = plot.read_bytes()
    call("replay", file, "--policy", "knn", "--policy", "single", *options)
    assert plot.read_bytes() == first, "the same outcomes give the same file"


def test_replay_gives_json(file: Path) -> None:
    said = call("replay", file, "--policy", "oracle", "--policy", "knn:k=5", "--seeds", 1, "--json")
    oracle, knn = json.loads(said)
    assert oracle["policy"] == "oracle"
    assert set(knn["measures"]["apgr"]) == {"value", "low", "high"}
    assert oracle["measures"]["quality"]["value"] >= knn["measures"]["quality"]["value"]
    assert len(knn["curve"]) == 50


def test_replay_reads_other_columns_and_prices(tmp_path: Path) -> None:
    rows = [{"q": f"question {i}", "s": i % 2, "l": 1} for i in range(40)]
    path = tmp_path / "o.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--prompt", "q", "--models", "s,l", "--column", "quality={}", "--seeds", 1]
    prices = ["--price", "s=1,1", "--price", "l=10", "--answer-tokens", 100, "--json"]
    (single,) = json.loads(call("replay", path, *options, *prices, "--policy", "single"))
    assert single["measures"]["quality"]["value"] == 1
    assert single["measures"]["cost"]["value"] == pytest.approx(10 * 102.6e-6, rel=0.02)
    with pytest.raises(InputError, match="MODEL=INPUT,OUTPUT"):
        call("replay", path, *options, "--price", "s=free")


def test_a_router_is_fitted_and_tuned(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "router"
    options = ["--predictor", "logistic:strength=1.0", "--out", folder, "--json"]
    made = json.loads(call("route", "fit", file, *options, "--max-cost", 4))
    assert made["cost"] <= 4
    assert made["questions"] == pytest.approx(60, abs=2)
    write_outcomes(topics(100, seed=5), tmp_path / "newer.parquet")
    said = call("route", "tune", folder, tmp_path / "newer.parquet", "--strong-share", 0.2)
    assert "on 100 questions held out" in said
    card = json.loads((folder / "card.json").read_text())
    assert card["learned_from"]["tuned_on"] == 100
    assert card["quality"]["strong_share"] <= 0.2


def test_a_router_learns_from_the_gateways_store(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/traffic.db"
    store = open_store(url)
    for i in range(60):
        easy = i % 2 == 0
        text = f"add {i} and {i}" if easy else f"prove theorem {i}"
        exchange = Exchange(
            id=f"req_{i:04x}",
            time=1_700_000_000.0 + i,
            caller="",
            task="",
            asked="both",
            endpoint="chat",
            streamed=False,
            status=200,
            error="",
            latency=0.1,
            first_byte=None,
            request=Request.of(text),
            completion=Completion("an answer", "small", cost=0.001),
            baseline=None,
        )
        store.traffic.add([exchange])
        store.checks.add(Check(exchange.id, "both", "small", "large", agreed=easy, cost=0.02))
    store.close()
    options = ["--out", tmp_path / "router", "--predictor", "logistic", "--json"]
    made = json.loads(call("route", "fit", url, *options, "--min-quality", 0.95))
    assert made["questions"] == 18, "the newest 30% set the dial"
    assert made["quality"] >= 0.95
    assert made["strong_share"] == pytest.approx(0.5, abs=0.1)
    assert made["cost"] < made["best_cost"]
