"""``pilotfish replay`` and ``pilotfish route`` as a user runs them."""

from __future__ import annotations

import dataclasses
import json
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from pilotfish.cli.main import app
from pilotfish.cli.outcomes import read
from pilotfish.errors import InputError, PilotfishError, UnknownName
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
    assert lines[0].startswith("200 questions, 2 models, 1 split;")
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


def test_prices_fill_in_only_the_costs_that_were_not_recorded(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"question {i:03}", "model": model, "quality": 1, "cost": cost}
        for i in range(4)
        for model, cost in (("s", None if i else 0.5), ("l", 7.0), ("free", None))
    ]
    path = tmp_path / "o.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read(path, "", "", None, ["s=1000,0", "free=0"], 0.0)
    asked = 1000e-6 * 12 / 4  # 12 characters, 4 a token
    assert found.cost == pytest.approx(np.array([[0.5, 7, 0], *[[asked, 7, 0]] * 3]))
    with pytest.raises(UnknownName, match=r"Unknown model 'fre'\. Did you mean 'free'"):
        read(path, "", "", None, ["fre=0"], 0.0)
    with pytest.raises(InputError, match="holds what every answer of l cost"):
        read(path, "", "", None, ["l=2"], 0.0)


def test_what_a_store_says_itself_is_not_asked_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/traffic.db"
    for option in (["--price", "s=1"], ["--column", "quality={}"], ["--prompt", "q"]):
        assert f"Got {option[0]} with a store" in refused("replay", url, *option)


def test_what_is_unknown_is_said(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"question {i}", "model": model, "quality": i % 2, "cost": cost}
        for i in range(40)
        for model, cost in (("small", 1), ("large", None if i == 7 else 10))
        if (i, model) != (9, "small")
    ]
    path = tmp_path / "o.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    options = ["--policy", "average", "--seeds", 1, "--samples", 0]
    done = CliRunner().invoke(app, ["replay", str(path), *map(str, options)])
    assert "\ncost " not in done.stdout
    assert "Unknown of 80 answers: quality of 1, cost of 2." in done.stderr
    left_out = "cost, quality at single cost, aiq, apgr, cpt50, cpt80."
    assert f"Left out for that: {left_out}" in done.stderr
    assert "best setting, in hindsight" in done.stdout
    dialled = CliRunner().invoke(app, ["replay", str(path), *map(str, options), "--max-cost", "9"])
    assert "counts as its model's mean. Left out for that: quality at" in dialled.stderr
    whole = tmp_path / "whole.parquet"
    write_outcomes(topics(60), whole)
    done = CliRunner().invoke(app, ["replay", str(whole), *map(str, options), "--max-cost", "5"])
    assert done.stderr == ""
    assert "best setting, in hindsight" not in done.stdout
    assert "all settings, in hindsight" in done.stdout
    assert "±" not in done.stdout, "no interval without draws"


def test_questions_to_models_that_are_not_used_do_not_count(tmp_path: Path) -> None:
    models = ["small", "large", "other", "other"] * 10
    rows = [{"prompt": f"q {i}", "model": m, "quality": 1} for i, m in enumerate(models)]
    path = tmp_path / "o.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert len(read(path, "", "", None, None, 0.0)) == 40
    assert len(read(path, "small,large", "", None, None, 0.0)) == 20


def test_a_plot_that_lacks_costs_is_refused_before_the_work(tmp_path: Path) -> None:
    write_outcomes(topics(60, cost=False), tmp_path / "o.parquet")
    work = ["replay", tmp_path / "o.parquet", "--policy", "knn:no_such=1"]
    assert "A plot needs the cost" in refused(*work, "--plot", tmp_path / "curves.svg")


def test_a_model_of_unknown_cost_cannot_keep_a_budget(tmp_path: Path) -> None:
    """The mean over the others would hide what it costs."""
    whole = topics(200)
    cost = whole.cost.copy()
    cost[:, 1] = np.nan
    write_outcomes(dataclasses.replace(whole, cost=cost), tmp_path / "o.parquet")
    for work in (["replay"], ["route", "fit", "--out", tmp_path / "x"]):
        said = refused(*work, tmp_path / "o.parquet", "--policy", "average", "--max-cost", 2)
        assert "no cost was recorded of large" in said


def test_replay_measures_what_a_dial_chose(tmp_path: Path) -> None:
    write_outcomes(topics(900), file := tmp_path / "outcomes.parquet")
    options = ["--seeds", 2, "--samples", 50, "--json", "--plot", tmp_path / "curves.svg"]
    names = ["--policy", "logistic", "--policy", "cascade:probability", "--policy", "oracle"]
    for dial, measure, most in (("--max-cost", "cost", 5), ("--strong-share", "strong_share", 0.4)):
        routed, judged, oracle = json.loads(call("replay", file, *names, dial, most, *options))
        for row in (routed, judged):
            # Kept on the 135 questions that it was set on; others are off by as much as those are.
            assert row["measures"][measure]["low"] <= most * 1.1
            assert row["point"]["cost"] == row["measures"]["cost"]["value"]
            assert "large_quality" in row["measures"]
        assert oracle["point"] is None
    promised = call("replay", file, "--policy", "cascade:probability", "--agree", 0.8, *options)
    (row,) = json.loads(promised)
    assert row["measures"]["agreement"]["value"] >= 0.8
    table = call("replay", file, "--policy", "average", "--agree", 0.8, "--seeds", 1)
    assert any(line.startswith("agreement") for line in table.splitlines())


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--agree", 0.9, "--max-cost", 3], "--agree with --max-cost"),
        (["--agree", 1.5], "--agree 1.5"),
        (["--agree", 0.9, "--agree-on", "mood"], "quality or answer"),
        (["--strong-share", 20], "--strong-share 20"),
        (["--max-cost", 0.5], "the least that can be had is 1"),
        (["--max-cost", 2, "--min-quality", 0.95], "within the other limits"),
        (["--max-latency", 2], "mean latency, but none was recorded"),
        (["--large", "huge"], "Unknown large model 'huge'"),
    ],
)
def test_dials_that_cannot_be_kept_say_why(
    file: Path, tmp_path: Path, options: list[object], words: str
) -> None:
    with pytest.raises(PilotfishError, match=re.escape(words)):
        call("route", "fit", file, "--out", tmp_path / "x", "--policy", "average", *options)
    with pytest.raises(PilotfishError, match=re.escape(words)):
        call("replay", file, "--policy", "average", "--seeds", 1, *options)
    assert not (tmp_path / "x").exists()


def test_a_policy_is_fitted_and_tuned(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "router"
    options = ["--policy", "logistic:strength=1.0", "--out", folder, "--json"]
    made = json.loads(call("route", "fit", file, *options, "--max-cost", 4))
    assert made["cost"]["low"] <= 4
    assert made["questions"] == pytest.approx(40, abs=2)
    write_outcomes(topics(100, seed=5), tmp_path / "newer.parquet")
    said = call("route", "tune", folder, tmp_path / "newer.parquet", "--strong-share", 0.2)
    assert "measured on 50 questions that nothing was chosen on" in said
    assert re.search(r"strong share +0\.\d+ ±", said)
    assert "(large alone: 10.000 ±0.000)" in said
    card = json.loads((folder / "card.json").read_text())
    assert card["learned_from"]["tuned_on"] == 50
    assert card["learned_from"]["fitted_on"] == pytest.approx(120, abs=2)
    assert card["extra"]["dials"]["strong_share"] == 0.2
    assert card["quality"]["strong_share"]["low"] <= 0.2


def test_a_score_that_nobody_can_make_is_told_when_it_is_fitted(file: Path, tmp_path: Path) -> None:
    fit = ["route", "fit", str(file), "--out", str(tmp_path / "r"), "--policy"]
    done = CliRunner().invoke(app, [*fit, "cascade:probability"])
    assert done.exit_code == 0
    assert "not served. Nobody knows how to make the signal 'probability'" in done.stderr
    assert "cascade:probability,confidence=" in done.stderr
    done = CliRunner().invoke(app, [*fit, "cascade:probability,confidence=mean_probability"])
    assert done.stderr == ""


def test_a_promise_is_certified_and_said(tmp_path: Path) -> None:
    write_outcomes(topics(1500), tmp_path / "o.parquet")
    write_outcomes(topics(900, seed=7), tmp_path / "newer.parquet")
    whole = topics(900)
    words = np.where(whole.quality == 1, "right", "wrong").astype(object)
    write_outcomes(dataclasses.replace(whole, answers=words), tmp_path / "said.parquet")
    options = ["--policy", "cascade:probability,confidence=top_probability"]
    options += ["--out", str(tmp_path / "p"), "--agree", "0.85"]
    made = json.loads(call("route", "fit", tmp_path / "o.parquet", *options, "--json"))
    assert made["certificate"]["threshold"] is not None
    assert made["certificate"]["bound"] <= 0.15
    assert made["agreement"]["value"] >= 0.85
    assert made["cost"]["value"] < made["large_cost"]["value"]
    said = call("route", "tune", tmp_path / "p", tmp_path / "newer.parquet", "--agree", 0.8)
    assert "promise       80% answered at least as well as by large; at most" in said
    card = json.loads((tmp_path / "p" / "card.json").read_text())
    assert card["certificate"]["constraints"][0]["target"] == 0.8
    few = call("route", "fit", tmp_path / "o.parquet", *options[:4], "--agree", 0.999)
    assert "on the 300 questions that certify it" in few
    same = ["--agree", 0.6, "--agree-on", "answer"]
    answered = call("route", "fit", tmp_path / "said.parquet", *options[:4], *same)
    assert "promise       60% answered the same as by large; at most" in answered


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
    options = ["--out", tmp_path / "router", "--policy", "logistic", "--json"]
    made = json.loads(call("route", "fit", url, *options, "--min-quality", 0.95))
    assert made["questions"] == 12, "the newest fifth measures"
    assert made["quality"]["value"] >= 0.95
    assert made["strong_share"]["value"] == pytest.approx(0.5, abs=0.1)
    assert made["cost"]["value"] < made["large_cost"]["value"]
    (single,) = json.loads(call("replay", url, "--policy", "single", "--seeds", 1, "--json"))
    assert single["measures"]["quality"]["value"] == 1


def refused(*arguments: object) -> str:
    done = CliRunner().invoke(app, [str(a) for a in arguments])
    assert isinstance(done.exception, InputError), done.output
    return str(done.exception)


def test_what_cannot_be_is_told_before_the_work(file: Path, tmp_path: Path) -> None:
    work = ["replay", file, "--policy", "no-such-policy"]  # what would be told when the work begins
    assert "there is no folder" in refused(*work, "--plot", tmp_path / "none" / "curves.svg")
    assert "ends in .svg, .png, .pdf" in refused(*work, "--plot", tmp_path / "curves.gif")
    assert "Got the folder" in refused(*work, "--plot", folder(tmp_path / "curves.svg"))
    assert "seeds=0 and samples=200" in refused(*work, "--seeds", 0)


def folder(path: Path) -> Path:
    path.mkdir()
    return path


def test_show_tells_what_a_route_is(file: Path, tmp_path: Path) -> None:
    artifact = tmp_path / "route"
    call("route", "fit", file, "--out", artifact, "--policy", "knn", "--strong-share", 0.5)
    said = call("show", artifact)
    assert said.startswith("route: routing, 0.")
    assert "\npolicy: knn\n" in said
    assert re.search(r"^strong share: 0\.\d+ \(0\.\d+ to [01](\.\d+)?\)$", said, re.MULTILINE)
    card = json.loads(call("show", artifact, "--json"))
    assert (card["card"]["kind"], card["result"]) == ("routing", None)
