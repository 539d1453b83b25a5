"""The rules against the papers' formulas, written out token by token."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import log_softmax, softmax

from pilotfish.errors import ConfigError
from pilotfish.reason.rules import Mix, contrast, fit_share, least, proxy

EXPERT = np.array([3.0, 2.0, 1.9, -1.0, -4.0], np.float32)
AMATEUR = np.array([3.0, 0.0, 1.5, -3.0, 2.0], np.float32)
THIRD = np.array([0.5, 1.0, -1.0, 0.0, 2.0], np.float32)


def test_contrastive_decoding_of_li_et_al() -> None:
    """Equations 1 and 2: log p_exp - log p_ama where p_exp >= alpha max p_exp, else -inf."""
    p, q = softmax(EXPERT.astype(float)), softmax(AMATEUR.astype(float) / 0.5)
    expected = [
        math.log(p[i]) - math.log(q[i]) if p[i] >= 0.1 * p.max() else -math.inf for i in range(5)
    ]
    got = contrast(temperature=0.5)([EXPERT, AMATEUR])
    drawn = softmax(got.astype(float))
    np.testing.assert_allclose(drawn, softmax(expected), rtol=1e-5)
    assert (drawn == 0).tolist() == [False, False, False, True, True]


def test_where_no_plausible_token_is_allowed_the_experts_order_counts() -> None:
    """Of the last two tokens, both implausible, the contrast alone would choose the fourth."""
    expert = np.array([3.0, 2.0, 1.9, -4.0, -1.0], np.float32)
    got = contrast()([expert, AMATEUR])
    assert got[:3].min() - got[3:].max() >= 1000
    assert got[3:].argmax() == 1


def test_contrastive_decoding_of_obrien_and_lewis() -> None:
    """Their algorithm 1: a cutoff of log alpha below the largest logit, then (1 + b) s_e - b s_a."""
    cutoff = math.log(0.1) + EXPERT.max()
    expected = np.where(cutoff > EXPERT, -np.inf, 1.5 * EXPERT - 0.5 * AMATEUR)
    got = contrast(0.5, 0.1, form="reasoning")([EXPERT, AMATEUR])
    np.testing.assert_allclose(softmax(got.astype(float)), softmax(expected), rtol=1e-5)


def test_proxy_tuning_multiplies_by_the_small_ones_ratio() -> None:
    """Liu et al. 2024, equation 1: the large one's distribution times (tuned / untuned), renormalised."""
    large, tuned, untuned = (softmax(x.astype(float)) for x in (EXPERT, AMATEUR, THIRD))
    expected = large * tuned / untuned
    got = softmax(proxy()([EXPERT, AMATEUR, THIRD]).astype(float))
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-5)


def test_cp_delta_is_the_shared_part() -> None:
    """Vyas et al. 2023, theorem 3.1: min(p, q) / (1 - TV) for the largest divergence."""
    p, q = softmax(EXPERT.astype(float)), softmax(AMATEUR.astype(float))
    shared = 1 - 0.5 * np.abs(p - q).sum()
    got = softmax(least()([EXPERT, AMATEUR]).astype(float))
    np.testing.assert_allclose(got, np.minimum(p, q) / shared, rtol=1e-5)
    # And the bound that it is made for: no token is more than 1 / (1 - TV) times likelier than either.
    assert (got <= np.minimum(p, q) / shared * (1 + 1e-5)).all()


def test_cp_delta_with_kl_is_the_geometric_mean() -> None:
    p, q = softmax(EXPERT.astype(float)), softmax(AMATEUR.astype(float))
    expected = np.sqrt(p * q)
    got = softmax(Mix((0.5, 0.5), "log")([EXPERT, AMATEUR]).astype(float))
    np.testing.assert_allclose(got, expected / expected.sum(), rtol=1e-5)


def test_linear_mixes_add_probabilities() -> None:
    p, q = softmax(EXPERT.astype(float)), softmax(AMATEUR.astype(float))
    got = Mix((0.3, 0.7), "linear")([EXPERT, AMATEUR])
    np.testing.assert_allclose(np.exp(got), 0.3 * p + 0.7 * q, rtol=1e-5)


@given(st.integers(0, 2**31), st.sampled_from(["logits", "log", "linear", "least"]))
def test_rows_are_mixed_one_by_one(seed: int, space: str) -> None:
    rng = np.random.default_rng(seed)
    a, b = rng.standard_normal((2, 3, 7)).astype(np.float32)
    rule = Mix((0.25, 0.75), space, plausible=0.05)  # type: ignore[arg-type]
    together = rule([a, b])
    for i in range(3):
        np.testing.assert_allclose(together[i], rule([a[i], b[i]]), rtol=1e-5, atol=1e-6)


def test_what_a_grammar_or_a_member_forbids_stays_forbidden() -> None:
    row = np.array([1.0, -np.inf, 0.0], np.float32)
    other = np.array([1.0, -np.inf, -np.inf], np.float32)
    for rule in (proxy(), contrast(), Mix((0.5, 0.5, 0.0), "linear")):
        members = [row, other, row][: 2 if rule == contrast() else 3]
        assert not np.isnan(rule(members)).any()
        assert softmax(rule(members).astype(float))[1] == 0


@pytest.mark.parametrize("space", ["linear", "log"])
def test_the_fitted_share_is_the_one_the_text_was_drawn_with(space: str) -> None:
    """4,000 tokens from a mix at 0.3: the likeliest share is within four standard errors of it."""
    rng = np.random.default_rng(0)
    a, b = 2 * rng.standard_normal((2, 4000, 12)).astype(np.float32)
    rule = Mix((0.7, 0.3), space)  # type: ignore[arg-type]
    p = softmax(rule([a, b]).astype(float), axis=-1)
    tokens = [int(rng.choice(12, p=row)) for row in p]
    share = fit_share(a, b, tokens, space=space)  # type: ignore[arg-type]
    grid = np.linspace(0.01, 0.99, 99)
    rows = np.arange(4000)

    def likelihood(s: float) -> float:
        mixed = log_softmax(Mix((1 - s, s), space)([a, b]).astype(float), axis=-1)  # type: ignore[arg-type]
        return float(mixed[rows, tokens].sum())

    best = max(grid, key=likelihood)
    assert abs(share - best) < 0.011
    assert abs(share - 0.3) < 0.08


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"weights": ()}, "finite number"),
        ({"weights": (1.0, math.nan)}, "finite number"),
        ({"weights": (0.5, 0.6), "space": "linear"}, "add up to 1"),
        ({"weights": (1.0,), "space": "sum"}, "space"),
        ({"weights": (1.0,), "plausible": 1.0}, "plausible"),
        ({"weights": (1.0,), "temperatures": (0.0,)}, "temperatures"),
    ],
)
def test_wrong_numbers_are_refused(settings: dict[str, object], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        Mix(**settings)  # type: ignore[arg-type]
