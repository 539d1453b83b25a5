"""Sentence encoders as ONNX files, run by ONNX Runtime.

A folder holds ``model.onnx`` (a transformer that gives token states, or already one row per text) and
``tokenizer.json``. Texts are cut at ``max_tokens``, padded within batches of like length, and the token
states are pooled by the mean (Reimers and Gurevych 2019) or by the first token (CLS), whichever the
model was trained with; the wrong one gives plausible but worse vectors.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as onnx_errors

from pilotfish.config import Config
from pilotfish.errors import ConfigError
from pilotfish.models.protocols import Floats
from pilotfish.models.settings import read_settings
from pilotfish.models.static import (
    clean,
    fingerprint,
    model_folder,
    read_tokenizer,
    unit_rows,
)

Positive = Annotated[int, msgspec.Meta(ge=1)]

# They have no base of their own below Exception.
_LOAD_ERRORS = (
    onnx_errors.Fail,
    onnx_errors.InvalidArgument,
    onnx_errors.InvalidGraph,
    onnx_errors.InvalidProtobuf,
    onnx_errors.NoModel,
    onnx_errors.NoSuchFile,
    onnx_errors.NotImplemented,
    onnx_errors.RuntimeException,
)

POOLING: dict[str, Literal["mean", "cls"]] = {"bge-small-en-v1.5": "cls"}
CHARS_PER_TOKEN = 32  # generous: no text needs more to fill max_tokens, and a megabyte is cut first


class OnnxSettings(msgspec.Struct, kw_only=True, frozen=True):
    """What the ONNX encoder can be told.

    Attributes:
        pooling: ``"mean"``, ``"cls"``, or "": what the model's folder or the catalogue says, else mean.
        max_tokens: Tokens of a text that are read, special ones included.
        batch_size: Texts per run.
        threads: Threads per run; 0: as many as there are cores.
    """

    pooling: Literal["mean", "cls", ""] = ""
    max_tokens: Positive = 512
    batch_size: Positive = 32
    threads: Annotated[int, msgspec.Meta(ge=0)] = 0


class OnnxNetwork:
    """A transformer's first output for batches of token lists. Threads may share one.

    Args:
        path: The ONNX file.
        threads: Threads per run; 0: as many as there are cores.

    Raises:
        ConfigError: The file cannot be loaded, or does not take tokens.
    """

    def __init__(self, path: Path, threads: int) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except _LOAD_ERRORS as e:
            raise ConfigError(f"{path} cannot be loaded: {e}.") from e
        self._inputs = {i.name for i in self._session.get_inputs()}
        if "input_ids" not in self._inputs:
            raise ConfigError(
                f"{path} takes {', '.join(sorted(self._inputs))}, but expected input_ids."
            )

    def __call__(self, tokens: Sequence[Sequence[int]]) -> tuple[Floats, NDArray[np.int64]]:
        """Its output ``[n, longest, ...]``, and where tokens stand: ``[n, longest]`` of 1 and 0.

        Args:
            tokens: Lists of at least one token each; shorter ones are padded.
        """
        width = max(map(len, tokens))
        ids = np.zeros((len(tokens), width), np.int64)
        mask = np.zeros_like(ids)
        for row, sequence in enumerate(tokens):
            ids[row, : len(sequence)] = sequence
            mask[row, : len(sequence)] = 1
        feeds = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
        found = self._session.run(None, {k: v for k, v in feeds.items() if k in self._inputs})[0]
        return np.asarray(found, np.float32), mask


class OnnxEncoder:
    """Token states of an ONNX model, pooled to unit rows. Threads may share one.

    Args:
        folder: Holds ``model.onnx`` and ``tokenizer.json``.
        name: The name it goes by: the spec that loads it again.
        settings: See :class:`OnnxSettings`.

    Attributes:
        name: As given.
        dim: Length of a row.

    Raises:
        ConfigError: A file is missing or is not of the expected form.
    """

    def __init__(
        self, folder: Path, *, name: str = "", settings: OnnxSettings | None = None
    ) -> None:
        settings = settings or OnnxSettings()
        self.name = name or f"onnx:{folder}"
        self._settings = settings
        self._folder = folder
        self._pooling = settings.pooling or _pooling_of(folder)
        self._tokenizer = read_tokenizer(folder / "tokenizer.json")
        self._tokenizer.no_padding()
        self._tokenizer.enable_truncation(settings.max_tokens)
        self._network = OnnxNetwork(folder / "model.onnx", settings.threads)
        self.dim = self._run([[0]]).shape[1]

    @classmethod
    def from_spec(cls, rest: str, settings: Mapping[str, Any], config: Config) -> OnnxEncoder:
        """Build the encoder that ``onnx:REST`` names: a catalogue name or a folder.

        Raises:
            MissingModel: A catalogue name that was not pulled.
            ConfigError: No such folder, or a setting is wrong.
        """
        checked = read_settings("onnx", OnnxSettings, settings)
        if not checked.pooling and rest in POOLING:
            checked = msgspec.structs.replace(checked, pooling=POOLING[rest])
        return cls(model_folder(rest, "encoder", config), name=f"onnx:{rest}", settings=checked)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) over weights, tokenizer, pooling and length: equal prints, equal vectors."""
        files = [self._folder / "model.onnx", self._folder / "tokenizer.json"]
        return fingerprint(files, f"onnx {self._pooling} {self._settings.max_tokens}")

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit rows ``[n, dim]``, float32; only the first ``max_tokens`` tokens of a text count.

        An empty text is a zero row, as with every encoder here, though the model would give its special
        tokens a vector.
        """
        limit = self._settings.max_tokens * CHARS_PER_TOKEN
        cut = [clean(text[:limit]) for text in texts]
        rows = np.zeros((len(cut), self.dim), np.float32)
        tokens = [encoding.ids for encoding in self._tokenizer.encode_batch_fast(cut)]
        # Like lengths together: the padding of a batch is as long as its longest text.
        order = sorted(
            (i for i, text in enumerate(cut) if text.strip() and tokens[i]),
            key=lambda i: len(tokens[i]),
        )
        size = self._settings.batch_size
        for start in range(0, len(order), size):
            batch = order[start : start + size]
            rows[batch] = unit_rows(self._run([tokens[i] for i in batch]))
        return rows

    def _run(self, tokens: Sequence[Sequence[int]]) -> Floats:
        """Pooled states ``[n, dim]`` of token lists that are not empty."""
        states, mask = self._network(tokens)
        return _pool(states, mask, self._pooling)


def _pool(states: Floats, mask: NDArray[np.int64], pooling: str) -> Floats:
    """``[n, tokens, dim]`` to ``[n, dim]``; rows that are pooled already stay as they are."""
    if states.ndim == 2:
        return states
    if pooling == "cls":
        return np.ascontiguousarray(states[:, 0])
    weight = mask[..., None].astype(np.float32)
    return np.asarray((states * weight).sum(axis=1) / weight.sum(axis=1), np.float32)


def _pooling_of(folder: Path) -> str:
    """What a sentence-transformers folder says of its pooling; without one, the mean."""
    file = folder / "1_Pooling" / "config.json"
    if not file.exists():
        return "mean"
    return "cls" if json.loads(file.read_text("utf-8")).get("pooling_mode_cls_token") else "mean"
