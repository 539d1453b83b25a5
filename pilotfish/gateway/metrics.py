"""``/metrics``: figures for Prometheus, in the text form its client library writes.

Counters are sums over the store's minute roll-up: they hold across restarts, and every worker and machine
that shares a store says the same. Scrape one address, or drop duplicates: do not add them up. Gauges are
those of the worker that answers, and carry its process id as ``worker``.

Minutes older than :data:`SETTLED` are summed once and kept; a scrape reads only those since. A record may
come late, by the longest request and by a store that was away for a while, hence an hour.

Saved money is a gauge, not a counter: a dear answer can make it fall, and Prometheus takes a counter that
falls for a restart. Labels are bounded: what clients write is no label unless it is served, and models
beyond :data:`MOST_MODELS` share the name ``other``.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from pilotfish.gateway.health import breaker_state
from pilotfish.gateway.pages import Handler, Receive, Scope, Send, header, page, reply
from pilotfish.gateway.task_metrics import task_families
from pilotfish.store.latency import LAST, upper_bound
from pilotfish.store.statistics import CheckTotal, Statistics, Total

if TYPE_CHECKING:
    from prometheus_client import Metric

    from pilotfish.store.ledger import Day

SETTLED = 60  # minutes after which a minute's sums change no more
MOST_MODELS = 100
OTHER = "other"

# Every 29th edge of the store's buckets: a factor of 3.2, so two a decade, from 0.1 ms to 6 min.
EDGES = tuple(bucket for bucket in range(58, LAST, 29) if upper_bound(bucket) < 1000)

BREAKER_STATES = ("closed", "half-open", "open")


@dataclass(slots=True)
class Sums:
    """Sums of one asked, model and status."""

    requests: int = 0
    escalated: int = 0
    prompt_tokens: int = 0
    completion_tokens: int = 0
    cost: float = 0.0
    unpriced: int = 0
    baseline: float = 0.0
    compared_cost: float = 0.0
    compared: int = 0
    seconds: float = 0.0
    buckets: list[int] = field(default_factory=lambda: [0] * (len(EDGES) + 1))

    def add(self, total: Total) -> None:
        """Add a span's sums."""
        for name in _ADDED:
            setattr(self, name, getattr(self, name) + getattr(total, name))
        for bucket, count in total.latency.counts.items():
            self.buckets[_edge(bucket)] += count

    def merge(self, other: Sums) -> None:
        """Add another's sums."""
        for name in _ADDED:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.buckets = [a + b for a, b in zip(self.buckets, other.buckets, strict=True)]


_ADDED = tuple(name for name in Sums.__slots__ if name != "buckets")


def _edge(bucket: int) -> int:
    """Which of our coarse buckets a fine one falls into; their edges are common."""
    return next((i for i, edge in enumerate(EDGES) if bucket <= edge), len(EDGES))


Key = tuple[str, str, int]


class Counters:
    """Sums over all of the store's traffic, of which old minutes are read once.

    Args:
        statistics: The store's.
        served: Names that may be labels.
    """

    def __init__(self, statistics: Statistics, served: Iterable[str]) -> None:
        self._statistics = statistics
        self._served = frozenset(served)
        self._models: set[str] = set()
        self._settled: defaultdict[Key, Sums] = defaultdict(Sums)
        self._until: int | None = None

    def read(self, now: float) -> dict[Key, Sums]:
        """The sums at this moment; blocks while the store is read."""
        minute = int(now // 60)
        if self._until is None:
            self._until = self._statistics.first_minute()
            if self._until is None:
                return {}
        border = minute - SETTLED
        if border > self._until:
            self._add(self._settled, self._until, border)
            self._until = border
        found: defaultdict[Key, Sums] = defaultdict(Sums)
        for key, sums in self._settled.items():
            found[key].merge(sums)
        self._add(found, self._until, minute + 2)  # clocks of several machines differ a little
        return found

    def _add(self, sums: defaultdict[Key, Sums], since: int, until: int) -> None:
        for total in self._statistics.totals(since, until):
            asked = total.asked if total.asked in self._served else OTHER if total.asked else ""
            sums[asked, self._model(total.model), total.status].add(total)

    def _model(self, name: str) -> str:
        if name and name not in self._models:
            if len(self._models) >= MOST_MODELS:
                return OTHER
            self._models.add(name)
        return name


class Collector:
    """Gives Prometheus' library one scrape: counters, checks and the gauges of this worker."""

    def __init__(
        self,
        sums: dict[Key, Sums],
        checks: Iterable[CheckTotal],
        days: Iterable[Day],
        gateway: Any,
        worker: str,
    ) -> None:
        self._sums, self._checks, self._days = sums, list(checks), list(days)
        self._gateway, self._worker = gateway, worker

    def collect(self) -> Iterator[Metric]:
        """All families."""
        yield from self._traffic()
        yield from self._money()
        yield from self._compared()
        yield from task_families(self._days)
        yield from self._gauges()

    def _traffic(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, HistogramMetricFamily

        requests = CounterMetricFamily(
            "pilotfish_requests", "Requests, by model asked for, model that answered and HTTP status.",
            labels=("asked", "model", "status"),
        )  # fmt: skip
        for (asked, model, status), sums in sorted(self._sums.items()):
            requests.add_metric((asked, model, str(status)), sums.requests)
        yield requests
        merged = self._by_model()
        duration = HistogramMetricFamily(
            "pilotfish_request_duration_seconds", "From the request's first byte to the answer's last.",
            labels=("asked", "model"),
        )  # fmt: skip
        escalated = CounterMetricFamily(
            "pilotfish_escalated_requests", "Requests for which a smaller model was not good enough.",
            labels=("asked", "model"),
        )  # fmt: skip
        tokens = CounterMetricFamily(
            "pilotfish_tokens", "Tokens, of prompts and of answers.",
            labels=("asked", "model", "kind"),
        )  # fmt: skip
        for pair, sums in merged.items():
            duration.add_metric(pair, list(_cumulative(sums.buckets)), sums.seconds)
            escalated.add_metric(pair, sums.escalated)
            tokens.add_metric((*pair, "prompt"), sums.prompt_tokens)
            tokens.add_metric((*pair, "completion"), sums.completion_tokens)
        yield from (duration, escalated, tokens)

    def _money(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        labels = ("asked", "model")
        cost = CounterMetricFamily(
            "pilotfish_cost_dollars", "US dollars paid for answers, where known.", labels=labels
        )
        unpriced = CounterMetricFamily(
            "pilotfish_unpriced_requests", "Answers of unknown cost.", labels=labels
        )
        baseline = CounterMetricFamily(
            "pilotfish_baseline_dollars",
            "US dollars that always large would have cost, where that and the cost are known.",
            labels=labels,
        )
        saved = GaugeMetricFamily(
            "pilotfish_saved_dollars",
            "US dollars saved against always large, net of failed requests; may fall. "
            "Checks are in pilotfish_check_cost_dollars_total.",
            labels=("asked",),
        )
        net: defaultdict[str, float] = defaultdict(float)
        for (asked, _model, status), sums in self._sums.items():
            paid = sums.cost if status >= 400 else sums.compared_cost
            net[asked] += sums.baseline - paid
        for pair, sums in self._by_model().items():
            cost.add_metric(pair, sums.cost)
            unpriced.add_metric(pair, sums.unpriced)
            baseline.add_metric(pair, sums.baseline)
        for asked, dollars in sorted(net.items()):
            saved.add_metric((asked,), dollars)
        yield from (cost, unpriced, baseline, saved)

    def _compared(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily

        labels = ("asked", "small", "large")
        checks = CounterMetricFamily(
            "pilotfish_checks", "Answers of small models that were compared.", labels=labels
        )
        differed = CounterMetricFamily(
            "pilotfish_check_disagreements", "Of these, those that differed.", labels=labels
        )
        cost = CounterMetricFamily(
            "pilotfish_check_cost_dollars",
            "US dollars paid for checks, where known.",
            labels=labels,
        )
        for row in self._checks:
            names = (row.asked, row.small, row.large)
            checks.add_metric(names, row.checked)
            differed.add_metric(names, row.differed)
            cost.add_metric(names, row.cost)
        yield from (checks, differed, cost)

    def _gauges(self) -> Iterator[Metric]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily

        from pilotfish import __version__

        gateway, worker = self._gateway, (self._worker,)
        admission, recorder = gateway.admission, gateway.recorder
        yield InfoMetricFamily("pilotfish_build", "This Pilotfish.", value={"version": __version__})
        for name, words, value in (
            ("pilotfish_active_requests", "Requests that are worked on.", admission.active),
            ("pilotfish_waiting_requests", "Requests that wait for a place.", admission.waiting),
            ("pilotfish_recorder_waiting_exchanges", "Records not yet written.", recorder.waiting),
            ("pilotfish_start_time_seconds", "When the worker started.", gateway.started_at),
        ):
            gauge = GaugeMetricFamily(name, f"{words} Of this worker.", labels=("worker",))
            gauge.add_metric(worker, value)
            yield gauge
        for name, words, value in (
            ("pilotfish_refused_requests", "Refused for want of a place.", admission.refused),
            (
                "pilotfish_denied_requests",
                "Refused for want of a valid key.",
                gateway.access.denied,
            ),
            ("pilotfish_recorder_lost_exchanges", "Records that were lost.", recorder.lost),
            ("pilotfish_recorder_withheld_texts", "Records without texts.", recorder.withheld),
        ):
            counter = CounterMetricFamily(name, f"{words} Of this worker.", labels=("worker",))
            counter.add_metric(worker, value)
            yield counter
        breaker = GaugeMetricFamily(
            "pilotfish_breaker_state", "1 for the state of a model's circuit breaker, else 0.",
            labels=("model", "state", "worker"),
        )  # fmt: skip
        for name, model in sorted(gateway.served.started().items())[:MOST_MODELS]:
            state = breaker_state(model)
            for one in BREAKER_STATES if state else ():
                breaker.add_metric((name, one, self._worker), float(one == state))
        yield breaker

    def _by_model(self) -> dict[tuple[str, str], Sums]:
        merged: defaultdict[tuple[str, str], Sums] = defaultdict(Sums)
        for (asked, model, _status), sums in sorted(self._sums.items()):
            merged[asked, model].merge(sums)
        return merged


def _cumulative(buckets: list[int]) -> Iterator[tuple[str, float]]:
    seen = 0
    for edge, count in zip((*EDGES, LAST), buckets, strict=True):
        seen += count
        bound = upper_bound(edge)
        yield ("+Inf" if bound == inf else f"{bound:.4g}"), float(seen)


class Metrics:
    """Renders scrapes of one gateway, one at a time."""

    def __init__(self, gateway: Any) -> None:
        names = [row.name for row in gateway.served.names()]
        self._counters = Counters(gateway.store.statistics, names)
        self._lock = asyncio.Lock()

    async def render(self, gateway: Any, accept: str = "") -> tuple[bytes, str]:
        """A scrape and its content type, in the form that ``accept`` asks for."""
        async with self._lock:
            return await asyncio.to_thread(self._render, gateway, accept)

    def _render(self, gateway: Any, accept: str) -> tuple[bytes, str]:
        from prometheus_client.exposition import choose_encoder

        now = time.time()
        sums = self._counters.read(now)
        checks = gateway.store.statistics.checks(0.0, now + 120.0)
        encode, kind = choose_encoder(accept)
        days = gateway.store.ledger.days()
        return encode(Collector(sums, checks, days, gateway, str(os.getpid()))), kind


_metrics: WeakKeyDictionary[Any, Metrics] = WeakKeyDictionary()  # by store


async def _serve(gateway: Any, scope: Scope, receive: Receive, send: Send) -> None:
    metrics = _metrics.get(gateway.store)
    if metrics is None:
        metrics = _metrics[gateway.store] = Metrics(gateway)
    body, kind = await metrics.render(gateway, header(scope, b"accept"))
    await reply(scope, send, body, kind)


ROUTES: dict[str, Handler] = {"/metrics": page(_serve, private=True)}
