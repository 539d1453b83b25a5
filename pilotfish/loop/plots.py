"""The report's plots, each a function from the outcome to a drawing, its height and its words.

A plot without data is None, and the page says why. Nothing is said by colour alone. Drawing and theming
is :mod:`pilotfish.svg`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from pilotfish.figures import at_most, count, milliseconds, money, percent
from pilotfish.loop.result import Gold, OffloadResult
from pilotfish.loop.wording import REDUCTIONS, in_money
from pilotfish.svg import BAD, GOOD, INK, LARGE, LINE, MUTED, PAPER, SMALL, Draw, Plot, plot

SHOWN_CLASSES = 16

Z95 = 1.96


def draw_all(result: OffloadResult) -> dict[str, Plot | None]:
    """Every plot of the report by name; None where there is nothing to draw."""
    makers: dict[str, Callable[[OffloadResult], tuple[Draw, float, str] | None]] = {
        "curve": curve,
        "classes": classes,
        "latency": latency,
        "waterfall": waterfall,
        "gold": gold,
    }
    found: dict[str, Plot | None] = {}
    for name, make in makers.items():
        made = make(result)
        found[name] = None if made is None else plot(*made, name)
    return found


def curve(result: OffloadResult) -> tuple[Draw, float, str] | None:
    """Coverage against risk: the estimate, its upper bound, the target, and the chosen point."""
    certificate = result.certificate
    points = sorted(
        (float(p["coverage"]) * 100, float(p["risk"]) * 100, float(p["bound"]) * 100)
        for p in certificate.get("curve") or ()
        if all(isinstance(p.get(key), (int, float)) for key in ("coverage", "risk", "bound"))
    )
    wanted = list(certificate.get("constraints") or [])
    if len(points) < 2 or not wanted:
        return None
    first = wanted[0]
    alpha = (1 - float(first["target"])) * 100
    x, risk, bound = zip(*points, strict=True)
    chosen = certificate.get("threshold") is not None and certificate.get("bound") is not None
    at = (
        (float(certificate["coverage"]) * 100, float(certificate["bound"]) * 100)
        if chosen
        else None
    )
    top = min(max(*risk, alpha * 1.2), max(alpha * 4, (at or (0, 0))[1] * 2))
    top = max(top, alpha * 1.6)
    names = {"precision": "wrong among those called", "recall": "missed among"}
    said = (
        f"{names[first['kind']]} “{first['label']}”"
        if first["kind"] in names
        else "of its own answers differ"
        if first.get("on") == "served"
        else "of all answers differ"
    )

    def draw(ax: Axes, narrow: bool) -> None:
        ax.plot(x, risk, color=SMALL, lw=2.2, label="estimate")
        ax.plot(x, bound, color=LARGE, lw=1.8, ls=(0, (5, 2)), label="upper bound")
        ax.axhline(alpha, color=BAD, lw=1.4, ls=(0, (1, 1.5)), label=f"target {alpha:g}%")
        if at is not None:
            ax.axvline(at[0], color=LINE, lw=1)
            ax.plot(*at, "o", ms=9, color=PAPER, mec=INK, mew=2, zorder=5, clip_on=False)
            left = at[0] > 50
            ax.annotate(
                f"chosen: {percent(at[0] / 100)} served,\nat most {at_most(at[1] / 100)} differ"
                if first["kind"] == "agree"
                else f"chosen: {percent(at[0] / 100)} served,\nat most {at_most(at[1] / 100)}",
                at,
                xytext=(-10 if left else 10, 12),
                textcoords="offset points",
                ha="right" if left else "left",
                va="bottom",
                bbox={"facecolor": PAPER, "edgecolor": "none", "alpha": 0.85, "pad": 1.5},
            )
        ax.set(xlim=(0, 100), ylim=(0, top))
        ax.set_xlabel("inputs answered by the small model")
        ax.set_ylabel(said)
        for axis in (ax.xaxis, ax.yaxis):
            axis.set_major_locator(MaxNLocator(5 if narrow else 6))
            axis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}%"))
        ax.tick_params(axis="y", labelcolor=MUTED)
        _legend(ax, 2 if narrow else 3)

    alt = f"Coverage against risk. The target is {alpha:g}% {said}."
    alt += (
        f" Chosen: {percent(at[0] / 100)} answered by the small model, upper bound "
        f"{at_most(at[1] / 100)}."
        if at
        else " No threshold was certified."
    )
    return draw, 330, alt


def classes(result: OffloadResult) -> tuple[Draw, float, str] | None:
    """Per class: the share that the small model answers, and how it agrees there."""
    rows = sorted(result.per_class, key=lambda row: -row.share)[:SHOWN_CLASSES]
    if not rows:
        return None
    size = max(23.0, 60.0 / len(rows))

    def draw(ax: Axes, narrow: bool) -> None:
        y = range(len(rows))
        ax.barh(y, [row.served * 100 for row in rows], height=0.62, color=SMALL, label="served")
        known = [
            (i, row.agreement * 100) for i, row in enumerate(rows) if row.agreement is not None
        ]
        if known:
            ax.plot(
                [value for _, value in known],
                [i for i, _ in known],
                "D",
                ms=6.5,
                color=LARGE,
                mec=PAPER,
                mew=1.2,
                ls="none",
                label="agreement" if narrow else "agreement where served",
                clip_on=False,
                zorder=4,
            )
        _labels(ax, [_short(row.label or "(none)", 14 if narrow else 24) for row in rows])
        ax.set_xlim(0, 100)
        ax.xaxis.set_major_locator(MaxNLocator(5))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}%"))
        _legend(ax, 2)

    named = "; ".join(f"{row.label}: {percent(row.served)} served" for row in rows)
    return draw, 88 + size * len(rows), f"Share served and agreement per class. {named}."


def latency(result: OffloadResult) -> tuple[Draw, float, str] | None:
    """Time of one answer on a logarithmic axis: median to 95th percentile, or the mean alone."""
    seen, large = result.latency, result.large.name
    rows = [
        (name, times.p50_ms, times.p95_ms, colour)
        if times.p50_ms is not None
        else (f"{name} mean", times.mean_ms, None, colour)
        for name, times, colour in (("small", seen.small, SMALL), (large, seen.large, LARGE))
    ]
    rows.append(("cascade mean", seen.cascade_mean_ms, None, INK))
    rows = [row for row in rows if row[1] is not None and row[1] > 0]
    if not rows:
        return None

    def draw(ax: Axes, narrow: bool) -> None:
        for y, (_, p50, p95, colour) in enumerate(rows):
            assert p50 is not None
            end = p95 if p95 is not None and p95 > p50 else p50
            ax.plot([p50, end], [y, y], color=colour, lw=3, solid_capstyle="round")
            ax.plot([end], [y], "|", ms=11, mew=2.5, color=colour)
            ax.plot([p50], [y], "o", ms=9, color=colour)
            text = milliseconds(p50)
            if end > p50:
                text += f"  to {milliseconds(end)}"
            ax.annotate(
                text, (math.sqrt(p50 * end), y), (0, 9), textcoords="offset points", ha="center"
            )
        values = [v for row in rows for v in row[1:3] if isinstance(v, float | int)]
        low, high = math.log10(min(values)), math.log10(max(values))
        room = 0.35 + 0.3 * (high - low) * (1 if narrow else 0.6)
        ax.set_xscale("log")
        ax.set_xlim(10 ** (low - room), 10 ** (high + room))
        _labels(ax, [_short(row[0], 12 if narrow else 22) for row in rows])
        ax.set_ylim(len(rows) - 0.5, -0.75)
        ax.xaxis.set_major_locator(LogLocator(numticks=5 if narrow else 8))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: milliseconds(v)))

    said = "; ".join(f"{row[0]}: {milliseconds(row[1])}" for row in rows)
    return draw, 60 + 52 * len(rows), f"Time of one answer, logarithmic axis. {said}."


def waterfall(result: OffloadResult) -> tuple[Draw, float, str] | None:
    """What it would have cost, what came off, what was paid all the same, and the total."""
    items = [
        item
        for item in result.waterfall
        if item.calls or item.cost or item.item in ("always-large", "net")
    ]
    if len(items) < 2:
        return None
    in_dollars = in_money(result)
    show: Callable[[float | None], str] = money if in_dollars else count
    sizes = [abs((item.cost if in_dollars else item.calls) or 0.0) for item in items]
    start = next((s for s, i in zip(sizes, items, strict=True) if i.item == "always-large"), 0.0)
    bars: list[tuple[float, float, str, str]] = []
    level, paid = start, 0.0
    for item, size in zip(items, sizes, strict=True):
        if item.item == "always-large":
            bars.append((0.0, size, MUTED, show(size)))
        elif item.item in REDUCTIONS:
            level -= size
            bars.append((level, size, GOOD, show(-size)))
        elif item.item == "net":
            bars.append((0.0, size, SMALL, show(size)))
        else:
            bars.append((paid, size, LARGE, show(size)))
            paid += size
    extent = max(start, paid, *sizes) or 1.0
    lowest = min(0.0, *(left for left, *_ in bars))

    def draw(ax: Axes, narrow: bool) -> None:
        for y, (left, size, colour, text) in enumerate(bars):
            ax.barh(y, size, left=left, height=0.62, color=colour)
            inside = size > extent * (0.3 if narrow else 0.2)
            ax.annotate(
                text,
                (left + size, y),
                (-5 if inside else 5, 0),
                textcoords="offset points",
                ha="right" if inside else "left",
                va="center",
                color=PAPER if inside else INK,
            )
        if start:
            ax.axvline(start, color=MUTED, lw=1, ls=(0, (1, 2)))
        _labels(ax, [_bar_name(item.item, result.large.name, narrow) for item in items])
        ax.set_xlim(lowest * 1.1, extent * 1.16)
        ax.xaxis.set_major_locator(MaxNLocator(3 if narrow else 5))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: show(v)))
        ax.set_xlabel("US dollars" if in_dollars else "calls to the large model")

    said = "; ".join(f"{item.item}: {bar[3]}" for item, bar in zip(items, bars, strict=True))
    unit = "dollars" if in_dollars else "calls"
    return draw, 66 + 29 * len(bars), f"Cost waterfall in {unit}. {said}."


def gold(result: OffloadResult) -> tuple[Draw, float, str] | None:
    """Accuracy against the user's own labels, with 95% intervals (Wilson)."""
    found = result.gold
    if found is None:
        return None
    rows = [
        (result.large.name, found.large, LARGE),
        ("cascade", found.cascade, SMALL),
        ("small alone", found.student, SMALL),
        ("majority label", found.baseline, MUTED),
    ]

    def draw(ax: Axes, narrow: bool) -> None:
        for y, (_, value, colour) in enumerate(rows):
            ax.barh(y, value * 100, height=0.62, color=colour)
            low, high = wilson(value, found)
            last = y == len(rows) - 1  # counted over the whole file, so it has no interval
            if not last:
                ax.plot([low * 100, high * 100], [y, y], color=INK, lw=1.6)
                ax.plot([low * 100, high * 100], [y, y], "|", color=INK, ms=8, mew=1.6)
            ax.annotate(
                percent(value, 1),
                ((value if last else high) * 100, y),
                (6, 0),
                textcoords="offset points",
                va="center",
            )
        _labels(ax, [_short(row[0], 15 if narrow else 24) for row in rows])
        ax.set_xlim(0, 118)
        ax.set_xticks(range(0, 101, 50 if narrow else 25))
        ax.xaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:g}%"))

    said = "; ".join(f"{name}: {percent(value, 1)}" for name, value, _ in rows)
    return draw, 60 + 30 * len(rows), f"Accuracy on {found.n} rows with gold labels. {said}."


def wilson(share: float, found: Gold) -> tuple[float, float]:
    """95% interval of a share seen on the gold rows (Wilson 1927), inside [0, 1]."""
    n = max(found.n, 1)
    centre = (share + Z95**2 / (2 * n)) / (1 + Z95**2 / n)
    half = Z95 / (1 + Z95**2 / n) * math.sqrt(share * (1 - share) / n + Z95**2 / (4 * n * n))
    return max(centre - half, 0.0), min(centre + half, 1.0)


def _labels(ax: Axes, names: Sequence[str]) -> None:
    ax.set_yticks(range(len(names)), names)
    ax.set_ylim(len(names) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    ax.grid(visible=False, axis="y")
    ax.spines["left"].set_visible(False)


def _legend(ax: Axes, columns: int) -> None:
    ax.legend(
        loc="lower left",
        bbox_to_anchor=(-0.01, 1.0),
        ncols=columns,
        frameon=False,
        handlelength=1.7,
        columnspacing=1.4,
        borderaxespad=0.2,
    )


def _short(text: str, length: int) -> str:
    """Shortened in the middle, since names that belong together begin alike."""
    text = " ".join(text.split())
    tail = length // 3
    return text if len(text) <= length else f"{text[: length - tail - 1]}…{text[-tail:]}"


def _bar_name(item: str, large: str, narrow: bool) -> str:
    if item == "always-large":
        return "all to large" if narrow else f"all to {_short(large, 18)}"
    return {"net": "paid in all", "escalated": "escalated"}.get(item, item)
