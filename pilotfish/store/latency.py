"""Latencies as histograms that can be added up: any quantile, over any span, within 2%.

Quantiles cannot be averaged, so each minute keeps counts in buckets of equal ratio, and the buckets of
many minutes are added. Bucket ``i`` holds seconds in ``(SHORTEST * G**(i-1), SHORTEST * G**i]`` with
``G = 1.02 / 0.98``; bucket 0 holds all that is shorter than 10 microseconds, and the last one all that is
longer than 10,000 seconds. A quantile is given as the value of its bucket that is at most 2% from both of
its ends. This is the sketch of Masson, Rim & Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch
with Relative-Error Guarantees" (VLDB 2019), with bounds instead of collapsing buckets: latencies have
bounds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Self

import msgspec

RELATIVE_ERROR = 0.02
SHORTEST, LONGEST = 1e-5, 1e4  # seconds
RATIO = (1 + RELATIVE_ERROR) / (1 - RELATIVE_ERROR)
LAST = math.ceil(math.log(LONGEST / SHORTEST) / math.log(RATIO))  # 519 buckets after the first

_SCALE = 1 / math.log(RATIO)
_encode = msgspec.json.Encoder().encode
_decoder = msgspec.json.Decoder(dict[int, int])


def bucket_of(seconds: float) -> int:
    """The bucket that a latency falls into, 0 to :data:`LAST`.

    >>> bucket_of(0.0), bucket_of(1e-5), bucket_of(1e9) == LAST
    (0, 0, True)
    """
    if not seconds > SHORTEST:  # also catches NaN
        return 0
    if seconds >= LONGEST:
        return LAST
    return min(LAST, math.ceil(math.log(seconds / SHORTEST) * _SCALE))


def upper_bound(bucket: int) -> float:
    """The longest latency of a bucket in seconds, for cumulative histograms; infinite for the last."""
    return math.inf if bucket >= LAST else SHORTEST * RATIO**bucket


def _middle(bucket: int) -> float:
    """The value that is equally far from both ends of its bucket, relative to them."""
    if bucket == 0:
        return SHORTEST
    if bucket >= LAST:
        return LONGEST
    return SHORTEST * RATIO**bucket * 2 / (1 + RATIO)


class Histogram:
    """How many latencies fell into which bucket.

    Args:
        counts: Bucket to count; buckets without any may be left out.

    >>> both = Histogram.of([0.1, 0.2]).merge(Histogram.of([0.3, 0.4]))
    >>> len(both), round(both.quantile(0.5), 2), Histogram.unpack(both.pack()) == both
    (4, 0.2, True)
    """

    __slots__ = ("counts",)

    def __init__(self, counts: Mapping[int, int] | None = None) -> None:
        self.counts: dict[int, int] = dict(counts or {})

    @classmethod
    def of(cls, latencies: Iterable[float]) -> Self:
        """Count latencies, in seconds."""
        histogram = cls()
        for seconds in latencies:
            histogram.add(seconds)
        return histogram

    def add(self, seconds: float, count: int = 1) -> None:
        """Count one more latency, or ``count`` equal ones."""
        bucket = bucket_of(seconds)
        self.counts[bucket] = self.counts.get(bucket, 0) + count

    def merge(self, other: Histogram) -> Self:
        """Add another's counts to this one's; returns this one."""
        for bucket, count in other.counts.items():
            self.counts[bucket] = self.counts.get(bucket, 0) + count
        return self

    def quantile(self, share: float) -> float | None:
        """The latency in seconds that this share does not exceed; None when nothing was counted.

        Args:
            share: In [0, 1]. The latency given is that of rank ``ceil(share * n)`` (at least 1), as in
                ``numpy.quantile(..., method="inverted_cdf")``, and at most 2% from it between 10
                microseconds and 10,000 seconds.
        """
        total = len(self)
        if total == 0:
            return None
        rank = max(1, math.ceil(share * total - 1e-9))  # 0.07 * 100 is 7.000000000000001
        for bucket in sorted(self.counts):
            rank -= self.counts[bucket]
            if rank <= 0:
                break
        return _middle(bucket)

    def pack(self) -> bytes:
        """As a JSON object of bucket to count, in the order of the buckets."""
        return _encode(dict(sorted(self.counts.items())))

    @classmethod
    def unpack(cls, blob: bytes) -> Self:
        """What :meth:`pack` wrote."""
        return cls(_decoder.decode(blob))

    def __len__(self) -> int:
        return sum(self.counts.values())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Histogram) and self.counts == other.counts

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"Histogram({self.counts})"
