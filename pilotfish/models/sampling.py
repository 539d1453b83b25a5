"""From logits to a token, and from tokens to text that ends where it should.

Temperature, top-k, nucleus (Holtzman et al. 2020) and min-p (Nguyen et al. 2024) sampling, in this order
as llama.cpp's own default chain applies them after one another; stop strings that never leak into the
output, even when a stop string arrives in pieces.
"""

from __future__ import annotations

import codecs
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pilotfish.errors import RequestRefused

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Tokens = NDArray[np.int64]

_FIRST_LOOK = 256  # likeliest tokens that are sorted for a nucleus, before more are


@dataclass(frozen=True, slots=True)
class Proposal:
    """A token that a draft proposes.

    Attributes:
        token: The token.
        probabilities: The distribution ``[vocab]`` that it was drawn from; None where it was certain, as
            a greedy or looked-up draft is.
        instead: What is proposed where this one is not taken; its ``probabilities`` are those that it
            was drawn from after this one.
    """

    token: int
    probabilities: Doubles | None = None
    instead: Proposal | None = None


def log_softmax(logits: Floats) -> Floats:
    """Row-wise log-probabilities ``[..., vocab]``, float32; rows may hold -inf.

    >>> log_softmax(np.log(np.array([1, 3], dtype=np.float32))).round(3).tolist()
    [-1.3860000371932983, -0.2879999876022339]
    """
    shifted = logits - logits.max(axis=-1, keepdims=True)
    total = np.exp(shifted).sum(axis=-1, keepdims=True, dtype=np.float64)
    return np.asarray(shifted - np.log(total).astype(np.float32), dtype=np.float32)


class Sampler:
    """Chooses tokens as the request's parameters ask.

    Args:
        params: ``temperature`` (>= 0; 0, the default, takes the likeliest token), ``top_k`` (0 is
            off), ``top_p`` in (0, 1], ``min_p`` in [0, 1], ``seed`` (None draws a fresh one).

    Raises:
        RequestRefused: A parameter is out of its range.
    """

    def __init__(self, params: Mapping[str, Any]) -> None:
        # As logits are divided by it: what is 0 in float32 is 0.
        self.temperature = float(np.float32(number(params, "temperature", 0.0, 0.0, 100.0)))
        self.top_k = int(number(params, "top_k", 0, 0, 1e9))
        self.top_p = number(params, "top_p", 1.0, 1e-9, 1.0)
        self.min_p = number(params, "min_p", 0.0, 0.0, 1.0)
        seed = params.get("seed")
        if seed is not None and (not isinstance(seed, int) or seed < 0):
            raise RequestRefused(f"Got seed={seed!r}, but expected a whole number >= 0.")
        self._random = np.random.default_rng(seed)

    def choose(self, logits: Floats, proposal: Proposal | None = None) -> int:
        """One token from ``[vocab]`` logits; -inf is never chosen.

        Args:
            logits: Of every token.
            proposal: A draft's token. The result follows the same distribution with it as without, and
                is the draft's as often as that allows.

        Raises:
            RequestRefused: All are -inf, as where a grammar allows only what a model never says.
        """
        best = int(logits.argmax())
        if logits[best] == -np.inf:
            raise RequestRefused(
                "No token may come next: what the grammar allows is nothing that the model says."
            )
        if self.temperature == 0.0:
            return best
        kept, p = self.distribution(logits)
        if proposal is None:
            return self.draw(kept, p)
        return self._judge(proposal, kept, p)

    def _judge(self, proposal: Proposal, kept: Tokens, p: Doubles) -> int:
        """Leviathan et al. 2023, algorithm 1: take the draft's token, or one of what it left out.

        What is left out is again a distribution, for which the next proposal stands: recursive rejection
        sampling (Miao et al. 2024, algorithm 2, for candidates drawn with or without replacement).
        """
        following: Proposal | None = proposal
        while following is not None:
            token, q = following.token, following.probabilities
            here = float(p[kept == token].sum())
            drafted = 1.0 if q is None else float(q[token])
            if self._random.random() * drafted < here:
                return token
            over = p * (kept != token) if q is None else np.maximum(p - q[kept], 0.0)
            p = over / over.sum()
            following = following.instead
        return self.draw(kept, p)

    def draw(self, tokens: Tokens, p: Doubles) -> int:
        """One of ``tokens``, by the probabilities ``p``, with this sampler's randomness."""
        below = np.cumsum(p)
        return int(tokens[np.searchsorted(below, self._random.random() * below[-1], side="right")])

    def distribution(self, logits: Floats) -> tuple[Tokens, Doubles]:
        """The tokens that may be drawn, and their probabilities, float64, sum 1.

        Nothing is sorted but what may be drawn: sorting a vocabulary of 150,000 takes as long as a small
        model's own step.
        """
        if self.temperature == 0.0:
            return np.array([logits.argmax()]), np.ones(1)
        kept = self._kept(logits)
        some = logits if len(kept) == len(logits) else logits[kept]
        p = np.exp((some - some.max()) / np.float32(self.temperature)).astype(np.float64)
        return kept, p / p.sum()

    def _kept(self, logits: Floats) -> Tokens:
        """Tokens left by top-k, nucleus and min-p; likeliest first where one of the first two is on."""
        kept = np.arange(len(logits))
        if self.top_k and self.top_k < len(logits):
            kept = likeliest(logits, self.top_k)
        if self.top_p < 1:
            kept = self._nucleus(logits, kept)
        if self.min_p:
            some = logits[kept]
            kept = kept[some >= some.max() + np.float32(np.log(self.min_p))]
        return kept

    def _nucleus(self, logits: Floats, kept: Tokens) -> Tokens:
        """The fewest tokens whose probabilities reach top_p; the one that crosses it is kept."""
        some = logits[kept]
        top = some.max()
        whole = np.exp(some - top).sum(dtype=np.float64)
        size = _FIRST_LOOK
        while True:
            best = kept[likeliest(some, size)]
            reached = np.cumsum(np.exp(logits[best] - top, dtype=np.float64)) / whole
            if reached[-1] >= self.top_p or len(best) == len(kept):
                return best[: int(np.searchsorted(reached, self.top_p)) + 1]
            size *= 8


def likeliest(logits: Floats, size: int) -> Tokens:
    """The ``size`` largest of ``[n]`` logits, largest first; of equal ones the first.

    >>> likeliest(np.array([1, 3, 2, 3], dtype=np.float32), 3).tolist()
    [1, 3, 2]
    """
    if not size:
        return np.zeros(0, np.int64)
    if size < len(logits):
        least = np.partition(logits, len(logits) - size)[len(logits) - size]
        few = np.flatnonzero(logits >= least)
    else:
        few = np.arange(len(logits))
    return few[np.argsort(-logits[few], kind="stable")][:size]


def number(params: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    """A numeric parameter inside [low, high].

    Raises:
        RequestRefused: It is something else.
    """
    value = params.get(name)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not low <= value <= high:
        raise RequestRefused(f"Got {name}={value!r}, but expected a number in [{low:g}, {high:g}].")
    return float(value)


class StopScanner:
    """Turns token bytes into text, and stops at the first stop string.

    Args:
        stops: Non-empty stop strings; none of them is part of the output.

    >>> scanner = StopScanner(["END"])
    >>> [scanner.feed(piece) for piece in (b"ab", b"E", b"x", b"EN", b"D!")], scanner.stopped
    (['ab', '', 'Ex', '', ''], True)
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = [s for s in stops if s]
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._held = ""
        self.stopped = False

    def feed(self, piece: bytes, *, last: bool = False) -> str:
        """The text that may be shown now; what could still begin a stop string is held back."""
        if self.stopped:
            return ""
        text = self._held + self._decoder.decode(piece, last)
        found = [at for at in (text.find(s) for s in self._stops) if at >= 0]
        if found:
            self.stopped, self._held = True, ""
            return text[: min(found)]
        keep = 0 if last else max((_overlap(text, s) for s in self._stops), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of ``text`` that begins ``stop``."""
    return next((n for n in range(len(stop) - 1, 0, -1) if text.endswith(stop[:n])), 0)
