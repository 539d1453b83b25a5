"""A token model read byte by byte, so that models of different vocabularies can be steered together.

A model of tokens also says how likely each next byte is. A text can be written in several ways as
tokens; the probability that an answer begins with certain bytes is the sum over all ways to cover them,
where the last token may reach further (Vieira et al. 2024, "From Language Models over Tokens to Language
Models over Characters"; Phan et al. 2024, "Exact Byte-Level Probabilities from Tokenized Language
Models"). Next bytes are the ratio of two such sums. Every model then has one vocabulary: the 256 bytes,
and the end.

What is kept is a set of :class:`~pilotfish.reason.coverings.Covering`. One that ends exactly at the last
byte needs the model's next row, a forward pass; the others wait for their last token to end, and cost
nothing. So a text costs about one pass for each of its tokens, and one for each other token that was
likely on the way.

**Exactness.** With ``least = 0`` all coverings are kept and the bytes follow the model's own distribution
exactly; but there are exponentially many. Otherwise a covering whose share of the probability is below
``least`` is not read, nor are more than ``width`` at one byte: the others are taken to say the same, and
are read after all when what came next makes them likely. The shares that were not read add up to
:attr:`ByteSession.lost`, whose expected value bounds the total variation distance between the text
written and the exact one (each step goes as the exact one but with the probability of that share).
Tokens that stand for no text, other than ends, count as impossible.

Control tokens of a prompt have numbers from :data:`CONTROL` on. The prompt is read as the model's own
tokens, and what is written begins at a new token, as it does when the model writes by itself.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np

from pilotfish.config import Price
from pilotfish.errors import ConfigError, RequestRefused
from pilotfish.models.batching import check_rewind
from pilotfish.models.held import common_prefix
from pilotfish.models.protocols import Floats, Grammar, Session, TokenModel
from pilotfish.reason.byte_trie import ByteTrie
from pilotfish.reason.coverings import Covering, Node, State
from pilotfish.records import Request

if TYPE_CHECKING:
    from pilotfish.models.guidance import Guide

END = 256
VOCAB = 257
CONTROL = 257  # the inner model's token 0; only prompts have such numbers
LEAST = 1e-3
WIDTH = 4
_UNREAD = (
    1e-3  # of LEAST: a covering that waits costs nothing, and is dropped later than one to be read
)
_WAITING = (
    64  # coverings that are kept at most; a run of spaces can be cut in as many ways as it is long
)
_OTHERWISE = 0.01  # of the share that was not read: spread evenly over all bytes that can follow
_FLOOR = 1e-9  # of bytes that only dropped coverings could write
# What text is made of; some tokenizers lack control characters and the bytes of unassigned planes.
_TEXT = (10, *range(32, 127), *range(0x80, 0xC0), *range(0xC2, 0xF1))


class ByteModel:
    """A token model over the 256 bytes and the end (:data:`END`), made of one over tokens.

    Args:
        model: It.
        least: Coverings of a smaller share are not read; 0 keeps and reads all.
        width: Coverings that are read at one byte at most, unless ``least`` is 0.

    Attributes:
        name: The model's own.
        vocab: 257.
        unwritable: Bytes that no token stands for.

    Raises:
        ConfigError: A byte that text is made of is none of its tokens.
    """

    def __init__(self, model: TokenModel, *, least: float = LEAST, width: int = WIDTH) -> None:
        self.model = model
        self.name = model.name
        self.vocab = VOCAB
        self.least = least
        self.width = width if least else 1 << 62
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

    @property
    def opening(self) -> list[int]:
        """What the model was trained to see before every text, counted from :data:`CONTROL` on."""
        return [CONTROL + token for token in getattr(self.model, "opening", ())]

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
            self, self.model.session(), [], [State([Covering(Node(None, -1), 1.0, 1.0)])]
        )


class ByteSession:
    """One text in a :class:`ByteModel`; see :class:`pilotfish.models.protocols.Session`.

    Attributes:
        read: Tokens that the model read so far, those of coverings that came to nothing included.
    """

    def __init__(
        self, model: ByteModel, inner: Session, tokens: list[int], states: list[State]
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
        check_rewind(length, len(self._states) - 1)
        del self._states[length + 1 :]
        del self._tokens[length:]

    def fork(self) -> ByteSession:
        """A second session with the same past."""
        inner, states = self._inner.fork(), list(self._states)
        return ByteSession(self._model, inner, list(self._tokens), states)

    def _row(self) -> Floats:
        """Log-probabilities of the next byte and the end ``[257]``."""
        state = self._states[-1]
        used, unread = self._read(state)
        masses = np.zeros(VOCAB)
        for covering in used:
            p = covering.node.p
            span = self._model.trie.span(covering.rest)
            if p is None or span is None:
                continue
            if len(span.starts):
                masses[span.following] += covering.weight * span.following_masses(p)
            if not covering.rest:
                masses[END] += covering.weight * covering.node.end
        self._forget_rows()
        masses *= (1 - _OTHERWISE * unread) / masses.sum()
        root = self._model.trie.span(b"")
        assert root is not None
        spread = _OTHERWISE * unread / (len(root.following) + 1)
        masses[root.following] += spread
        masses[END] += spread
        if state.lost or unread:
            rare = root.following[masses[root.following] == 0]
            masses[rare] = _FLOOR / VOCAB
        with np.errstate(divide="ignore"):
            return np.asarray(np.log(masses / masses.sum()), np.float32)

    def _after(self, token: int) -> State:
        """The coverings after one more byte or control token."""
        state = self._states[-1]
        if token >= CONTROL:
            return self._after_control(state, token - CONTROL)
        if not 0 <= token < END:
            raise RequestRefused(f"Got token {token}, but expected a byte in [0, {END}).")
        byte = bytes([token])
        used, unread = self._expected(state, byte)
        grown = [new for old in used for new in self._grown(old, byte)]
        total = sum(covering.share for covering in grown)
        lost = state.lost + unread
        if total <= 0:
            return State([self._any_covering(state, byte)], lost + 1)
        for covering in grown:
            covering.weight /= total
            covering.share /= total
        kept = sorted(grown, key=lambda covering: -covering.share)
        if self._model.least:
            kept = [c for c in kept[:_WAITING] if c.share >= self._model.least * _UNREAD]
            lost += max(0.0, 1 - sum(covering.share for covering in kept))
        return State(kept, lost)

    def _after_control(self, state: State, token: int) -> State:
        """A control token ends the likeliest covering that ends here; a prompt has no other."""
        ended = [covering for covering in state.coverings if not covering.rest]
        if not ended:
            raise RequestRefused("Got a control token in the middle of another token.")
        likeliest = max(ended, key=lambda covering: covering.share)
        return State([Covering(likeliest.node.then(token), 1.0, 1.0)], state.lost)

    def _grown(self, covering: Covering, byte: bytes) -> Iterator[Covering]:
        """What a covering becomes by a byte: its last token ends there, or reaches further."""
        trie, p = self._model.trie, covering.node.p
        span = trie.span(covering.rest + byte)
        if p is None or span is None:
            return
        for place in range(span.low, span.longer):
            node = covering.node.then(int(trie.tokens[place]))
            weight = covering.weight * float(p[place])
            yield Covering(node, weight, weight)
        if span.high > span.longer:
            mass = covering.weight * float(p[span.longer : span.high].sum())
            yield Covering(covering.node, covering.weight, mass, covering.rest + byte)

    def _any_covering(self, state: State, byte: bytes) -> Covering:
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
        return Covering(node, 1.0, 1.0)

    def _read(self, state: State) -> tuple[list[Covering], float]:
        """The coverings that count, all read; and the share of those that do not."""
        model = self._model
        ended = [covering for covering in state.coverings if not covering.rest]
        due = [covering for covering in ended if covering.share >= model.least][: model.width]
        if len(ended) == len(state.coverings):
            due = due or ended[:1]
        going = [covering for covering in state.coverings if covering.rest]
        for covering in [*going, *reversed(due)]:  # the likeliest last: most goes on from there
            if covering.node.p is None:
                self._read_node(covering.node)
        unread = sum(covering.share for covering in ended if covering not in due)
        return [*going, *due], unread

    def _expected(self, state: State, byte: bytes) -> tuple[list[Covering], float]:
        """As :meth:`_read`, with those that this byte makes likely."""
        used, unread = self._read(state)
        waiting = [covering for covering in state.coverings if covering not in used]
        mass = sum(new.share for old in used for new in self._grown(old, byte)) if waiting else 1.0
        for covering in waiting[: self._model.width]:
            # Its share of what comes is at most this, and hardly ever as much.
            if covering.share >= self._model.least * (mass + covering.share) and mass < unread:
                if covering.node.p is None:
                    self._read_node(covering.node)
                mass += sum(new.share for new in self._grown(covering, byte))
                used.append(covering)
        return used, unread

    def _read_node(self, node: Node) -> None:
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
