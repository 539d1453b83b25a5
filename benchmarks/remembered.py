"""Embeddings of texts that a benchmark sees again and again, computed once."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np

from pilotfish.models.load import load_encoder


class Remembered:
    """An encoder that embeds each text once, also between runs: a shortcut, not used for speed."""

    def __init__(self, spec: str, cache: Path | None = None) -> None:
        self.spec, self.cache = spec, cache
        # One thread, as everything here; two that wait for each other lose half on a busy machine.
        slow = spec != "static" and not spec.startswith("sentence-transformers:")
        self.inner = load_encoder(spec, **({"threads": 1} if slow else {}))
        self.name, self.dim = self.inner.name, self.inner.dim
        self.known: dict[str, Any] = {}
        if cache is not None and cache.exists():
            with np.load(cache) as stored:
                self.known = dict(zip(stored["keys"].tolist(), stored["rows"], strict=True))

    def encode(self, texts: Any) -> Any:
        """As the encoder."""
        if not len(texts):
            return np.zeros((0, self.dim), np.float32)
        keys = [hashlib.sha1(text.encode()).hexdigest() for text in texts]
        new = {key: text for key, text in zip(keys, texts, strict=True) if key not in self.known}
        if new:
            self.known.update(zip(new, self.inner.encode(list(new.values())), strict=True))
        return np.stack([self.known[key] for key in keys])

    def keep(self) -> None:
        """Write the embeddings to the cache."""
        if self.cache is not None:
            np.savez(self.cache, keys=list(self.known), rows=np.stack(list(self.known.values())))
