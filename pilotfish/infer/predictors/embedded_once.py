"""Texts that several splits, folds and predictors read are embedded once.

An encoder that knows word order takes milliseconds a text, and comparing policies on three splits asks
for each text a dozen times.
"""

from __future__ import annotations

from collections.abc import Sequence
from threading import Lock

import numpy as np

from pilotfish.infer.outcomes import Floats
from pilotfish.models.ngrams import MAX_CHARS
from pilotfish.models.protocols import Encoder
from pilotfish.models.static import StaticEncoder
from pilotfish.models.tfidf import batches


def embedded_once(encoder: Encoder | None, *texts: Sequence[str]) -> Encoder | None:
    """An encoder that keeps the vectors of these texts; the static one is as fast without."""
    if encoder is None or isinstance(encoder, StaticEncoder):
        return encoder
    return EmbeddedOnce(encoder, [text for some in texts for text in some])


class EmbeddedOnce:
    """An encoder that keeps the vectors of some texts: 4 bytes for each text and dimension.

    Args:
        encoder: What embeds. Other texts than these it embeds each time.
        texts: Whose vectors are kept; they are embedded when the first of them is asked for.
    """

    def __init__(self, encoder: Encoder, texts: Sequence[str]) -> None:
        self.encoder = encoder
        self.name = encoder.name
        self.dim = encoder.dim
        self.fingerprint = getattr(encoder, "fingerprint", "")
        self.widths: tuple[int, ...] = getattr(encoder, "widths", (encoder.dim,))
        # As predictors hand them over: cut.
        self._place = {
            text: i for i, text in enumerate(dict.fromkeys(t[:MAX_CHARS] for t in texts))
        }
        self._rows: Floats | None = None
        self._lock = Lock()

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit rows ``[n, dim]``, as of the encoder."""
        place = np.array([self._place.get(text, -1) for text in texts], np.intp)
        if (place < 0).all():
            return self.encoder.encode(texts)
        out = self._all()[place]
        if len(other := np.flatnonzero(place < 0)):
            out[other] = self.encoder.encode([texts[i] for i in other.tolist()])
        return out

    def _all(self) -> Floats:
        with self._lock:
            if self._rows is None:
                every = list(self._place)
                self._rows = np.vstack(
                    [self.encoder.encode(every[part]) for part in batches(every)]
                )
            return self._rows
