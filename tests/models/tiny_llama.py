"""The tiny Llama of tiny_gguf as a folder of the transformers library: the same weights and tokens."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from tests.models import tiny_gguf as tiny

NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def halves(weight: np.ndarray, heads: int) -> np.ndarray:
    """GGUF rotates neighbouring rows of a head, transformers those half a head apart."""
    size = weight.shape[0] // heads
    return weight.reshape(heads, size // 2, 2, -1).transpose(0, 2, 1, 3).reshape(weight.shape)


def write(
    folder: Path, weights: dict[str, np.ndarray], *, template: str | None = tiny.CHATML
) -> Path:
    config = LlamaConfig(
        vocab_size=len(tiny.vocabulary()),
        hidden_size=tiny.DIM,
        intermediate_size=tiny.FFN,
        num_hidden_layers=tiny.LAYERS,
        num_attention_heads=tiny.HEADS,
        num_key_value_heads=tiny.KV_HEADS,
        max_position_embeddings=tiny.CONTEXT,
        rms_norm_eps=tiny.EPSILON,
        rope_theta=tiny.ROPE_BASE,
        tie_word_embeddings=False,
        bos_token_id=tiny.BOS,
        eos_token_id=tiny.END,
    )
    model = LlamaForCausalLM(config)
    state = {
        "model.embed_tokens.weight": weights["token_embd"],
        "model.norm.weight": weights["output_norm"],
        "lm_head.weight": weights["output"],
    }
    for name, weight in weights.items():
        if name.startswith("blk."):
            _, layer, part = name.split(".", 2)
            heads = {"attn_q": tiny.HEADS, "attn_k": tiny.KV_HEADS}.get(part)
            state[f"model.layers.{layer}.{NAMES[part]}.weight"] = (
                halves(weight, heads) if heads else weight
            )
    model.load_state_dict({name: torch.tensor(weight) for name, weight in state.items()})
    model.save_pretrained(folder)
    tokens = {token: i for i, token in enumerate(tiny.vocabulary())}
    bpe = Tokenizer(BPE(tokens, [tuple(merge.split()) for merge in tiny.MERGES]))
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        bos_token=tiny.SPECIAL[tiny.BOS],
        eos_token=tiny.SPECIAL[tiny.END],
        additional_special_tokens=[tiny.SPECIAL[tiny.START]],
    )
    fast.chat_template = template
    fast.save_pretrained(folder)
    return folder
