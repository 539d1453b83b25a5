"""A draft for speculative decoding, distilled from the model that it drafts for.

The student is the first layers of the target itself, with its embeddings, its final norm and rows of its
output layer for the frequent tokens (FR-Spec, Zhao et al. 2025): a step costs a tenth of the target's or
less, and its vocabulary is the target's, so sampled answers can take as many guesses as can be taken. It
learns the target's distribution on the target's own continuations of the user's prompts (DistillSpec,
Zhou et al. 2024).

Every part is kept as it is made, so a run that was killed goes on with what is missing.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from torch.nn import functional
from transformers.utils import logging

from pilotfish.distill.alignment import alignment
from pilotfish.distill.continuations import continue_prompts, frequent_tokens
from pilotfish.distill.divergences import Divergence, find_divergence
from pilotfish.distill.draft_judge import Acceptance, Judge
from pilotfish.distill.gguf_file import write_gguf
from pilotfish.distill.language_model import (
    Batch,
    Loss,
    TokenSequence,
    Tuning,
    finetune_language_model,
    predicted_logits,
)
from pilotfish.distill.teacher_states import TeacherStates, read_states
from pilotfish.distill.truncated import (
    depth,
    first_layers,
    output_rows,
    step_weights,
    student_of,
    whole_student,
)
from pilotfish.errors import InputError
from pilotfish.models.held import common_prefix
from pilotfish.models.identity import file_identity
from pilotfish.models.protocols import TokenModel
from pilotfish.models.transformers import TransformersModel
from pilotfish.models.trimmed_head import HEAD_TOKENS
from pilotfish.progress import Progress
from pilotfish.records import Request
from pilotfish.sources import writing
from pilotfish.store.artifacts import save_artifact
from pilotfish.store.card import Card

Whole = Annotated[int, msgspec.Meta(ge=1)]


class DraftSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What a draft is and how it learns.

    Attributes:
        layers: Of the target that it starts from.
        head: Tokens that it can guess; as many as there are, or more, keep the whole output layer.
        tokens: Of continuations that it learns from, about.
        prompts: Tokens of the prompts that it also learns the target's view of, about, those with a
            continuation first; they are read and nothing is written, which is several times faster.
        answer: Longest continuation, in tokens.
        temperatures: At which the target continues the prompts in turn.
        held_out: Prompts that it does not learn from, but is measured on.
        divergence: One of :data:`pilotfish.distill.divergences.DIVERGENCES`.
        tuning: How it is trained; its seed also draws the continuations.
    """

    layers: Whole = 2
    head: Whole = 8192
    tokens: Whole = 100_000
    prompts: Annotated[int, msgspec.Meta(ge=0)] = 100_000
    answer: Annotated[int, msgspec.Meta(ge=2)] = 128
    temperatures: tuple[float, ...] = (0.0, 1.0)
    held_out: Whole = 20
    divergence: str = "forward-kl"
    tuning: Tuning = Tuning(epochs=6, batch=8, learning_rate=1e-3)


@dataclass(frozen=True)
class DraftReport:
    """What came of it.

    Attributes:
        folder: The draft; ``transformers:FOLDER`` loads it.
        layers: Of the target, that it started from.
        head: Tokens that it can guess.
        size_share: Weights that a step reads, as a share of the target's.
        learned: Tokens that it learned from.
        divergence: Mean of the last twentieth of the steps, nats.
        before: Acceptance of the truncated target that it started from, by temperature.
        aligned: The same with an aligned output layer, before any step.
        after: Acceptance of the draft.
        seconds: That this run took; what an earlier one left was not done again.
    """

    folder: Path
    layers: tuple[int, ...]
    head: int
    size_share: float
    learned: int
    divergence: float
    before: tuple[Acceptance, ...]
    aligned: tuple[Acceptance, ...]
    after: tuple[Acceptance, ...]
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        found: dict[str, Any] = msgspec.to_builtins(self.__dict__ | {"folder": str(self.folder)})
        return found


def distill_draft(
    teacher: TransformersModel,
    prompts: Sequence[Request],
    out: Path,
    settings: DraftSettings | None = None,
    *,
    writer: TokenModel | None = None,
    work: Path | None = None,
    progress: Progress | None = None,
) -> DraftReport:
    """Distil a draft from a model.

    Args:
        teacher: The target.
        prompts: As it will be asked; ``held_out`` of them, drawn by the seed, are only measured on.
        out: Folder of the draft; an earlier draft there is replaced.
        settings: See :class:`DraftSettings`.
        writer: Writes the continuations; default: the teacher. llama.cpp with its weights is faster.
        work: Folder of continuations, states and the checkpoint; default: beside ``out``.
        progress: Told how far it is.

    Raises:
        ConfigError: The teacher has fewer layers, or its output layer is not a plain matrix.
        InputError: There are too few prompts, the teacher answers nothing, or the folder of the parts
            holds those of another model.
        UnknownName: No divergence is called that.
    """
    settings, began = settings or DraftSettings(), time.monotonic()
    progress, work = progress or Progress(), work or out.with_name(f"{out.name}-work")
    divergence = find_divergence(settings.divergence)
    head = output_rows(teacher.network)
    chosen = first_layers(depth(teacher.network), settings.layers)
    reads = [tuple(teacher.prompt_tokens(prompt)) for prompt in prompts]
    learn, measure = _split(list(dict.fromkeys(reads)), settings)
    _claim(work, repr((file_identity(teacher.path), settings.answer, settings.tuning.seed)))
    write = functools.partial(
        continue_prompts,
        writer or teacher,
        longest=settings.answer,
        seed=settings.tuning.seed,
        progress=progress,
    )
    heats = settings.temperatures
    turns = list(zip(learn, itertools.cycle(heats), strict=False))
    texts = write(turns, work / "continuations.jsonl", most=settings.tokens)
    tests = write(list(itertools.product(measure, heats)), work / "held-out.jsonl")
    if not texts or not tests:
        raise InputError(
            f"{teacher.name} ends its answers at once: there is nothing to learn from.",
            remedy="Give prompts that it answers, or the model that was tuned to answer.",
        )
    common = common_prefix(min(learn), max(learn))  # the chat template's beginning teaches nothing
    read = functools.partial(read_states, teacher.network, progress=progress)
    sequences = [text.sequence(common if settings.prompts else None) for text in texts]
    left = settings.prompts - sum(len(text.prompt) - common for text in texts)
    # From the end, so that these stay the same where more continuations are asked for later.
    alone = _alone(learn[: len(texts) - 1 : -1], common, left)
    states = TeacherStates(
        read(sequences, work / "states").states + read(alone, work / "prompt-states").states
    )
    sequences += alone
    test_states = read([text.sequence() for text in tests], work / "held-out-states")
    ends = [token for token in range(teacher.vocab) if teacher.ends(token)]
    kept = frequent_tokens(texts, settings.head, teacher.vocab, ends)
    student = student_of(teacher.network, chosen, kept)
    judge = Judge(head, kept, tests, test_states)
    before = judge.accept(student)
    matrix = alignment(student, sequences, states)
    rows = head @ matrix.T
    with torch.no_grad():
        student.get_output_embeddings().weight.copy_(rows[kept])
    aligned = judge.accept(student)
    losses = finetune_language_model(
        student,
        sequences,
        settings.tuning,
        loss=distillation_loss(states, head[kept], divergence),
        checkpoint=work / "checkpoint.safetensors",
        key=repr((settings.divergence, chosen, kept)),
        progress=progress,
        title="Draft learns",
    )
    report = DraftReport(
        folder=out,
        layers=tuple(chosen),
        head=len(kept),
        size_share=step_weights(student) / step_weights(teacher.network),
        learned=sum(s.learned for s in sequences),
        divergence=float(np.mean(losses[-max(1, len(losses) // 20) :])),
        before=before,
        aligned=aligned,
        after=judge.accept(student),
        seconds=time.monotonic() - began,
    )
    save_draft(out, whole_student(student, rows, kept), teacher, kept, report, settings)
    return report


def distillation_loss(states: TeacherStates, head: Any, divergence: Divergence) -> Loss:
    """The mean divergence of a student's next tokens from its teacher's.

    Args:
        states: The teacher's, of the sequences that are trained on.
        head: Rows of the teacher's output layer, those of the student's in the same order.
        divergence: See :mod:`pilotfish.distill.divergences`.
    """

    def loss(network: Any, batch: Batch) -> Any:
        student = predicted_logits(network, batch)
        with torch.no_grad():
            teacher = functional.linear(states.of(batch.rows, student.device), head)
        return divergence(teacher, student).mean()

    return loss


def save_draft(
    out: Path,
    network: Any,
    teacher: TransformersModel,
    kept: Sequence[int],
    report: DraftReport,
    settings: DraftSettings,
) -> None:
    """Write the artifact: a folder of ``transformers``, with the tokens that it can guess, and a card.

    A teacher that was read from a GGUF file gets a draft in that form as well, for llama.cpp.
    """
    with tempfile.TemporaryDirectory(dir=out.parent) as folder:
        with _without_bars():
            network.save_pretrained(folder)
        if teacher.path.suffix == ".gguf":
            write_gguf(Path(folder) / "draft.gguf", network, teacher.path, name=out.name)
        teacher.tokenizer.save_pretrained(folder, save_jinja_files=False)
        files: dict[str, Path | bytes] = {path.name: path for path in Path(folder).iterdir()}
        card = Card.new(
            name=out.name,
            kind="draft",
            learned_from={"model": teacher.name, "tokens": report.learned},
            quality=report.to_dict(),
            extra={"settings": msgspec.to_builtins(settings)},
        )
        lists = {HEAD_TOKENS: list(kept)} if len(kept) < teacher.vocab else {}
        save_artifact(out, card, json_files=lists, files=files)


def _claim(work: Path, made_of: str) -> None:
    """Refuse parts of another run: one of a model with the same tokens would be taken for this one's."""
    with writing(work):
        work.mkdir(parents=True, exist_ok=True)
    note = work / "made-of.txt"
    before = note.read_text("utf-8") if note.exists() else ""
    if before and before != made_of:
        raise InputError(
            f"{work} holds parts of a draft of another model, length of answers or seed.",
            remedy="Name another folder for the draft, or remove that one.",
        )
    note.write_text(made_of, "utf-8")


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """The library draws bars, terminal or not."""
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _alone(prompts: Sequence[tuple[int, ...]], begin: int, most: int) -> list[TokenSequence]:
    """Prompts without a continuation, about ``most`` tokens after their first ``begin``."""
    found = []
    for prompt in prompts:
        if most <= 0:
            break
        if len(prompt) > max(1, begin):
            found.append(TokenSequence(np.array(prompt, np.int64), max(1, begin)))
            most -= found[-1].learned
    return found


def _split(
    prompts: list[tuple[int, ...]], settings: DraftSettings
) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    if len(prompts) <= settings.held_out:
        raise InputError(
            f"Got {len(prompts)} different prompts, but expected more than the {settings.held_out} "
            "that are held out.",
            remedy="Give more prompts, or hold out fewer.",
        )
    order = np.random.default_rng(settings.tuning.seed).permutation(len(prompts))
    mixed = [prompts[i] for i in order]
    return mixed[settings.held_out :], mixed[: settings.held_out]
