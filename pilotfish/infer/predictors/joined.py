"""Two encoders side by side: what one does not see in a question, another may.

Written ``static+bge-small-en-v1.5`` wherever an encoder is named. Parts that know word order (a
transformer) cost milliseconds a question, so that is for routers whose models take seconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from pilotfish.config import Config
from pilotfish.infer.outcomes import Floats
from pilotfish.models.load import load_encoder
from pilotfish.models.protocols import Encoder


class Joined:
    """Vectors of several encoders, one after the other, each scaled so that rows have length 1.

    Args:
        encoders: Two at least.
    """

    def __init__(self, encoders: Sequence[Encoder]) -> None:
        self.encoders = list(encoders)
        self.name = "+".join(encoder.name for encoder in encoders)
        self.fingerprint = "+".join(str(getattr(e, "fingerprint", "")) for e in encoders)
        self.widths = tuple(encoder.dim for encoder in encoders)
        self.dim = sum(self.widths)

    def encode(self, texts: Sequence[str]) -> Floats:
        """Unit rows ``[n, dim]``."""
        parts = [encoder.encode(texts) for encoder in self.encoders]
        rows: Floats = np.hstack(parts) / np.float32(np.sqrt(len(parts)))
        return rows


def load_joined(spec: str, config: Config | None = None, **settings: Any) -> Encoder:
    """The encoder that a spec names; several names with ``+`` between them give :class:`Joined`."""
    names = spec.split("+")
    if len(names) == 1:
        return load_encoder(spec, config, **settings)
    return Joined([load_encoder(name, config) for name in names])
