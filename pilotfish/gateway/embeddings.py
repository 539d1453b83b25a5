"""``POST /v1/embeddings``: from the encoders of this machine, or passed on to a remote model.

Differences from OpenAI's: an encoder here takes texts, no lists of tokens; and it counts no tokens of
its own, so ``usage`` is estimated from the characters, four to a token. ``dimensions`` keeps the first
so many numbers of each vector and makes them a unit vector again, as Matryoshka embeddings are cut
(Kusupati et al. 2022); encoders that were not trained for it lose more by it.
"""

from __future__ import annotations

import asyncio
import base64
from typing import Annotated, Any, Literal

import msgspec
import numpy as np

from pilotfish.gateway.answer import Turn
from pilotfish.gateway.bodies import check, read_object
from pilotfish.gateway.forwarding import forward
from pilotfish.gateway.refusals import Refusal
from pilotfish.models.openai import OpenAIModel
from pilotfish.models.protocols import Floats
from pilotfish.records import Completion, Request, Usage

MOST_INPUTS = 2048  # as OpenAI's
CHARACTERS_PER_TOKEN = 4


class EmbeddingBody(msgspec.Struct):
    """What embeddings take."""

    input: str | list[Any]
    model: str | None = None
    encoding_format: Literal["float", "base64"] | None = None
    dimensions: Annotated[int, msgspec.Meta(ge=1, le=1 << 20)] | None = None


async def embeddings(turn: Turn, body: bytes) -> None:
    """Answer an embeddings request."""
    data = read_object(body)
    fields = check(data, EmbeddingBody)
    texts = [fields.input] if isinstance(fields.input, str) else fields.input
    params = {k: v for k, v in data.items() if k not in ("model", "input")}
    turn.request = Request(
        ({"role": "user", "content": msgspec.json.encode(texts).decode()},), params
    )
    name = await turn.ask_for(fields.model or _only_encoder(turn))
    if name not in turn.gateway.encoders:
        model = await turn.gateway.served.ready(name)
        if not isinstance(model, OpenAIModel):
            raise Refusal(
                404,
                "endpoint_not_supported",
                f"The model {name!r} makes no embeddings.",
                param="model",
                remedy=f"Encoders here: {', '.join(sorted(turn.gateway.encoders)) or 'none'}",
            )
        await forward(turn, model, "/embeddings", data, lambda _: "")
        return
    if not 1 <= len(texts) <= MOST_INPUTS or not all(isinstance(text, str) for text in texts):
        raise Refusal(
            400,
            "invalid_value",
            f"Got {len(texts)} inputs, but expected 1 to {MOST_INPUTS} texts (no tokens).",
            param="input",
        )
    encoder = await turn.gateway.served.encoder(name)
    vectors = await asyncio.to_thread(encoder.encode, texts)
    if fields.dimensions is not None:
        vectors = shortened(vectors, fields.dimensions)
    tokens = sum(-(-len(text) // CHARACTERS_PER_TOKEN) for text in texts)
    turn.completion = Completion("", name, Usage(prompt_tokens=tokens), cost=0.0)
    reply = {
        "object": "list",
        "model": name,
        "data": [
            {"object": "embedding", "index": i, "embedding": _written(row, fields.encoding_format)}
            for i, row in enumerate(vectors)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }
    await turn.whole(msgspec.json.encode(reply))


def shortened(vectors: Floats, dimensions: int) -> Floats:
    """The first ``dimensions`` numbers of each row, as unit rows; zero rows stay zero.

    Raises:
        Refusal: The rows are shorter.

    >>> shortened(np.array([[3.0, 4.0, 12.0]], np.float32), 2).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    if dimensions > vectors.shape[1]:
        raise Refusal(
            400,
            "invalid_value",
            f"Got dimensions={dimensions}, but the encoder has {vectors.shape[1]}.",
            param="dimensions",
        )
    cut = vectors[:, :dimensions]
    norms = np.linalg.norm(cut, axis=1, keepdims=True)
    short: Floats = (cut / np.where(norms > 0, norms, 1)).astype(np.float32)
    return short


def _written(row: Floats, form: str | None) -> str | list[float]:
    if form == "base64":
        return base64.b64encode(row.astype("<f4").tobytes()).decode("ascii")
    numbers: list[float] = row.astype(np.float64).tolist()
    return numbers


def _only_encoder(turn: Turn) -> str:
    """The encoder for requests that name none, if there is only one."""
    names = sorted(turn.gateway.encoders)
    return names[0] if len(names) == 1 else ""
