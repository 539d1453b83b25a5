"""A loaded GGUF model and its context, as Python objects over :mod:`pilotfish.models.llama_c`.

:class:`Weights` is the file: tensors, tokenizer, metadata. :class:`Context` computes. Both check what
they loaded: a tokenizer round trip, finite first logits.
"""

from __future__ import annotations

import ctypes as c
import time
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ConfigError, ModelError, RequestRefused
from pilotfish.models.llama_c import (
    LLGUIDANCE,
    MAX_SEQUENCES,
    Batch,
    TokenDataArray,
    forget_reasons,
    library,
    reasons,
)
from pilotfish.models.llama_threads import FEWEST_TOKENS, ThreadChoice

Floats = NDArray[np.float32]


class Weights:
    """A loaded GGUF file: its weights, tokenizer and metadata.

    Args:
        path: The file.

    Raises:
        ConfigError: Wrong build of the library, no such file, not a GGUF file, or a model without a
            decoder that keeps a cache of positions.
    """

    def __init__(self, path: Path) -> None:
        self._lib = library()
        try:
            with path.open("rb") as file:
                magic = file.read(4)
        except OSError as error:
            raise ConfigError(
                f"Cannot read the model file {str(path)!r}: {error.strerror}."
            ) from error
        if magic != b"GGUF":
            raise ConfigError(f"{path} is not a GGUF file: it begins with {magic!r}, not b'GGUF'.")
        self.path = path
        params = self._lib.llama_model_default_params()
        forget_reasons()
        self.handle = self._lib.llama_model_load_from_file(str(path).encode(), params)
        if not self.handle:
            raise ConfigError(f"llama.cpp cannot load {path}.{reasons()}")
        self._free = weakref.finalize(self, self._lib.llama_model_free, self.handle)
        self._vocab = self._lib.llama_model_get_vocab(self.handle)
        self.vocab = int(self._lib.llama_vocab_n_tokens(self._vocab))
        self.trained_context = int(self._lib.llama_model_n_ctx_train(self.handle))
        self.bos = int(self._lib.llama_vocab_bos(self._vocab))
        self.eos = int(self._lib.llama_vocab_eos(self._vocab))
        self.adds_bos = bool(self._lib.llama_vocab_get_add_bos(self._vocab)) and self.bos >= 0
        template = self._lib.llama_model_chat_template(self.handle, None)
        self.chat_template: str | None = template.decode() if template else None
        if self._lib.llama_model_has_encoder(self.handle) or self._recurrent():
            self.close()
            raise ConfigError(
                f"{path} holds an encoder-decoder or recurrent model, but expected a decoder whose "
                "cache can be rewound.",
                remedy="Serve it with a llama.cpp server and use the openai backend.",
            )
        self._pieces: dict[int, bytes] = {}
        probe = "Round trip 1."
        back = b"".join(self.token_bytes(t) for t in self.tokenize(probe)).decode(
            "utf-8", "replace"
        )
        if back.strip() != probe:
            self.close()
            raise ConfigError(f"The tokenizer of {path} turns {probe!r} into {back!r}.")

    def _recurrent(self) -> bool:
        is_recurrent = self._lib.llama_model_is_recurrent(self.handle)
        return bool(is_recurrent or self._lib.llama_model_is_hybrid(self.handle))

    def close(self) -> None:
        """Free the memory now rather than with the object; calling it twice is harmless."""
        self._free()

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """Tokens of a text, without a beginning-of-sequence token."""
        raw = text.encode("utf-8", "replace")
        room = len(raw) + 8
        while True:
            buffer = (c.c_int32 * room)()
            n = self._lib.llama_tokenize(
                self._vocab, raw, len(raw), c.byref(buffer), room, False, special
            )
            if n >= 0:
                return list(buffer[:n])
            room = -n

    def token_bytes(self, token: int) -> bytes:
        """The bytes of a token; b"" for control tokens."""
        if token not in self._pieces:
            self._pieces[token] = self._piece(token)
        return self._pieces[token]

    def _piece(self, token: int) -> bytes:
        if not 0 <= token < self.vocab:
            raise RequestRefused(f"Got token {token}, but expected one in [0, {self.vocab}).")
        room = 64
        while True:
            buffer = c.create_string_buffer(room)
            n = self._lib.llama_token_to_piece(self._vocab, token, c.byref(buffer), room, 0, False)
            if n >= 0:
                return buffer.raw[:n]
            room = -n

    def token_text(self, token: int) -> str:
        """How the vocabulary writes a token, control tokens included ("" for none)."""
        return (
            str(self._lib.llama_vocab_get_text(self._vocab, token).decode()) if token >= 0 else ""
        )

    def ends(self, token: int) -> bool:
        """Whether this token ends a turn or the text."""
        return bool(self._lib.llama_vocab_is_eog(self._vocab, token))

    def metadata(self, key: str) -> str | None:
        """A metadata value of the file as text, or None."""
        buffer = c.create_string_buffer(4096)
        n = self._lib.llama_model_meta_val_str(self.handle, key.encode(), c.byref(buffer), 4096)
        return buffer.value.decode("utf-8", "replace") if n >= 0 else None

    def grammar(self, text: str) -> Grammar:
        """A sampler for a grammar in llama.cpp's notation (GBNF), starting at ``root``."""
        forget_reasons()
        handle = self._lib.llama_sampler_init_grammar(self._vocab, text.encode(), b"root")
        if not handle:
            raise RequestRefused(f"llama.cpp cannot read the grammar.{reasons()}")
        return Grammar(self._lib, handle)

    def json_grammar(self, schema: str) -> Grammar:
        """A sampler for the JSON values of a JSON schema, by the library's llguidance."""
        forget_reasons()
        text = "%llguidance {}\nstart: %json " + schema
        handle = getattr(self._lib, LLGUIDANCE)(self._vocab, b"lark", text.encode())
        if not handle:
            raise RequestRefused(f"llguidance cannot read the JSON schema.{reasons()}")
        grammar = Grammar(self._lib, handle)
        # A schema that did not compile gives a sampler that allows everything, and no error.
        if np.isfinite(grammar.mask(np.zeros(self.vocab, dtype=np.float32))).all():
            grammar.close()
            raise RequestRefused(
                f"llguidance cannot use this JSON schema: {schema:.200}",
                remedy="Its reason was written to stderr; check the types and keywords.",
            )
        return grammar


class Grammar:
    """Which tokens may come next; made by :meth:`Weights.grammar`."""

    def __init__(self, lib: Any, handle: int) -> None:
        self._lib = lib
        self._handle: int | None = handle

    def mask(self, logits: Floats) -> Floats:
        """A copy of ``[vocab]`` logits with -inf for tokens that may not come next."""
        rows = np.zeros(len(logits), dtype=[("id", "<i4"), ("logit", "<f4"), ("p", "<f4")])
        rows["id"] = np.arange(len(logits))
        rows["logit"] = logits
        array = TokenDataArray(rows.ctypes.data, len(rows), -1, False)
        self._lib.llama_sampler_apply(self._handle, c.byref(array))
        masked = np.full(len(logits), -np.inf, dtype=np.float32)
        masked[rows["id"][: array.size]] = rows["logit"][: array.size]
        return masked

    def accept(self, token: int) -> None:
        """Advance by the token that was chosen."""
        self._lib.llama_sampler_accept(self._handle, token)

    def close(self) -> None:
        """Free it."""
        if self._handle:
            self._lib.llama_sampler_free(self._handle)
            self._handle = None


class Context:
    """A cache of ``n_ctx`` cells that up to :data:`MAX_SEQUENCES` sequences share.

    The cache is unified: copying a sequence only marks its cells as shared, so forks and common
    prefixes cost nothing. Not thread safe.

    Args:
        weights: The model.
        n_ctx: Cells, over all sequences.
        threads: How many threads each batch gets.
    """

    def __init__(self, weights: Weights, n_ctx: int, threads: ThreadChoice) -> None:
        self._lib = library()
        params = self._lib.llama_context_default_params()
        params.n_ctx = n_ctx
        params.n_batch = params.n_ubatch = self.batch = min(512, n_ctx)
        params.n_outputs_max_per_seq = self.batch
        params.n_seq_max = MAX_SEQUENCES
        self._threads = threads
        params.n_threads = params.n_threads_batch = threads.candidates[0]
        params.kv_unified = True
        forget_reasons()
        self._weights = weights
        self.handle = self._lib.llama_init_from_model(weights.handle, params)
        if not self.handle:
            raise ConfigError(
                f"No room for a context of {n_ctx} tokens of {weights.path}.{reasons()}",
                remedy="Set a shorter context, e.g. context = 2048",
            )
        # Made after the weights' finalizer, so at exit it runs before it, as llama.cpp needs.
        self._free = weakref.finalize(self, self._lib.llama_free, self.handle)
        self.n_ctx = int(self._lib.llama_n_ctx(self.handle))
        self.no_rows: Floats = np.zeros((0, weights.vocab), dtype=np.float32)
        self._memory = self._lib.llama_get_memory(self.handle)
        first = weights.bos if weights.bos >= 0 else 0
        if not np.isfinite(self.decode([first], [0], [(0,)], [True])).all():
            raise ConfigError(f"{weights.path} computes logits that are not finite.")
        self.clear()

    def close(self) -> None:
        """Free the memory now rather than with the object; calling it twice is harmless."""
        self._free()

    def clear(self) -> None:
        """Forget every sequence."""
        self._lib.llama_memory_clear(self._memory, False)

    def forget(self, sequence: int, start: int = 0) -> None:
        """Drop a sequence's tokens from position ``start`` on."""
        self._lib.llama_memory_seq_rm(self._memory, sequence, start, -1)

    def share(self, source: int, target: int, start: int = 0) -> None:
        """Give ``target`` what ``source`` holds from position ``start`` on; it holds nothing there."""
        self._lib.llama_memory_seq_cp(self._memory, source, target, start, -1)

    def _timed_decode(self, batch: Batch, n: int) -> int:
        if n < FEWEST_TOKENS:
            return int(self._lib.llama_decode(self.handle, batch))
        threads = self._threads.pick()
        self._lib.llama_set_n_threads(self.handle, self._threads.candidates[0], threads)
        started = time.monotonic()
        code = int(self._lib.llama_decode(self.handle, batch))
        self._threads.tell(threads, n, time.monotonic() - started)
        return code

    def decode(
        self,
        tokens: Sequence[int],
        positions: Sequence[int],
        sequences: Sequence[tuple[int, ...]],
        wanted: Sequence[bool],
    ) -> Floats:
        """Run tokens through the model in one batch.

        Args:
            tokens: At most ``batch`` token ids.
            positions: The position of each in its sequence.
            sequences: The sequences that each token belongs to (a token may be in several).
            wanted: Whether the logits after each token are wanted.

        Returns:
            Raw logits ``[sum(wanted), vocab]``, float32, a copy.

        Raises:
            RequestRefused: The cache has no free cells.
            ModelError: llama.cpp failed.
        """
        n = len(tokens)
        token = np.asarray(tokens, dtype=np.int32)
        position = np.asarray(positions, dtype=np.int32)
        counts = np.asarray([len(s) for s in sequences], dtype=np.int32)
        flat = np.asarray([s for group in sequences for s in group], dtype=np.int32)
        starts = np.concatenate(([0], np.cumsum(counts)[:-1])) * 4
        pointers = (flat.ctypes.data + starts).astype(np.uintp)
        flags = np.asarray(wanted, dtype=np.int8)
        arrays = (position, counts, pointers, flags)
        batch = Batch(n, token.ctypes.data, None, *(array.ctypes.data for array in arrays))
        forget_reasons()
        code = self._timed_decode(batch, n)
        if code == 1:
            raise RequestRefused(
                f"The context of {self.n_ctx} tokens is full.",
                remedy="Shorten the input, end a session, or set a longer context.",
            )
        if code:
            raise ModelError(f"llama.cpp failed on a batch of {n} tokens (code {code}).{reasons()}")
        rows = int(flags.sum())
        if not rows:
            return self.no_rows
        address = self._lib.llama_get_logits(self.handle)
        size = rows * self._weights.vocab
        view = np.ctypeslib.as_array(c.cast(address, c.POINTER(c.c_float)), (size,))
        return view.reshape(rows, -1).copy()
