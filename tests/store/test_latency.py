"""Histograms of latencies against NumPy's quantiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilotfish.store.latency import (
    LAST,
    LONGEST,
    RELATIVE_ERROR,
    SHORTEST,
    Histogram,
    bucket_of,
    upper_bound,
)

LATENCIES = st.floats(SHORTEST, LONGEST)
SHARES = st.one_of(st.floats(0, 1), st.sampled_from([0.0, 0.07, 0.5, 0.95, 0.99, 1.0]))


@given(st.lists(LATENCIES, min_size=1, max_size=200), SHARES)
def test_a_quantile_is_within_the_stated_error(latencies, share):
    truth = np.quantile(latencies, share, method="inverted_cdf")
    assert Histogram.of(latencies).quantile(share) == pytest.approx(
        truth, rel=RELATIVE_ERROR + 1e-9
    )


def test_on_a_realistic_sample():
    latencies = np.random.default_rng(0).lognormal(-1.5, 1.2, 100_000)
    histogram = Histogram.of(latencies)
    for share in (0.5, 0.9, 0.95, 0.99, 0.999):
        truth = np.quantile(latencies, share, method="inverted_cdf")
        assert histogram.quantile(share) == pytest.approx(truth, rel=RELATIVE_ERROR)
    assert len(histogram.pack()) < 4096


@given(st.lists(LATENCIES), st.lists(LATENCIES), st.lists(LATENCIES))
def test_merging_is_counting_together(one, two, three):
    together = Histogram.of([*one, *two, *three])
    left = Histogram.of(one).merge(Histogram.of(two)).merge(Histogram.of(three))
    right = Histogram.of(one).merge(Histogram.of(two).merge(Histogram.of(three)))
    assert left == right == together
    assert Histogram.unpack(together.pack()) == together
    assert len(together) == len(one) + len(two) + len(three)


@given(LATENCIES)
def test_buckets_hold_what_their_bounds_say(seconds):
    bucket = bucket_of(seconds)
    assert seconds <= upper_bound(bucket) * (1 + 1e-12)
    assert bucket == 0 or seconds > upper_bound(bucket - 1) * (1 - 1e-12)


@pytest.mark.parametrize(
    ("seconds", "bucket"),
    [(0.0, 0), (-1.0, 0), (float("nan"), 0), (1e9, LAST), (float("inf"), LAST)],
)
def test_what_is_out_of_range_is_counted_at_the_ends(seconds, bucket):
    assert bucket_of(seconds) == bucket


def test_nothing_counted():
    assert Histogram().quantile(0.5) is None
    assert len(Histogram()) == 0
    assert Histogram.unpack(Histogram().pack()) == Histogram()
    assert upper_bound(LAST) == float("inf")
