"""What distilling a draft would take, from a few seconds of each of its parts."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pilotfish.distill.continuations import GROUP, continue_prompts, frequent_tokens
from pilotfish.distill.divergences import find_divergence
from pilotfish.distill.draft import DraftSettings, distillation_loss
from pilotfish.distill.language_model import Tuning, finetune_language_model
from pilotfish.distill.teacher_states import read_states
from pilotfish.distill.truncated import depth, first_layers, output_rows, step_weights, student_of
from pilotfish.models.protocols import TokenModel
from pilotfish.models.transformers import TransformersModel
from pilotfish.records import Request

_SAMPLE = 24  # tokens of the continuations that are timed


@dataclass(frozen=True)
class DraftEstimate:
    """What is expected, when nothing is there yet.

    Attributes:
        prompts: To learn from.
        tokens: Of continuations at most.
        size_share: Weights that a step of the draft reads, as a share of the target's.
        bytes: On disk, of what is kept between the parts.
        write_seconds: For the continuations.
        read_seconds: For the teacher to read them.
        learn_seconds: For the draft to learn.
    """

    prompts: int
    tokens: int
    size_share: float
    bytes: int
    write_seconds: float
    read_seconds: float
    learn_seconds: float

    @property
    def seconds(self) -> float:
        """All three."""
        return self.write_seconds + self.read_seconds + self.learn_seconds

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {**asdict(self), "seconds": self.seconds}


def estimate_draft(
    teacher: TransformersModel,
    prompts: Sequence[Request],
    settings: DraftSettings | None = None,
    *,
    writer: TokenModel | None = None,
) -> DraftEstimate:
    """Time a small sample of each part; arguments as of :func:`pilotfish.distill.draft.distill_draft`.

    Raises:
        ConfigError: The teacher has fewer layers.
        UnknownName: No divergence is called that.
    """
    settings = settings or DraftSettings()
    divergence = find_divergence(settings.divergence)
    layers = first_layers(depth(teacher.network), settings.layers)
    reads = [
        (teacher.prompt_tokens(prompt), settings.temperatures[0]) for prompt in prompts[:GROUP]
    ]
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        short = min(settings.answer, _SAMPLE)
        write, texts = _timed(
            lambda: continue_prompts(
                writer or teacher,
                reads,
                place / "a.jsonl",
                longest=short,
            )
        )
        sequences = [text.sequence() for text in texts]
        read, states = _timed(lambda: read_states(teacher.network, sequences, place / "states"))
    kept = frequent_tokens(texts, settings.head, teacher.vocab)
    student = student_of(teacher.network, layers, kept)
    once = Tuning(epochs=1, batch=settings.tuning.batch)
    loss = distillation_loss(states, output_rows(teacher.network)[kept], divergence)
    learn, _ = _timed(lambda: finetune_language_model(student, sequences, once, loss=loss))
    learning = max(0, len(prompts) - settings.held_out)
    tokens = min(settings.tokens, learning * settings.answer)
    # Reading the prompts is in all three samples, so writing is not underestimated.
    mean_prompt = sum(len(tokens) for tokens, _ in reads) / len(reads)
    read_tokens = tokens * (1 + mean_prompt / settings.answer)
    read_tokens += min(settings.prompts, learning * mean_prompt)
    sampled = sum(len(s.tokens) for s in sequences) or 1
    return DraftEstimate(
        prompts=learning,
        tokens=tokens,
        size_share=step_weights(student) / step_weights(teacher.network),
        bytes=int(read_tokens) * teacher.network.config.hidden_size * 2,
        write_seconds=write * tokens / (sum(s.learned for s in sequences) or 1),
        read_seconds=read * read_tokens / sampled,
        learn_seconds=learn * read_tokens / sampled * settings.tuning.epochs,
    )


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result
