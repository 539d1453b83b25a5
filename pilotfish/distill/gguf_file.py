"""A student as a GGUF file, so that llama.cpp runs it as it runs its teacher.

Tokens, chat template and numbers are those of the teacher's file. Each matrix gets the format that the
teacher's first layer has it in, where the gguf package can write that one, and else 8 bits.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from numpy.typing import NDArray

from pilotfish.errors import ConfigError

_OWN = ("general.architecture", "general.name", "general.size_label", "general.file_type")


def write_gguf(path: Path, network: Any, like: Path, *, name: str) -> Path:
    """Write a causal language model with some of its teacher's layers.

    Args:
        path: Where to.
        network: Of ``transformers``, with a whole output layer.
        like: The teacher's GGUF file.
        name: That the file gives the model.

    Raises:
        ConfigError: The file's kind of model, or one of its parts, is not known to the gguf package.
    """
    reader = GGUFReader(like)
    arch = str(reader.fields["general.architecture"].contents())
    known = {label: kind for kind, label in gguf.MODEL_ARCH_NAMES.items()}
    if arch not in known:
        raise ConfigError(f"{like} holds a model of the kind {arch!r}, which cannot be written.")
    depth = int(network.config.num_hidden_layers)
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    writer = GGUFWriter(str(part), arch)
    writer.add_name(name)
    for key, field in reader.fields.items():
        if key.startswith("GGUF.") or key in _OWN:
            continue
        value = depth if key == f"{arch}.block_count" else field.contents()
        kinds = field.types
        writer.add_key_value(key, value, kinds[0], kinds[-1] if len(kinds) > 1 else None)
    formats = {tensor.name: tensor.tensor_type for tensor in reader.tensors}
    names = gguf.get_tensor_name_map(known[arch], depth)
    for hugging, weight in _weights(network, arch):
        label = names.get_name(hugging, try_suffixes=(".weight", ".bias"))
        if label is None:
            raise ConfigError(f"The gguf package has no name for {hugging} in a model of {arch}.")
        wanted = formats.get(_of_first_layer(label), formats["token_embd.weight"])
        data, kind = _quantised(weight, wanted)
        writer.add_tensor(label, data, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    part.replace(path)
    return path


def _weights(network: Any, arch: str) -> Iterator[tuple[str, NDArray[np.float32]]]:
    config = network.config
    heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
    for name, value in network.state_dict().items():
        weight = value.float().cpu().numpy()
        part = name.split(".")[-2]
        if arch == "llama" and part in heads:
            weight = _neighbours(weight, heads[part])
        yield name, weight


def _neighbours(weight: NDArray[Any], heads: int) -> NDArray[Any]:
    """GGUF's Llama rotates neighbouring rows of a head, transformers those half a head apart."""
    size = weight.shape[0] // heads
    halves = weight.reshape(heads, 2, size // 2, *weight.shape[1:])
    return halves.swapaxes(1, 2).reshape(weight.shape)


def _of_first_layer(label: str) -> str:
    parts = label.split(".")
    return ".".join(["blk", "0", *parts[2:]]) if parts[0] == "blk" else label


def _quantised(
    weight: NDArray[np.float32], wanted: GGMLQuantizationType
) -> tuple[NDArray[Any], GGMLQuantizationType]:
    kinds = GGMLQuantizationType
    if weight.ndim == 1:
        return weight, kinds.F32
    for kind in (wanted, kinds.Q8_0):
        try:
            return gguf.quants.quantize(weight, kind), kind
        except (NotImplementedError, gguf.quants.QuantError):
            continue
    return weight, kinds.F32
