"""Training a causal language model in torch: one loop, whatever the loss.

Plain fine-tuning and distillation differ in the loss alone, so they share everything else: padded batches
of sequences of like length, AdamW, a rate that warms up and falls, a bound on the gradient, and a
checkpoint from which a killed run goes on bit by bit as it would have (on the same machine with the
same number of threads). Which weights move is said beforehand, by ``requires_grad``.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from pilotfish.distill.checkpoint import Checkpoint
from pilotfish.distill.optimize import WARM_UP, by_length, rate_share, seeded
from pilotfish.errors import ConfigError, InputError
from pilotfish.progress import Progress

Positive = Annotated[float, msgspec.Meta(gt=0)]


@dataclass(frozen=True, slots=True)
class TokenSequence:
    """Tokens that a model learns from.

    Attributes:
        tokens: ``[n]``, n >= 2.
        begin: The first token that is learned, >= 1; those before it are only read.
    """

    tokens: NDArray[np.int64]
    begin: int = 1

    @property
    def learned(self) -> int:
        """How many tokens are learned."""
        return len(self.tokens) - self.begin


@dataclass(frozen=True, slots=True)
class Batch:
    """Some sequences as tensors.

    Attributes:
        rows: Their positions among all sequences.
        tokens: ``[b, n]``, filled up on the right.
        learned: Whether each token is to be learned, ``[b, n]``.
    """

    rows: tuple[int, ...]
    tokens: Any
    learned: Any


Loss = Callable[[Any, Batch], Any]
"""From a network and a batch to a scalar with a gradient."""


class Tuning(msgspec.Struct, frozen=True, kw_only=True):
    """How a training goes.

    Attributes:
        epochs: Times that every sequence is seen.
        batch: Sequences a step.
        learning_rate: At its highest.
        warm_up: Share of the steps during which it rises; then it falls to nearly 0.
        weight_decay: AdamW's.
        clip: Largest norm of a step's gradient.
        seed: Of the order.
        save_every: Seconds between two checkpoints.
    """

    epochs: Annotated[int, msgspec.Meta(ge=1)] = 1
    batch: Annotated[int, msgspec.Meta(ge=1)] = 16
    learning_rate: Positive = 5e-4
    warm_up: Annotated[float, msgspec.Meta(ge=0, le=1)] = WARM_UP
    weight_decay: Annotated[float, msgspec.Meta(ge=0)] = 0.01
    clip: Positive = 1.0
    seed: Annotated[int, msgspec.Meta(ge=0)] = 0
    save_every: Positive = 120.0


def learned_states(network: Any, batch: Batch) -> Any:
    """The last hidden state before each learned token, ``[learned, hidden]``, row by row."""
    states = network.base_model(input_ids=batch.tokens, use_cache=False).last_hidden_state
    return states[:, :-1][batch.learned[:, 1:]]


def predicted_logits(network: Any, batch: Batch) -> Any:
    """Logits of each learned token from those before it, ``[learned, outputs]``, row by row.

    Only the positions that count go through the output layer, which is most of a small model.

    Raises:
        ConfigError: The network does more to its logits than its output layer.
    """
    if getattr(network.config, "final_logit_softcapping", None):
        raise ConfigError(f"{type(network).__name__} caps its logits, which training here cannot.")
    return network.get_output_embeddings()(learned_states(network, batch))


def next_token_loss(network: Any, batch: Batch) -> Any:
    """Mean cross-entropy of the learned tokens, nats."""
    return functional.cross_entropy(
        predicted_logits(network, batch), batch.tokens[:, 1:][batch.learned[:, 1:]]
    )


def finetune_language_model(
    network: Any,
    sequences: Sequence[TokenSequence],
    tuning: Tuning | None = None,
    *,
    loss: Loss = next_token_loss,
    checkpoint: Path | None = None,
    key: str = "",
    progress: Progress | None = None,
    title: str = "Training",
) -> list[float]:
    """Train a causal language model in place.

    Args:
        network: A ``transformers`` model with a language modelling head, in float32, on its device;
            weights that do not require a gradient stay.
        sequences: What it learns from.
        tuning: How.
        loss: Default: that of the next token.
        checkpoint: A file that keeps the state, so that a killed run goes on; None keeps none.
        key: Names what the loss is made of; a checkpoint with another key is not continued.
        progress: Told of every step.
        title: Of its stage.

    Returns:
        The loss of every step, those before a restart included.

    Raises:
        InputError: There are no sequences, or one has nothing to learn.
        ConfigError: No weight requires a gradient.
    """
    tuning, progress = tuning or Tuning(), progress or Progress()
    if not sequences or any(not 1 <= s.begin < len(s.tokens) for s in sequences):
        raise InputError(
            f"Got {len(sequences)} sequences, but expected at least one, each with a token to learn "
            "after its first."
        )
    moving = [weight for weight in network.parameters() if weight.requires_grad]
    if not moving:
        raise ConfigError("Got a network none of whose weights requires a gradient.")
    lengths = np.array([len(s.tokens) for s in sequences])
    per_epoch = -(-len(sequences) // tuning.batch)
    steps = tuning.epochs * per_epoch
    optimizer = torch.optim.AdamW(moving, lr=tuning.learning_rate, weight_decay=tuning.weight_decay)
    kept = Checkpoint(checkpoint, _key(sequences, tuning, moving, key)) if checkpoint else None
    losses = kept.restore(moving, optimizer) if kept else []
    before = network.training
    network.train()
    saved = time.monotonic()
    order: list[NDArray[np.int64]] = []
    with progress.stage(title, steps) as stage:
        stage.advance(len(losses))
        for step in range(len(losses), steps):
            epoch, place = divmod(step, per_epoch)
            if not place or not order:
                order = by_length(
                    lengths, tuning.batch, np.random.default_rng([tuning.seed, epoch])
                )
            for group in optimizer.param_groups:
                group["lr"] = tuning.learning_rate * rate_share(step, steps, tuning.warm_up)
            batch = make_batch(sequences, order[place], moving[0].device)
            with seeded(tuning.seed * 1_000_003 + step):  # of dropout, where there is any
                value = loss(network, batch)
                optimizer.zero_grad()
                value.backward()
            torch.nn.utils.clip_grad_norm_(moving, tuning.clip)
            optimizer.step()
            losses.append(float(value.detach()))
            stage.note(f"loss {np.mean(losses[-20:]):.3f}")
            stage.advance()
            if kept and (step + 1 == steps or time.monotonic() - saved > tuning.save_every):
                kept.save(moving, optimizer, losses)
                saved = time.monotonic()
    optimizer.zero_grad()
    network.train(before)
    return losses


def make_batch(sequences: Sequence[TokenSequence], rows: Iterable[int], device: Any) -> Batch:
    """The sequences at these positions as tensors on a device."""
    rows = tuple(int(row) for row in rows)
    some = [sequences[row] for row in rows]
    width = max(len(s.tokens) for s in some)
    tokens = np.zeros((len(some), width), np.int64)
    learned = np.zeros((len(some), width), bool)
    for i, sequence in enumerate(some):
        tokens[i, : len(sequence.tokens)] = sequence.tokens
        learned[i, sequence.begin : len(sequence.tokens)] = True
    return Batch(rows, torch.from_numpy(tokens).to(device), torch.from_numpy(learned).to(device))


def _key(
    sequences: Sequence[TokenSequence], tuning: Tuning, moving: Sequence[Any], key: str
) -> str:
    """What decides how a training goes; how often it is saved does not."""
    plain = {**msgspec.structs.asdict(tuning), "save_every": 0}
    shapes = [list(weight.shape) for weight in moving]
    digest = hashlib.sha256(repr((plain, shapes, key)).encode())
    for sequence in sequences:
        digest.update(np.asarray([len(sequence.tokens), sequence.begin], np.int64).tobytes())
        digest.update(np.ascontiguousarray(sequence.tokens, np.int64).tobytes())
    return digest.hexdigest()
