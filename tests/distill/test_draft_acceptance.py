"""How many of a draft's guesses hold: against real sampling, and multiplied by hand; needs no torch."""

from __future__ import annotations

import numpy as np
import pytest

from pilotfish.distill.acceptance import (
    expected_acceptance,
    held_guesses,
    rate_by_position,
    reached_by_position,
    tokens_a_read,
)
from pilotfish.models.sampling import Proposal, Sampler
from tests.distill.counting_prompts import logits


@pytest.mark.parametrize("heat", [0.0, 0.7, 1.0])
def test_chances_along_a_text_are_those_of_real_sampling(heat: float) -> None:
    """The oracle is the sampler itself: draft, judge, and see how often the draft's token was taken."""
    p, q = logits(1, 6, 1)[0], logits(1, 6, 2)[0]
    q[4] = -np.inf  # a token that the draft never guesses
    target, draft = (
        Sampler({"temperature": heat, "seed": 0}),
        Sampler({"temperature": heat, "seed": 1}),
    )
    taken, chances = 0, 0.0
    rounds = 4000
    for _ in range(rounds):
        kept, shares = draft.distribution(q)
        guess = draft.draw(kept, shares)
        whole = np.zeros(6)
        whole[kept] = shares
        token = target.choose(p, Proposal(guess, whole if heat else None))
        taken += token == guess
        chances += held_guesses(p[None], q[None], [token], heat)[0]
    expected = expected_acceptance(p[None], q[None], heat)[0]
    assert chances / rounds == pytest.approx(expected, abs=0.02)
    # The target may also draw by itself what the draft guessed, in the case that it was refused: never,
    # since what is left of p there is 0.
    assert taken / rounds == pytest.approx(expected, abs=0.03)


def test_rates_by_position_multiply_to_what_is_reached() -> None:
    held = [np.random.default_rng(i).random(30) for i in range(5)]
    reached, rates = reached_by_position(held, 4), rate_by_position(held, 4)
    assert np.cumprod(rates) == pytest.approx(reached)
    by_hand = np.mean([one[i] * one[i + 1] for one in held for i in range(27)])
    assert reached[1] == pytest.approx(by_hand)
    assert tokens_a_read(held, 2) == pytest.approx(1 + sum(reached_by_position(held, 2)))
    assert tokens_a_read(held, 0) == 1.0
    assert np.isnan(rate_by_position([np.ones(2)], 4)).all()
