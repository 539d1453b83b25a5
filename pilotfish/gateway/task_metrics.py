"""What recurring tasks came to, for Prometheus: from the loop's books, net of everything paid.

The books are kept by ``pilotfish learn``; without it there is nothing here. Tasks are few, so they are
labels.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pilotfish.store.ledger import Day, total

if TYPE_CHECKING:
    from prometheus_client import Metric


def task_families(days: Iterable[Day]) -> Iterator[Metric]:
    """One family a sum; what was saved is a gauge, since it can fall, and absent where it is unknown."""
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

    by_task: defaultdict[str, list[Day]] = defaultdict(list)
    for day in days:
        by_task[day.task].append(day)
    for name, words, attribute in (
        ("pilotfish_task_requests", "Answered requests of a recurring task.", "requests"),
        ("pilotfish_task_small_requests", "Of these, answered by a learned version.", "small"),
        ("pilotfish_task_checks", "Small answers that the large model was asked too.", "checks"),
        ("pilotfish_task_disagreements", "Of these, answered differently.", "disagreed"),
        ("pilotfish_task_lessons", "Answers bought to learn and to certify.", "lessons"),
        ("pilotfish_task_unknown_requests", "Requests of unknown cost, in no sum.", "unknown"),
        ("pilotfish_task_unpriced_calls", "Checks and lessons of unknown cost.", "unpriced"),
    ):
        counter = CounterMetricFamily(name, words, labels=("task",))
        for task, rows in sorted(by_task.items()):
            counter.add_metric((task,), sum(getattr(row, attribute) for row in rows))
        yield counter
    avoided = GaugeMetricFamily(
        "pilotfish_task_avoided_calls",
        "Calls of the large model not made, less those for checks and lessons.",
        labels=("task",),
    )
    saved = GaugeMetricFamily(
        "pilotfish_task_saved_dollars",
        "US dollars saved, net of checks, lessons and judges; absent where prices are unknown.",
        labels=("task",),
    )
    for task, rows in sorted(by_task.items()):
        whole = total(rows)
        avoided.add_metric((task,), whole.avoided)
        if whole.saving is not None:
            saved.add_metric((task,), whole.saving)
    yield from (avoided, saved)
