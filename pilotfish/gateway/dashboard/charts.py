"""Charts as small inline SVG: stacked columns over time, and ranges on a logarithmic scale.

The report's drawings are made by matplotlib, which takes tenths of a second; this page is drawn anew
every few seconds. Only shapes are SVG, stretched to the width there is; the words around them are HTML,
so they keep their size on a phone. A shape's colour is a class, and the style sheet knows light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from pilotfish.figures import count
from pilotfish.store.figures import Latency, Point

SERIES = 6  # models with a colour of their own; the others share one
OTHERS = "other models"
FAILED = "failed"
HEIGHT = 100.0
GAP = 0.16  # of a column


@dataclass(frozen=True, slots=True)
class Series:
    """One colour of the stack: its name, class, total and shape."""

    name: str
    style: str
    total: int
    path: str


@dataclass(frozen=True, slots=True)
class Column:
    """What a column says when pointed at: its start (epoch s), and its parts from the top."""

    time: int
    x: float
    words: str
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stack:
    """A whole chart: series from the bottom up, ``top`` of the scale, labels of both axes.

    ``rows`` names the counts of each column.
    """

    width: int
    top: int
    rows: tuple[str, ...]
    series: tuple[Series, ...]
    columns: tuple[Column, ...]
    heights: tuple[str, ...]
    times: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Range:
    """Positions in [0, 100] of the median, 95th and 99th percentile on a logarithmic scale."""

    p50: float
    p95: float
    p99: float


def colours(totals: Mapping[str, int]) -> dict[str, str]:
    """A class for each model: the most asked have one each, given by name so that it seldom changes."""
    most = sorted(totals, key=lambda name: (-totals[name], name))[:SERIES]
    found = {name: f"s{number}" for number, name in enumerate(sorted(most), 1)}
    return {name: found.get(name, "rest") for name in totals}


def stack(points: Sequence[Point], classes: Mapping[str, str]) -> Stack:
    """Requests over time by who answered, failures on top."""
    named = sorted((n for n, c in classes.items() if c != "rest"), key=lambda n: classes[n])
    rows = [(name, classes[name]) for name in named]
    if len(named) < len(classes):
        rows.append((OTHERS, "rest"))
    rows.append((FAILED, "failed"))
    counts = [_counts(point, named, [name for name, _ in rows]) for point in points]
    top = nice(max((sum(row) for row in counts), default=0))
    floors = [0.0] * len(points)
    made = []
    for number, (name, style) in enumerate(rows):
        path = []
        for x, row in enumerate(counts):
            if row[number]:
                height = row[number] / top * HEIGHT
                y = HEIGHT - floors[x] - height
                path.append(f"M{x + GAP / 2:.2f} {y:.2f}h{1 - GAP:.2f}v{height:.2f}h{GAP - 1:.2f}z")
                floors[x] += height
        total = sum(row[number] for row in counts)
        if total:
            made.append(Series(name, style, total, "".join(path)))
    columns = tuple(
        Column(point.time, float(x), _words(row, [name for name, _ in rows]), tuple(row))
        for x, (point, row) in enumerate(zip(points, counts, strict=True))
    )
    marks = range(0, len(points), max(1, len(points) // 4))
    return Stack(
        len(points),
        top,
        tuple(name for name, _ in rows),
        tuple(made),
        columns,
        tuple(_short(top * part) for part in (1, 0.5, 0)),
        tuple(points[mark].time for mark in marks),
    )


def _counts(point: Point, named: Sequence[str], rows: Sequence[str]) -> list[int]:
    found = [point.answered.get(name, 0) for name in named]
    if OTHERS in rows[len(named) :]:
        found.append(sum(n for name, n in point.answered.items() if name not in named))
    return [*found, point.errors]


def _words(row: Sequence[int], names: Sequence[str]) -> str:
    parts = [f"{name}: {count(n)}" for n, name in zip(row, names, strict=True) if n]
    return "\n".join(reversed(parts)) or "no requests"


def nice(value: float) -> int:
    """The next larger 2, 4, 6 or 10 times a power of ten: half of it is a whole number, too.

    >>> [nice(v) for v in (0, 1, 3, 11, 250, 999, 1001)]
    [2, 2, 4, 20, 400, 1000, 2000]
    """
    if value <= 2:
        return 2
    power: int = 10 ** int(math.log10(value))
    return next(
        step
        for step in (round(power * factor) for factor in (1, 2, 4, 6, 10, 20))
        if step >= value and step % 2 == 0
    )


def _short(value: float) -> str:
    """A figure of an axis.

    >>> _short(1500), _short(2_000_000), _short(40)
    ('1.5k', '2M', '40')
    """
    for size, letter in ((1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:g}{letter}"
    return f"{value:g}"


def scale(latencies: Sequence[Latency]) -> tuple[float, float] | None:
    """The powers of ten between which all latencies lie, in seconds; None without any."""
    seen = [v for row in latencies for v in (row.p50, row.p99) if v is not None and v > 0]
    if not seen:
        return None
    low = 10.0 ** math.floor(math.log10(min(seen)))
    high = 10.0 ** math.ceil(math.log10(max(seen)) + 1e-9)
    return low, high if high > low else low * 10


def place(latency: Latency, ends: tuple[float, float]) -> Range | None:
    """Where a model's percentiles lie on the scale."""
    values = (latency.p50, latency.p95, latency.p99)
    if any(value is None for value in values):
        return None
    low, high = ends

    def position(value: float) -> float:
        share = math.log(max(value, low) / low) / math.log(high / low)
        return round(min(1.0, share) * 100, 2)

    return Range(*(position(value) for value in values if value is not None))


def clock(time: int, step: int) -> str:
    """A moment in UTC as an axis says it; the page's script rewrites it in the reader's zone."""
    form = "%H:%M" if step < 3600 else "%d %b"
    return datetime.fromtimestamp(time, UTC).strftime(form)
