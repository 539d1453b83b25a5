"""A tiny Llama in GGUF, written in milliseconds, and the same network in NumPy as the oracle.

262 tokens: the 256 bytes, a few merges, and the control tokens of ChatML. Two layers, width 32, random
weights of a fixed seed, scaled so that the next token's distribution is neither flat nor certain.
"""

from __future__ import annotations

from pathlib import Path

import gguf
import numpy as np

DIM, LAYERS, HEADS, KV_HEADS, FFN, CONTEXT = 32, 2, 4, 2, 48, 512
EPSILON, ROPE_BASE = 1e-5, 10000.0
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
MERGES = ["t h", "e r", "a b"]
BOS, START, END = 0, 1, 2
CHATML = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def byte_names() -> dict[int, str]:
    """GPT-2's printable name of each byte: itself where it can be seen, else a letter from U+0100."""
    seen = [*range(33, 127), *range(161, 173), *range(174, 256)]
    names = {b: chr(b) for b in seen}
    hidden = [b for b in range(256) if b not in names]
    return names | {b: chr(256 + i) for i, b in enumerate(hidden)}


def vocabulary() -> list[str]:
    merged = [merge.replace(" ", "") for merge in MERGES]
    return [*SPECIAL, *byte_names().values(), *merged]


def random_weights(seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    kv = DIM // HEADS * KV_HEADS
    n = len(vocabulary())

    def matrix(out: int, into: int, gain: float = 1.0) -> np.ndarray:
        return (rng.standard_normal((out, into)) * gain / np.sqrt(into)).astype(np.float32)

    def norm() -> np.ndarray:
        return (1 + 0.1 * rng.standard_normal(DIM)).astype(np.float32)

    weights = {"token_embd": matrix(n, DIM, np.sqrt(DIM)), "output_norm": norm()}
    weights["output"] = matrix(n, DIM, 2.0)
    for i in range(LAYERS):
        weights |= {
            f"blk.{i}.attn_norm": norm(),
            f"blk.{i}.attn_q": matrix(DIM, DIM, 1.5),
            f"blk.{i}.attn_k": matrix(kv, DIM, 1.5),
            f"blk.{i}.attn_v": matrix(kv, DIM),
            f"blk.{i}.attn_output": matrix(DIM, DIM),
            f"blk.{i}.ffn_norm": norm(),
            f"blk.{i}.ffn_gate": matrix(FFN, DIM),
            f"blk.{i}.ffn_up": matrix(FFN, DIM),
            f"blk.{i}.ffn_down": matrix(DIM, FFN),
        }
    return weights


def write(path: Path, weights: dict[str, np.ndarray], *, template: str | None = CHATML) -> Path:
    writer = gguf.GGUFWriter(str(path), "llama")
    writer.add_name("tiny")
    writer.add_context_length(CONTEXT)
    writer.add_embedding_length(DIM)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(FFN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KV_HEADS)
    writer.add_rope_dimension_count(DIM // HEADS)
    writer.add_rope_freq_base(ROPE_BASE)
    writer.add_layer_norm_rms_eps(EPSILON)
    tokens = vocabulary()
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    kinds = [gguf.TokenType.CONTROL] * len(SPECIAL)
    writer.add_token_types(kinds + [gguf.TokenType.NORMAL] * (len(tokens) - len(SPECIAL)))
    writer.add_token_merges(MERGES)
    writer.add_bos_token_id(BOS)
    writer.add_eos_token_id(END)
    writer.add_add_bos_token(False)
    if template is not None:
        writer.add_chat_template(template)
    for name, tensor in weights.items():
        writer.add_tensor(f"{name}.weight", tensor)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def forward(weights: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """Logits after each token ``[n, vocab]``, float64."""
    w = {name: tensor.astype(np.float64) for name, tensor in weights.items()}
    x = w["token_embd"][tokens]
    size = DIM // HEADS
    mask = np.triu(np.full((len(tokens), len(tokens)), -np.inf), 1)
    for i in range(LAYERS):
        h = _rms(x, w[f"blk.{i}.attn_norm"])
        q = _rope((h @ w[f"blk.{i}.attn_q"].T).reshape(-1, HEADS, size))
        k = _rope((h @ w[f"blk.{i}.attn_k"].T).reshape(-1, KV_HEADS, size))
        v = (h @ w[f"blk.{i}.attn_v"].T).reshape(-1, KV_HEADS, size)
        k, v = (np.repeat(t, HEADS // KV_HEADS, axis=1) for t in (k, v))
        scores = np.einsum("ihd,jhd->hij", q, k) / np.sqrt(size) + mask
        p = np.exp(scores - scores.max(-1, keepdims=True))
        p /= p.sum(-1, keepdims=True)
        x = x + np.einsum("hij,jhd->ihd", p, v).reshape(len(tokens), -1) @ (
            w[f"blk.{i}.attn_output"].T
        )
        h = _rms(x, w[f"blk.{i}.ffn_norm"])
        gate = h @ w[f"blk.{i}.ffn_gate"].T
        up = h @ w[f"blk.{i}.ffn_up"].T
        x = x + (gate / (1 + np.exp(-gate)) * up) @ w[f"blk.{i}.ffn_down"].T
    return _rms(x, w["output_norm"]) @ w["output"].T


def _rms(x: np.ndarray, gain: np.ndarray) -> np.ndarray:
    return x / np.sqrt((x**2).mean(-1, keepdims=True) + EPSILON) * gain


def _rope(x: np.ndarray) -> np.ndarray:
    """Rotate neighbouring pairs, the layout that GGUF keeps Llama's weights in."""
    n, _, size = x.shape
    angles = np.arange(n)[:, None] * ROPE_BASE ** (-np.arange(0, size, 2) / size)[None, :]
    cos, sin = np.cos(angles)[:, None, :], np.sin(angles)[:, None, :]
    out = np.empty_like(x)
    out[..., 0::2] = x[..., 0::2] * cos - x[..., 1::2] * sin
    out[..., 1::2] = x[..., 0::2] * sin + x[..., 1::2] * cos
    return out
