"""What the traffic came to: the figures behind the dashboard and the metrics, and what they mean.

Sums with an unknown part say how large that part is:

- **Saving** is what "always large" would have cost, minus everything that was paid: the answers, the
  failed requests and the shadow checks. A successful request whose cost or baseline is unknown is left
  out on both sides and counted in :attr:`Saving.unknown`. The cost of a failed request is counted,
  whatever its baseline: it bought nothing.
- **Disagreement** carries the Wilson interval (Wilson 1927; its coverage at small n is discussed by
  Brown, Cai & DasGupta, "Interval Estimation for a Binomial Proportion", 2001).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

Z95 = 1.959963984540054  # two-sided 95%


@dataclass(frozen=True, slots=True)
class Share:
    """A share of ``n`` trials with its 95% Wilson interval; ``low`` and ``high`` are 0 and 1 at n = 0.

    Attributes:
        hits: How many of them.
        n: Trials.
        low: Lower end.
        high: Upper end.
    """

    hits: int
    n: int
    low: float
    high: float

    @property
    def value(self) -> float | None:
        """The share itself, None without trials."""
        return self.hits / self.n if self.n else None

    @classmethod
    def of(cls, hits: int, n: int) -> Share:
        """Compute the interval.

        >>> share = Share.of(3, 200)
        >>> round(share.low, 5), round(share.high, 5)
        (0.00511, 0.04317)
        """
        if n == 0:
            return cls(0, 0, 0.0, 1.0)
        p, z2 = hits / n, Z95 * Z95
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = Z95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        low = 0.0 if hits == 0 else max(0.0, middle - half)
        high = 1.0 if hits == n else min(1.0, middle + half)
        return cls(hits, n, low, high)


@dataclass(frozen=True, slots=True)
class Latency:
    """Seconds that answers took; None where there were none."""

    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


@dataclass(frozen=True, slots=True)
class Answered:
    """What one model answered in the place of the one that was asked for.

    Attributes:
        asked: The served name in the request.
        model: Who really answered; "" when nobody did.
        requests: All of them, failed ones included.
        errors: Those with an HTTP status of 400 and more.
        escalated: Answers for which a smaller model was not good enough.
        prompt_tokens: Sum.
        completion_tokens: Sum.
        cost: US dollars, where known.
        unpriced: Requests whose cost is unknown.
        latency: Of the successful ones.
    """

    asked: str
    model: str
    requests: int
    errors: int
    escalated: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    unpriced: int
    latency: Latency


@dataclass(frozen=True, slots=True)
class Point:
    """One step of time: successful answers by model, and how many requests failed."""

    time: int
    answered: dict[str, int]
    errors: int


@dataclass(frozen=True, slots=True)
class Saving:
    """What was saved against "always large", net of everything; US dollars.

    Attributes:
        asked: The served name, or "" for all together.
        baseline: What the large model alone would have cost for the requests that are counted.
        paid: What their answers cost, with the cost of failed requests.
        checks: What shadow checks cost.
        counted: Successful requests of which both sides are known.
        unknown: Successful requests of which one side is not.
        unknown_checks: Checks of unknown cost.
    """

    asked: str
    baseline: float
    paid: float
    checks: float
    counted: int
    unknown: int
    unknown_checks: int = 0

    @property
    def net(self) -> float | None:
        """Baseline minus all that was paid; None when no request's two sides are known."""
        return self.baseline - self.paid - self.checks if self.counted else None

    @property
    def share(self) -> float | None:
        """The net saving as a share of the baseline; may be negative, None without a baseline."""
        return self.net / self.baseline if self.net is not None and self.baseline > 0 else None

    @property
    def unknown_share(self) -> float:
        """Share of successful requests that the saving says nothing about."""
        total = self.counted + self.unknown
        return self.unknown / total if total else 0.0


@dataclass(frozen=True, slots=True)
class Failure:
    """Requests that failed in one way: HTTP status and stable code ("" when only that is known)."""

    status: int
    code: str
    requests: int


@dataclass(frozen=True, slots=True)
class Disagreement:
    """How often the small model's answer differed from the large one's when both were asked."""

    asked: str
    small: str
    large: str
    share: Share


@dataclass(frozen=True, slots=True)
class Feedback:
    """What callers said about answers.

    Attributes:
        count: Entries.
        poor: Of those with a score, the share below 0.5.
        mean: Mean score in [0, 1], None without scores.
        wrong: Of the newest with a label, the share whose answer was another text.
    """

    count: int
    poor: Share
    mean: float | None
    wrong: Share


@dataclass(frozen=True, slots=True)
class Figures:
    """Everything about one span of time, ``since <= time < until`` in epoch seconds, whole minutes."""

    since: int
    until: int
    step: int
    requests: int
    errors: int
    latency: Latency
    answered: tuple[Answered, ...]
    points: tuple[Point, ...]
    saving: Saving
    savings: tuple[Saving, ...]
    failures: tuple[Failure, ...]
    disagreement: tuple[Disagreement, ...]
    feedback: Feedback
