"""How surprising each text is to a small language model that runs here.

Marion et al. 2023, "When Less is More: Investigating Data Pruning for Pretraining LLMs at Scale", where
the middle of the distribution of perplexity under a language model was the best part to keep. The model
is any :class:`~pilotfish.models.protocols.TokenModel`, such as one that ``pilotfish pull`` brings.
"""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa

from pilotfish.curate.rules.arrow import to_arrow
from pilotfish.curate.step import TEXT, Verdict
from pilotfish.errors import ConfigError
from pilotfish.models.protocols import TokenModel
from pilotfish.models.scoring import score, token_model


class ModelPerplexity:
    """Add the column ``perplexity``: e to the mean negative log-probability of a token; at least 1.

    The first token counts as given, but for models that see ``<bos>`` before it. The score is null where
    no token is left: the text is empty, or has one token only.

    A text is read by itself unless ``together`` is set, so that its score depends on nothing else:
    llama.cpp rounds otherwise in each batch, by as much as its scores differ from those in float32 (on
    SmolLM2 0.08 nats a token). transformers in float32 gives the same to 1e-5 either way.

    Args:
        model: A model with tokens: its name in pilotfish.toml or the catalogue, or
            ``llama.cpp:FILE.gguf``.
        max_tokens: How many tokens of a text are read, from its beginning; at least 2.
        column: The column to add.
        together: Read several texts in one batch, and what they begin with alike once.

    Raises:
        ConfigError: The model gives no logits, or a number is out of range.
        MissingModel: It was not pulled.
    """

    name = "model_perplexity"

    def __init__(
        self,
        model: str,
        max_tokens: int = 256,
        column: str = "perplexity",
        together: bool = False,
    ) -> None:
        if max_tokens < 2:
            raise ConfigError(
                f"The step 'model_perplexity': got max_tokens = {max_tokens}, but expected at least 2."
            )
        _loaded(model)
        self.model = model
        self.max_tokens = max_tokens
        self.column = column
        self.together = together

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Score."""
        texts = batch.column(TEXT).to_pylist()
        groups = [texts] if self.together else [[text] for text in texts]
        scored = (
            text
            for group in groups
            for text in score(_loaded(self.model), group, max_tokens=self.max_tokens)
        )
        found = np.array([text.perplexity for text in scored])
        return Verdict({self.column: to_arrow(found, ~np.isnan(found))})


@functools.lru_cache(maxsize=2)
def _loaded(spec: str) -> TokenModel:
    return token_model(spec)
