"""llama.cpp's C library: its declarations, and the check that they fit the library that is installed.

The wheel ``xllamacpp`` brings one shared library that exports the ``llama_*`` C functions; its own Python
face has no raw logits, so they are declared here with ctypes. The declarations are written for exactly
:data:`BUILD`, whose structs are passed by value: another build would read them at other offsets.
:func:`library` therefore refuses any other build, and checks the defaults that the library returns
against those this build is known to return, field by field. :mod:`pilotfish.models.llama_runtime` is the
only caller.

llama.cpp's log goes nowhere; its last error lines are quoted in exceptions (:func:`reasons`).
"""

from __future__ import annotations

import ctypes as c
import functools
import importlib.metadata
import importlib.util
from collections import deque
from pathlib import Path
from typing import Any, NoReturn

from pilotfish.errors import ConfigError

BUILD = "2026.10.11549"
VERSION = "0.6.0-dev"
MAX_SEQUENCES = 256
"""How many sequences one context can tell apart (a constant of the build)."""

_LOG_ERROR = 4
# A C++ function of three pointers, so its name carries their types; not in llama.h.
LLGUIDANCE = "_Z22llama_sampler_init_llgPK11llama_vocabPKcS3_"
_errors: deque[str] = deque(maxlen=4)

Pointer = c.c_void_p


class ModelParams(c.Structure):
    """``llama_model_params``."""

    _fields_ = (
        *((name, Pointer) for name in ("devices", "tensor_buft_overrides")),
        *((name, c.c_int32) for name in ("n_gpu_layers", "split_mode", "load_mode", "lazy_mode")),
        ("main_gpu", c.c_int32),
        *(
            (name, Pointer)
            for name in ("tensor_split", "progress", "progress_data", "kv_overrides")
        ),
        *((name, c.c_bool) for name in ("vocab_only", "check_tensors", "use_extra_bufts")),
        *((name, c.c_bool) for name in ("no_host", "no_alloc", "load_mtp")),
    )


class ContextParams(c.Structure):
    """``llama_context_params``; ``unnamed`` is a pointer that llama.h of older builds lacks."""

    _fields_ = (
        *((name, c.c_uint32) for name in ("n_ctx", "n_batch", "n_ubatch", "n_seq_max", "n_rs_seq")),
        *((name, c.c_uint32) for name in ("n_outputs_max", "n_outputs_max_per_seq")),
        *((name, c.c_int32) for name in ("n_threads", "n_threads_batch", "ctx_type")),
        *((name, c.c_int32) for name in ("rope_scaling_type", "pooling_type", "attention_type")),
        ("flash_attn_type", c.c_int32),
        *((name, c.c_float) for name in ("rope_freq_base", "rope_freq_scale", "yarn_ext_factor")),
        *((name, c.c_float) for name in ("yarn_attn_factor", "yarn_beta_fast", "yarn_beta_slow")),
        ("yarn_orig_ctx", c.c_uint32),
        ("defrag_thold", c.c_float),
        *((name, Pointer) for name in ("cb_eval", "cb_eval_data")),
        *((name, c.c_int32) for name in ("type_k", "type_v")),
        *((name, Pointer) for name in ("abort_callback", "abort_callback_data", "unnamed")),
        *((name, c.c_bool) for name in ("embeddings", "offload_kqv", "no_perf", "op_offload")),
        *((name, c.c_bool) for name in ("swa_full", "kv_unified")),
        ("samplers", Pointer),
        ("n_samplers", c.c_size_t),
        ("ctx_other", Pointer),
    )


class Batch(c.Structure):
    """``llama_batch``."""

    _fields_ = (
        ("n_tokens", c.c_int32),
        *((name, Pointer) for name in ("token", "embd", "pos", "n_seq_id", "seq_id", "logits")),
    )


class TokenDataArray(c.Structure):
    """``llama_token_data_array``."""

    _fields_ = (
        ("data", Pointer),
        ("size", c.c_size_t),
        ("selected", c.c_int64),
        ("sorted", c.c_bool),
    )


# name: (result, arguments); b bool, i int32, u uint32, p pointer, s char*, z size_t
_PROTOTYPES = {
    "llama_version": "s",
    "llama_backend_init": "-",
    "llama_model_free": "-p",
    "llama_free": "-p",
    "llama_n_ctx": "up",
    "llama_n_batch": "up",
    "llama_get_memory": "pp",
    "llama_get_logits": "pp",
    "llama_set_n_threads": "-pii",
    "llama_model_get_vocab": "pp",
    "llama_model_n_ctx_train": "ip",
    "llama_model_chat_template": "sps",
    "llama_model_meta_val_str": "ipspz",
    "llama_model_desc": "ippz",
    "llama_model_has_encoder": "bp",
    "llama_model_is_recurrent": "bp",
    "llama_model_is_hybrid": "bp",
    "llama_vocab_n_tokens": "ip",
    "llama_vocab_bos": "ip",
    "llama_vocab_eos": "ip",
    "llama_vocab_get_add_bos": "bp",
    "llama_vocab_get_text": "spi",
    "llama_vocab_is_eog": "bpi",
    "llama_vocab_is_control": "bpi",
    "llama_tokenize": "ipsipibb",
    "llama_token_to_piece": "ipipiib",
    "llama_memory_clear": "-pb",
    "llama_memory_seq_rm": "bpiii",
    "llama_memory_seq_cp": "-piiii",
    "llama_sampler_init_grammar": "ppss",
    LLGUIDANCE: "ppss",
    "llama_sampler_apply": "-pp",
    "llama_sampler_accept": "-pi",
    "llama_sampler_free": "-p",
}
_TYPES = {
    "-": None,
    "b": c.c_bool,
    "i": c.c_int32,
    "u": c.c_uint32,
    "p": Pointer,
    "s": c.c_char_p,
    "z": c.c_size_t,
}
_LogCallback = c.CFUNCTYPE(None, c.c_int, c.c_char_p, Pointer)

_MODEL_DEFAULTS: dict[str, float] = {
    "n_gpu_layers": -1,
    "split_mode": 1,
    "load_mode": -1,
    "lazy_mode": 1,
    "main_gpu": 0,
    "vocab_only": 0,
    "use_extra_bufts": 1,
    "no_alloc": 0,
    "load_mtp": 0,
}
_CONTEXT_DEFAULTS: dict[str, float] = {
    "n_ctx": 512,
    "n_batch": 2048,
    "n_ubatch": 512,
    "n_seq_max": 1,
    "n_threads": 4,
    "n_outputs_max": 0,
    "n_outputs_max_per_seq": 1,
    "n_threads_batch": 4,
    "ctx_type": 0,
    "rope_scaling_type": -1,
    "flash_attn_type": -1,
    "rope_freq_base": 0,
    "defrag_thold": -1,
    "yarn_ext_factor": -1,
    "yarn_beta_slow": -1,
    "type_k": 1,
    "type_v": 1,
    "embeddings": 0,
    "offload_kqv": 1,
    "no_perf": 1,
    "op_offload": 1,
    "swa_full": 1,
    "kv_unified": 0,
}
_KNOWN_DEFAULTS = {"model": _MODEL_DEFAULTS, "context": _CONTEXT_DEFAULTS}


def _keep(level: int, text: bytes, _: Any) -> None:
    if level == _LOG_ERROR:
        _errors.append(text.decode("utf-8", "replace").strip())


_keep_errors = _LogCallback(_keep)


def forget_reasons() -> None:
    """Drop what was logged so far, before a call whose errors are to be quoted."""
    _errors.clear()


def reasons() -> str:
    """What llama.cpp logged as errors since, as a sentence; "" for nothing."""
    text = "; ".join(_errors)
    _errors.clear()
    return f" llama.cpp says: {text}" if text else ""


def _refuse(found: str) -> NoReturn:
    raise ConfigError(
        f"Got the llama.cpp library {found}, but its declarations here are for xllamacpp {BUILD}.",
        remedy=f"pip install xllamacpp=={BUILD}",
    )


@functools.cache
def library() -> Any:
    """The shared library with typed functions, loaded and checked once.

    Raises:
        ConfigError: It is not installed, or is another build than :data:`BUILD`.
    """
    spec = importlib.util.find_spec("xllamacpp")
    if spec is None or spec.origin is None:
        raise ConfigError(
            "Models in process need xllamacpp, which is not installed.",
            remedy=f"pip install xllamacpp=={BUILD}",
        )
    found = importlib.metadata.version("xllamacpp")
    files = [*Path(spec.origin).parent.glob("xllamacpp*.so")]
    if found != BUILD or not files:
        _refuse(found)
    lib = c.CDLL(str(files[0]))
    for name, types in _PROTOTYPES.items():
        function = getattr(lib, name, None)
        if function is None:
            _refuse(f"without {name}")
        function.restype = _TYPES[types[0]]
        function.argtypes = [_TYPES[t] for t in types[1:]]
    lib.llama_log_set.argtypes = [_LogCallback, Pointer]
    lib.llama_log_set(_keep_errors, None)
    for kind, params in (("model", ModelParams), ("context", ContextParams)):
        getattr(lib, f"llama_{kind}_default_params").restype = params
        values = getattr(lib, f"llama_{kind}_default_params")()
        got = {name: float(getattr(values, name)) for name in _KNOWN_DEFAULTS[kind]}
        if got != _KNOWN_DEFAULTS[kind]:
            _refuse(f"with other {kind} defaults: {got}")
    version = lib.llama_version().decode()
    if version != VERSION:
        _refuse(version)
    lib.llama_model_load_from_file.restype = Pointer
    lib.llama_model_load_from_file.argtypes = [c.c_char_p, ModelParams]
    lib.llama_init_from_model.restype = Pointer
    lib.llama_init_from_model.argtypes = [Pointer, ContextParams]
    lib.llama_decode.restype = c.c_int32
    lib.llama_decode.argtypes = [Pointer, Batch]
    lib.llama_backend_init()
    return lib
