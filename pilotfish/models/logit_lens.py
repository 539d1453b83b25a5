"""What a transformer's layers would say: their states through its output layer (the "logit lens").

Of a few tokens only, since a row of a large vocabulary for every layer would be many megabytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from pilotfish.errors import RequestRefused
from pilotfish.models.protocols import Floats

if TYPE_CHECKING:
    from pilotfish.models.transformers import TransformersModel


def layer_logits(
    model: TransformersModel, tokens: Sequence[int], of: Sequence[int], last: int
) -> Floats:
    """Logits that each layer's states give to some tokens, ``[layers + 1, last, len(of)]``, float32.

    The states go through the output layer as they are; the first are the input embeddings, and the
    last, which the final norm has scaled, give the model's own logits: -inf where a draft's output
    layer lacks the token.

    Args:
        model: Its network gives its states.
        tokens: The text, from its beginning.
        of: Tokens whose logits are wanted.
        last: Positions from the end that are read.

    Raises:
        RequestRefused: They do not fit the context.
    """
    import torch

    from pilotfish.models.trimmed_head import TrimmedHead

    if len(tokens) > model.context:
        raise RequestRefused(
            f"Got {len(tokens)} tokens, but the context holds {model.context}.",
            remedy="Shorten the input, or set a longer context.",
        )
    head = model.network.get_output_embeddings()
    with torch.inference_mode():
        states = model.network(
            input_ids=torch.tensor([list(tokens)], device=model.device),
            output_hidden_states=True,
            use_cache=False,
            logits_to_keep=1,
        ).hidden_states
        rows = torch.stack([layer[0, -last:] for layer in states]).to(head.weight.dtype)
        if isinstance(head, TrimmedHead):
            found = head.some(rows, list(of))
        else:
            bias = None if head.bias is None else head.bias[list(of)]
            found = torch.nn.functional.linear(rows, head.weight[list(of)], bias)
        return np.asarray(found.float().cpu().numpy(), np.float32)
