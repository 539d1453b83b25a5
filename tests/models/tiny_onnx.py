"""A tiny sentence encoder in ONNX, written in milliseconds: each byte has a random vector."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

DIM = 16


def write_encoder(folder: Path, seed: int = 0) -> Path:
    """Write ``model.onnx`` and ``tokenizer.json``; returns the folder."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(
        models.BPE(vocab={letter: i for i, letter in enumerate(alphabet)}, merges=[])
    )
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.save(str(folder / "tokenizer.json"))
    assert json.loads((folder / "tokenizer.json").read_text("utf-8"))["model"]

    matrix = np.random.default_rng(seed).normal(size=(len(alphabet), DIM)).astype(np.float32)
    _save_rows(folder, matrix, ("input_ids", "attention_mask"), "states")
    return folder


LABELS = ("O", "B-NAME", "I-NAME", "B-NUMBER", "I-NUMBER")


def write_tagger(folder: Path) -> Path:
    """Write a tagger that looks at single characters: A to M begin a name, N to Z go on with one, digits
    are a number. Its tokens are characters, its words those between blanks and marks."""
    alphabet = ["?", *map(chr, range(33, 127)), "é"]
    tokenizer = Tokenizer(
        models.BPE(
            vocab={letter: i for i, letter in enumerate(dict.fromkeys(alphabet))},
            merges=[],
            unk_token="?",
        )
    )
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {str(i): label for i, label in enumerate(LABELS)}
    (folder / "config.json").write_text(json.dumps({"id2label": names}))

    matrix = np.zeros((len(alphabet), len(LABELS)), np.float32)
    for letter, i in tokenizer.get_vocab().items():
        label = 0
        if letter.isdigit():
            label = 4
        elif letter.isascii() and letter.isupper():
            label = 1 if letter <= "M" else 2
        matrix[i, label] = 4.0  # the label has a probability of 0.93, each other one 0.017
    _save_rows(folder, matrix, ("input_ids",), "logits")
    return folder


def _save_rows(folder: Path, matrix: np.ndarray, inputs: Sequence[str], output: str) -> None:
    """A network that gives each token its row of a matrix."""
    graph = helper.make_graph(
        [helper.make_node("Gather", ["matrix", "input_ids"], [output])],
        "tiny",
        [helper.make_tensor_value_info(name, TensorProto.INT64, ["n", "t"]) for name in inputs],
        [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["n", "t", matrix.shape[1]])],
        [numpy_helper.from_array(matrix, "matrix")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(folder / "model.onnx"))
