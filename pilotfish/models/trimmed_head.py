"""An output layer for the frequent tokens alone, for networks that only propose.

The output layer of a small model with a large vocabulary is most of it: of a draft with two layers of
width 576 and 49,152 tokens, four fifths. A draft may leave out what it would hardly ever guess (FR-Spec,
Zhao et al. 2025): the target still says what holds, so answers stay exactly its own.

A folder that holds ``head_tokens.json``, a list of token numbers, is loaded with these rows of its output
layer; every other token gets -inf. Other programs find an ordinary model with a whole output layer there.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
import torch

from pilotfish.errors import ConfigError

HEAD_TOKENS = "head_tokens.json"


class TrimmedHead(torch.nn.Module):  # type: ignore[misc]
    """Some rows of an output layer.

    Args:
        rows: Weights ``[kept, hidden]``.
        tokens: Which token each row belongs to, ``[kept]``.
        vocab: Tokens that there are.
    """

    def __init__(self, rows: Any, tokens: Any, vocab: int) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(rows)
        self.register_buffer("tokens", tokens)
        self.vocab = vocab

    @classmethod
    def of(cls, head: Any, tokens: list[int]) -> TrimmedHead:
        """The rows of these tokens of an output layer without a bias, copied."""
        kept = torch.tensor(tokens, device=head.weight.device)
        return cls(head.weight.detach()[kept].clone(), kept, head.weight.shape[0])

    def compact(self, states: Any) -> Any:
        """Logits of the kept tokens, ``[..., kept]``."""
        return torch.nn.functional.linear(states, self.weight)

    def some(self, states: Any, tokens: list[int]) -> Any:
        """Logits of some tokens, ``[..., len(tokens)]``; -inf for those that were left out."""
        places = self.tokens.new_full((self.vocab,), -1)
        places[self.tokens] = torch.arange(len(self.tokens), device=places.device)
        rows = places[tokens]
        found = torch.nn.functional.linear(states, self.weight[rows.clamp(min=0)])
        return found.masked_fill(rows < 0, float("-inf"))

    def forward(self, states: Any) -> Any:
        """Logits of all tokens, ``[..., vocab]``; -inf for those that were left out."""
        some = self.compact(states)
        whole = some.new_full((*some.shape[:-1], self.vocab), float("-inf"))
        whole[..., self.tokens] = some
        return whole


def trim_head(network: Any, folder: Path) -> None:
    """Give a network the output layer that its folder asks for, if it does.

    Raises:
        ConfigError: The list is none of the network's tokens, or the output layer has a bias.
    """
    path = folder / HEAD_TOKENS
    if not path.is_file():
        return
    vocab = network.get_output_embeddings().weight.shape[0]
    kind = list[Annotated[int, msgspec.Meta(ge=0, lt=vocab)]]
    try:
        tokens = msgspec.json.decode(path.read_bytes(), type=kind)
    except msgspec.MsgspecError as error:
        raise ConfigError(f"{path} is no list of tokens below {vocab}: {error}.") from error
    if not tokens or len(set(tokens)) != len(tokens):
        raise ConfigError(f"{path} has {len(tokens)} tokens, but expected some, each once.")
    head = network.get_output_embeddings()
    if head.bias is not None:
        raise ConfigError(
            f"{path} asks for rows of an output layer with a bias, which cannot be cut."
        )
    network.set_output_embeddings(TrimmedHead.of(head, tokens))
