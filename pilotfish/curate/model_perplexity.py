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
from pilotfish.models.load import load_model
from pilotfish.models.protocols import Session, TokenModel

_AT_ONCE = 64  # tokens; a row of logits of a large vocabulary is half a megabyte


class ModelPerplexity:
    """Add the column ``perplexity``: e to the mean negative log-probability of a token; at least 1.

    The first token counts as given. The score is null where a text has less than two tokens.

    Args:
        model: A model with tokens: its name in pilotfish.toml or the catalogue, or
            ``llama.cpp:FILE.gguf``.
        max_tokens: How many tokens of a text are read, from its beginning; at least 2.
        column: The column to add.

    Raises:
        ConfigError: The model gives no logits, or a number is out of range.
        MissingModel: It was not pulled.
    """

    name = "model_perplexity"

    def __init__(self, model: str, max_tokens: int = 256, column: str = "perplexity") -> None:
        if max_tokens < 2:
            raise ConfigError(
                f"The step 'model_perplexity': got max_tokens = {max_tokens}, but expected at least 2."
            )
        _loaded(model)
        self.model = model
        self.max_tokens = max_tokens
        self.column = column

    def apply(self, batch: pa.RecordBatch) -> Verdict:
        """Score."""
        model = _loaded(self.model)
        session = model.session()
        score = np.full(batch.num_rows, np.nan)
        for row, text in enumerate(batch.column(TEXT).to_pylist()):
            # Tokens have a byte or more, so that a long text need not be cut into all its tokens.
            tokens = model.tokenize(text[: self.max_tokens * 16])[: self.max_tokens]
            if len(tokens) > 1:
                session.rewind(0)
                tokens = tokens[: session.room]
                score[row] = np.exp(surprise(session, tokens) / (len(tokens) - 1))
        return Verdict({self.column: to_arrow(score, ~np.isnan(score))})


def surprise(session: Session, tokens: list[int]) -> float:
    """The negative log-probability of all tokens but the first, in nats."""
    total = 0.0
    for start in range(0, len(tokens) - 1, _AT_ONCE):
        following = tokens[start + 1 : start + 1 + _AT_ONCE]
        logits = session.feed(tokens[start : start + len(following)]).astype(np.float64)
        most = logits.max(axis=1)
        norm = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
        total += float((norm - logits[np.arange(len(following)), following]).sum())
    return total


@functools.lru_cache(maxsize=2)
def _loaded(spec: str) -> TokenModel:
    model = load_model(spec)
    if not isinstance(model, TokenModel):
        raise ConfigError(
            f"The step 'model_perplexity': got the model {spec!r}, which gives answers but no logits.",
            remedy='Name a local one, such as model = "llama.cpp:FILE.gguf", or see: pilotfish models',
        )
    return model
