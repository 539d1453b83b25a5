"""Distilling a draft: divergences against closed forms, acceptance against simulation, a tiny Llama."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.config import Config
from pilotfish.distill.acceptance import (
    expected_acceptance,
    held_guesses,
    rate_by_position,
    reached_by_position,
    tokens_a_read,
)
from pilotfish.errors import ConfigError, InputError, UnknownName
from pilotfish.models.load import load_model
from pilotfish.models.sampling import Proposal, Sampler
from pilotfish.progress import Progress, Stage
from pilotfish.records import Request
from tests.models import tiny_gguf

WORDS = ("one", "two", "many", "other", "no")
PROMPTS = [Request.of(f"{WORDS[i % 5]} cab {i}") for i in range(40)]


def logits(n: int, vocab: int, seed: int, gain: float = 1.5) -> np.ndarray[Any, Any]:
    return (np.random.default_rng(seed).standard_normal((n, vocab)) * gain).astype(np.float32)


# Acceptance needs no torch.


@pytest.mark.parametrize("heat", [0.0, 0.7, 1.0])
def test_chances_along_a_text_are_those_of_real_sampling(heat: float) -> None:
    """The oracle is the sampler itself: draft, judge, and see how often the draft's token was taken."""
    p, q = logits(1, 6, 1)[0], logits(1, 6, 2)[0]
    q[4] = -np.inf  # a token that the draft never guesses
    target, draft = (
        Sampler({"temperature": heat, "seed": 0}),
        Sampler({"temperature": heat, "seed": 1}),
    )
    taken, chances = 0, 0.0
    rounds = 4000
    for _ in range(rounds):
        kept, shares = draft.distribution(q)
        guess = draft.draw(kept, shares)
        whole = np.zeros(6)
        whole[kept] = shares
        token = target.choose(p, Proposal(guess, whole if heat else None))
        taken += token == guess
        chances += held_guesses(p[None], q[None], [token], heat)[0]
    expected = expected_acceptance(p[None], q[None], heat)[0]
    assert chances / rounds == pytest.approx(expected, abs=0.02)
    # The target may also draw by itself what the draft guessed, in the case that it was refused: never,
    # since what is left of p there is 0.
    assert taken / rounds == pytest.approx(expected, abs=0.03)


def test_rates_by_position_multiply_to_what_is_reached() -> None:
    held = [np.random.default_rng(i).random(30) for i in range(5)]
    reached, rates = reached_by_position(held, 4), rate_by_position(held, 4)
    assert np.cumprod(rates) == pytest.approx(reached)
    by_hand = np.mean([one[i] * one[i + 1] for one in held for i in range(27)])
    assert reached[1] == pytest.approx(by_hand)
    assert tokens_a_read(held, 2) == pytest.approx(1 + sum(reached_by_position(held, 2)))
    assert tokens_a_read(held, 0) == 1.0
    assert np.isnan(rate_by_position([np.ones(2)], 4)).all()


# What follows needs torch.


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch", reason='needs torch: pip install "pilotfish[torch]"')


@pytest.fixture(scope="module")
def teacher(torch: Any, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A tiny Llama that has learned to count things; random weights have nothing to teach."""
    from pilotfish.distill.language_model import (
        TokenSequence,
        Tuning,
        finetune_language_model,
    )
    from tests.models import tiny_llama

    folder = tmp_path_factory.mktemp("teacher")
    tiny_llama.write(folder, tiny_gguf.random_weights(0))
    model: Any = load_model(f"transformers:{folder}", Config(), threads=1)
    texts = [model.tokenize(f"{WORDS[i % 5]} {WORDS[i % 3]} cab. " * 4) for i in range(48)]
    losses = finetune_language_model(
        model.network,
        [TokenSequence(np.array(text[i % 7 :])) for i, text in enumerate(texts)],
        Tuning(epochs=8, batch=8, learning_rate=5e-3),
    )
    assert losses[-1] < losses[0] / 3
    yield model
    model.close()


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


def test_divergences_are_their_closed_forms(torch: Any) -> None:
    from scipy.special import rel_entr, softmax

    from pilotfish.distill import divergences as d

    a, b = logits(7, 9, 3), logits(7, 9, 4)
    p, q = softmax(a.astype(float), axis=1), softmax(b.astype(float), axis=1)

    def kl(x: Any, y: Any) -> Any:
        return rel_entr(x, y).sum(axis=1)

    m = 0.3 * p + 0.7 * q
    expected = {
        d.forward_kl: kl(p, q),
        d.reverse_kl: kl(q, p),
        d.total_variation: np.abs(p - q).sum(axis=1) / 2,
        d.skew_forward_kl: kl(p, 0.1 * p + 0.9 * q),
        d.skew_reverse_kl: kl(q, 0.9 * p + 0.1 * q),
        (lambda x, y: d.jensen_shannon(x, y, 0.3)): 0.3 * kl(p, m) + 0.7 * kl(q, m),
    }
    first, second = torch.from_numpy(a), torch.from_numpy(b).requires_grad_()
    for divergence, value in expected.items():
        found = divergence(first, second)
        assert found.detach().numpy() == pytest.approx(value, abs=1e-5)
        found.sum().backward()
        assert torch.isfinite(second.grad).all()
    for divergence in d.DIVERGENCES.values():
        assert divergence(first, first).abs().max() < 1e-6
    near = d.jensen_shannon(first, second, 1e-4).detach().numpy() / 1e-4
    assert near == pytest.approx(kl(p, q), rel=0.02)
    assert 1 - d.total_variation(first, second).detach().numpy() == pytest.approx(
        expected_acceptance(a, b), abs=1e-5
    )
    with pytest.raises(UnknownName, match="forward-kl"):
        d.find_divergence("forward-k")
    with pytest.raises(ConfigError, match="share of 1"):
        d.jensen_shannon(first, second, 1.0)


def test_the_loss_and_its_mask_are_the_librarys(teacher: Any, torch: Any) -> None:
    from pilotfish.distill.language_model import TokenSequence, make_batch, next_token_loss

    tokens = [np.arange(5, 25), np.arange(40, 47)]
    sequences = [TokenSequence(tokens[0], 4), TokenSequence(tokens[1], 1)]
    loss = next_token_loss(teacher.network, make_batch(sequences, [1, 0], "cpu"))
    labels = torch.full((2, 20), -100)
    inputs = torch.zeros((2, 20), dtype=torch.long)
    for i, sequence in enumerate(sequences):
        n = len(sequence.tokens)
        inputs[i, :n] = torch.from_numpy(sequence.tokens)
        labels[i, sequence.begin : n] = torch.from_numpy(sequence.tokens[sequence.begin :])
    assert loss.item() == pytest.approx(
        teacher.network(input_ids=inputs, labels=labels).loss.item()
    )


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


def test_a_whole_head_and_all_layers_are_the_teacher_itself(teacher: Any, torch: Any) -> None:
    from pilotfish.distill.truncated import output_rows, step_weights, student_of, whole_student
    from pilotfish.models.trimmed_head import TrimmedHead

    tokens = torch.tensor([teacher.tokenize("the cab is here")])
    with torch.inference_mode():
        rows = teacher.network(input_ids=tokens).logits
        same = student_of(teacher.network, [0, 1], range(teacher.vocab))
        assert torch.allclose(same(input_ids=tokens).logits, rows, atol=1e-5)
        kept = [200, 5, 7, 31]
        some = student_of(teacher.network, [0, 1], kept)
        assert torch.allclose(some(input_ids=tokens).logits, rows[..., kept], atol=1e-5)
        assert step_weights(same) - step_weights(some) == (teacher.vocab - 4) * tiny_gguf.DIM
        whole = whole_student(some, output_rows(teacher.network), kept)
        assert torch.allclose(whole(input_ids=tokens).logits, rows, atol=1e-5)
        states = teacher.network.base_model(input_ids=tokens).last_hidden_state
        head = TrimmedHead.of(teacher.network.get_output_embeddings(), kept)
        trimmed = head(states)
        assert torch.allclose(trimmed[..., kept], rows[..., kept], atol=1e-5)
        assert torch.isneginf(trimmed).sum() == tokens.numel() * (teacher.vocab - 4)
    assert output_rows(teacher.network).shape == (teacher.vocab, tiny_gguf.DIM)


@pytest.mark.parametrize("kept", [[7, 250, 3, 90, 2, 101, 120, 40], list(range(262))])
def test_what_is_never_guessed_counts_as_one(
    teacher: Any, torch: Any, tmp_path: Path, kept: list[int]
) -> None:
    """The oracle has a column for every token."""
    from pilotfish.distill.continuations import continue_prompts
    from pilotfish.distill.draft_judge import Judge
    from pilotfish.distill.teacher_states import read_states
    from pilotfish.distill.truncated import output_rows, student_of

    prompts = [(teacher.prompt_tokens(p), heat) for p in PROMPTS[:4] for heat in (0.0, 0.7)]
    texts = continue_prompts(teacher, prompts, tmp_path / "a.jsonl", longest=12)
    states = read_states(teacher.network, [text.sequence() for text in texts], tmp_path)
    student = student_of(teacher.network, [0], kept)
    found = Judge(output_rows(teacher.network), kept, texts, states).accept(student)
    for each in found:
        held, rates = [], []
        for text in texts:
            if text.temperature == each.temperature:
                ids = torch.tensor([text.prompt + text.answer[:-1]])
                part = slice(len(text.prompt) - 1, None)
                with torch.inference_mode():
                    target = teacher.network(input_ids=ids).logits[0, part].numpy()
                    draft = np.full_like(target, -np.inf)
                    draft[:, kept] = student(input_ids=ids).logits[0, part].numpy()
                held.append(held_guesses(target, draft, text.answer, text.temperature))
                rates.append(expected_acceptance(target, draft, text.temperature))
        assert each.rate == pytest.approx(np.concatenate(rates).mean(), abs=5e-3)
        assert each.by_position[0] == pytest.approx(rate_by_position(held, 4)[0], abs=5e-3)
        assert each.tokens_a_read[3] == pytest.approx(tokens_a_read(held, 4), abs=0.02)


def test_alignment_is_least_squares(teacher: Any, torch: Any, tmp_path: Path) -> None:
    from pilotfish.distill.alignment import RIDGE, alignment
    from pilotfish.distill.language_model import TokenSequence
    from pilotfish.distill.teacher_states import read_states
    from pilotfish.distill.truncated import student_of

    rng = np.random.default_rng(1)
    sequences = [TokenSequence(rng.integers(3, 200, n), 1) for n in (9, 30, 17, 40)]
    states = read_states(teacher.network, sequences, tmp_path)
    student = student_of(teacher.network, [1], range(9))
    found = alignment(student, sequences, states)
    x = torch.cat(
        [
            student.base_model(input_ids=torch.from_numpy(s.tokens)[None]).last_hidden_state[0, :-1]
            for s in sequences
        ]
    )
    x, y = x.detach().double().numpy(), torch.cat(states.states).double().numpy()
    ridge = np.sqrt(RIDGE * (x**2).sum(axis=0).mean()) * np.eye(x.shape[1])
    oracle = np.linalg.lstsq(np.r_[x, ridge], np.r_[y, np.zeros_like(ridge)], rcond=None)[0]
    assert found.numpy() == pytest.approx(oracle, abs=1e-3)
    whole = student_of(teacher.network, [0, 1], range(9))
    assert alignment(whole, sequences, states).diagonal().numpy() == pytest.approx(1, abs=0.1)


def test_continuations_are_what_the_model_answers(teacher: Any, tmp_path: Path) -> None:
    """Written in groups; the oracle is one answer at a time."""
    from pilotfish.distill.continuations import continue_prompts, frequent_tokens

    prompts = [(teacher.prompt_tokens(prompt), 0.0) for prompt in PROMPTS[:20]]
    found = continue_prompts(teacher, prompts, tmp_path / "a.jsonl", longest=8)
    for one in found:
        session = teacher.session()
        row = session.feed(one.prompt, last=1)[0]
        for token in one.answer:
            assert token == row.argmax()
            row = session.feed([token])[0]
        assert len(one.answer) == 8 or teacher.ends(one.answer[-1])
    before = (tmp_path / "a.jsonl").read_bytes()
    again = continue_prompts(teacher, prompts, tmp_path / "a.jsonl", longest=8)
    assert again == found
    assert (tmp_path / "a.jsonl").read_bytes() == before
    with pytest.raises(InputError, match="other prompts"):
        continue_prompts(teacher, prompts[1:], tmp_path / "a.jsonl")
    kept = frequent_tokens(found, 12, teacher.vocab, [tiny_gguf.END])
    counts = np.bincount([t for one in found for t in one.answer], minlength=teacher.vocab)
    assert tiny_gguf.END in kept
    assert len(kept) == 12
    assert min(counts[[t for t in kept if t != tiny_gguf.END]]) >= np.sort(counts)[-12]
    assert frequent_tokens(found, 10**6, teacher.vocab) == list(range(teacher.vocab))


def test_the_teachers_states_are_half_precision_and_read_once(
    teacher: Any, torch: Any, tmp_path: Path
) -> None:
    from pilotfish.distill.language_model import TokenSequence
    from pilotfish.distill.teacher_states import read_states

    rng = np.random.default_rng(0)
    sequences = [TokenSequence(rng.integers(3, 200, n), 2) for n in (9, 30, 4, 12, 5)]
    states = read_states(teacher.network, sequences, tmp_path)
    head = teacher.network.get_output_embeddings()
    for row, sequence in enumerate(sequences):
        with torch.inference_mode():
            mine = head(states.of([row], "cpu")).numpy()
        its = teacher.session().feed(sequence.tokens.tolist())[1:-1]
        assert mine == pytest.approx(its, abs=0.01)
    [file] = tmp_path.iterdir()
    made = file.stat().st_mtime_ns
    read_states(teacher.network, sequences, tmp_path)
    assert file.stat().st_mtime_ns == made
    sequences[0] = TokenSequence(sequences[0].tokens[::-1].copy(), 2)
    read_states(teacher.network, sequences, tmp_path)
    assert file.stat().st_mtime_ns != made


def test_what_cannot_be_done_is_said(teacher: Any, tmp_path: Path, torch: Any) -> None:
    from pilotfish.distill.draft import distill_draft
    from pilotfish.distill.language_model import TokenSequence, finetune_language_model
    from pilotfish.distill.truncated import first_layers, student_of

    with pytest.raises(ConfigError, match="Got 3 layers"):
        distill_draft(teacher, PROMPTS, tmp_path / "d", settings(layers=3))
    with pytest.raises(InputError, match="4 different prompts"):
        distill_draft(teacher, [*PROMPTS[:4], PROMPTS[0]], tmp_path / "d", settings())
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
