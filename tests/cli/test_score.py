"""The command against the function: the same numbers, rows kept, unusable ones counted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

import pilotfish as pf
from pilotfish.cli.main import app
from pilotfish.errors import ConfigError, InputError
from tests.models import tiny_gguf

TEXTS = ["the other water", "a", "ab the cab", "größe 日本"]


@pytest.fixture
def model() -> str:
    return f"llama.cpp:{tiny_gguf.write(Path('tiny.gguf').absolute(), tiny_gguf.random_weights())}"


def test_rows_keep_their_columns_and_get_the_functions_scores(model: str) -> None:
    rows = [{"id": i, "text": text, "ask": "the "} for i, text in enumerate(TEXTS)]
    lines = [json.dumps(row) for row in rows]
    Path("in.jsonl").write_text("\n".join([*lines[:2], "no json", *lines[2:]]))
    wanted = pf.score(model, TEXTS)
    done = CliRunner().invoke(app, ["score", model, "in.jsonl", "--json", "--rejects", "bad.jsonl"])
    assert done.exit_code == 0, done.output
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for row, line, text in zip(rows, found, wanted, strict=True):
        assert row.items() <= line.items()
        assert line["tokens"] == text.scored
        if not text.scored:
            assert line["perplexity"] is line["bits_per_byte"] is line["log_likelihood"] is None
            continue
        assert line["perplexity"] == pytest.approx(text.perplexity, rel=1e-3)
        assert line["bits_per_byte"] == pytest.approx(text.bits_per_byte, rel=1e-3)
        assert line["log_likelihood"] == pytest.approx(text.log_likelihood, rel=1e-3)
    summary = json.loads(done.stderr.splitlines()[-1])
    assert (summary["texts"], summary["rejected"]) == (4, 1)
    assert summary["tokens"] == sum(text.scored for text in wanted)
    assert json.loads(Path("bad.jsonl").read_text())["line"] == 3

    after = CliRunner().invoke(
        app, ["score", model, "in.jsonl", "--given", "ask", "--max-tokens", "3", "--out", "o.jsonl"]
    )
    assert after.exit_code == 0, after.output
    assert "perplexity" in after.stderr
    assert after.stdout == ""
    wanted = pf.score(model, TEXTS, given="the ", max_tokens=3)
    for line, text in zip(Path("o.jsonl").read_text().splitlines(), wanted, strict=True):
        assert json.loads(line)["perplexity"] == pytest.approx(text.perplexity, rel=1e-3)


def test_scores_go_to_a_file_whole_or_not_at_all(model: str) -> None:
    Path("in.jsonl").write_text('{"text": "the other water"}\n')
    for option in ("--out", "--rejects"):
        done = CliRunner().invoke(app, ["score", "no-such-model", "in.jsonl", option, "no/o.jsonl"])
        assert isinstance(done.exception, InputError)
        assert "there is no folder 'no'" in str(done.exception)
    done = CliRunner().invoke(
        app, ["score", model, "in.jsonl", "--out", "in.jsonl", "--max-tokens", "0"]
    )
    assert isinstance(done.exception, ConfigError)
    assert Path("in.jsonl").read_text() == '{"text": "the other water"}\n'
    done = CliRunner().invoke(app, ["score", model, "in.jsonl", "--out", "in.jsonl"])
    assert done.exit_code == 0, done.output
    assert json.loads(Path("in.jsonl").read_text())["tokens"] > 0
