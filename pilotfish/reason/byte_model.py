"""A token model read byte by byte, so that models of different vocabularies can be steered together.

A model of tokens also says how likely each next byte is. A text can be written in several ways as
tokens; the probability that an answer begins with certain bytes is the sum over all ways to cover them,
where the last token may reach further (Vieira et al. 2024, "From Language Models over Tokens to Language
Models over Characters"; Phan et al. 2024, "Exact Byte-Level Probabilities from Tokenized Language
Models"). Next bytes are the ratio of two such sums. Every model then has one vocabulary: the 256 bytes,
and the end.

What is kept is the set of coverings (:class:`_Covering`). One that ends exactly at the last byte needs
the model's next row, a forward pass; the others wait for their last token to end, and cost nothing. So a
text costs about one pass for each of its tokens, and one for each other token that was likely on the way.

**Exactness.** With ``least = 0`` all coverings are kept and the bytes follow the model's own distribution
exactly; but there are exponentially many. Otherwise a covering whose share of the probability is below
``least`` is not read: its share is spread evenly over the bytes that can follow, and it is read after all
when what came next makes it likely. The shares that were never read add up to :attr:`ByteSession.lost`,
whose expected value bounds the total variation distance between the text written and the exact one (each
step goes as the exact one but with the probability of that share). Tokens that stand for no text, other
than ends, count as impossible.

Control tokens of a prompt have numbers from :data:`CONTROL` on. The prompt is read as the model's own
tokens, and what is written begins at a new token, as it does when the model writes by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from pilotfish.config import Price
from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.models.held import common_prefix
from pilotfish.models.protocols import Floats, Grammar, Session, TokenModel
from pilotfish.reason.byte_trie import ByteTrie, Doubles
from pilotfish.records import Request

if TYPE_CHECKING:
    from pilotfish.models.guidance import Guide

END = 256
VOCAB = 257
CONTROL = 257  # the inner model's token 0; only prompts have such numbers
LEAST = 1e-3
_UNREAD = (
    1e-3  # of LEAST: a covering that waits costs nothing, and is dropped later than one to be read
)
_FLOOR = 1e-9  # of bytes that only dropped coverings could write
# What text is made of; some tokenizers lack control characters and the bytes of unassigned planes.
_TEXT = (10, *range(32, 127), *range(0x80, 0xC0), *range(0xC2, 0xF1))


class ByteModel:
    """A token model over the 256 bytes and the end (:data:`END`), made of one over tokens.

    Args:
        model: It.
        least: Coverings of a smaller share are not read; 0 keeps all.

    Attributes:
        name: The model's own.
        vocab: 257.
        unwritable: Bytes that no token stands for.

    Raises:
        ConfigError: A byte that text is made of is none of its tokens.
    """

    def __init__(self, model: TokenModel, *, least: float = LEAST) -> None:
        self.model = model
        self.name = model.name
        self.vocab = VOCAB
        self.least = least
        tokens = [model.token_bytes(token) for token in range(model.vocab)]
        ends = [token for token in range(model.vocab) if model.ends(token)]
        self.trie = ByteTrie(tokens, ends)
        whole = set(tokens)
        self.unwritable = [byte for byte in range(256) if bytes([byte]) not in whole]
        missing = [byte for byte in self.unwritable if byte in _TEXT]
        if missing:
            shown = " ".join(f"{byte:02x}" for byte in missing[:8])
            raise ConfigError(
                f"{model.name} cannot be read byte by byte: {len(missing)} bytes of text are none of "
                f"its tokens ({shown}).",
                remedy="Use a model whose tokenizer is byte-level or falls back to bytes, as most have.",
            )
        self._guide: Guide | None = None

    @property
    def price(self) -> Price | None:
        """What the model's tokens cost, None when unknown."""
        price: Price | None = getattr(self.model, "price", None)
        return price

    def tokenize(self, text: str, *, special: bool = False) -> list[int]:
        """The text's bytes; with ``special`` the model's own tokens, from :data:`CONTROL` on."""
        if special:
            return [CONTROL + token for token in self.model.tokenize(text, special=True)]
        return list(text.encode("utf-8", "replace"))

    def token_bytes(self, token: int) -> bytes:
        """The byte (b"" for the end)."""
        if token >= CONTROL:
            return self.model.token_bytes(token - CONTROL)
        return bytes([token]) if token != END else b""

    def ends(self, token: int) -> bool:
        """Whether it is :data:`END`."""
        return token == END

    def prompt_tokens(self, request: Request) -> list[int]:
        """The request as the model reads it, its tokens counted from :data:`CONTROL` on."""
        return [CONTROL + token for token in self.model.prompt_tokens(request)]

    def grammar(self, text: str) -> Grammar:
        """What may come next under a grammar in llama.cpp's notation (GBNF)."""
        return self._guided().grammar(text)

    def json_grammar(self, schema: str) -> Grammar:
        """What may come next in a JSON value of a JSON schema."""
        return self._guided().json_grammar(schema)

    def _guided(self) -> Guide:
        if self._guide is None:
            from pilotfish.models.guidance import Guide

            self._guide = Guide([self.token_bytes(t) for t in range(VOCAB)], [END], self.tokenize)
        return self._guide

    def session(self) -> ByteSession:
        """Start an empty sequence."""
        return ByteSession(
            self, self.model.session(), [], [_State([_Covering(_Node(None, -1), 1.0, 1.0)])]
        )


@dataclass(eq=False, slots=True)
class _Node:
    """Tokens, the last one and those before it, and what the model says next where that was read."""

    parent: _Node | None
    token: int
    depth: int = 0
    p: Doubles | None = None  # of the sorted vocabulary
    end: float = 0.0

    def then(self, token: int) -> _Node:
        return _Node(self, token, self.depth + 1)

    def path(self) -> list[int]:
        tokens: list[int] = []
        node = self
        while node.parent is not None:
            tokens.append(node.token)
            node = node.parent
        return tokens[::-1]


@dataclass(eq=False, slots=True)
class _Covering:
    """Whole tokens, and the bytes after them that the next token begins with.

    Attributes:
        node: The whole tokens.
        weight: Their probability, over that of all bytes so far.
        share: The covering's part of the probability of all bytes so far: ``weight`` where it ends here,
            else ``weight`` times the probability of all tokens that go on so.
        rest: The bytes after the whole tokens; with none the covering ends here.
    """

    node: _Node
    weight: float
    share: float
    rest: bytes = b""


@dataclass(slots=True)
class _State:
    """All coverings after some bytes, and the shares that were lost up to here."""

    coverings: list[_Covering]
    lost: float = 0.0


class ByteSession:
    """One text in a :class:`ByteModel`; see :class:`pilotfish.models.protocols.Session`.

    Attributes:
        read: Tokens that the model read so far, those of coverings that came to nothing included.
    """

    def __init__(
        self, model: ByteModel, inner: Session, tokens: list[int], states: list[_State]
    ) -> None:
        self._model = model
        self._inner = inner
        self._tokens = tokens
        self._states = states  # after each token, and before the first
        self.read = 0

    @property
    def tokens(self) -> Sequence[int]:
        """The bytes and control tokens fed so far."""
        return self._tokens

    @property
    def lost(self) -> float:
        """The shares of coverings that were not read, summed over the bytes; see the module's text."""
        return self._states[-1].lost

    @property
    def written(self) -> int:
        """How many whole tokens of the model the likeliest covering has."""
        return max(self._states[-1].coverings, key=lambda covering: covering.share).node.depth

    @property
    def room(self) -> int:
        """How many further bytes surely fit, each of them a token."""
        deepest = max(covering.node.depth for covering in self._states[-1].coverings)
        return self._inner.room + len(self._inner.tokens) - deepest

    def feed(self, tokens: Sequence[int], *, last: int | None = None) -> Floats:
        """Append bytes; log-probabilities after each of them, or of the ``last``, ``[n, 257]``, float32.

        Raises:
            RequestRefused: They do not fit, or cannot be written; the session is as it was before.
        """
        start = len(self._tokens)
        first = start if last is None else start + len(tokens) - last
        rows: list[Floats] = []
        try:
            for token in tokens:
                self._states.append(self._after(token))
                self._tokens.append(token)
                if len(self._tokens) > first:
                    rows.append(self._row())
                else:
                    self._forget_rows()
        except BaseException:
            self.rewind(start)
            raise
        return np.stack(rows) if rows else np.zeros((0, VOCAB), np.float32)

    def rewind(self, length: int) -> None:
        """Forget all but the first ``length`` bytes and control tokens.

        Raises:
            RequestRefused: There are fewer.
        """
        if not 0 <= length <= len(self._states) - 1:
            raise RequestRefused(
                f"Got rewind to {length}, but expected a length in [0, {len(self._states) - 1}]."
            )
        del self._states[length + 1 :]
        del self._tokens[length:]

    def fork(self) -> ByteSession:
        """A second session with the same past."""
        inner, states = self._inner.fork(), list(self._states)
        return ByteSession(self._model, inner, list(self._tokens), states)

    def _row(self) -> Floats:
        """Log-probabilities of the next byte and the end ``[257]``."""
        state = self._states[-1]
        unread = self._read(state)
        masses = np.zeros(VOCAB)
        for covering in state.coverings:
            p = covering.node.p
            span = self._model.trie.span(covering.rest)
            if p is None or span is None:
                continue
            if len(span.starts):
                masses[span.following] += covering.weight * span.following_masses(p)
            if not covering.rest:
                masses[END] += covering.weight * covering.node.end
        self._forget_rows()
        root = self._model.trie.span(b"")
        assert root is not None
        spread = unread / (len(root.following) + 1)
        masses[root.following] += spread
        masses[END] += spread
        if state.lost or unread:
            rare = root.following[masses[root.following] == 0]
            masses[rare] = _FLOOR / VOCAB
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(masses / masses.sum()), np.float32)

    def _after(self, token: int) -> _State:
        """The coverings after one more byte or control token."""
        state = self._states[-1]
        if token >= CONTROL:
            return self._after_control(state, token - CONTROL)
        if not 0 <= token < END:
            raise RequestRefused(f"Got token {token}, but expected a byte in [0, {END}).")
        byte = bytes([token])
        unread = self._expect(state, byte)
        grown = [new for old in state.coverings for new in self._grown(old, byte)]
        total = sum(covering.share for covering in grown)
        lost = state.lost + unread
        if total <= 0:
            return _State([self._any_covering(state, byte)], lost + 1)
        kept: list[_Covering] = []
        for covering in grown:
            covering.weight /= total
            covering.share /= total
            if covering.share >= self._model.least * _UNREAD and covering.share > 0:
                kept.append(covering)
            else:
                lost += covering.share
        return _State(kept, lost)

    def _after_control(self, state: _State, token: int) -> _State:
        """A control token ends the likeliest covering that ends here; a prompt has no other."""
        ended = [covering for covering in state.coverings if not covering.rest]
        if not ended:
            raise RequestRefused("Got a control token in the middle of another token.")
        likeliest = max(ended, key=lambda covering: covering.share)
        return _State([_Covering(likeliest.node.then(token), 1.0, 1.0)], state.lost)

    def _grown(self, covering: _Covering, byte: bytes) -> Iterator[_Covering]:
        """What a covering becomes by a byte: its last token ends there, or reaches further."""
        trie, p = self._model.trie, covering.node.p
        span = trie.span(covering.rest + byte)
        if p is None or span is None:
            return
        for place in range(span.low, span.longer):
            node = covering.node.then(int(trie.tokens[place]))
            weight = covering.weight * float(p[place])
            yield _Covering(node, weight, weight)
        if span.high > span.longer:
            mass = covering.weight * float(p[span.longer : span.high].sum())
            yield _Covering(covering.node, covering.weight, mass, covering.rest + byte)

    def _any_covering(self, state: _State, byte: bytes) -> _Covering:
        """Where none was kept that can go on with this byte: the likeliest one, cut as seems good."""
        trie = self._model.trie
        old = max(state.coverings, key=lambda covering: covering.share)
        node, rest = old.node, old.rest + byte
        while rest:
            place = trie.longest(rest)
            if place < 0:
                raise RequestRefused(f"{self._model.name} cannot write the byte {rest[:1].hex()}.")
            node = node.then(int(trie.tokens[place]))
            rest = rest[len(trie.bytes_of(place)) :]
        return _Covering(node, 1.0, 1.0)

    def _read(self, state: _State) -> float:
        """Read what is likely enough; the share of what was not."""
        unread = 0.0
        for covering in sorted(state.coverings, key=lambda covering: covering.share):
            if covering.node.p is None:
                if covering.rest or covering.share >= self._model.least:
                    self._read_node(covering.node)
                else:
                    unread += covering.share
        return unread

    def _expect(self, state: _State, byte: bytes) -> float:
        """Read also what this byte makes likely; the share of what was not read before it."""
        unread = self._read(state)
        waiting = [covering for covering in state.coverings if covering.node.p is None]
        if not waiting:
            return 0.0
        mass = sum(new.share for old in state.coverings for new in self._grown(old, byte))
        for covering in sorted(waiting, key=lambda covering: -covering.share):
            # Its share of what comes is at most this, and hardly ever as much.
            if covering.share >= self._model.least * (mass + covering.share) and mass < unread:
                self._read_node(covering.node)
                mass += sum(new.share for new in self._grown(covering, byte))
        return unread

    def _read_node(self, node: _Node) -> None:
        path = node.path()
        if not path:  # before anything was read, no token is likelier than another
            size = len(self._model.trie.tokens)
            node.p = np.full(size, 1 / size)
            return
        kept = min(common_prefix(self._inner.tokens, path), len(path) - 1)
        self._inner.rewind(kept)
        row = self._inner.feed(path[kept:], last=1)[0]
        self.read += len(path) - kept
        node.p, node.end = self._model.trie.probabilities(row)

    def _forget_rows(self) -> None:
        """Rows of coverings that are no longer: they take a megabyte each, and can be read again."""
        if len(self._states) < 2:
            return
        live = {id(covering.node) for covering in self._states[-1].coverings}
        for covering in self._states[-2].coverings:
            if id(covering.node) not in live:
                covering.node.p = None
