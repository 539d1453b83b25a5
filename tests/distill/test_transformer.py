"""The fine-tuned transformer: against torch's own losses and model, on a tiny BERT made on the spot."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

from pilotfish.distill import STUDENTS, transformer
from pilotfish.distill.calibrate import log_loss
from pilotfish.distill.crossfit import make_lesson
from pilotfish.distill.student import (
    Student,
    fit_and_crossfit,
    fit_seconds,
    fit_student,
    restore_student,
    student_files,
    unavailable,
)
from pilotfish.errors import ArtifactError, ConfigError, MissingExtra
from pilotfish.loop.race import Learnt, race
from pilotfish.loop.task import Task
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Encoder
from pilotfish.records import Inputs
from pilotfish.registry import Registry
from tests.distill.conftest import make_task
from tests.models.tiny_bert import write_bert

TOPICS = ("weather", "money", "food")
INSTALLED = all(importlib.util.find_spec(name) for name in ("torch", "transformers"))
needs_torch = pytest.mark.skipif(
    not INSTALLED, reason='needs torch: pip install "pilotfish[torch]", or make test-torch'
)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A BERT that knows the words of an order task."""
    return write_bert(tmp_path_factory.mktemp("bert"), ["dog", "bites", "man", *FILLERS])


@pytest.fixture
def here(base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The tiny BERT stands in for the catalogue's encoder."""
    monkeypatch.setattr(transformer, "base_folder", lambda: base)
    return base


FILLERS = ["the", "a", "big", "old", "small", "red", "angry", "lazy", "happy", "sad"]


def order_task(n: int, seed: int = 0) -> tuple[Inputs, np.ndarray[Any, Any]]:
    """Who bites: the same words in another order, which a bag of words cannot tell apart."""
    rng = np.random.default_rng(seed)
    target = rng.integers(2, size=n)
    texts = []
    for t in target:
        who, whom = ("dog", "man") if t == 0 else ("man", "dog")
        first, second = rng.choice(FILLERS, 2)
        texts.append(f"{first} {who} bites {second} {whom}")
    return Inputs(texts), target


def lesson_of(inputs: Inputs, targets: Any, **about: Any) -> Any:
    return make_lesson("transformer", inputs, targets, **{"classes": ("a", "b")} | about)[1]


@needs_torch
def test_the_loss_is_torchs_own() -> None:
    import torch
    from torch.nn import functional

    from pilotfish.distill.finetune import soft_cross_entropy

    torch.manual_seed(0)
    logits, target = torch.randn(9, 4), torch.randint(4, (9,))
    one, hot = torch.ones(9), functional.one_hot(target, 4).float()
    loss = soft_cross_entropy(logits, hot, one, multilabel=False)
    assert torch.allclose(loss, functional.cross_entropy(logits, target))
    soft = torch.softmax(torch.randn(9, 4), dim=1)
    loss = soft_cross_entropy(logits, soft, one, multilabel=False)
    assert torch.allclose(loss, functional.cross_entropy(logits, soft))
    copies = torch.tensor([1, 2, 3, 1, 1, 1, 1, 1, 1])
    loss = soft_cross_entropy(logits, hot, copies.float(), multilabel=False) * 9 / 12
    repeated = functional.cross_entropy(
        logits.repeat_interleave(copies, 0), target.repeat_interleave(copies)
    )
    assert torch.allclose(loss, repeated)
    several = torch.randint(2, (9, 4)).float()
    loss = soft_cross_entropy(logits, several, one, multilabel=True) / 4
    assert torch.allclose(loss, functional.binary_cross_entropy_with_logits(logits, several))


@needs_torch
def test_vectors_are_the_librarys_mean_of_token_states(base: Path) -> None:
    """Batching, padding and truncation change nothing; the oracle is one text at a time."""
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    from pilotfish.distill.finetune import TransformerScorer, load_base

    texts = ["dog bites man", "", "a", "big old man " * 200, "\ud800 odd", "日本語"]
    scorer = TransformerScorer.of(load_base(base), 2)
    ours = scorer.embed(scorer.tokens(texts))
    tokenizer = Tokenizer.from_file(str(base / "tokenizer.json"))
    tokenizer.enable_truncation(128)
    model = AutoModel.from_pretrained(base).eval()
    for text, row in zip(texts, ours, strict=True):
        ids = tokenizer.encode(text.encode("utf-8", "replace").decode()).ids
        with torch.inference_mode():
            states = model(input_ids=torch.tensor([ids])).last_hidden_state[0]
        mean = states.mean(dim=0).numpy()
        assert row == pytest.approx(mean / np.linalg.norm(mean), abs=1e-5)


@needs_torch
def test_it_learns_what_no_bag_of_words_can(here: Path, encoder: Encoder) -> None:
    """Word order decides."""
    inputs, target = order_task(600)
    fresh, answer = order_task(300, seed=1)
    student, oof = fit_and_crossfit("transformer", inputs, target, classes=("a", "b"))
    assert (student.predict_proba(fresh).argmax(axis=1) == answer).mean() > 0.95
    bag, _ = fit_and_crossfit(
        "embedding-linear", inputs, target, classes=("a", "b"), encoder=encoder
    )
    assert (bag.predict_proba(fresh).argmax(axis=1) == answer).mean() < 0.7
    assert (oof.argmax(axis=1) == target).mean() > 0.9


@needs_torch
def test_more_epochs_lower_the_loss_and_none_is_the_probe(here: Path, base: Path) -> None:
    from pilotfish.distill.finetune import TransformerScorer, fine_tune, load_base
    from pilotfish.models.logistic import as_matrix, fit_logistic

    inputs, target = order_task(600)
    lesson = lesson_of(inputs, target)
    loaded = load_base(base)
    frozen = {name: array.copy() for name, array in loaded.weights.items()}
    before, half, after = fine_tune(loaded, lesson, [0, 2, 4], of=4)
    plain = TransformerScorer.of(loaded, 2)
    features = plain.embed(plain.tokens(inputs.texts))
    [([weights], bias)] = fit_logistic(
        [features], as_matrix(target, 2), lesson.weights, multilabel=False, strengths=[30.0]
    )
    assert before.logits(inputs) == pytest.approx(features @ weights + bias, abs=1e-3)
    losses = [
        log_loss(Student("transformer", ("a", "b"), False, s).predict_proba(inputs), target)
        for s in (before, half, after)
    ]
    assert losses[0] > losses[1] > losses[2]
    assert all((frozen[name] == array).all() for name, array in loaded.weights.items())
    # What the schedule was made for does not depend on where it is left.
    [alone] = fine_tune(loaded, lesson, [2], of=4)
    assert (alone.logits(inputs) == half.logits(inputs)).all()


@needs_torch
def test_weights_count_like_copies(here: Path, base: Path) -> None:
    from pilotfish.distill.finetune import fine_tune, load_base

    inputs = Inputs(["dog bites", "man bites", "old dog"])
    lean = []
    for heavy in (1.0, 50.0):
        weights = np.array([1.0, heavy, 1.0])
        lesson = lesson_of(inputs, np.array([0, 1, 0]), weights=weights)
        [scorer] = fine_tune(load_base(base), lesson, [2], of=4)
        logits = scorer.logits(Inputs(["man bites"]))
        lean.append(logits[0, 1] - logits[0, 0])
    assert lean[1] > lean[0]


@needs_torch
def test_seeds_repeat_and_leave_torchs_own_state_alone(here: Path) -> None:
    import torch

    inputs, target = make_task(40)
    torch.manual_seed(7)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    first, second, other = (
        fit_student("transformer", inputs, target, classes=TOPICS, seed=seed).predict_proba(inputs)
        for seed in (0, 0, 1)
    )
    assert (first == second).all()
    assert (first != other).any()
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.fixture(scope="module")
def stored(base: Path) -> tuple[Student, dict[str, Any], dict[str, Any]]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transformer, "base_folder", lambda: base)
        inputs, target = make_task(40)
        student = fit_student("transformer", inputs, target, classes=TOPICS)
    card, arrays, files = student_files(student)
    assert not files
    return student, json.loads(json.dumps(card)), load(save(arrays))


@needs_torch
def test_restores_without_its_base_to_the_same_probabilities(
    stored: tuple[Student, dict[str, Any], dict[str, Any]],
) -> None:
    student, card, arrays = stored
    back = restore_student(card, arrays, load_encoder)
    texts = ["is there any pizza left?", "", "日本語", "y " * 10_000]
    assert (back.predict_proba(texts) == student.predict_proba(texts)).all()


@needs_torch
@pytest.mark.parametrize(
    "change",
    [
        {"hidden_size": 64},
        {"hidden_size": -1},
        {"num_hidden_layers": 10**9},
        {"model_type": "llama"},
        {"hidden_act": "os.system"},
        {"num_attention_heads": 5},
    ],
)
def test_a_state_that_fits_no_bert_is_refused(
    stored: tuple[Student, dict[str, Any], dict[str, Any]], change: dict[str, Any]
) -> None:
    _, card, arrays = stored
    shape = {**card["scorer"]["shape"], **change}
    with pytest.raises(ArtifactError):
        restore_student(
            {**card, "scorer": {**card["scorer"], "shape": shape}}, arrays, load_encoder
        )


@needs_torch
def test_damaged_states_are_refused_and_no_setting_names_code(
    stored: tuple[Student, dict[str, Any], dict[str, Any]], tmp_path: Path
) -> None:
    student, card, arrays = stored
    missing = {name: array for name, array in arrays.items() if "query" not in name}
    with pytest.raises(ArtifactError):
        restore_student(card, missing, load_encoder)
    headless = {name: array for name, array in arrays.items() if name != "head.bias"}
    with pytest.raises(ArtifactError, match=r"head\.bias"):
        restore_student(card, headless, load_encoder)
    broken = {**card, "scorer": {**card["scorer"], "tokenizer": {"no": "model"}}}
    with pytest.raises(ArtifactError):
        restore_student(broken, arrays, load_encoder)
    # The ways by which a transformers config makes the library import or fetch code.
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    shape = card["scorer"]["shape"] | {
        "auto_map": {"AutoModel": f"{tmp_path}/evil--evil.Model"},
        "attn_implementation": "someone/kernel",
        "trust_remote_code": True,
    }
    evil = {**card, "scorer": {**card["scorer"], "shape": shape}}
    back = restore_student(evil, arrays, load_encoder)
    assert (back.predict_proba(["a"]) == student.predict_proba(["a"])).all()
    assert not (tmp_path / "ran").exists()


@needs_torch
def test_a_base_that_is_no_bert_is_named(base: Path, tmp_path: Path) -> None:
    from pilotfish.distill.finetune import TransformerScorer, load_base

    with pytest.raises(ConfigError, match="no BERT encoder"):
        load_base(tmp_path)
    loaded = load_base(base)
    loaded.weights.pop("embeddings.word_embeddings.weight")
    with pytest.raises(ConfigError, match="word_embeddings"):
        TransformerScorer.of(loaded, 2)


TASK = Task("Topic? {text}", "label", TOPICS, 0.0, None, "", {})


def learnt(n: int = 60) -> Learnt:
    from pilotfish.loop.targets import encode

    inputs, target = make_task(n)
    answers = [TOPICS[t] for t in target]
    return Learnt(inputs, answers, encode(TASK, answers), np.ones(n))


@needs_torch
def test_it_races_when_it_can_and_shows_what_it_costs(here: Path, encoder: Encoder) -> None:
    from pilotfish.infer.certify import Constraint

    _, entries = race(
        TASK, learnt(), Constraint("agree", 0.9), encoder, names=["tfidf-linear", "transformer"]
    )
    entry = next(e for e in entries if e.student == "transformer")
    assert not entry.note
    assert entry.fit_seconds
    assert entry.fit_seconds > 0
    assert entry.per_second
    assert entry.p50_ms


@needs_torch
def test_it_sits_out_a_race_that_it_would_hold_up(
    here: Path, encoder: Encoder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not asked for by name, it is fitted only when one timed step says that it will be done in time."""
    from pilotfish.infer.certify import Constraint

    inputs, target = make_task(60)
    seconds = fit_seconds("transformer", inputs, target, classes=TOPICS)
    assert 0 < seconds < 60
    assert fit_seconds("knn", inputs, target, classes=TOPICS, encoder=encoder) == 0
    monkeypatch.setattr("pilotfish.loop.race.RACE_SECONDS", seconds / 100)
    some = Registry("student", {name: STUDENTS[name] for name in ("tfidf-linear", "transformer")})
    monkeypatch.setattr("pilotfish.loop.race.STUDENTS", some)
    _, entries = race(TASK, learnt(), Constraint("agree", 0.9), encoder)
    entry = next(e for e in entries if e.student == "transformer")
    assert "would take about" in entry.note
    assert entry.fit_seconds is None


def test_what_is_missing_is_said_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    inputs, target = make_task(10)
    monkeypatch.setattr(transformer, "_LIBRARIES", ("torch", "no_such_library"))
    assert unavailable("transformer", inputs, None) == (
        'needs torch: pip install "pilotfish[torch]"'
    )
    with pytest.raises(MissingExtra, match=r"pilotfish\[torch\]"):
        fit_student("transformer", inputs, target, classes=TOPICS)
    monkeypatch.setattr(transformer, "_LIBRARIES", ("json",))
    assert unavailable("transformer", inputs, None) == (
        f"needs its encoder: pilotfish pull {transformer.BASE}"
    )


def test_asking_whether_it_can_run_imports_no_torch() -> None:
    script = (
        "import sys\n"
        "from pilotfish.distill.student import unavailable\n"
        "from pilotfish.records import Inputs\n"
        "print(unavailable('transformer', Inputs(['a']), None))\n"
        "assert not {'torch', 'transformers'} & set(sys.modules)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("needs ")
    assert STUDENTS.extras["transformer"] == "torch"


@needs_torch
@pytest.mark.pulled
def test_the_pulled_encoder_gives_the_vectors_of_sentence_transformers() -> None:
    from pilotfish.distill.finetune import TransformerScorer, load_base

    inputs, _ = make_task(20)
    assert unavailable("transformer", inputs, None) == ""
    oracle = load_encoder(f"sentence-transformers:{transformer.BASE}", device="cpu")
    scorer = TransformerScorer.of(load_base(transformer.base_folder()), 2)
    ours = scorer.embed(scorer.tokens(inputs.texts))
    assert ours == pytest.approx(oracle.encode(inputs.texts), abs=1e-4)
