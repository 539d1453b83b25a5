"""The page of a curation run: one HTML file that needs nothing else.

What was dropped, where and why; how the scores lie; and the rows that were kept or dropped by a hair,
which is where a threshold is judged. Everything that comes from data is escaped, and a content security
policy forbids the page to load or run anything.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from functools import lru_cache
from importlib.resources import files
from itertools import pairwise
from math import exp, log
from typing import TYPE_CHECKING, Any, NamedTuple

from pilotfish import figures
from pilotfish.curate.result import CurateResult
from pilotfish.curate.step import ROW_BITS
from pilotfish.curate.tally import Example, Scores, StepTally, edges

if TYPE_CHECKING:
    from jinja2 import Template
    from matplotlib.axes import Axes

    from pilotfish.svg import Plot

BARS = 40
SHOWN_TEXT = 240  # characters of an example before it is folded away
SHOWN_TAGS = 30
LOGARITHMIC = 100  # a score of which 90% spread over more than this ratio gets such an axis


class Level(NamedTuple):
    """One line of the funnel: what is left after a step, as shares of what was read.

    ``seconds`` of the processor are those of judging and fitting.
    """

    name: str
    rows: int
    share: float
    lost: int
    lost_share: float
    seconds: float | None


def render_report(result: CurateResult) -> str:
    """The page."""
    return _template().render(
        r=result,
        css=files("pilotfish").joinpath("report.css").read_text("utf-8")
        + files("pilotfish.curate").joinpath("report.css").read_text("utf-8"),
        headline=headline(result),
        funnel=funnel(result),
        histograms=[
            (step, column, histogram(scores, step, column, f"h{i}-{j}"))
            for i, step in enumerate(result.steps)
            for j, (column, scores) in enumerate(step.scores.items())
        ],
        shown=SHOWN_TEXT,
        shown_tags=SHOWN_TAGS,
        margins=margins(result.steps),
    )


def headline(result: CurateResult) -> str:
    """What the run came to, in one sentence."""
    kept = figures.percent(result.rows_kept / result.rows_read if result.rows_read else 0.0, 1)
    reasons = result.reasons
    most = next(iter(reasons), None)
    why = f"; most of the rest went for {most}" if most else ""
    whole = " of a sample" if result.sample < 1 or not result.output else ""
    return (
        f"{figures.count(result.rows_kept)} of {figures.count(result.rows_read)} rows{whole} "
        f"stayed, {kept}{why}."
    )


def funnel(result: CurateResult) -> list[Level]:
    """What is left after each step."""
    read = max(1, result.rows_read)
    levels = [Level("read", result.rows_read, result.rows_read / read, 0, 0.0, None)]
    for step in result.steps:
        lost = step.rows_in - step.rows_out
        share = lost / step.rows_in if step.rows_in else 0.0
        levels.append(
            Level(
                step.name,
                step.rows_out,
                step.rows_out / read,
                lost,
                share,
                step.seconds + step.fit_seconds,
            )
        )
    return levels


def margins(
    steps: Sequence[StepTally],
) -> list[tuple[str, list[Example], list[tuple[str, int, Any]]]]:
    """Step by step: the kept examples, and reason, count and examples of the dropped."""
    found = []
    for step in steps:
        dropped = [
            (reason, step.reasons.get(reason, 0), examples)
            for reason, examples in step.examples.items()
            if reason
        ]
        dropped.sort(key=lambda item: (-item[1], item[0]))
        kept = step.examples.get("", []) if dropped or step.scores else []
        if kept or dropped:
            found.append((step.name, kept, dropped))
    return found


def histogram(scores: Scores, step: StepTally, column: str, name: str) -> Plot | None:
    """How a score lies among kept and dropped rows; None when it is the same for all, or missing."""
    from pilotfish.svg import BAD, GOOD, plot

    if scores.low is None or scores.high is None or scores.low >= scores.high:
        return None
    marks, logarithmic = _grid(scores, scores.low, scores.high)
    kept, dropped = (_fill(counts, marks) for counts in (scores.kept, scores.dropped))

    def draw(axes: Axes, narrow: bool) -> None:
        widths = [high - low for low, high in pairwise(marks)]
        axes.bar(marks[:-1], kept, widths, align="edge", color=GOOD, label="kept")
        if any(dropped):
            axes.bar(
                marks[:-1],
                dropped,
                widths,
                bottom=kept,
                align="edge",
                color=BAD,
                label="dropped",
                hatch="////",
                edgecolor="none",
            )
            axes.legend(  # above them: bars may fill the axes
                frameon=False, ncols=2, borderaxespad=0, loc="lower right", bbox_to_anchor=(1, 1)
            )
        if logarithmic:
            axes.set_xscale("log")
            axes.xaxis.set_major_formatter(lambda value, at: f"{value:g}")
            axes.xaxis.set_minor_formatter(lambda value, at: "")
        else:
            axes.ticklabel_format(axis="x", useOffset=False)
            axes.locator_params(axis="x", nbins=5)
        axes.set_xlim(marks[0], marks[-1])
        axes.set_ylabel("rows")
        axes.locator_params(axis="y", nbins=5)
        axes.yaxis.set_major_formatter(lambda value, at: figures.count(value))
        axes.grid(axis="x", visible=False)

    total = sum(scores.kept.values()) + sum(scores.dropped.values())
    alt = (
        f"Histogram of {column} by the step {step.name}: {figures.count(total)} rows from "
        f"{scores.low:.4g} to {scores.high:.4g}, {figures.count(sum(scores.dropped.values()))} dropped."
    )
    return plot(draw, 230, alt, name)


def _grid(scores: Scores, least: float, most: float) -> tuple[list[float], bool]:
    """Where bars begin and end, and whether the axis is logarithmic.

    One row in a thousand may lie outside at each end; the bars there hold it.
    """
    low, high = (
        max(least, _quantile(scores, 0.001)),
        min(most, _quantile(scores, 0.999)),
    )
    typical = _quantile(scores, 0.05)
    share = least >= 0 and most <= 1  # read as one, whatever its spread
    if low >= high:  # nearly all rows are alike: where they lie is what there is to see
        low, high = (0.0, 1.0) if share else (least, most)
    logarithmic = not share and typical > 0 and _quantile(scores, 0.95) / typical > LOGARITHMIC
    if logarithmic:
        low = max(low if low > 0 else typical, high * 1e-30)  # more decades than that show nothing
        step = (log(high) - log(low)) / BARS
        marks = [exp(log(low) + step * i) for i in range(BARS + 1)]
    else:
        marks = [low + (high - low) * i / BARS for i in range(BARS + 1)]
    marks[-1] = high
    return marks, logarithmic


def _quantile(scores: Scores, share: float) -> float:
    """The upper edge of the bin that so many of the rows lie in or below; 0 where there are none."""
    counts = Counter(scores.kept) + Counter(scores.dropped)
    seen, wanted = 0, share * counts.total()
    for key in sorted(counts):
        seen += counts[key]
        if seen >= wanted:
            return edges(key)[1] if key else 0.0  # the bin of 0 ends at the smallest normal number
    return 0.0


def _fill(counts: dict[int, int], marks: list[float]) -> list[float]:
    """Rows between the marks; those of a bin that spans several are spread evenly."""
    filled = [0.0] * (len(marks) - 1)
    for key, count in counts.items():
        low, high = edges(key)
        if low < marks[0]:
            low = marks[0]
        if high > marks[-1]:
            high = marks[-1]
        if high <= low:  # all of the bin lies outside, or on the edge
            filled[-1 if low >= marks[-1] else 0] += count
            continue
        for i, (a, b) in enumerate(pairwise(marks)):
            overlap = min(high, b) - max(low, a)
            if overlap > 0:
                filled[i] += count * overlap / (high - low)
    return filled


def _place(row: int) -> str:
    """Where a row stood, for people."""
    return f"part {row >> ROW_BITS}, row {(row & ((1 << ROW_BITS) - 1)) + 1:,}"


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {
        "percent": figures.percent,
        "count": figures.count,
        "duration": figures.duration,
        "size": _size,
        "place": _place,
        "shorten": lambda text: text if len(text) <= SHOWN_TEXT else text[:SHOWN_TEXT] + " …",
    }
    source = files("pilotfish.curate").joinpath("report.html.j2").read_text("utf-8")
    return environment.from_string(source)


def _size(number: float) -> str:
    """Bytes as people say them.

    >>> _size(999), _size(1_234_567)
    ('999 B', '1.2 MB')
    """
    for unit in ("B", "kB", "MB", "GB", "TB"):
        if number < 1000 or unit == "TB":
            return (
                f"{number:.0f} {unit}" if unit == "B" or number >= 100 else f"{number:.1f} {unit}"
            )
        number /= 1000
    return ""
