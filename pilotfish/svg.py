"""Drawings by matplotlib as inline SVG that follows the page's colours.

Every colour is drawn as a sentinel and replaced by a CSS variable, so that one drawing serves light, dark
and print. Text stays text. Each plot is drawn twice, for wide and for narrow screens: shrinking one
drawing to a phone would shrink its letters. No window, no global figure: this is safe in any thread that
draws alone.

The page's colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from html import escape
from io import StringIO
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

Draw = Callable[[Axes, bool], None]

SENTINELS = {
    "ink": "#010203",
    "muted": "#020304",
    "line": "#030405",
    "small": "#040506",
    "large": "#050607",
    "good": "#060708",
    "bad": "#070809",
    "paper": "#08090a",
}
INK, MUTED, LINE, SMALL, LARGE, GOOD, BAD, PAPER = SENTINELS.values()
WIDE, NARROW = 520, 340  # in CSS pixels: half of a desktop page, and all of a phone's

STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "text.parse_math": False,  # labels are the user's, and may hold dollar signs
    "font.family": ["DejaVu Sans"],
    "font.size": 12,
    "axes.edgecolor": LINE,
    "axes.labelcolor": MUTED,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "text.color": INK,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": MUTED,
    "ytick.labelcolor": INK,
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "axes.grid": True,
    "axes.axisbelow": True,
    "figure.facecolor": "none",
    "axes.facecolor": "none",
    "savefig.facecolor": "none",
}


@dataclass(frozen=True, slots=True)
class Plot:
    """One plot: SVG for wide and narrow screens, and what it shows in words."""

    wide: str
    narrow: str
    alt: str


def plot(draw: Draw, height: float, alt: str, name: str) -> Plot:
    """Draw a plot for wide and for narrow screens.

    Args:
        draw: Draws on axes; the second argument says whether the screen is narrow.
        height: In CSS pixels.
        alt: What it shows, in words, for those who cannot see it.
        name: Different for every plot of a page, since it makes the ids inside different.
    """
    wide, narrow = (_svg(draw, width, height, alt, f"{name}{width}") for width in (WIDE, NARROW))
    return Plot(wide, narrow, alt)


def _svg(draw: Draw, width: float, height: float, alt: str, salt: str) -> str:
    narrow = width == NARROW
    own = {"svg.hashsalt": salt, "font.size": 11.5 if narrow else 12.5}
    with mpl.rc_context(STYLE | own):
        figure = Figure(figsize=(width / 72, height / 72), dpi=72, layout="constrained")
        canvas = FigureCanvasSVG(figure)
        draw(figure.add_subplot(), narrow)
        out = StringIO()
        # Not savefig, which draws everything once more to measure it.
        canvas.print_svg(out, metadata={"Date": None, "Creator": None})  # type: ignore[no-untyped-call]
    return _themed(out.getvalue(), alt)


def _themed(svg: str, alt: str) -> str:
    """The bare ``<svg>`` element with variables for colours, without what would leak into the page."""
    svg = svg[svg.index("<svg") :]
    svg = re.sub(r"<metadata>.*?</metadata>", "", svg, flags=re.S)
    svg = re.sub(r"<style type=\"text/css\">.*?</style>", "", svg, flags=re.S)
    svg = re.sub(r"(font(?:-family)?: [^;\"]*?)'DejaVu Sans'[^;\"]*", r"\1var(--sans)", svg)
    box = re.search(r'viewBox="[^"]*"', svg)
    assert box is not None
    head = (
        f'<svg class="plot" role="img" aria-label="{escape(alt, quote=True)}" {box[0]} '
        'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink">'
    )
    svg = head + svg[svg.index(">") + 1 :]
    for name, colour in SENTINELS.items():
        svg = svg.replace(colour, f"var(--{name})")
    return re.sub(r"\n\s*", "\n", svg)
