"""Results without a promise or with nothing known, and what a reader sees of their pages and tables."""

from __future__ import annotations

import dataclasses
import html
import io
import re

from rich.console import Console

from pilotfish.loop import result as r
from pilotfish.loop.table import print_result


def uncertified(outcome, reason="no-threshold", **changes):
    made = outcome(**changes)
    nothing = {"threshold": None, "coverage": 0.0, "risk": None, "bound": None, "reason": reason}
    saving = r.Saving(file_calls=-0.12, future_calls=0.0)
    return dataclasses.replace(made, certificate=made.certificate | nothing, saving=saving)


def bare():
    return r.OffloadResult(name="n", task=r.TaskInfo(prompt="{t}"), large=r.LargeModel(name="m"))


def page_text(page):
    """What a reader sees, without tags, styles and plots."""
    page = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.S)
    return " ".join(html.unescape(re.sub(r"<[^>]+>", " ", page)).split())


def terminal_text(result, width=100, **options):
    out = io.StringIO()
    print_result(result, Console(file=out, width=width, **options))
    return out.getvalue()
