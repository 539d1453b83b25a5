"""Fine-tuning a BERT encoder with a classification head, in torch.

The recipe is that of Devlin et al. (2019) with what Mosbach et al. (2021) found to make it stable: AdamW
with bias correction, a linear warm-up over the first tenth of the steps, then a linear decay. The text's
vector is the mean of its token states, scaled to length 1, because the packaged encoder was trained that
way; the head starts as logistic regression on these vectors.

The token embeddings stay as they are: half of the weights, most of them of tokens that never occur in a
thousand texts. That halves the time of a step on a CPU.

State is numbers and text. Restoring builds a plain BERT of the stored shape (a fixed list of numbers, so
that no setting can name code to run) and fills in the arrays.
"""

from __future__ import annotations

import copy
import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file
from tokenizers import Tokenizer
from torch.nn import functional
from torch.nn.utils.rnn import pad_sequence
from transformers import BertConfig, BertModel

from pilotfish.distill.optimize import bounded, by_length, rate_share, seeded
from pilotfish.distill.recipe import Floats, Lesson, State
from pilotfish.errors import ArtifactError, ConfigError
from pilotfish.models.logistic import as_matrix, fit_logistic
from pilotfish.models.static import clean, read_tokenizer
from pilotfish.records import Inputs

MAX_TOKENS = 128  # of a text that are read; twice as many would take twice as long for long texts
CHARS_PER_TOKEN = (
    32  # no text needs more to fill them, and a megabyte is cut before it is tokenized
)
BATCH = 16
SERVE_BATCH = 64
LEARNING_RATE = 2e-4
WEIGHT_DECAY = 0.01
CLIP = 1.0  # largest norm of a step's gradient
PROBE = 30.0  # strength of the regression that the head starts from

Size = Annotated[int, msgspec.Meta(ge=1, le=1_000_000)]
Ids = list[list[int]]


class Shape(msgspec.Struct, frozen=True):
    """What a BERT is built from; names as in its ``config.json``."""

    vocab_size: Size
    hidden_size: Annotated[int, msgspec.Meta(ge=1, le=8192)]
    num_hidden_layers: Annotated[int, msgspec.Meta(ge=1, le=96)]
    num_attention_heads: Annotated[int, msgspec.Meta(ge=1, le=256)]
    intermediate_size: Annotated[int, msgspec.Meta(ge=1, le=65536)]
    max_position_embeddings: Size = 512
    type_vocab_size: Size = 2
    layer_norm_eps: float = 1e-12
    pad_token_id: int = 0
    hidden_act: Literal["gelu", "gelu_new", "relu"] = "gelu"
    model_type: Literal["bert"] = "bert"

    def build(self) -> Any:
        """A BERT of this shape with weights that still have to be filled in."""
        settings = msgspec.structs.asdict(self) | {"attn_implementation": "sdpa"}
        del settings["model_type"]
        return BertModel(BertConfig(**settings), add_pooling_layer=False)


class Base(msgspec.Struct, frozen=True):
    """A pretrained encoder: its shape, weights by name, and tokenizer."""

    shape: Shape
    weights: dict[str, Any]
    tokenizer: Any


def load_base(folder: Path) -> Base:
    """Read ``config.json``, ``model.safetensors`` and ``tokenizer.json``.

    Raises:
        ConfigError: They are not those of a BERT encoder.
    """
    try:
        shape = msgspec.json.decode((folder / "config.json").read_bytes(), type=Shape)
        weights = load_file(folder / "model.safetensors")
    except (OSError, SafetensorError, msgspec.MsgspecError) as error:
        raise ConfigError(f"{folder} is no BERT encoder in safetensors form: {error}.") from error
    return Base(shape, weights, read_tokenizer(folder / "tokenizer.json"))


class TransformerScorer:
    """A fine-tuned encoder and its head.

    Args:
        body: The encoder.
        head: ``[hidden] -> [classes]``.
        tokenizer: Of the encoder.
        shape: Of the encoder.
    """

    def __init__(self, body: Any, head: Any, tokenizer: Tokenizer, shape: Shape) -> None:
        self.body, self.head = body.eval(), head.eval()
        self.tokenizer, self.shape = tokenizer, shape

    @classmethod
    def of(cls, base: Base, classes: int) -> TransformerScorer:
        """The pretrained encoder on the device that is there, with a head of random weights.

        Raises:
            ConfigError: The weights are not those of the shape.
        """
        body = base.shape.build()
        weights = {name: torch.from_numpy(array) for name, array in base.weights.items()}
        missing = set(body.state_dict()) - set(weights)
        if missing:
            raise ConfigError(f"The encoder lacks the weights {', '.join(sorted(missing)[:3])}.")
        try:
            body.load_state_dict(weights, strict=False)  # a pooler may come along; it is not used
        except RuntimeError as error:
            raise ConfigError(f"The encoder's weights do not fit its config: {error}.") from error
        return cls(
            body, torch.nn.Linear(base.shape.hidden_size, classes), base.tokenizer, base.shape
        ).on("cuda" if torch.cuda.is_available() else "cpu")

    def on(self, device: str) -> TransformerScorer:
        """Move it to a device."""
        self.body.to(device)
        self.head.to(device)
        return self

    def tokens(self, texts: Sequence[str]) -> Ids:
        """Token ids of each text, at most :data:`MAX_TOKENS`, special ones included."""
        self.tokenizer.no_padding()
        self.tokenizer.enable_truncation(min(MAX_TOKENS, self.shape.max_position_embeddings))
        cut = [clean(text[: MAX_TOKENS * CHARS_PER_TOKEN]) for text in texts]
        return [
            encoding.ids or [self.shape.pad_token_id]
            for encoding in self.tokenizer.encode_batch_fast(cut)
        ]

    def vectors(self, ids: Ids) -> Any:
        """Unit vectors ``[n, hidden]`` of one padded batch."""
        device = self.head.weight.device
        padded = pad_sequence(
            [torch.tensor(row) for row in ids],
            batch_first=True,
            padding_value=self.shape.pad_token_id,
        ).to(device)
        lengths = torch.tensor([len(row) for row in ids], device=device)
        mask = torch.arange(padded.shape[1], device=device)[None] < lengths[:, None]
        states = self.body(input_ids=padded, attention_mask=mask).last_hidden_state
        summed = (states * mask[..., None]).sum(dim=1)
        return functional.normalize(summed / lengths[:, None], dim=1)

    def embed(self, ids: Ids) -> Floats:
        """Unit vectors ``[n, hidden]`` of any number of texts."""
        return self._map(ids, self.vectors, self.shape.hidden_size)

    def logits(self, inputs: Inputs) -> Floats:
        """Logits ``[n, classes]``."""
        ids = self.tokens(inputs.texts)
        return self._map(ids, lambda part: self.head(self.vectors(part)), self.head.out_features)

    def _map(self, ids: Ids, compute: Any, width: int) -> Floats:
        out = np.empty((len(ids), width), np.float32)
        # Like lengths together: the padding of a batch is as long as its longest text.
        order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
        with bounded(), torch.inference_mode():
            for start in range(0, len(order), SERVE_BATCH):
                part = order[start : start + SERVE_BATCH]
                out[part] = compute([ids[i] for i in part]).float().cpu().numpy()
        return out

    def copy(self) -> TransformerScorer:
        """An independent copy; the token embeddings, which never change, are shared."""
        fixed = self.body.embeddings
        body = copy.deepcopy(self.body, {id(fixed): fixed})
        return TransformerScorer(body, copy.deepcopy(self.head), self.tokenizer, self.shape)

    def state(self) -> State:
        """Shape and tokenizer as JSON values; all weights, the token embeddings included."""
        weights = {f"body.{name}": value for name, value in self.body.state_dict().items()}
        weights |= {f"head.{name}": value for name, value in self.head.state_dict().items()}
        settings = {
            "shape": msgspec.structs.asdict(self.shape),
            "tokenizer": json.loads(self.tokenizer.to_str()),
        }
        return settings, {name: value.cpu().numpy() for name, value in weights.items()}

    @classmethod
    def restore(
        cls, settings: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]
    ) -> TransformerScorer:
        """Rebuild from :meth:`state`.

        Raises:
            ArtifactError: The settings are no BERT's, or the arrays do not fit them.
            KeyError: A part is missing.
        """
        bias = arrays["head.bias"]
        try:
            shape = msgspec.convert(settings["shape"], Shape)
            body, head = shape.build(), torch.nn.Linear(shape.hidden_size, len(bias))
            parts = {"body": body, "head": head}
            for part, module in parts.items():
                found = {
                    name.removeprefix(f"{part}."): torch.from_numpy(np.array(value))
                    for name, value in arrays.items()
                    if name.startswith(f"{part}.")
                }
                module.load_state_dict(found)
        except (msgspec.MsgspecError, RuntimeError, ValueError) as error:
            raise ArtifactError(
                f"The transformer's files do not fit together: {error}.",
                remedy="Fetch the artifact again.",
            ) from error
        words = settings["tokenizer"]
        if not isinstance(words, dict) or "model" not in words:
            raise ArtifactError(
                "The transformer's tokenizer has no model.", remedy="Fetch the artifact again."
            )
        tokenizer = Tokenizer.from_str(json.dumps(words))
        return cls(body, head, tokenizer, shape).on("cuda" if torch.cuda.is_available() else "cpu")


def soft_cross_entropy(logits: Any, targets: Any, weights: Any, *, multilabel: bool) -> Any:
    """Mean over a batch of ``weight * loss``, nats.

    Args:
        logits: ``[n, classes]``.
        targets: Shares of each class ``[n, classes]``; rows sum to 1 unless ``multilabel``.
        weights: ``[n]``; of mean 1 over the whole lesson.
        multilabel: One sigmoid per class, whose losses are summed, instead of one softmax.
    """
    if multilabel:
        each = functional.binary_cross_entropy_with_logits(logits, targets, reduction="none")
        each = each.sum(dim=1)
    else:
        each = -(targets * functional.log_softmax(logits, dim=1)).sum(dim=1)
    return (weights * each).mean()


class _Training:
    """Optimizer and schedule of one fine-tuning; ``steps`` is the length of the whole schedule."""

    def __init__(self, scorer: TransformerScorer, lesson: Lesson, steps: int) -> None:
        self.scorer, self.multilabel = scorer, lesson.multilabel
        device = scorer.head.weight.device
        self.targets = torch.from_numpy(as_matrix(lesson.targets, lesson.classes)).to(device)
        weights = (lesson.weights / lesson.weights.mean()).astype(np.float32)
        self.weights = torch.from_numpy(weights).to(device)
        scorer.body.embeddings.requires_grad_(False)
        moving = [p for p in scorer.body.parameters() if p.requires_grad]
        self.moving = [*moving, *scorer.head.parameters()]
        self.optimizer = torch.optim.AdamW(self.moving, lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY)
        self.schedule = torch.optim.lr_scheduler.LambdaLR(
            self.optimizer, lambda step: rate_share(step, steps)
        )

    def step(self, batch: NDArray[Any], ids: Ids) -> None:
        """One step on the texts at these positions."""
        scorer = self.scorer
        scorer.body.train()
        logits = scorer.head(scorer.vectors([ids[i] for i in batch]))
        loss = soft_cross_entropy(
            logits, self.targets[batch], self.weights[batch], multilabel=self.multilabel
        )
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.moving, CLIP)
        self.optimizer.step()
        self.schedule.step()
        scorer.body.eval()


def fine_tune(
    base: Base, lesson: Lesson, epochs: Sequence[float], *, of: float
) -> list[TransformerScorer]:
    """Fine-tune once, and keep what it was after each of these numbers of epochs.

    Args:
        base: Where it starts; it is not changed.
        lesson: What it learns.
        epochs: When to keep a copy; 0 is the linear probe.
        of: Epochs that the schedule of the learning rate is made for, at least ``max(epochs)``.

    Returns:
        One scorer for each number of epochs.
    """
    n = len(lesson.inputs)
    per_epoch = -(-n // BATCH)
    wanted = [round(number * per_epoch) for number in epochs]
    kept: dict[int, TransformerScorer] = {}
    with bounded(), seeded(lesson.seed):
        scorer = TransformerScorer.of(base, lesson.classes)
        ids = scorer.tokens(lesson.inputs.texts)
        _probe(scorer, ids, lesson)
        training = _Training(scorer, lesson, max(1, round(of * per_epoch)))
        rng = np.random.default_rng(lesson.seed)
        lengths = np.array([len(row) for row in ids])
        done = 0
        while True:
            for batch in by_length(lengths, BATCH, rng):
                if done in wanted:
                    kept[done] = scorer.copy()
                if done == max(wanted):
                    return [kept[number] for number in wanted]
                training.step(batch, ids)
                done += 1


def seconds_per_text(base: Base, lesson: Lesson) -> float:
    """Time of a training step on this lesson for each text: three batches, after one to warm up."""
    with bounded(), seeded(lesson.seed):
        scorer = TransformerScorer.of(base, lesson.classes)
        ids = scorer.tokens(lesson.inputs.texts)
        lengths = np.array([len(row) for row in ids])
        batches = by_length(lengths, BATCH, np.random.default_rng(lesson.seed))
        training = _Training(scorer, lesson, 10)
        training.step(batches[0], ids)
        timed = batches[:3]
        started = time.perf_counter()
        for batch in timed:
            training.step(batch, ids)
        return (time.perf_counter() - started) / sum(map(len, timed))


def _probe(scorer: TransformerScorer, ids: Ids, lesson: Lesson) -> None:
    """Set the head to logistic regression on the encoder's vectors."""
    [([coefficients], bias)] = fit_logistic(
        [scorer.embed(ids)],
        as_matrix(lesson.targets, lesson.classes),
        lesson.weights,
        multilabel=lesson.multilabel,
        strengths=[PROBE],
    )
    with torch.no_grad():
        scorer.head.weight.copy_(torch.from_numpy(np.ascontiguousarray(coefficients.T)))
        scorer.head.bias.copy_(torch.from_numpy(bias))
