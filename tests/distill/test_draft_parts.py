"""The parts of distilling a draft: divergences, losses, truncated networks, continuations, states."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pilotfish.distill.acceptance import (
    expected_acceptance,
    held_guesses,
    rate_by_position,
    tokens_a_read,
)
from pilotfish.errors import ConfigError, InputError, UnknownName
from tests.distill.counting_prompts import PROMPTS, logits
from tests.models import tiny_gguf


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


def test_a_whole_head_and_all_layers_are_the_teacher_itself(
    teacher: Any, torch: Any, tmp_path: Path
) -> None:
    from pilotfish.distill.truncated import output_rows, step_weights, student_of, whole_student
    from pilotfish.models.trimmed_head import TrimmedHead, trim_head

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
    (tmp_path / "head_tokens.json").write_text("[1, 2]")
    same.set_output_embeddings(torch.nn.Linear(tiny_gguf.DIM, teacher.vocab))
    with pytest.raises(ConfigError, match="with a bias"):
        trim_head(same, tmp_path)


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
