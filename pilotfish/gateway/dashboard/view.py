"""From figures to words: what the dashboard's templates print.

Numbers are written as in the offload report (:mod:`pilotfish.figures`): unknown is called unknown,
and a share is never rounded up to 100%.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from pilotfish import figures as say
from pilotfish.gateway.dashboard import charts
from pilotfish.gateway.dashboard.account import account_of
from pilotfish.gateway.refusals import Refusal
from pilotfish.store.figures import Answered, Figures, Saving, Share
from pilotfish.store.ledger import Day

if TYPE_CHECKING:
    from jinja2 import Environment

SHOWN_TEXT = 4_000  # characters of a prompt or answer


@dataclass(frozen=True, slots=True)
class Span:
    """A span of time that the reader can choose.

    Attributes:
        name: In the URL.
        words: On the button.
        long: After "the last".
        minutes: Its length.
        step: Minutes in a column of the chart.
        every: Seconds between two refreshes.
    """

    name: str
    words: str
    long: str
    minutes: int
    step: int
    every: float


SPANS = (
    Span("1h", "1 hour", "hour", 60, 1, 4.0),
    Span("24h", "24 hours", "24 hours", 1440, 15, 15.0),
    Span("7d", "7 days", "7 days", 10_080, 120, 60.0),
)
STEP_WORDS = {1: "minute", 15: "quarter of an hour", 120: "two hours"}


@dataclass(frozen=True, slots=True)
class Note:
    """Something that needs attention: level ``"warn"`` or ``"bad"``."""

    level: str
    title: str
    text: str


@dataclass(frozen=True, slots=True)
class Tile:
    """One headline figure."""

    label: str
    value: str
    detail: str
    level: str = ""


@dataclass(frozen=True, slots=True)
class Recent:
    """One of the latest requests, as it is shown; texts are None where they are not kept."""

    id: str
    time: int
    asked: str
    model: str
    endpoint: str
    streamed: bool
    task: str
    caller: str
    status: int
    error: str
    latency: str
    first_byte: str
    cost: str
    baseline: str
    prompt_tokens: int
    completion_tokens: int
    decided: str
    decisions: tuple[Any, ...]
    prompt: str | None = None
    answer: str | None = None

    @property
    def texts(self) -> bool:
        """Whether its texts were kept."""
        return self.prompt is not None or self.answer is not None


@dataclass(frozen=True, slots=True)
class Setting:
    """What the page says besides figures: where the gateway is, what it serves, what is wrong."""

    base: str
    models: Sequence[str]
    keys: bool
    never: bool
    notes: Sequence[Note]


def span_of(query: str) -> Span:
    """The span in a query string; the first one when it names none.

    Raises:
        Refusal: It names one that there is not.

    >>> span_of("range=24h").minutes, span_of("").minutes
    (1440, 60)
    """
    from urllib.parse import parse_qs

    name = parse_qs(query, keep_blank_values=True).get("range", [SPANS[0].name])[-1]
    found = next((span for span in SPANS if span.name == name), None)
    if found is None:
        known = ", ".join(span.name for span in SPANS)
        raise Refusal(
            400,
            "invalid_value",
            f"Got range={name[:40]!r}, but expected one of {known}.",
            param="range",
        )
    return found


def render_figures(
    figures: Figures,
    days: Sequence[Day],
    span: Span,
    recent: Sequence[Recent],
    setting: Setting,
) -> str:
    """All sections as HTML; ``days`` are the books of the recurring tasks, oldest first."""
    totals: dict[str, int] = defaultdict(int)
    for point in figures.points:
        for name, n in point.answered.items():
            totals[name] += n
    classes = charts.colours(totals)
    ends = charts.scale([row.latency for row in figures.answered])
    stack = charts.stack(figures.points, classes)
    return (
        _environment()
        .get_template("figures.html.j2")
        .render(
            empty=figures.requests == 0,
            range=span,
            step_words=STEP_WORDS[span.step],
            tiles=tiles(figures),
            chart=stack,
            column_names=stack.rows,
            answered=[_answered(row, figures.requests, classes, ends) for row in figures.answered],
            ends=ends,
            requests=figures.requests,
            saving=figures.saving,
            savings=_savings(figures),
            disagreement=figures.disagreement,
            feedback=figures.feedback,
            account=account_of(days),
            failures=figures.failures,
            recent=recent,
            never=setting.never,
            base=setting.base,
            models=setting.models,
            keys=setting.keys,
            notes=setting.notes,
        )
    )


def render_page(sections: str, span: Span, at: int, every: float, version: str) -> str:
    """The whole page around the sections."""
    from markupsafe import Markup

    return (
        _environment()
        .get_template("page.html.j2")
        .render(
            figures=Markup(sections),
            range=span,
            ranges=SPANS,
            at=at,
            every=every,
            version=version,
        )
    )


def tiles(figures: Figures) -> list[Tile]:
    """The headline figures."""
    minutes = max(1, (figures.until - figures.since) // 60)
    failed = figures.errors / figures.requests if figures.requests else 0.0
    return [
        Tile(
            "Requests",
            say.count(figures.requests),
            f"{say.number(figures.requests / minutes, 1)} a minute on average",
        ),
        _saving_tile(figures.saving),
        _disagreement_tile(figures),
        Tile(
            "Latency, median",
            seconds(figures.latency.p50),
            f"95% within {seconds(figures.latency.p95)}, 99% within {seconds(figures.latency.p99)}",
        ),
        Tile(
            "Failed",
            say.percent(failed, 1 if 0 < failed < 0.1 else 0),
            f"{say.count(figures.errors)} of {say.count(figures.requests)} requests",
            "bad" if failed > 0.05 else "warn" if failed > 0.01 else "good",
        ),
    ]


def _saving_tile(saving: Saving) -> Tile:
    label = "Net saving"
    if saving.net is None:
        return Tile(label, say.UNKNOWN, "no request has both costs known")
    parts = []
    if saving.share is not None:
        parts.append(
            f"{say.percent(saving.share)} of {say.money(saving.baseline)} for always large"
        )
    parts.append("net of failures and checks")
    if saving.unknown:
        parts.append(f"not known for {say.percent(saving.unknown_share)} of requests")
    level = "good" if saving.net > 0 else "warn" if saving.net < 0 else ""
    return Tile(label, say.money(saving.net), "; ".join(parts), level)


def _disagreement_tile(figures: Figures) -> Tile:
    label = "Disagreement"
    checked = [row.share for row in figures.disagreement]
    n = sum(share.n for share in checked)
    if not n:
        return Tile(label, "not checked", "set check_share under [serve]")
    share = Share.of(sum(one.hits for one in checked), n)
    interval = f"{say.percent(share.low, 1)} to {say.percent(share.high, 1)}"
    return Tile(
        label,
        say.percent(share.value, 1),
        f"small with large, 95%: {interval}; {say.count(n)} checked",
    )


def _savings(figures: Figures) -> tuple[Saving, ...]:
    several = len(figures.savings) > 1
    return (*figures.savings, figures.saving) if several else figures.savings


def _answered(
    row: Answered, requests: int, classes: Mapping[str, str], ends: tuple[float, float] | None
) -> dict[str, Any]:
    if row.unpriced == row.requests:
        cost = say.UNKNOWN
    else:
        cost = say.money(row.cost)
        if row.unpriced:
            cost += f" + {say.count(row.unpriced)} unknown"
    latency = row.latency
    return {
        "asked": row.asked,
        "model": row.model,
        "requests": row.requests,
        "share": row.requests / requests,
        "escalated": row.escalated,
        "errors": row.errors,
        "prompt_tokens": row.prompt_tokens,
        "completion_tokens": row.completion_tokens,
        "cost": cost,
        "style": classes.get(row.model, "failed"),
        "percentiles": [seconds(value) for value in (latency.p50, latency.p95, latency.p99)],
        "range": charts.place(latency, ends) if ends else None,
    }


def seconds(value: float | None) -> str:
    """A latency; an en dash where there was none.

    >>> seconds(0.0123), seconds(None)
    ('12 ms', '–')
    """
    return "–" if value is None else say.milliseconds(value * 1000)


def clip(text: str) -> str:
    """A text short enough for the page."""
    if len(text) <= SHOWN_TEXT:
        return text
    return f"{text[:SHOWN_TEXT].rstrip()} … ({say.count(len(text))} characters)"


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    folder = files("pilotfish.gateway.dashboard")
    made = Environment(
        autoescape=True,
        undefined=StrictUndefined,
        loader=FunctionLoader(lambda name: folder.joinpath(name).read_text("utf-8")),
    )
    made.filters |= {
        "percent": say.percent,
        "money": say.money,
        "count": say.count,
        "milliseconds": say.milliseconds,
        "score": say.score,
        "clock": charts.clock,
        "moment": lambda time: _utc(time, "%Y-%m-%d %H:%M"),
        "second": lambda time: _utc(time, "%H:%M:%S"),
    }
    return made


def _utc(time: float, form: str) -> str:
    return datetime.fromtimestamp(time, UTC).strftime(form)
