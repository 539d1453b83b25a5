"""Distilling a draft from a tiny Llama: acceptance before and after, kills, refusals, GGUF, command."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.errors import ConfigError, InputError, UnknownName
from pilotfish.models.load import load_model
from pilotfish.progress import Progress, Stage
from pilotfish.records import Request
from tests.distill.counting_prompts import PROMPTS, WORDS
from tests.models import tiny_gguf


def settings(**about: Any) -> Any:
    from pilotfish.distill.draft import DraftSettings
    from pilotfish.distill.language_model import Tuning

    tuning = {"epochs": 6, "batch": 8, "learning_rate": 3e-3, **about.pop("tuning", {})}
    plain = {"layers": 1, "head": 60, "tokens": 600, "prompts": 200, "answer": 16, "held_out": 10}
    return DraftSettings(**{**plain, **about}, tuning=Tuning(**tuning))


class Killed(Exception):
    pass


class KillAfter(Progress):
    """Kills a run at its so many-th step of a stage."""

    def __init__(self, title: str, steps: int) -> None:
        self.title, self.steps = title, steps

    def stage(self, title: str, total: int | None = None) -> Any:
        outer = self

        class Counting(Stage):
            def advance(self, steps: int = 1) -> None:
                if title == outer.title and steps:
                    outer.steps -= 1
                    if outer.steps < 0:
                        raise Killed

        from contextlib import nullcontext

        return nullcontext(Counting())


def test_distillation_raises_acceptance_and_lowers_the_divergence(
    teacher: Any, tmp_path: Path
) -> None:
    from pilotfish.distill.draft import distill_draft
    from pilotfish.infer.speculate.cost import CostCurve
    from pilotfish.infer.speculate.model_draft import ModelDraft
    from pilotfish.infer.speculate.speculative import Speculative
    from pilotfish.store.artifacts import load_artifact

    report = distill_draft(teacher, PROMPTS, tmp_path / "draft", settings())
    for before, mid, after in zip(report.before, report.aligned, report.after, strict=True):
        assert after.rate > mid.rate > before.rate
        assert after.rate > before.rate + 0.1
        assert after.tokens_a_read[0] > before.tokens_a_read[0]
    assert report.layers == (0,)
    assert 60 == report.head < teacher.vocab
    card = load_artifact(tmp_path / "draft").card
    assert card.kind == "draft"
    assert json.loads(json.dumps(card.quality))["head"] == 60
    draft: Any = load_model(f"transformers:{tmp_path / 'draft'}", Config(), threads=1)
    kept = json.loads((tmp_path / "draft" / "head_tokens.json").read_text())
    row = draft.session().feed(teacher.tokenize("the cab"), last=1)[0]
    assert np.flatnonzero(np.isfinite(row)).tolist() == kept
    assert draft.vocab == teacher.vocab
    # It speeds its target up without changing a word, whatever it leaves out.
    flat = CostCurve({1: 1.0, 16: 1.001})
    fast = Speculative(teacher, ModelDraft(draft, teacher, same=True, cost=1e-6), curve=flat)
    for heat in (0.0, 1.0):
        for prompt in PROMPTS[:4]:
            request = Request.of(prompt.prompt, max_tokens=16, temperature=heat, seed=3)
            import asyncio

            said = asyncio.run(fast.complete(request)).text
            if not heat:
                assert said == asyncio.run(teacher.complete(request)).text
    assert fast.figures.accepted > 0
    fast.close()
    draft.close()


def test_a_killed_run_ends_as_one_that_was_not(teacher: Any, tmp_path: Path) -> None:
    from pilotfish.distill.draft import distill_draft

    plan = settings(tokens=400, tuning={"save_every": 1e-9, "epochs": 3})
    whole = distill_draft(teacher, PROMPTS, tmp_path / "whole", plan)
    for title, steps in (("Continuations", 3), ("Teacher reads", 1), ("Draft learns", 9)):
        with pytest.raises(Killed):
            distill_draft(
                teacher, PROMPTS, tmp_path / "parts", plan, progress=KillAfter(title, steps)
            )
        if title == "Continuations":  # killed in the middle of a line
            lines = tmp_path / "parts-work" / "continuations.jsonl"
            lines.write_bytes(lines.read_bytes()[:-20])
    again = distill_draft(teacher, PROMPTS, tmp_path / "parts", plan)
    assert again.after == whole.after
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert "model.safetensors" in names
    for name in names:
        if name != "card.json":
            assert (tmp_path / "whole" / name).read_bytes() == (
                tmp_path / "parts" / name
            ).read_bytes()
    other = distill_draft(
        teacher, PROMPTS, tmp_path / "parts", settings(tokens=400, tuning={"epochs": 1})
    )
    assert other.after != whole.after  # another plan does not go on from that checkpoint


def test_what_cannot_be_done_is_said(teacher: Any, tmp_path: Path, torch: Any) -> None:
    from pilotfish.distill.draft import distill_draft
    from pilotfish.distill.language_model import TokenSequence, finetune_language_model
    from pilotfish.distill.truncated import first_layers, student_of

    with pytest.raises(ConfigError, match="Got 3 layers"):
        distill_draft(teacher, PROMPTS, tmp_path / "d", settings(layers=3))
    with pytest.raises(InputError, match="4 different prompts"):
        distill_draft(teacher, [*PROMPTS[:4], PROMPTS[0]], tmp_path / "d", settings())
    plan = settings(tokens=30, prompts=0, tuning={"epochs": 1})
    distill_draft(teacher, PROMPTS, tmp_path / "d", plan)
    weights = teacher.path / "model.safetensors"  # another model of the same tokens
    os.utime(weights, ns=(0, weights.stat().st_mtime_ns + 10**9))
    for other in (plan, settings(answer=8)):
        with pytest.raises(InputError, match="parts of a draft of another model"):
            distill_draft(teacher, PROMPTS, tmp_path / "d", other)
    with pytest.raises(UnknownName, match="divergence"):
        distill_draft(teacher, PROMPTS, tmp_path / "d", settings(divergence="kl"))
    with pytest.raises(InputError, match="a token to learn"):
        finetune_language_model(teacher.network, [TokenSequence(np.arange(4), 4)])
    frozen = student_of(teacher.network, first_layers(2, 1), range(9)).requires_grad_(False)
    with pytest.raises(ConfigError, match="none of whose weights"):
        finetune_language_model(frozen, [TokenSequence(np.arange(4))])
    (tmp_path / "bad").mkdir()
    teacher.network.save_pretrained(tmp_path / "bad")
    teacher.tokenizer.save_pretrained(tmp_path / "bad")
    (tmp_path / "bad" / "head_tokens.json").write_text("[1, 99999]")
    with pytest.raises(ConfigError, match=r"head_tokens\.json"):
        load_model(f"transformers:{tmp_path / 'bad'}", Config())


def test_a_gguf_file_says_what_the_folder_says(teacher: Any, tmp_path: Path) -> None:
    from pilotfish.distill.gguf_file import write_gguf
    from pilotfish.distill.truncated import output_rows, student_of, whole_student
    from pilotfish.models.llamacpp import LlamaModel, LlamaSettings

    like = tiny_gguf.write(tmp_path / "like.gguf", tiny_gguf.random_weights(3))
    student = student_of(teacher.network, [1], [5, 6, 7])
    whole = whole_student(student, output_rows(teacher.network), [5, 6, 7])
    path = write_gguf(tmp_path / "draft.gguf", whole, like, name="draft")
    llama = LlamaModel(path, LlamaSettings(threads=1))
    tokens = teacher.tokenize("the cab is here, and the other")
    assert llama.tokenize("the cab is here, and the other") == tokens
    import torch

    with torch.inference_mode():
        rows = whole(input_ids=torch.tensor([tokens])).logits[0].numpy()
    assert llama.session().feed(tokens) == pytest.approx(rows, abs=0.05)
    llama.close()


def test_the_command_estimates_and_distils(teacher: Any, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from pilotfish.cli.main import app

    file = tmp_path / "questions.jsonl"
    rows = [{"question": f"{WORDS[i % 5]} cab {i}?"} for i in range(12)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["draft", str(teacher.path), str(file), "--prompt", "{question}"]
    command += ["--out", str(tmp_path / "d"), "--layers", "1", "--head", "50", "--tokens", "60"]
    command += ["--answer", "8", "--held-out", "3", "--epochs", "1", "--threads", "1"]
    estimate = CliRunner().invoke(app, [*command, "--dry-run", "--json"])
    expected = json.loads(estimate.stdout)
    assert expected["prompts"] == 9
    assert expected["tokens"] == 60
    assert expected["seconds"] > 0
    assert not (tmp_path / "d").exists()
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    assert 'kind = "speculative"' in done.stdout
    assert (tmp_path / "d" / "model.safetensors").is_file()
    again = CliRunner().invoke(app, [*command, "--json"])
    report = json.loads(again.stdout)
    assert report["size_share"] == pytest.approx(expected["size_share"])
    assert [a["temperature"] for a in report["after"]] == [0.0, 1.0]
