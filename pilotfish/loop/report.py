"""The HTML report: one file that needs nothing else, readable by the person who pays the bill.

No script, no font, no image from anywhere; a content security policy in the page forbids it even if a
text from the user's file should try. Everything that comes from data is escaped by the template engine.
"""

from __future__ import annotations

import shlex
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING

from pilotfish import figures
from pilotfish.loop import wording
from pilotfish.loop.result import OffloadResult

if TYPE_CHECKING:
    from jinja2 import Template
    from markupsafe import Markup

SHOWN_TEXT = 280  # characters of an example before it is folded away
FULL_TEXT = 20_000  # of what is folded away: a report of forty 1 MB texts would open in no browser
EXAMPLES = 20


def render_report(result: OffloadResult) -> str:
    """The report as one HTML page."""
    from pilotfish.loop.plots import SHOWN_CLASSES, draw_all

    return _template().render(
        r=result,
        css=files("pilotfish").joinpath("report.css").read_text("utf-8"),
        headline=wording.headline(result),
        tiles=wording.tiles(result),
        notes=wording.notes(result),
        certified=wording.certified(result),
        certificate_words=wording.certificate_words(result),
        in_money=wording.in_money(result),
        race_note=wording.race_note,
        latency_words=wording.latency_words(result),
        plots=draw_all(result),
        examples=result.disagreements[:EXAMPLES],
        shown=SHOWN_TEXT,
        shown_classes=SHOWN_CLASSES,
    )


def write_report(result: OffloadResult, path: str | Path) -> None:
    """Write the report to a file."""
    Path(path).write_text(render_report(result), "utf-8", errors="replace")


@lru_cache(maxsize=1)
def _template() -> Template:
    from jinja2 import Environment, StrictUndefined

    environment = Environment(autoescape=True, undefined=StrictUndefined)
    environment.filters |= {
        "percent": figures.percent,
        "money": figures.money,
        "count": figures.count,
        "duration": figures.duration,
        "milliseconds": figures.milliseconds,
        "number": figures.number,
        "score": figures.score,
        "shorten": lambda text: _clip(text, SHOWN_TEXT),
        "clip": lambda text: _clip(text, FULL_TEXT),
        "shell": shlex.quote,
        "whole": _whole,
    }
    source = files("pilotfish.loop").joinpath("report.html.j2").read_text("utf-8")
    return environment.from_string(source)


def _clip(text: str, length: int) -> str:
    return text if len(text) <= length else text[:length].rstrip() + " …"


def _whole(text: str, name: str) -> Markup:
    """Escaped text in which a short name is never broken at its hyphen."""
    from markupsafe import Markup, escape

    safe, inside = escape(text), escape(name)
    if not 0 < len(name) <= 24:
        return safe
    return safe.replace(inside, Markup('<span class="whole">{}</span>').format(inside))
