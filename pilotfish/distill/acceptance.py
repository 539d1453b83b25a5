"""How many of a draft's guesses its target would take, from the logits of both on the target's text.

Along a text that the target wrote, a guess of the draft at each token holds with probability
``min(1, q(x) / p(x))`` given that the token came out as ``x``: ``x`` is drafted and taken with
probability ``min(p, q)(x)``, and the token follows ``p`` (Leviathan et al. 2023). So products of these
along the text estimate, without bias, how often several guesses in a row hold, for greedy and sampled
answers and for any draft, without running any speculation.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from pilotfish.models.protocols import Floats
from pilotfish.models.sampling import log_softmax

Doubles = NDArray[np.float64]


def held_guesses(
    target: Floats, draft: Floats, tokens: Sequence[int], temperature: float = 1.0
) -> Doubles:
    """Probability that the draft's guess held, for each token of a text of the target's, ``[n]``.

    Args:
        target: Logits ``[n, vocab]`` before each token.
        draft: The draft's; -inf for tokens that it never guesses.
        tokens: What the target wrote at this temperature.
        temperature: Of both; 0 takes the likeliest token.

    >>> rows = np.log(np.array([[0.5, 0.5]], np.float32)), np.log(np.array([[0.2, 0.8]], np.float32))
    >>> held_guesses(*rows, [0]).round(3).tolist(), held_guesses(*rows, [1]).round(3).tolist()
    ([0.4], [1.0])
    """
    at, chosen = np.arange(len(tokens)), np.asarray(tokens)
    if temperature == 0:
        return np.asarray(draft.argmax(axis=1) == chosen, np.float64)
    heat = np.float32(temperature)
    p, q = log_softmax(target / heat)[at, chosen], log_softmax(draft / heat)[at, chosen]
    return np.asarray(np.minimum(1.0, np.exp(q.astype(np.float64) - p)))


def expected_acceptance(target: Floats, draft: Floats, temperature: float = 1.0) -> Doubles:
    """``sum min(p, q)`` at each position, ``[n]``: what :func:`held_guesses` is on average over ``p``.

    Args:
        target: Logits ``[n, vocab]``.
        draft: The draft's; -inf for tokens that it never guesses.
        temperature: Of both; 0 says whether their likeliest tokens are the same.
    """
    if temperature == 0:
        return np.asarray(draft.argmax(axis=1) == target.argmax(axis=1), np.float64)
    heat = np.float32(temperature)
    p, q = np.exp(log_softmax(target / heat)), np.exp(log_softmax(draft / heat))
    return np.asarray(np.minimum(p, q).sum(axis=1, dtype=np.float64))


def rate_by_position(held: Sequence[Doubles], longest: int) -> list[float]:
    """Share of the j-th guesses in a row that hold where all before them did, ``j = 1 .. longest``.

    Args:
        held: :func:`held_guesses` of several texts; rows of guesses begin at every token that has so many
            after it.
        longest: Guesses in a row.

    Returns:
        ``longest`` shares; nan after a position that nothing reached, or where no text is long enough.

    >>> rate_by_position([np.array([1.0, 1.0, 0.0, 1.0])], 2)
    [0.6666666666666666, 0.5]
    """
    reached = reached_by_position(held, longest)
    before = [1.0, *reached]
    pairs = zip(before, reached, strict=False)
    return [after / first if first else float("nan") for first, after in pairs]


def reached_by_position(held: Sequence[Doubles], longest: int) -> list[float]:
    """Share of rows of guesses of which at least ``j`` hold, ``j = 1 .. longest``."""
    total, rows = np.zeros(longest), 0
    for one in held:
        if len(one) >= longest:
            windows = np.lib.stride_tricks.sliding_window_view(one, longest)
            total += np.cumprod(windows, axis=1).sum(axis=0)
            rows += len(windows)
    return [float(share) for share in total / rows] if rows else [float("nan")] * longest


def tokens_a_read(held: Sequence[Doubles], guesses: int) -> float:
    """Tokens that one reading of the target gives with so many guesses, its own one included."""
    return 1.0 + sum(reached_by_position(held, guesses)) if guesses else 1.0
