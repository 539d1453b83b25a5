"""How likely a text is to a language model that runs here: perplexity, and the surprisal of each token.

The texts of one call share what they have in common: an instruction, examples or a document that many
of them follow is read once (:mod:`pilotfish.models.prefix_tree`), and different texts are read together.

**What comes before a text.** A text in ``given`` is tokenised together with the text that follows it, as
the model would read both; what is scored are the tokens that reach into the text. Where a token spans the
boundary it counts to the text, whole (its offset is negative); so a context that ends in a space does
not force the text to begin with a token that the model has never seen there. A :class:`Request` stands
for the prompt as the model's chat template writes it, and tokens stand for themselves: there the text is
tokenised alone, since nothing merges with a control token.

**The first token.** Models that were trained to see a token before every text (``<bos>``) see it here,
too. With others, a text without context has nothing before its first token, which is therefore taken as
given and not scored, as in the loss of the ``transformers`` library.

**Long texts.** What does not fit is read in windows that overlap by half, as in the usual evaluation of
fixed-length models: each token is scored once, and all but those of the first window with at least half a
window before them. The beginning, ``given`` included, scrolls out.

Known difference from lm-evaluation-harness: that moves spaces at the end of the context into the text,
and scores the first token after an end-of-text token where there is no ``<bos>``.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.models.prefix_tree import log_probabilities
from pilotfish.models.protocols import Model, TokenModel
from pilotfish.records import Request

Doubles = NDArray[np.float64]
Context: TypeAlias = str | Request | Sequence[int]


@dataclass(frozen=True, slots=True, eq=False)
class Scored:
    """How surprising each token of one text was.

    Attributes:
        tokens: ``n`` tokens, of which the first may begin in the context.
        offsets: ``n`` places where the tokens begin in the text's UTF-8 bytes, below 0 in the context.
        surprisal: ``n`` negative log-probabilities in nats; nan for a first token with nothing before it.
        size: The text's UTF-8 bytes, up to the end of the last token that was asked for.
    """

    tokens: tuple[int, ...]
    offsets: NDArray[np.int64]
    surprisal: Doubles
    size: int

    @property
    def scored(self) -> int:
        """How many tokens have a surprisal."""
        return int((~np.isnan(self.surprisal)).sum())

    @property
    def log_likelihood(self) -> float:
        """The sum of the tokens' log-probabilities, in nats; at most 0."""
        return -float(np.nansum(self.surprisal))

    @property
    def perplexity(self) -> float:
        """Exponential of the mean surprisal of a token; at least 1, nan where no token was scored."""
        return _perplexity(self.log_likelihood, self.scored)

    @property
    def bits_per_byte(self) -> float:
        """Bits for each byte that was scored, which models of different tokenizers can be compared by."""
        known = self.offsets[~np.isnan(self.surprisal)]
        size = self.size - max(int(known[0]), 0) if len(known) else 0
        return -self.log_likelihood / math.log(2) / size if size else math.nan


def score(
    model: TokenModel | Model | str,
    texts: Sequence[str],
    *,
    given: Context | Sequence[Context] = "",
    max_tokens: int | None = None,
    window: int | None = None,
) -> list[Scored]:
    """Score texts, each by itself or after a context.

    Args:
        model: A model that gives logits, or its name for :func:`pilotfish.models.load.load_model`.
        texts: What is scored.
        given: What comes before all texts, or a list of what comes before each: a text, a request that
            the text answers, or tokens.
        max_tokens: Score so many tokens of each text, from its beginning; at least 1.
        window: Read at most so many tokens at once; default: as many as the model has room for.

    Returns:
        For each text its tokens with their surprisal.

    Raises:
        ConfigError: The model gives no logits, or a number is out of range.
        RequestRefused: There is not one context for each text, or the model has no room.

    >>> import numpy as np
    >>> text = Scored((5, 6), np.array([0, 2]), np.array([0.0, np.log(4)]), 4)
    >>> round(text.perplexity, 6), text.bits_per_byte
    (2.0, 0.5)
    """
    model = token_model(model)
    for name, number, least in (("max_tokens", max_tokens, 1), ("window", window, 2)):
        if number is not None and number < least:
            raise ConfigError(f"Got {name}={number}, but expected at least {least}.")
    contexts = _contexts(given, len(texts))
    read = [_read(model, *pair, max_tokens) for pair in zip(texts, contexts, strict=True)]
    opening = list(getattr(model, "opening", ()))
    room = model.session().room
    limit = min(window or room, room)
    parts = [part for text in read for part in _windows(text, limit, opening)]
    logs = log_probabilities(model, [part.tokens for part in parts], [part.first for part in parts])
    for part, log in zip(parts, logs, strict=True):
        part.into[:] = np.maximum(-log[part.first :], 0)  # rounding may leave 1e-8 above certainty
    return [
        Scored(tuple(text.tokens[text.before :]), text.offsets, text.surprisal, text.size)
        for text in read
    ]


def total_perplexity(scored: Iterable[Scored]) -> float:
    """Exponential of the mean surprisal over all tokens of some texts; nan where none was scored."""
    texts = list(scored)
    count = sum(text.scored for text in texts)
    total = sum(text.log_likelihood for text in texts)
    return _perplexity(total, count)


def _perplexity(log_likelihood: float, tokens: int) -> float:
    if not tokens:
        return math.nan
    mean = -log_likelihood / tokens
    return math.exp(mean) if mean < 709 else math.inf  # where float64 ends


def token_model(model: TokenModel | Model | str) -> TokenModel:
    """A model that gives logits, by itself or by name.

    Raises:
        ConfigError: It gives none.
        UnknownName: Nothing is called that.
        MissingModel: It is in the catalogue, but was not pulled.
    """
    if isinstance(model, str):
        from pilotfish.models.load import load_model

        model = load_model(model)
    if not isinstance(model, TokenModel):
        raise ConfigError(
            f"Got the model {model.name!r}, which gives answers but no logits.",
            remedy='Name one that runs here, such as "llama.cpp:FILE.gguf", or see: pilotfish models',
        )
    return model


def _contexts(given: Context | Sequence[Context], count: int) -> Sequence[Context]:
    if isinstance(given, str | Request) or (len(given) and not _is_context(given[0])):
        return [cast(Context, given)] * count
    if len(given) != count:
        raise RequestRefused(f"Got {len(given)} contexts for {count} texts, but expected as many.")
    return cast(Sequence[Context], given)


def _is_context(value: object) -> bool:
    return isinstance(value, str | Request | Sequence)


@dataclass(frozen=True, slots=True, eq=False)
class _Reading:
    """A text as the model reads it.

    Attributes:
        tokens: All tokens, context included.
        before: How many of them come before the text's own.
        opened: Whether they begin as the model was trained to see texts begin.
        offsets, surprisal, size: As of :class:`Scored`.
    """

    tokens: list[int]
    before: int
    opened: bool
    offsets: NDArray[np.int64]
    surprisal: Doubles
    size: int


def _read(model: TokenModel, text: str, context: Context, most: int | None) -> _Reading:
    if most is not None:
        # A long text need not be cut into all its tokens; of 16 characters each are only runs of blanks.
        text = text[: 16 * most]
    head: list[int] = []
    together, boundary = text, 0
    if isinstance(context, str):
        together, boundary = context + text, _size(context)
    else:
        head = model.prompt_tokens(context) if isinstance(context, Request) else list(context)
    tokens = model.tokenize(together)
    sizes = np.array([len(model.token_bytes(token)) for token in tokens], np.int64)
    ends = np.cumsum(sizes)
    if len(ends):  # some tokenizers write a space of their own before every text
        ends += min(_size(together) - int(ends[-1]), 0)
    before = int((ends <= boundary).sum()) if boundary else 0
    stop = len(tokens) if most is None else min(before + most, len(tokens))
    return _Reading(
        tokens=head + tokens[:stop],
        before=len(head) + before,
        opened=not isinstance(context, str),
        offsets=(ends - sizes - boundary)[before:stop],
        surprisal=np.full(stop - before, np.nan),
        size=int(ends[stop - 1]) - boundary if stop > before else 0,
    )


def _size(text: str) -> int:
    return len(text.encode("utf-8", "replace"))


@dataclass(frozen=True, slots=True, eq=False)
class _Window:
    """Tokens to read at once; the surprisal of those from ``first`` on goes ``into`` its place."""

    tokens: list[int]
    first: int
    into: Doubles


def _windows(text: _Reading, limit: int, opening: list[int]) -> Iterator[_Window]:
    begin, first, length = 0, text.before, len(text.tokens)
    if limit < min(length, 2) + len(opening):
        raise RequestRefused(
            f"Got room for {limit} tokens, but expected at least {2 + len(opening)}.",
            remedy="End a session, or set a longer context or window.",
        )
    while first < length:
        # What was read before is dropped only when the rest does not fit with it.
        opened = text.opened and not begin
        size = limit - (0 if opened else len(opening))
        if length - begin > size:
            begin = max(begin, first - size // 2)
            opened = text.opened and not begin
        end = min(length, begin + size)
        head = [] if opened else opening
        into = text.surprisal[first - text.before : end - text.before]
        yield _Window(head + text.tokens[begin:end], len(head) + first - begin, into)
        first = end
