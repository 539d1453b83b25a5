"""The page of a run: what it says, that it is safe, and how it looks in a real browser."""

from __future__ import annotations

import html
import re
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest

from pilotfish.curate import Pipeline
from pilotfish.curate.report import _grid, funnel, headline, histogram, render_report
from pilotfish.curate.result import CurateResult
from pilotfish.curate.scores.length import Length
from pilotfish.curate.tally import Example, Scores, StepTally, bins
from tests.browser import chromium, needs_browser
from tests.curate.corpus import Quality, Unique, as_lines, documents

EVIL = "<script>alert(1)</script><img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> CurateResult:
    folder = tmp_path_factory.mktemp("report")
    rows = documents(2000)
    for row in rows[::50]:
        row["text"] = f"{EVIL} {row['text']}"
    (folder / "a.jsonl").write_bytes(as_lines(rows) + b"no json\n")
    pipeline = Pipeline([Length(min_chars=60, column="chars"), Quality(), Unique()])
    return pipeline.run(folder / "a.jsonl", folder / "out")


def words(page: str) -> str:
    page = re.sub(r"<(style|svg)\b.*?</\1>", " ", page, flags=re.S)
    return html.unescape(" ".join(re.sub(r"<[^>]+>", " ", page).split()))


def test_it_says_what_happened(result: CurateResult) -> None:
    said = words(render_report(result))
    assert headline(result) in said
    for reason, count in result.reasons.items():
        assert f"{reason} {count:,}" in said
    for step in result.steps:
        assert f"At the margin: {step.name}" in said
    assert "not-json 1" in said
    for tag, count in result.steps[1].tags["grade"].items():
        assert f"{tag} {count:,}" in said
    assert "length: column = chars, min_chars = 60, tag = False" in said


def test_the_funnel_adds_up(result: CurateResult) -> None:
    levels = funnel(result)
    assert [level.name for level in levels] == ["read", "length", "quality", "unique"]
    assert levels[0].rows == 2000
    for before, after in pairwise(levels):
        assert before.rows - after.lost == after.rows
        assert after.share == pytest.approx(after.rows / 2000)


def test_texts_cannot_become_markup(result: CurateResult) -> None:
    evil = CurateResult(
        output=EVIL,
        shards=[EVIL],
        files=1,
        empty_files=0,
        rows_read=2,
        bytes_read=10,
        rows_kept=1,
        rejected={EVIL: 1},
        steps=[
            StepTally(
                EVIL,
                rows_in=2,
                rows_out=1,
                reasons={EVIL: 1},
                scores={EVIL: Scores(kept=bins(np.array([0.5])), low=0.5, high=0.5)},
                tags={EVIL: {EVIL: 2}},
                examples={
                    "": [Example(0.5, 1, EVIL, True)],
                    EVIL: [Example(0.5, 1, EVIL * 99, True)],
                },
            )
        ],
        pipeline=[EVIL],
    )
    for one in (evil, result):
        page = render_report(one)
        assert "<script" not in page
        assert "<img" not in page
        assert "default-src 'none'" in page


def test_pages_of_odd_runs() -> None:
    same = Scores(bins(np.zeros(5)), {}, 0, 0)
    nothing = CurateResult(
        output="", shards=[], files=1, empty_files=1, rows_read=0, bytes_read=0, rows_kept=0,
        rejected={}, steps=[StepTally("s", scores={"p": Scores(), "q": same})],
    )  # fmt: skip
    said = words(render_report(nothing))
    assert "No row was dropped" in said
    assert "No row has this score" in said
    assert "q (s) It is 0 in every row." in said


def test_counts_that_are_mostly_nothing_have_a_plain_axis() -> None:
    counts = np.array([0.0] * 60 + [1.0, 2.0, 3.0, 500.0] * 10)
    marks, logarithmic = _grid(Scores(bins(counts), {}, 0.0, 500.0), 0.0, 500.0)
    assert not logarithmic
    assert (marks[0], marks[-1]) == (0.0, 500.0)


@pytest.mark.parametrize(
    "values",
    [
        [0.0, 0.0, 0.0, 7.0],
        [0.0, 1.0],
        [-5.0, 5.0, 0.0],
        [1.0, 10.0, 1e6, 1e9] * 50,
        [1e-300, 1e300],
    ],
)
def test_every_spread_of_scores_can_be_drawn(values: list[float]) -> None:
    array = np.array(values)
    scores = Scores(
        kept=bins(array[::2]), dropped=bins(array[1::2]), low=array.min(), high=array.max()
    )
    drawn = histogram(scores, StepTally("s"), "p", "h")
    assert drawn is not None
    assert "NaN" not in drawn.wide
    assert "mathdefault" not in drawn.wide + drawn.narrow


MEASURE = """({
  over: document.documentElement.scrollWidth - document.documentElement.clientWidth,
  plots: [...document.querySelectorAll("svg")].filter(s => s.clientHeight > 50).length,
  small: [...document.querySelectorAll("td,th,dd,dt,p,span,li")].filter(t => t.checkVisibility() &&
    t.textContent.trim() && parseFloat(getComputedStyle(t).fontSize) < 12).length,
  cut: [...document.querySelectorAll(".numbers, .name, td")].filter(t => t.checkVisibility() &&
    t.scrollWidth > t.clientWidth + 1).length,
  paper: getComputedStyle(document.body).backgroundColor})"""


@needs_browser
def test_chromium_shows_it_at_every_width_in_light_and_dark(
    result: CurateResult, tmp_path: Path
) -> None:
    page = tmp_path / "report.html"
    page.write_text(render_report(result), "utf-8")
    papers = set()
    with chromium(tmp_path / "profile") as tab:
        for width, dark in ((360, False), (360, True), (760, False), (1280, True)):
            tab.open(page.as_uri(), width=width, dark=dark)
            seen = tab.run(MEASURE)
            papers.add(seen.pop("paper"))
            assert seen == {"over": 0, "plots": 1, "small": 0, "cut": 0}, width
        assert tab.complaints == []
    assert len(papers) == 2


@pytest.mark.parametrize(
    ("common", "rare", "wanted"), [(1.0, 0.9999, (0.0, 1.0)), (7.0, 90.0, (7.0, 90.0))]
)
def test_scores_that_are_nearly_all_alike_lie_on_an_axis_of_their_own(
    common: float, rare: float, wanted: tuple[float, float]
) -> None:
    values = np.array([common] * 5000 + [rare])
    low, high = values.min(), values.max()
    marks, _ = _grid(Scores(kept=bins(values), dropped={}, low=low, high=high), low, high)
    assert (marks[0], marks[-1]) == pytest.approx(wanted)
