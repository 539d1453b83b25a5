"""An answer, token by token: the one loop behind every model whose logits are ours.

Where the next token's logits come from is a :class:`Source`: a model's own cache, several models mixed
by a rule, or a target that checks what a draft proposed. What is done with them is here and the same for
all: grammar, sampling, stop strings, log-probabilities, the books.

A source may *propose* a token together with the distribution that it was drawn from. The proposal is
taken with probability ``min(1, p / q)``, and else a token is drawn from what is left of ``p``: by
Leviathan et al. 2023 and Chen et al. 2023 the token then follows ``p`` exactly, whatever was proposed.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from pilotfish.errors import RequestRefused
from pilotfish.models.gbnf import refuse_huge
from pilotfish.models.protocols import Floats, Grammar, TokenModel
from pilotfish.models.sampling import (
    Proposal,
    Sampler,
    StopScanner,
    likeliest,
    log_softmax,
    number,
)
from pilotfish.models.worker import Check, Emit
from pilotfish.records import Completion, Request, Usage

_IGNORED = {"stream", "stream_options", "user", "metadata", "store", "model", "blanks"}
_READ = {"temperature", "top_p", "top_k", "min_p", "seed", "max_tokens", "max_completion_tokens"}
_READ |= {"stop", "logprobs", "top_logprobs", "response_format", "grammar", "n"}

NOTHING: Callable[[str], None] = lambda text: None  # noqa: E731  an emit for answers that are not streamed


class Source(Protocol):
    """Next-token logits during one answer.

    Attributes:
        proposal: A draft's token for the row returned last, or None.
    """

    proposal: Proposal | None

    def begin(self, request: Request, check: Check) -> tuple[Floats, Usage]:
        """Logits ``[vocab]`` after the request, and its prompt's tokens."""
        ...

    def next(self, token: int, check: Check) -> Floats:
        """Logits ``[vocab]`` after one more token."""
        ...

    @property
    def room(self) -> int:
        """How many tokens surely fit after those that were read, at least 1."""
        ...

    def written(self, steps: int) -> int:
        """Tokens of the answer after so many steps: as many, except where a step is a byte."""
        ...

    def cost(self, tokens: int) -> float | None:
        """US dollars for this answer with so many tokens written, None when unknown."""
        ...


def write(
    model: TokenModel,
    source: Source,
    request: Request,
    check: Check,
    emit: Emit = NOTHING,
) -> Completion:
    """Answer one request.

    Args:
        model: Says how a request reads as tokens, and tokens as text.
        source: Where its logits come from.
        request: Parameters: ``temperature`` (default 0), ``top_p``, ``top_k``, ``min_p``, ``seed``,
            ``max_tokens``, ``stop``, ``logprobs``, ``top_logprobs``, ``response_format``, ``grammar``.
        check: Called between tokens; raises to end the work.
        emit: Takes each piece of text as soon as it cannot belong to a stop string.

    Raises:
        RequestRefused: A parameter or message cannot be used, or it does not fit the context.
    """
    started = time.monotonic()
    params = request.params
    refuse_unknown(model, params)
    sampler, scanner = Sampler(params), StopScanner(stops_of(params))
    grammar = grammar_of(model, params)
    tokens: list[int] = []
    pieces: list[str] = []
    logprobs: list[Mapping[str, Any]] = []
    reason = "length"

    def say(text: str) -> None:
        if text:
            pieces.append(text)
            emit(text)

    try:
        row, prompt = source.begin(request, check)
        room = source.room
        wanted = limit_of(params, room)
        while source.written(len(tokens)) < wanted:
            token = sampler.choose(grammar.mask(row) if grammar else row, source.proposal)
            if model.ends(token):
                reason = "stop"
                break
            if grammar:
                grammar.accept(token)
            if params.get("logprobs"):
                top = int(number(params, "top_logprobs", 0, 0, 20))
                logprobs.append(logprob_of(model, row, token, top))
            tokens.append(token)
            say(scanner.feed(model.token_bytes(token)))
            if scanner.stopped:
                reason = "stop"
                break
            if len(tokens) >= room:  # that was sure before; a byte may have taken less than a token
                room = len(tokens) - 1 + source.room
            if len(tokens) >= room or source.written(len(tokens)) >= wanted:
                break
            check()
            row = source.next(token, check)
    finally:
        if grammar:
            grammar.close()
    say(scanner.feed(b"", last=True))
    written = source.written(len(tokens))
    return Completion(
        text="".join(pieces),
        model=model.name,
        usage=prompt + Usage(0, written),
        cost=source.cost(written),
        latency=time.monotonic() - started,
        finish_reason=reason,
        logprobs=tuple(logprobs) if params.get("logprobs") else None,
    )


def limit_of(params: Mapping[str, Any], default: int) -> int:
    """Tokens that an answer may have: ``max_completion_tokens``, else ``max_tokens``, else the default.

    Raises:
        RequestRefused: It is no number of at least 1.
    """
    named = "max_completion_tokens"
    if params.get(named) is None:  # absent, or null
        named = "max_tokens"
    return int(number(params, named, default, 1, 1e9))


def logprob_of(model: TokenModel, logits: Floats, token: int, top: int) -> Mapping[str, Any]:
    """A token's log-probability and the ``top`` likeliest ones, as the OpenAI API writes them."""
    rows = log_softmax(logits)
    best = [_entry(model, rows, int(each)) for each in likeliest(rows, top)]
    return _entry(model, rows, token) | {"top_logprobs": best}


def _entry(model: TokenModel, rows: Floats, token: int) -> dict[str, Any]:
    raw = model.token_bytes(token)
    text = raw.decode("utf-8", "replace")
    return {"token": text, "logprob": float(rows[token]), "bytes": list(raw)}


def grammar_of(model: TokenModel, params: Mapping[str, Any]) -> Grammar | None:
    """What ``grammar`` or ``response_format`` allow; None for everything.

    Raises:
        RequestRefused: They cannot be read.
    """
    form = params.get("response_format") or {"type": "text"}
    kind = form.get("type") if isinstance(form, Mapping) else form
    if params.get("grammar"):
        refuse_huge(str(params["grammar"]))
        return model.grammar(str(params["grammar"]))
    if kind == "text":
        return None
    if kind == "json_object":
        return model.json_grammar('{"type":"object"}')
    if kind == "json_schema":
        schema = form.get("json_schema", {}).get("schema")
        if isinstance(schema, Mapping):
            return model.json_grammar(json.dumps(schema))
    raise RequestRefused(
        f"Got response_format={form!r:.200}, but expected type text, json_object, or json_schema "
        'with {"json_schema": {"schema": ...}}.'
    )


def refuse_unknown(model: TokenModel, params: Mapping[str, Any]) -> None:
    """Refuse parameters that would be ignored.

    Raises:
        RequestRefused: There are some.
    """
    unknown = {k for k, v in params.items() if v is not None} - _READ - _IGNORED
    if unknown or params.get("n") not in (None, 1):
        named = ", ".join(sorted(unknown)) or f"n={params['n']}"
        raise RequestRefused(
            f"The model {model.name}, which runs here, cannot do what {named} asks for.",
            remedy=f"It reads: {', '.join(sorted(_READ))} (n = 1)",
        )


def stops_of(params: Mapping[str, Any]) -> list[str]:
    """The stop strings.

    Raises:
        RequestRefused: ``stop`` is neither a text nor a list of texts.
    """
    stop = params.get("stop") or []
    stops = [stop] if isinstance(stop, str) else stop
    if not isinstance(stops, Sequence) or not all(isinstance(s, str) for s in stops):
        raise RequestRefused(f"Got stop={stop!r}, but expected a text or a list of texts.")
    return list(stops)
