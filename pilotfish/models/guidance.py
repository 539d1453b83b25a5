"""Grammars for vocabularies of our own, by llguidance: what llama.cpp does for the files it runs.

llama.cpp carries llguidance for JSON schemas and a parser of its own for GBNF, both bound to the
vocabulary of a GGUF file. A :class:`Guide` gives the same to any list of tokens: those of a model run by
transformers, or the 256 bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

import llguidance
import numpy as np

from pilotfish.errors import RequestRefused
from pilotfish.models.gbnf import gbnf_to_lark
from pilotfish.models.protocols import Floats

# Terminals of one character visit many more states than llguidance expects of a step: a tenth of a
# vocabulary of 150,000 tokens may be allowed at once.
_STEPS = 20_000_000
_ROW = 200_000


class Guide:
    """Makes grammars for one vocabulary; making it takes a moment (0.1 s for 50,000 tokens), so keep it.

    Args:
        tokens: What each token stands for; b"" for control tokens.
        ends: Tokens that end an answer.
        tokenize: Tokens of a text.
    """

    def __init__(
        self,
        tokens: Sequence[bytes],
        ends: Collection[int],
        tokenize: Callable[[str], list[int]],
    ) -> None:
        self.ends = np.array(sorted(ends), dtype=np.intp)
        self.size = len(tokens)
        vocabulary = _Vocabulary(tokens, int(self.ends[0]), tokenize)
        wrapped = llguidance.TokenizerWrapper(vocabulary)
        self._tokenizer = llguidance.LLTokenizer(wrapped, eos_token=[int(t) for t in self.ends])

    def grammar(self, text: str) -> GuidedGrammar:
        """What may come next under a grammar in llama.cpp's notation (GBNF), starting at ``root``.

        Raises:
            RequestRefused: It cannot be read.
        """
        return self._matcher(gbnf_to_lark(text), "this grammar")

    def json_grammar(self, schema: str) -> GuidedGrammar:
        """What may come next in a JSON value of a JSON schema.

        Raises:
            RequestRefused: The schema cannot be used.
        """
        return self._matcher("%llguidance {}\nstart: %json " + schema, "this JSON schema")

    def _matcher(self, lark: str, what: str) -> GuidedGrammar:
        limits = llguidance.LLParserLimits(max_items_in_row=_ROW, step_max_items=_STEPS)
        grammar = llguidance.LLMatcher.grammar_from_lark(lark)
        matcher = llguidance.LLMatcher(self._tokenizer, grammar, log_level=0, limits=limits)
        if matcher.is_error():
            raise RequestRefused(f"llguidance cannot use {what}: {_first(matcher.get_error())}")
        return GuidedGrammar(matcher, self.ends, self.size)


class GuidedGrammar:
    """Which tokens may come next; see :class:`pilotfish.models.protocols.Grammar`."""

    def __init__(self, matcher: llguidance.LLMatcher, ends: np.ndarray, size: int) -> None:
        self._matcher: llguidance.LLMatcher | None = matcher
        self._ends = ends
        self._size = size  # of the vocabulary

    def mask(self, logits: Floats) -> Floats:
        """A copy of ``[vocab]`` logits with -inf for tokens that may not come next.

        There may be fewer logits than tokens: where models are mixed, what only pads is cut off.

        Raises:
            RequestRefused: The grammar takes too many steps.
        """
        matcher = self._open
        allowed = np.zeros(self._size, dtype=bool)
        if matcher.is_stopped():
            allowed[self._ends] = True
        else:
            words = np.zeros((self._size + 31) // 32, dtype=np.int32)
            matcher.unsafe_compute_mask_ptr(words.ctypes.data, words.nbytes)
            bits = np.unpackbits(words.view(np.uint8), bitorder="little", count=self._size)
            allowed = bits.astype(bool)
            allowed[self._ends] = matcher.is_accepting()
        self._check()
        return np.where(allowed[: len(logits)], logits, np.float32(-np.inf))

    def accept(self, token: int) -> None:
        """Advance by the token that was chosen.

        Raises:
            RequestRefused: It was not allowed.
        """
        if token not in self._ends:
            self._open.consume_token(token)
            self._check()

    def close(self) -> None:
        """Free it."""
        self._matcher = None

    @property
    def _open(self) -> llguidance.LLMatcher:
        assert self._matcher is not None, "used after it was closed"
        return self._matcher

    def _check(self) -> None:
        if self._open.is_error():
            raise RequestRefused(f"The grammar failed: {_first(self._open.get_error())}")


class _Vocabulary:
    """What llguidance asks of a tokenizer; control tokens get names that no text has."""

    def __init__(
        self, tokens: Sequence[bytes], end: int, tokenize: Callable[[str], list[int]]
    ) -> None:
        self.eos_token_id = end
        self.bos_token_id = None
        self.special_token_ids = [number for number, raw in enumerate(tokens) if not raw]
        self.tokens = [raw or b"<|%d|>" % number for number, raw in enumerate(tokens)]
        self._tokenize = tokenize

    def __call__(self, text: str) -> list[int]:
        if not isinstance(text, str):
            raise TypeError("text only")
        return self._tokenize(text)


def _first(error: str) -> str:
    """The first lines of llguidance's message; what follows is the whole grammar."""
    return " ".join(error.split("\n")[:2])[:300]
